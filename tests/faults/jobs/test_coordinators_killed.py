"""Coordinators die by SIGKILL while jobs wait and run: the next start, or the other replica, goes on."""

from __future__ import annotations

import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from job_plant import LEASE_S, Plant
from parts import die_with_us, eventually, free_port
from up_process import COMMAND, environment

StartCoordinator = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def start_coordinator(redis_url: str, tmp_path: Path) -> Iterator[StartCoordinator]:
    """Starts replicas that share one state folder; each call returns before it serves."""
    started: list[subprocess.Popen[bytes]] = []

    def start(database_url: str) -> subprocess.Popen[bytes]:
        ports = {f"FOGLINE_{name}_PORT": str(free_port()) for name in ("HTTP", "GATEWAY", "ENROLL")}
        urls = {"FOGLINE_DATABASE_URL": database_url, "FOGLINE_REDIS_URL": redis_url}
        pace = {"FOGLINE_LEASE_S": str(LEASE_S), "FOGLINE_TICK_S": "0.1"}
        with (tmp_path / "coordinator.log").open("ab") as log:
            process = subprocess.Popen(
                [*COMMAND, "coordinator"],
                env=environment(tmp_path / "state", **ports, **urls, **pace),
                stdout=log,
                stderr=log,
                preexec_fn=die_with_us,  # noqa: PLW1509
            )
        process.url = f"http://127.0.0.1:{ports['FOGLINE_HTTP_PORT']}"
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def serves(process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the coordinator ended"
    try:
        with urllib.request.urlopen(f"{process.url}/readyz", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_a_killed_coordinator_continues_at_its_next_start(
    start_coordinator: StartCoordinator, redis_url: str, tmp_path: Path
) -> None:
    # An empty file: the coordinator makes the schema itself.
    database = f"sqlite:///{tmp_path / 'coordinator.db'}"
    first = start_coordinator(database)
    eventually(lambda: serves(first), 30)
    with Plant(database, redis_url, tmp_path, ticking=False) as plant:
        worker = plant.start_worker()
        jobs = [plant.submit(0.3) for _ in range(8)]
        eventually(lambda: plant.states()["SUCCEEDED"] >= 2, 30)
        first.kill()
        plant.kill(worker)
        jobs += [plant.submit(0.1) for _ in range(2)]
        plant.start_worker()
        start_coordinator(database)
        plant.until_all_succeeded(jobs)


def test_two_replicas_start_on_an_empty_database_and_one_outlives_the_other(
    start_coordinator: StartCoordinator, empty_postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    replicas = [start_coordinator(empty_postgres_url) for _ in range(2)]
    for replica in replicas:
        eventually(lambda replica=replica: serves(replica), 30)
    assert (tmp_path / "state" / "keys" / "admin.key").stat().st_mode & 0o777 == 0o600
    with Plant(empty_postgres_url, redis_url, tmp_path, ticking=False) as plant:
        plant.start_worker()
        jobs = [plant.submit(0.3) for _ in range(6)]
        eventually(lambda: plant.states()["SUCCEEDED"] >= 2, 30)
        os.kill(replicas[0].pid, 9)
        jobs += [plant.submit(0.1) for _ in range(2)]
        plant.until_all_succeeded(jobs)
        assert serves(replicas[1])
