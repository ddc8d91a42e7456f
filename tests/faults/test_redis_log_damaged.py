"""Redis refuses an append-only file with a tail of zeros, which a power cut leaves. It holds nothing but rings: go on without."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from parts import eventually
from up_process import Up


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path)
    up.start()
    yield up
    up.kill()


def damage(up: Up) -> None:
    with (up.state_dir / "redis" / "appendonly.aof").open("ab") as file:
        file.write(bytes(4096))


def redis_answers(up: Up) -> bool:
    lines = (up.state_dir / "redis" / "redis.conf").read_text().splitlines()
    settings = dict(line.split(" ", 1) for line in lines)
    try:
        return redis.Redis(port=int(settings["port"]), password=settings["requirepass"]).ping()
    except redis.RedisError:
        return False


def test_a_damaged_append_only_file_is_set_aside_at_a_restart_and_at_a_start(up: Up) -> None:
    before = up.facts()["pids"]["redis"]
    damage(up)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: up.facts()["pids"].get("redis", before) != before and redis_answers(up), 60)
    up.kill()
    damage(up)
    up.start()
    assert up.healthy()
    assert redis_answers(up)
    assert (up.state_dir / "redis" / "appendonly.aof.damaged").read_bytes().endswith(bytes(4096))
