"""What devices report may be late, repeated, foreign or nonsense."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleet import Fleet, SimDevice

from fogline_server.db.database import Database
from fogline_server.devices.tables import Device
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.rollouts import desired, service
from fogline_shared.errors import InvalidInput
from fogline_shared.protocol import DesiredState


@pytest.fixture
def fleet(database: Database, doorbell: Doorbell) -> Fleet:
    return Fleet(database, doorbell)


def offered(fleet: Fleet) -> tuple[str, SimDevice, DesiredState]:
    device = fleet.enrol(1)[0]
    rollout_id = fleet.rollout(fleet.release("v1"), stages=[100])
    fleet.tick()
    wanted = fleet.wanted(device)
    assert wanted is not None
    return rollout_id, device, wanted


def state_of(fleet: Fleet, rollout_id: str) -> str:
    with fleet.db.read() as session:
        return service.assignments_of(session, rollout_id)[0].state


def test_a_repeated_report_is_taken_once(fleet: Fleet) -> None:
    rollout_id, device, wanted = offered(fleet)
    assert fleet.report(device, "DOWNLOADING", wanted)
    assert not fleet.send(device, device.sent[-1])
    assert state_of(fleet, rollout_id) == "DOWNLOADING"


def test_a_step_that_is_tried_again_says_why_until_it_is_over(fleet: Fleet) -> None:
    rollout_id, device, wanted = offered(fleet)

    def stands() -> tuple[str, str]:
        with fleet.db.read() as session:
            row = service.assignments_of(session, rollout_id)[0]
            return row.state, row.code

    fleet.report(device, "DOWNLOADING", wanted)
    assert stands() == ("DOWNLOADING", "")
    fleet.report(device, "DOWNLOADING", wanted, code="trust_expired", message="the timestamp has ended")
    fleet.report(device, "DOWNLOADING", wanted)
    assert stands() == ("DOWNLOADING", "trust_expired")
    fleet.report(device, "STAGED", wanted)
    assert stands() == ("STAGED", "")


def test_an_overtaken_report_changes_nothing(fleet: Fleet) -> None:
    rollout_id, device, wanted = offered(fleet)
    fleet.report(device, "DOWNLOADING", wanted)
    fleet.report(device, "PROBATION", wanted)
    assert not fleet.send(device, device.sent[0])
    assert state_of(fleet, rollout_id) == "PROBATION"


def test_numbers_begin_again_after_a_reboot(fleet: Fleet) -> None:
    rollout_id, device, wanted = offered(fleet)
    for state in ("DOWNLOADING", "STAGED", "ACTIVATING"):
        fleet.report(device, state, wanted)
    device.boot_id, device.seq = "boot-2", 0
    # It repeats a step after a power cut: taken, without going back.
    assert fleet.report(device, "DOWNLOADING", wanted)
    assert state_of(fleet, rollout_id) == "ACTIVATING"
    assert fleet.report(device, "SUCCEEDED", wanted)
    assert state_of(fleet, rollout_id) == "SUCCEEDED"


def test_a_device_cannot_speak_for_another(fleet: Fleet) -> None:
    rollout_id, device, _ = offered(fleet)
    stranger = fleet.enrol(1)[0]
    wanted = fleet.wanted(device)
    assert wanted is not None
    assert not fleet.report(stranger, "SUCCEEDED", wanted)
    assert not fleet.report(device, "SUCCEEDED", replace(wanted, assignment_id="asg_none"))
    assert state_of(fleet, rollout_id) == "OFFERED"


@pytest.mark.parametrize("state", ["CANCELED", "TIMED_OUT", "PENDING", "", "succeeded", "\x00"])
def test_a_state_no_device_decides_is_refused(fleet: Fleet, state: str) -> None:
    rollout_id, device, wanted = offered(fleet)
    with pytest.raises(InvalidInput, match="invalid_report"):
        fleet.report(device, state, wanted)
    assert state_of(fleet, rollout_id) == "OFFERED"


def test_nonsense_in_a_message_is_stored_harmlessly(fleet: Fleet) -> None:
    rollout_id, device, wanted = offered(fleet)
    fleet.report(device, "REJECTED", wanted, code="x\x00" * 90, message="\x00é" * 3000)
    assert state_of(fleet, rollout_id) == "REJECTED"
    with fleet.db.read() as session:
        assert len(service.assignments_of(session, rollout_id)[0].message) == 2000


def test_a_device_that_went_back_is_told_to_run_what_it_ran(fleet: Fleet) -> None:
    _, device, wanted = offered(fleet)
    fleet.report(device, "REVERTED", wanted, code="probation_failed")
    back = fleet.wanted(device)
    assert back is not None
    assert (back.artifact_digest, back.attempt, back.generation) == ("", 2, wanted.generation + 1)


def test_its_success_says_what_runs(fleet: Fleet) -> None:
    _, device, wanted = offered(fleet)
    fleet.report(device, "SUCCEEDED", replace(wanted, generation=wanted.generation + 7))
    with fleet.db.read() as session:
        assert session.get_one(Device, device.id).active_generation == 0
    fleet.report(device, "SUCCEEDED", wanted)
    with fleet.db.read() as session:
        row = session.get_one(Device, device.id)
        assert (row.active_digest, row.active_generation) == (wanted.artifact_digest, wanted.generation)


def test_only_the_desired_artifact_may_be_fetched(fleet: Fleet) -> None:
    _, device, wanted = offered(fleet)
    with fleet.db.read() as session:
        assert desired.reads(session, device.id, wanted.artifact_digest)
        assert not desired.reads(session, device.id, fleet.digest("v2"))
        assert not desired.reads(session, device.id, "")
        assert not desired.reads(session, "dev_none", wanted.artifact_digest)


def test_a_device_ahead_of_a_restored_database_is_still_reached(fleet: Fleet) -> None:
    device = fleet.enrol(1)[0]
    with fleet.db.transaction() as session:
        session.get_one(Device, device.id).active_generation = 41
    fleet.rollout(fleet.release("v1"), stages=[100])
    fleet.tick()
    wanted = fleet.wanted(device)
    assert wanted is not None
    assert wanted.generation == 42
