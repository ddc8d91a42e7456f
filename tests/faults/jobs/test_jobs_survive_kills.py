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


def test_a_worker_in_the_middle_of_a_long_job_goes_on_taking_others_after_redis_was_killed(
    plant: Plant, own_redis: RedisServer
) -> None:
    worker = plant.start_worker()
    long = plant.submit(25)
    eventually(lambda: plant.state(long) == "RUNNING", 30)
    own_redis.kill()
    time.sleep(1)
    own_redis.start()
    short = plant.submit(0.1)
    eventually(lambda: plant.state(short) == "SUCCEEDED", 15)
    assert plant.state(long) == "RUNNING", "the long job was not disturbed"
    assert worker.poll() is None


def test_a_wholly_occupied_worker_notices_that_redis_was_killed_meanwhile(plant: Plant, own_redis: RedisServer) -> None:
    plant.start_worker()  # two jobs at once
    jobs = [plant.submit(2), plant.submit(2)]
    eventually(lambda: plant.states()["RUNNING"] == 2, 30)
    own_redis.kill()
    jobs.append(plant.submit(0.1))
    time.sleep(2.5)  # both have ended, and nothing can be acknowledged
    own_redis.start()
    plant.until_all_succeeded(jobs, 20)
