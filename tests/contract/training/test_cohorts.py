"""Who is chosen for a round and why the others are not, on both databases."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from training_fleet import FIRST_NODE, add_devices, create_run, device_id

from fogline_server.db.database import Database
from fogline_server.devices.tables import Device
from fogline_server.training import attempts, checkpoint, offers, service
from fogline_server.training.pacing import Pacing
from fogline_server.training.spec import RunSpec
from fogline_server.training.tables import Round, Run, Task
from fogline_server.training.why_not import WhyNot, why_not
from fogline_shared.eligibility import Eligibility
from fogline_shared.errors import Conflict, NotFound
from fogline_shared.protocol import TaskReply
from fogline_shared.states import RoundState, RunState

NOW = datetime.now(UTC)


@pytest.fixture
def fleet(database: Database) -> Database:
    """Three devices: on mains; at 20 % and metered; without its owner's consent."""
    add_devices(database, 3)
    with database.transaction() as session:
        session.get_one(Device, device_id(0)).attributes = {"metered": False, "free_memory_mb": 900, "consent": True}
        session.get_one(Device, device_id(1)).attributes = {"battery_percent": 20, "charging": False, "metered": True}
        session.get_one(Device, device_id(2)).attributes = {"consent": False, "metered": False, "samples": 3}
    return database


def start(database: Database, **spec: object) -> str:
    run_id, _ = create_run(database, rounds=3, **spec)
    with database.transaction() as session:
        session.get_one(Run, run_id).state = RunState.RUNNING
    return run_id


def count(database: Database, run_id: str, samples: dict[int, int]) -> None:
    """Round 0 has counted the devices' samples."""
    with database.transaction() as session:
        session.get_one(Run, run_id).statistics = {
            "mean": [0.0] * 6,
            "scale": [1.0] * 6,
            "samples": {str(FIRST_NODE + index): n for index, n in samples.items()},
        }
        row = Round(run_id=run_id, number=0, state=RoundState.COMMITTED, cohort=[], metrics={}, started_at=NOW)
        session.merge(row)


def chosen(database: Database, run_id: str, number: int = 1, *, now: datetime = NOW) -> list[int] | int:
    """Indices of the devices of the round, or how many there were when they were too few."""
    with database.read() as session:
        spec = RunSpec.from_json(service.get_run(session, run_id).spec)
        cohort = checkpoint.choose_cohort(session, run_id, spec, number, now=now)
    return cohort if isinstance(cohort, int) else [device.node_id - FIRST_NODE for device in cohort.devices]


def ask(database: Database, run_id: str, index: int, *, now: datetime = NOW) -> WhyNot:
    with database.read() as session:
        return why_not(session, device_id(index), run_id, now=now)


def codes(database: Database, run_id: str, index: int, *, now: datetime = NOW) -> list[str]:
    return [reason.code for reason in ask(database, run_id, index, now=now).reasons]


def give_task(database: Database, run_id: str, index: int, *, number: int = 1, kind: str = "train") -> str:
    task = Task(id=f"{run_id}-{number}-{kind}-{index}", run_id=run_id, round=number, kind=kind)
    task.device_id, task.recipe, task.records, task.blobs = device_id(index), "tiny", {}, []
    task.message_type, task.group_id, task.node_id, task.max_reply_bytes = kind, "1", FIRST_NODE + index, 100
    task.deadline, task.created_at, task.closed = NOW + timedelta(hours=1), NOW, False
    with database.transaction() as session:
        session.add(task)
    return task.id


def answer(database: Database, task_id: str, index: int, *, now: datetime = NOW, **fields: str) -> None:
    reply = TaskReply(task_id=task_id, digest="", size=0, records_json="{}", **fields)
    with database.transaction() as session:
        offers.receive(session, device_id(index), reply, now=now)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, [0, 1]),
        ({"min_battery_percent": 21}, [0]),
        ({"min_battery_percent": 20}, [0, 1]),
        ({"charging": True}, [0]),
        ({"unmetered": True}, [0]),
        ({"min_free_memory_mb": 900}, [0]),
        ({"min_free_memory_mb": 901}, 0),
        ({"consent": True}, [0]),
    ],
)
def test_cohort_meets_the_conditions_of_its_run(fleet: Database, conditions: dict, expected: list[int] | int) -> None:
    run_id = start(fleet, eligibility=Eligibility(**conditions), min_devices=1)
    assert chosen(fleet, run_id) == expected
    for index in range(3):
        assert (index in (expected or [])) == ask(fleet, run_id, index).eligible, "why-not and the choice agree"


