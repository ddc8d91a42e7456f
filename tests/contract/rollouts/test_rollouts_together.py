"""Several rollouts to one fleet: one after the other, at the same time, and each undone, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fleet import Fleet, Model

from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.rollouts import service
from fogline_server.rollouts.plan import RolloutPlan
from fogline_shared.errors import Conflict


@pytest.fixture
def fleet(database: Database, doorbell: Doorbell) -> Fleet:
    return Fleet(database, doorbell)


def test_a_person_may_roll_back_after_success(fleet: Fleet) -> None:
    fleet.enrol(5)
    fleet.promote("v1")
    second = fleet.promote("v2")
    with fleet.db.transaction() as session:
        service.rollback(session, second, reason="complaints", now=fleet.now, actor="ann")
    rollout = fleet.until(second, "ROLLED_BACK")
    assert rollout.reason == "complaints"
    assert len(fleet.running("v1")) == 5
    # What was promoted before is again what new devices get.
    late = fleet.enrol(1)
    fleet.step()
    fleet.step()
    assert late[0].id in fleet.running("v1")


def test_a_second_rollout_to_the_same_devices_is_refused(fleet: Fleet) -> None:
    fleet.enrol(4)
    first = fleet.rollout(fleet.release("v1"), stages=[50, 100], soak_s=600)
    fleet.step()
    with pytest.raises(Conflict) as refused:
        fleet.rollout(fleet.release("v2"), stages=[100])
    assert (refused.value.code, refused.value.detail["rollout_id"]) == ("rollout_active", first)


def test_a_scheduled_rollout_waits_for_the_one_in_its_way(fleet: Fleet) -> None:
    fleet.enrol(4)
    first = fleet.rollout(fleet.release("v1"), stages=[100], soak_s=60)
    second_release = fleet.release("v2")
    with fleet.db.transaction() as session:
        second = service.create_rollout(
            session, second_release, RolloutPlan(gates=()), start_at=fleet.now + timedelta(seconds=10), now=fleet.now,
            actor="a",
        ).id  # fmt: skip
    for _ in range(4):
        fleet.step()
    assert fleet.get(second).reason == f"waits for rollout {first}"
    fleet.until(first, "SUCCEEDED")
    fleet.step()
    assert fleet.get(second).state == "RUNNING"


def test_rollouts_to_different_devices_do_not_disturb_each_other(fleet: Fleet) -> None:
    fleet.enrol(2, tags=("north",))
    fleet.enrol(2, tags=("south",))
    north = fleet.rollout(fleet.release("v1"), stages=[100], tags=["north"])
    south = fleet.rollout(fleet.release("v2"), stages=[100], tags=["south"])
    fleet.until(north, "SUCCEEDED")
    fleet.until(south, "SUCCEEDED")
    for _ in range(3):
        fleet.step()
    assert fleet.running("v1") == ["dev_00", "dev_01"]
    assert fleet.running("v2") == ["dev_02", "dev_03"]


def test_a_newer_rollout_to_some_keeps_them_from_the_older_one_to_all(fleet: Fleet) -> None:
    fleet.enrol(2)
    fleet.enrol(2, tags=("beta",))
    fleet.promote("v1")
    fleet.promote("v2", tags=["beta"])
    late = fleet.enrol(1, tags=("beta",))
    for _ in range(3):
        fleet.step()
    assert fleet.running("v2") == ["dev_02", "dev_03", late[0].id]


def test_a_hotfix_may_supersede_and_its_rollback_does_not_return_to_the_superseded(fleet: Fleet) -> None:
    fleet.enrol(4)
    fleet.promote("v1")
    first = fleet.rollout(fleet.release("v2"), stages=[50, 100], soak_s=600)
    fleet.step()
    second = fleet.rollout(fleet.release("v3", Model(ends="REVERTED")), stages=[100], supersede=True)
    fleet.step()
    assert fleet.get(first).state == "SUPERSEDED"
    fleet.until(second, "ROLLED_BACK")
    assert len(fleet.running("v1")) == 4
