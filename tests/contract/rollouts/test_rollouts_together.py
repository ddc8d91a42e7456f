"""Several rollouts to one fleet: one after the other, at the same time, and each undone, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from fleet import Fleet, Model

from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.rollouts import service, store
from fogline_server.rollouts.advance import advance
from fogline_server.rollouts.plan import RolloutPlan
from fogline_server.rollouts.tick import tick
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


def test_a_release_that_was_rolled_back_is_no_longer_what_a_later_rollback_returns_to(fleet: Fleet) -> None:
    fleet.enrol(3)
    fleet.promote("v1")
    second, third = fleet.promote("v2"), fleet.promote("v3")
    for rollout_id, running in ((second, "v3"), (third, "v1")):
        with fleet.db.transaction() as session:
            service.rollback(session, rollout_id, reason="", now=fleet.now, actor="ann")
        fleet.until(rollout_id, "ROLLED_BACK")
        for _ in range(2):
            fleet.step()
        assert len(fleet.running(running)) == 3


def test_two_rollouts_started_before_either_has_begun_are_not_both_accepted(fleet: Fleet) -> None:
    fleet.enrol(2)
    first = fleet.rollout(fleet.release("v1"), stages=[100])
    with pytest.raises(Conflict) as refused:
        fleet.rollout(fleet.release("v2"), stages=[100])
    assert (refused.value.code, refused.value.detail["rollout_id"]) == ("rollout_active", first)


def test_a_rollout_to_a_release_that_is_being_rolled_back_is_refused_until_it_has_been(fleet: Fleet) -> None:
    fleet.enrol(2)
    fleet.promote("v1")
    second = fleet.promote("v2")
    with fleet.db.transaction() as session:
        service.rollback(session, second, reason="", now=fleet.now, actor="ann")
    with fleet.db.transaction() as session:
        again = service.create_rollout(session, "rel_v2", RolloutPlan(gates=()), now=fleet.now, actor="ann").id
    with pytest.raises(Conflict, match="rollout_active"), fleet.db.transaction() as session:
        service.start(session, again, now=fleet.now, actor="ann")
    fleet.until(second, "ROLLED_BACK")
    with fleet.db.transaction() as session:
        service.start(session, again, now=fleet.now, actor="ann")
    fleet.until(again, "SUCCEEDED")
    assert len(fleet.running("v2")) == 2


def test_a_device_is_not_taken_by_a_stage_and_by_catching_up_at_once(fleet: Fleet) -> None:
    _, late = fleet.enrol(2)
    fleet.promote("v1")
    late.online = False
    fleet.pass_time(60)
    fleet.promote("v2")
    rollout_id = fleet.rollout(fleet.release("v3"), stages=[100])
    late.online = True
    fleet.pass_time(1)
    other = Database(fleet.db.url)
    catching_up = threading.Thread(target=lambda: tick(other, now=fleet.now, doorbell=fleet.doorbell))
    with fleet.db.transaction() as session:
        rollout = store.locked(session, rollout_id)
        assert rollout is not None
        for _ in range(2):  # starts, and takes both devices
            advance(session, rollout, now=fleet.now)
        catching_up.start()
        catching_up.join(1.0)
    catching_up.join()
    other.dispose()
    wanted = fleet.wanted(late)
    assert wanted is not None
    assert wanted.artifact_digest == fleet.digest("v3")
    with fleet.db.read() as session:
        assert late.id in {a.device_id for a in service.assignments_of(session, rollout_id)}


def test_a_rollout_that_cannot_be_read_stops_no_other(fleet: Fleet) -> None:
    fleet.enrol(1, tags=("north",))
    fleet.enrol(1, tags=("south",))
    broken = fleet.rollout(fleet.release("v1"), stages=[100], tags=["north"])
    with fleet.db.transaction() as session:
        row = service.get_rollout(session, broken)
        row.plan = {**row.plan, "gates": [{"gate": "no_longer_installed", "options": {}}]}
    sound = fleet.rollout(fleet.release("v2"), stages=[100], tags=["south"])
    fleet.until(sound, "SUCCEEDED")


@pytest.mark.parametrize("act", [service.pause, service.resume])
def test_nothing_pauses_or_resumes_a_rollback(fleet: Fleet, act: Callable[..., object]) -> None:
    fleet.enrol(2)
    rollout_id = fleet.promote("v1")
    with fleet.db.transaction() as session:
        service.rollback(session, rollout_id, reason="", now=fleet.now, actor="ann")
    for _ in range(2):
        with pytest.raises(Conflict, match="illegal_transition"), fleet.db.transaction() as session:
            act(session, rollout_id, now=fleet.now, actor="ann")
        fleet.until(rollout_id, "ROLLED_BACK")
    with pytest.raises(Conflict, match="illegal_transition"), fleet.db.transaction() as session:
        service.rollback(session, rollout_id, reason="", now=fleet.now, actor="ann")


def test_resuming_twice_is_refused_the_second_time(fleet: Fleet) -> None:
    fleet.enrol(1)
    rollout_id = fleet.rollout(fleet.release("v1"), stages=[100])
    fleet.tick()
    with fleet.db.transaction() as session:
        service.pause(session, rollout_id, now=fleet.now, actor="ann")
        service.resume(session, rollout_id, now=fleet.now, actor="ann")
        with pytest.raises(Conflict, match="illegal_transition"):
            service.resume(session, rollout_id, now=fleet.now, actor="ann")
    fleet.until(rollout_id, "SUCCEEDED")