def test_run_that_was_stored_before_there_were_conditions_has_none(fleet: Database) -> None:
    run_id = start(fleet)
    with fleet.transaction() as session:
        run = session.get_one(Run, run_id)
        run.spec = {name: value for name, value in run.spec.items() if name != "eligibility"}
    assert chosen(fleet, run_id) == [0, 1]
    give_task(fleet, run_id, 0)
    with fleet.read() as session:
        (offer,) = offers.open_tasks(session, device_id(0), now=NOW)
    assert Eligibility.parse(offer.eligibility_json) == Eligibility()


def test_conditions_travel_to_the_device_with_its_task(fleet: Database) -> None:
    asked = Eligibility(charging=True, min_samples=7)
    run_id = start(fleet, eligibility=asked)
    give_task(fleet, run_id, 0)
    with fleet.read() as session:
        (offer,) = offers.open_tasks(session, device_id(0), now=NOW)
    assert Eligibility.parse(offer.eligibility_json) == asked


def test_what_the_run_has_counted_goes_before_what_devices_tell(fleet: Database) -> None:
    with fleet.transaction() as session:
        for index, samples in enumerate((4, 5)):
            device = session.get_one(Device, device_id(index))
            device.attributes = {**device.attributes, "samples": samples}
    run_id = start(fleet, eligibility=Eligibility(min_samples=5), min_devices=1)
    assert chosen(fleet, run_id, 0) == [0, 1], "round 0 is there to count: an old number excludes nobody"
    count(fleet, run_id, {0: 6})
    assert chosen(fleet, run_id) == [0, 1], "device 1 was not there; it says that it has enough"
    count(fleet, run_id, {0: 3, 1: 9})
    assert chosen(fleet, run_id) == [1]
    assert codes(fleet, run_id, 0) == ["too_few_samples"]


def test_device_rests_between_two_trainings_whatever_the_run(fleet: Database) -> None:
    other, run_id = start(fleet), start(fleet, eligibility=Eligibility(min_separation_s=60), min_devices=1)
    answer(fleet, give_task(fleet, other, 0), 0)
    assert chosen(fleet, run_id, now=NOW + timedelta(seconds=59)) == [1]
    assert codes(fleet, run_id, 0, now=NOW + timedelta(seconds=59)) == ["trained_recently"]
    assert chosen(fleet, run_id, now=NOW + timedelta(seconds=60)) == [0, 1]


def test_neither_a_refusal_nor_an_evaluation_is_a_training(fleet: Database) -> None:
    run_id = start(fleet, eligibility=Eligibility(min_separation_s=60), min_devices=1)
    answer(fleet, give_task(fleet, run_id, 0), 0, error_code="not_eligible", error_message="is not charging")
    answer(fleet, give_task(fleet, run_id, 1, kind="evaluate"), 1)
    assert chosen(fleet, run_id) == [0, 1]


def test_late_training_is_a_training_too(fleet: Database) -> None:
    run_id = start(fleet, eligibility=Eligibility(min_separation_s=60), min_devices=1)
    task = give_task(fleet, run_id, 0)
    with fleet.transaction() as session:
        session.get_one(Task, task).closed = True
    answer(fleet, task, 0)
    assert chosen(fleet, run_id) == [1]


def test_why_not_tells_of_rounds_lots_and_refusals(fleet: Database) -> None:
    run_id = start(fleet, max_devices=2)
    assert ask(fleet, run_id, 0).notes == ["round 0 may choose it; at most 2 devices are drawn, by lot"]
    with fleet.transaction() as session:
        row = Round(run_id=run_id, number=1, state=RoundState.OPEN, cohort=[device_id(1)], metrics={}, started_at=NOW)
        session.add(row)
    answer(
        fleet, give_task(fleet, run_id, 1), 1, error_code="not_eligible", error_message="this device is not charging"
    )
    inside, outside = ask(fleet, run_id, 1), ask(fleet, run_id, 0)
    assert (inside.round, inside.taking_part, outside.round, outside.taking_part) == (1, True, 1, False)
    assert inside.notes[0] == "round 1 is under way with it"
    assert inside.notes[-1] == "it refused its task of round 1 itself: this device is not charging"
    assert outside.notes[0] == "round 1 is under way without it"
    assert outside.notes[1].startswith("round 2 may choose it")
    with fleet.transaction() as session:
        session.get_one(Run, run_id).state = RunState.PAUSED
    assert ask(fleet, run_id, 0).notes[0].startswith("the run is PAUSED")


