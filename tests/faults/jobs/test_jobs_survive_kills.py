"""Workers and Redis die by SIGKILL in the middle of the work; every job still has its effect, once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_plant import LEASE_S, Plant
from parts import RedisServer, eventually


@pytest.fixture
def plant(database_url: str, own_redis: RedisServer, tmp_path: Path) -> Iterator[Plant]:
    with Plant(database_url, own_redis.url, tmp_path) as plant:
        yield plant


def test_a_worker_killed_with_its_pool_loses_no_job_and_doubles_none(plant: Plant) -> None:
    jobs = [plant.submit(0.3) for _ in range(12)]
    for done in (2, 5):
        worker = plant.start_worker()
        eventually(lambda done=done: plant.states()["SUCCEEDED"] >= done and plant.states()["RUNNING"] > 0, 30)
        plant.kill(worker)
    plant.start_worker()
    plant.until_all_succeeded(jobs)


def test_a_killed_pool_process_costs_its_job_one_attempt(plant: Plant) -> None:
    plant.start_worker()
    job = plant.submit(1)
    plant.pool_process_of(job).kill()
    plant.until_all_succeeded([job])


def test_a_worker_that_froze_past_its_lease_has_no_effect_when_it_wakes(plant: Plant) -> None:
    plant.start_worker()
    job = plant.submit(0.2, kind="freeze")
    frozen = plant.pool_process_of(job)
    eventually(lambda: plant.state(job) == "SUCCEEDED", 30)
    frozen.resume()
    time.sleep(LEASE_S)
    plant.until_all_succeeded([job])


def test_a_killed_redis_delays_jobs_and_loses_none(plant: Plant, own_redis: RedisServer) -> None:
    plant.start_worker()
    before = [plant.submit(0.2) for _ in range(6)]
    eventually(lambda: plant.states()["SUCCEEDED"] > 0)
    own_redis.kill()
    during = [plant.submit(0.1) for _ in range(3)]
    time.sleep(1)
    own_redis.start()
    after = [plant.submit(0.1)]
    plant.until_all_succeeded(before + during + after)
