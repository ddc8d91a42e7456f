"""A broken release reaches its first stage and nobody else, whatever devices do, say or fail to say."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fleet import LEASE, Fleet, Model

from fogline_server.db.database import Database
from fogline_server.devices.tables import Device
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.rollouts import service, store
from fogline_server.rollouts.advance import advance

ERROR_RATE = {"gate": "error_rate", "options": {"max_rate": 0.02}}


@pytest.fixture
def fleet(database: Database, doorbell: Doorbell) -> Fleet:
    return Fleet(database, doorbell)


def most_reached(fleet: Fleet, rollout_id: str, name: str, *, steps: int = 40) -> int:
    """Step until the rollout is rolled back or paused; how many devices ran the release at most."""
    most = 0
    for _ in range(steps):
        fleet.step()
        most = max(most, len(fleet.running(name)))
        if fleet.get(rollout_id).state in {"ROLLED_BACK", "PAUSED"}:
            break
    return most


@pytest.mark.parametrize(
    ("devices", "percent", "canaries"), [(1, 10, 1), (2, 60, 1), (3, 50, 1), (3, 99, 2), (10, 10, 1)]
)
def test_a_small_fleet_risks_no_more_than_its_percentage(
    fleet: Fleet, devices: int, percent: float, canaries: int
) -> None:
    fleet.enrol(devices)
    fleet.promote("v1")
    rollout_id = fleet.rollout(fleet.release("v2", Model(error_rate=0.3)), stages=[percent, 100], gates=[ERROR_RATE])
    assert most_reached(fleet, rollout_id, "v2") == canaries
    assert len(fleet.running("v1")) == devices


def test_devices_that_enrol_in_the_middle_wait_for_their_stage_on_the_proven_release(fleet: Fleet) -> None:
    fleet.enrol(4)
    fleet.promote("v1")
    rollout_id = fleet.rollout(fleet.release("v2", Model(error_rate=0.3)), stages=[25, 100], gates=[ERROR_RATE])
    fleet.step()
    fleet.enrol(20)
    assert most_reached(fleet, rollout_id, "v2") == 1
    fleet.step()
    fleet.step()
    assert len(fleet.running("v1")) == 24


def test_one_device_that_claims_a_million_flawless_predictions_does_not_outweigh_the_others(fleet: Fleet) -> None:
    fleet.enrol(4)
    fleet.promote("v1")
    rollout_id = fleet.rollout(fleet.release("v2", Model(error_rate=0.3)), stages=[75, 100], gates=[ERROR_RATE])
    fleet.step()
    liar = fleet.devices[fleet.running("v2")[0]]
    liar.behaves = Model(error_rate=0.0)
    liar.predictions = 1_000_000
    assert most_reached(fleet, rollout_id, "v2") == 3
    assert fleet.get(rollout_id).state == "ROLLED_BACK"


def test_a_release_that_takes_its_devices_down_fails_though_they_cannot_say_so(fleet: Fleet) -> None:
    fleet.enrol(4)
    fleet.promote("v1")
    rollout_id = fleet.rollout(
        fleet.release("v2", Model(ends="dies")), stages=[75, 100], admit_timeout_s=30, success_percent=90
    )
    fleet.tick()
    survivor = next(d for d in fleet.devices.values() if fleet.wanted(d).artifact_digest == fleet.digest("v2"))
    survivor.behaves = Model()
    assert most_reached(fleet, rollout_id, "v2") == 1
    assert "1 of 3 devices succeeded" in fleet.get(rollout_id).reason


def test_a_canary_that_goes_back_after_its_stage_has_passed_still_stops_the_rollout(fleet: Fleet) -> None:
    fleet.enrol(10)
    fleet.promote("v1")
    rollout_id = fleet.rollout(fleet.release("v2"), stages=[10, 50, 100], soak_s=60)
    while fleet.stages(rollout_id)[:2] != ["PASSED", "SOAKING"]:
        fleet.step()
    with fleet.db.read() as session:
        canary = next(a.device_id for a in service.assignments_of(session, rollout_id) if a.stage == 0)
    wanted = fleet.wanted(fleet.devices[canary])
    assert wanted is not None
    fleet.report(fleet.devices[canary], "REVERTED", wanted, code="watchdog", message="crash loop")
    fleet.step()
    rollout = fleet.until(rollout_id, "ROLLED_BACK")
    assert "watchdog" in rollout.reason


def test_a_canary_that_goes_back_while_the_next_stage_waits_is_seen_before_it_begins(fleet: Fleet) -> None:
    fleet.enrol(10)
    fleet.promote("v1")
    rollout_id = fleet.rollout(fleet.release("v2"), stages=[10, 100], soak_s=0)
    fleet.step()
    # Stop it exactly between the stages, as a person may.
    for _ in range(20):
        fleet.pass_time(5)
        with fleet.db.transaction() as session:
            rollout = store.locked(session, rollout_id)
            assert rollout is not None
            advance(session, rollout, now=fleet.now)
        fleet.sync()
        if fleet.stages(rollout_id) == ["PASSED", "PENDING"]:
            break
    with fleet.db.transaction() as session:
        service.pause(session, rollout_id, now=fleet.now, actor="ann")
        canary = service.assignments_of(session, rollout_id)[0].device_id
    wanted = fleet.wanted(fleet.devices[canary])
    assert wanted is not None
    fleet.report(fleet.devices[canary], "REVERTED", wanted, code="watchdog")
    fleet.pass_time(5)
    with fleet.db.transaction() as session:
        service.resume(session, rollout_id, now=fleet.now, actor="ann")
    fleet.tick()
    assert fleet.get(rollout_id).state in {"ROLLING_BACK", "ROLLED_BACK"}
    with fleet.db.read() as session:
        assert len(service.assignments_of(session, rollout_id)) == 1


@pytest.mark.parametrize("skew", [timedelta(days=-4000), timedelta(days=4000)])
def test_a_device_with_a_wrong_clock_is_judged_like_any_other(fleet: Fleet, skew: timedelta) -> None:
    fleet.enrol(5)
    fleet.promote("v1")
    for device in fleet.devices.values():
        device.clock = skew
    rollout_id = fleet.rollout(fleet.release("v2", Model(error_rate=0.3)), stages=[20, 100], gates=[ERROR_RATE])
    assert most_reached(fleet, rollout_id, "v2") == 1
    assert fleet.get(rollout_id).state == "ROLLED_BACK"


def test_telemetry_that_comes_after_the_rollback_changes_nothing(fleet: Fleet) -> None:
    fleet.enrol(5)
    fleet.promote("v1")
    rollout_id = fleet.rollout(fleet.release("v2", Model(error_rate=0.3)), stages=[20, 100], gates=[ERROR_RATE])
    fleet.until(rollout_id, "ROLLED_BACK")
    before = fleet.get(rollout_id).version
    late = fleet.devices["dev_00"]
    late.digest, late.behaves = fleet.digest("v2"), Model()
    for _ in range(3):
        fleet.step()
    assert fleet.get(rollout_id).version == before
    assert fleet.stages(rollout_id) == ["FAILED", "PENDING"]


def test_a_revoked_device_holds_its_stage_up_no_longer_than_the_admission_may_last(fleet: Fleet) -> None:
    fleet.enrol(10)
    fleet.promote("v1")
    rollout_id = fleet.rollout(fleet.release("v2"), stages=[20, 100], admit_timeout_s=30)
    fleet.tick()
    gone = next(d for d in fleet.devices.values() if fleet.wanted(d).artifact_digest == fleet.digest("v2"))
    gone.online = False
    with fleet.db.transaction() as session:
        device = session.get_one(Device, gone.id)
        device.state, device.lease_until = "REVOKED", fleet.now - LEASE
    fleet.until(rollout_id, "SUCCEEDED")
    assert len(fleet.running("v2")) == 9


def test_a_generation_no_device_can_have_does_not_stop_the_coordinator(fleet: Fleet) -> None:
    fleet.enrol(2)
    with fleet.db.transaction() as session:
        session.get_one(Device, "dev_00").active_generation = 2**63 - 1
    rollout_id = fleet.rollout(fleet.release("v1"), stages=[100], success_percent=50)
    fleet.until(rollout_id, "SUCCEEDED")
    assert "dev_01" in fleet.running("v1")