def test_why_not_tells_of_rest_by_the_rule_that_draws(database: Database) -> None:
    add_devices(database, 14)
    run_id = start(database, pacing=Pacing(target=2, steering=True), extensions=[10])
    count(database, run_id, {})
    asked = []
    for number in (1, 2, 3):
        asked.append(set(chosen(database, run_id, number)))
        open_round(database, run_id, number, asked[-1], state=RoundState.COMMITTED)
    # Of 14 eligible devices a round asks 2: three rounds of rest.
    for ago, devices in enumerate(reversed(asked)):
        for index in devices:
            assert ask(database, run_id, index).notes == [
                (
                    f"it rests, since it was asked lately: from round {7 - ago} on it may be asked again, "
                    "before only if there are too few others"
                )
            ]
    for index in set(range(14)).difference(*asked):
        assert ask(database, run_id, index).notes == ["round 4 may choose it; at most 2 devices are drawn, by lot"]
    assert not set(chosen(database, run_id, 4)) & set.union(*asked)


def test_why_not_tells_of_attempts(fleet: Database) -> None:
    run_id = start(fleet, pacing=Pacing(retries=1))
    open_round(fleet, run_id, 1, {0}, state=RoundState.OPEN)
    with fleet.transaction() as session:
        row = session.get_one(Round, (run_id, 1))
        attempts.fail(session, row, Conflict("quorum_not_reached", "1 of 2 answered"), now=NOW)
    assert ask(fleet, run_id, 0).notes == [
        "round 1 waits for another cohort: attempt 1 of 2 failed, 1 of 2 answered",
        "round 1 may choose it",
    ]
    with fleet.transaction() as session:
        session.get_one(Round, (run_id, 1)).cohort = [device_id(1)]
    assert ask(fleet, run_id, 1).notes[:2] == [
        "round 1 is under way with it",
        "this is attempt 2 of 2, the last: if it fails, so does the run",
    ]


def open_round(database: Database, run_id: str, number: int, cohort: set[int], *, state: RoundState) -> None:
    with database.transaction() as session:
        row = Round(run_id=run_id, number=number, state=state, metrics={}, started_at=NOW)
        row.cohort, row.attempts = [device_id(index) for index in sorted(cohort)], []
        session.add(row)


def test_why_not_tells_that_the_run_is_over_and_what_else_stands_against_it(fleet: Database) -> None:
    run_id = start(fleet)
    with fleet.transaction() as session:
        run = session.get_one(Run, run_id)
        run.state, run.finished_at = RunState.SUCCEEDED, NOW
    assert codes(fleet, run_id, 0) == ["run_ended"]
    assert codes(fleet, run_id, 2) == ["run_ended", "consent_refused"]
    assert ask(fleet, run_id, 0).notes == []


def test_why_not_of_what_does_not_exist_says_which(fleet: Database) -> None:
    run_id = start(fleet)
    with fleet.read() as session, pytest.raises(NotFound, match="device_not_found"):
        why_not(session, "dev_x", run_id, now=NOW)
    with fleet.read() as session, pytest.raises(NotFound, match="run_not_found"):
        why_not(session, device_id(0), "run_x", now=NOW)


def test_conditions_are_stored_with_the_run_as_json(fleet: Database) -> None:
    run_id = start(fleet, eligibility=Eligibility(min_battery_percent=30))
    with fleet.read() as session:
        spec = service.get_run(session, run_id).spec
    assert json.loads(json.dumps(spec))["eligibility"]["min_battery_percent"] == 30
    assert RunSpec.from_json(spec).eligibility == Eligibility(min_battery_percent=30)
