"""Rollouts from start to end on both databases, over a simulated fleet."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from fleet import Fleet, Model
from sqlalchemy import select

from fogline_server.db.database import Database
from fogline_server.db.events import Event
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.rollouts import service
from fogline_server.rollouts.plan import RolloutPlan
from fogline_shared.errors import Conflict, InvalidInput, NotFound

ERROR_RATE = {"gate": "error_rate", "options": {"max_rate": 0.02}}
ACCURACY = {"gate": "accuracy", "options": {"max_drop": 0.1}}
CONFIDENCE = {"gate": "confidence", "options": {"max_drop": 0.2}}


@pytest.fixture
def fleet(database: Database, doorbell: Doorbell) -> Fleet:
    return Fleet(database, doorbell)


def kinds(fleet: Fleet, rollout_id: str) -> list[str]:
    with fleet.db.read() as session:
        return list(session.scalars(select(Event.kind).where(Event.subject_id == rollout_id).order_by(Event.seq)))


def assignments(fleet: Fleet, rollout_id: str) -> Counter[str]:
    with fleet.db.read() as session:
        return Counter(a.state for a in service.assignments_of(session, rollout_id, limit=500))


def test_goes_through_its_stages_and_leaves_every_step_in_the_event_log(fleet: Fleet) -> None:
    fleet.enrol(10)
    rollout_id = fleet.rollout(fleet.release("v1"), stages=[20, 100], gates=[ERROR_RATE])
    fleet.step()
    assert len(fleet.running("v1")) == 2
    assert fleet.stages(rollout_id) == ["ADMITTING", "PENDING"]
    rollout = fleet.until(rollout_id, "SUCCEEDED")
    assert len(fleet.running("v1")) == 10
    assert fleet.stages(rollout_id) == ["PASSED", "PASSED"]
    assert rollout.finished_at is not None
    stage = ["rollout.stage_admitting", "rollout.stage_soaking", "rollout.stage_evaluating", "rollout.stage_passed"]
    assert kinds(fleet, rollout_id) == [
        "rollout.created", "rollout.scheduled", "rollout.started", *stage, *stage, "rollout.succeeded",
    ]  # fmt: skip


def test_no_telemetry_is_hold_and_pauses_for_a_person(fleet: Fleet) -> None:
    fleet.enrol(4)
    fleet.predictions = 0
    rollout_id = fleet.rollout(fleet.release("v1"), stages=[50, 100], gates=[ERROR_RATE], stage_timeout_s=30)
    rollout = fleet.until(rollout_id, "PAUSED")
    assert fleet.stages(rollout_id) == ["INCONCLUSIVE", "PENDING"]
    assert "no predictions yet" in rollout.reason
    assert len(fleet.running("v1")) == 2
    fleet.predictions = 400
    with fleet.db.transaction() as session:
        service.resume(session, rollout_id, now=fleet.now, actor="ann")
    fleet.until(rollout_id, "SUCCEEDED")


@pytest.mark.parametrize(
    ("bad", "gate"),
    [
        (Model(error_rate=0.3), "error_rate"),
        (Model(accuracy=0.2), "accuracy"),
        (Model(confidence=0.3), "confidence"),
    ],
)
def test_a_bad_release_is_stopped_in_the_first_stage_and_rolled_back(fleet: Fleet, bad: Model, gate: str) -> None:
    fleet.enrol(10)
    fleet.promote("v1")
    for _ in range(3):
        fleet.step()
    rollout_id = fleet.rollout(fleet.release("v2", bad), stages=[20, 100], gates=[ERROR_RATE, ACCURACY, CONFIDENCE])
    reached = 0
    for _ in range(40):
        fleet.step()
        reached = max(reached, len(fleet.running("v2")))
        if fleet.get(rollout_id).state == "ROLLED_BACK":
            break
    rollout = fleet.get(rollout_id)
    assert rollout.state == "ROLLED_BACK"
    assert f"stage 1 failed: {gate}" in rollout.reason
    assert reached == 2
    assert len(fleet.running("v1")) == 10
    with fleet.db.read() as session:
        evidence = {e["gate"]: e for e in service.stages_of(session, rollout_id)[0].evidence}
    assert evidence[gate]["verdict"] == "FAIL"
    assert evidence[gate]["observed"] is not None


def test_its_honest_twin_passes_the_same_gates(fleet: Fleet) -> None:
    fleet.enrol(10)
    fleet.promote("v1")
    for _ in range(3):
        fleet.step()
    rollout_id = fleet.rollout(
        fleet.release("v2", Model(accuracy=0.88)), stages=[20, 100], gates=[ERROR_RATE, ACCURACY, CONFIDENCE]
    )
    fleet.until(rollout_id, "SUCCEEDED")
    assert len(fleet.running("v2")) == 10


def test_an_artifact_that_devices_refuse_fails_the_stage(fleet: Fleet) -> None:
    fleet.enrol(6)
    fleet.promote("v1")
    rollout_id = fleet.rollout(fleet.release("v2", Model(ends="REJECTED")), stages=[50, 100])
    rollout = fleet.until(rollout_id, "ROLLED_BACK")
    assert "bad_manifest" in rollout.reason
    assert len(fleet.running("v1")) == 6
    assert assignments(fleet, rollout_id) == Counter(REJECTED=3)


def test_a_few_failures_are_tolerated_when_the_plan_says_so(fleet: Fleet) -> None:
    fleet.enrol(6)
    fleet.promote("v1")
    rollout_id = fleet.rollout(fleet.release("v2", Model(ends="REVERTED")), stages=[10, 100], max_failures=1)
    fleet.step()
    assert assignments(fleet, rollout_id) == Counter(REVERTED=1)
    # One failure is tolerated, but a stage in which nobody succeeded is not.
    rollout = fleet.until(rollout_id, "ROLLED_BACK")
    assert "0 of 1 devices succeeded" in rollout.reason


def test_a_first_release_that_fails_leaves_no_model(fleet: Fleet) -> None:
    fleet.enrol(4)
    rollout_id = fleet.rollout(fleet.release("v1", Model(error_rate=0.9)), stages=[50, 100], gates=[ERROR_RATE])
    fleet.until(rollout_id, "ROLLED_BACK")
    assert {d.digest for d in fleet.devices.values()} == {""}


def test_devices_that_never_finish_time_out_and_go_back(fleet: Fleet) -> None:
    fleet.enrol(4)
    fleet.promote("v1")
    rollout_id = fleet.rollout(
        fleet.release("v2", Model(ends="")), stages=[50, 100], admit_timeout_s=30, rollback_timeout_s=30
    )
    rollout = fleet.until(rollout_id, "ROLLED_BACK")
    assert "0 of 2 devices succeeded in time" in rollout.reason
    assert assignments(fleet, rollout_id) == Counter(TIMED_OUT=2)
    assert len(fleet.running("v1")) == 4


def test_pause_stops_admission_and_resume_goes_on(fleet: Fleet) -> None:
    fleet.enrol(10)
    rollout_id = fleet.rollout(fleet.release("v1"), stages=[10, 100])
    fleet.step()
    with fleet.db.transaction() as session:
        service.pause(session, rollout_id, now=fleet.now, actor="ann")
    for _ in range(10):
        fleet.step()
    assert len(fleet.running("v1")) == 1
    assert fleet.get(rollout_id).reason == "paused by ann"
    with fleet.db.transaction() as session:
        service.resume(session, rollout_id, now=fleet.now, actor="ann")
    fleet.until(rollout_id, "SUCCEEDED")


def test_a_paused_rollout_still_rolls_back_what_turns_out_bad(fleet: Fleet) -> None:
    fleet.enrol(10)
    rollout_id = fleet.rollout(fleet.release("v1", Model(error_rate=0.5)), stages=[10, 100], gates=[ERROR_RATE])
    fleet.step()
    with fleet.db.transaction() as session:
        service.pause(session, rollout_id, now=fleet.now, actor="ann")
    fleet.until(rollout_id, "ROLLED_BACK")


def test_a_rollback_waits_for_online_devices_only(fleet: Fleet) -> None:
    gone = fleet.enrol(5)[0]
    fleet.promote("v1")
    second = fleet.promote("v2")
    gone.online = False
    fleet.pass_time(60)
    with fleet.db.transaction() as session:
        service.rollback(session, second, reason="", now=fleet.now, actor="ann")
    fleet.tick()
    assert fleet.get(second).state == "ROLLING_BACK"
    fleet.sync()
    fleet.tick()
    assert fleet.get(second).state == "ROLLED_BACK"
    assert fleet.running("v2") == [gone.id]
    gone.online = True
    fleet.step()
    assert len(fleet.running("v1")) == 5


def test_offline_devices_are_no_canaries_and_catch_up_afterwards(fleet: Fleet) -> None:
    fleet.enrol(4)
    away = fleet.enrol(3, online=False)
    rollout_id = fleet.rollout(fleet.release("v1"), stages=[50, 100])
    fleet.until(rollout_id, "SUCCEEDED")
    assert len(fleet.running("v1")) == 4
    for device in away:
        device.online = True
    fleet.step()
    assert len(fleet.running("v1")) == 7
    with fleet.db.read() as session:
        stages = Counter(a.stage for a in service.assignments_of(session, rollout_id))
    assert stages == Counter({0: 2, 1: 2, 2: 3})
    assert fleet.tick() == 0


def test_a_device_that_leaves_during_its_update_holds_nobody_up(fleet: Fleet) -> None:
    devices = fleet.enrol(4)
    rollout_id = fleet.rollout(fleet.release("v1"), stages=[100], admit_timeout_s=20)
    fleet.tick()
    devices[0].online = False
    fleet.until(rollout_id, "SUCCEEDED")
    devices[0].online = True
    fleet.step()
    assert len(fleet.running("v1")) == 4


def test_waits_for_a_device_to_be_online(fleet: Fleet) -> None:
    (device,) = fleet.enrol(1, online=False)
    rollout_id = fleet.rollout(fleet.release("v1"), stages=[100])
    fleet.step()
    assert fleet.get(rollout_id).reason == "waits for a device to be online"
    device.online = True
    fleet.until(rollout_id, "SUCCEEDED")


def test_starts_when_its_time_has_come(fleet: Fleet) -> None:
    fleet.enrol(2)
    release_id = fleet.release("v1")
    with fleet.db.transaction() as session:
        rollout_id = service.create_rollout(
            session,
            release_id,
            RolloutPlan(gates=()),
            start_at=fleet.now + timedelta(hours=1),
            now=fleet.now,
            actor="a",
        ).id
    fleet.step()
    assert fleet.get(rollout_id).state == "SCHEDULED"
    fleet.step(3600)
    assert fleet.get(rollout_id).state == "RUNNING"


def test_a_relative_gate_without_anything_to_compare_with_is_refused_at_once(fleet: Fleet) -> None:
    fleet.enrol(1)
    release_id = fleet.release("v1")
    with pytest.raises(InvalidInput) as refused:
        fleet.rollout(release_id, gates=[ACCURACY])
    assert refused.value.code == "gate_needs_baseline"
    fleet.rollout(release_id, gates=[{"gate": "accuracy", "options": {"minimum": 0.5}}])


def test_wrong_releases_and_transitions_are_refused(fleet: Fleet) -> None:
    fleet.enrol(1)
    with pytest.raises(NotFound, match="release_not_found"):
        fleet.rollout("rel_none")
    with pytest.raises(Conflict, match="release_not_ready"):
        fleet.rollout(fleet.release("building", state="BUILDING"))
    release_id = fleet.release("v1")
    with pytest.raises(NotFound, match="variant_not_found"):
        fleet.rollout(release_id, variant="teacher_fp32")
    rollout_id = fleet.rollout(release_id, start=False)
    with fleet.db.transaction() as session:
        for act in (service.pause, service.resume):
            with pytest.raises(Conflict, match="illegal_transition"):
                act(session, rollout_id, now=fleet.now, actor="ann")
        with pytest.raises(NotFound, match="rollout_not_found"):
            service.cancel(session, "rol_none", now=fleet.now, actor="ann")
        service.cancel(session, rollout_id, now=fleet.now, actor="ann")
    assert fleet.get(rollout_id).state == "CANCELED"


def test_preview_says_how_many_and_writes_nothing(fleet: Fleet) -> None:
    fleet.enrol(10)
    fleet.enrol(5, online=False)
    release_id = fleet.release("v1")
    with fleet.db.read() as session:
        seen = service.preview(session, release_id, RolloutPlan(stages=(5.0, 30.0, 100.0)), now=fleet.now)
        assert service.list_rollouts(session) == []
    assert (seen.devices, seen.online, list(seen.stages)) == (15, 10, [1, 3, 10])
