"""The buffer of an asynchronous run and the grid over it, on both databases: who is asked, what a step takes, and when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select
from step_floor import DEADLINE_S, NOW, Floor
from training_fleet import FIRST_NODE, device_id

from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.devices.tables import Device
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.training import lifecycle, service
from fogline_server.training.asynchronous import buffer
from fogline_server.training.asynchronous.grid import NOBODY
from fogline_server.training.tables import Task, Update
from fogline_shared import flower
from fogline_shared.errors import Conflict
from fogline_shared.flower import Message


@pytest.fixture
def floor(database: Database, blobs: BlobStore, doorbell: Doorbell) -> Floor:
    return Floor(database, blobs, doorbell)


def said(replies: list[Message]) -> dict[int, float | str]:
    """By device: what its update says the parameters should be, or its error's code."""
    return {
        reply.metadata.src_node_id - FIRST_NODE: flower.reason_of(reply.error)[0]
        if reply.has_error()
        else float(reply.content.array_records["arrays"]["w"].numpy()[0])
        for reply in replies
    }


def answers(floor: Floor, number: int, *indices: int) -> Iterator[None]:
    for index in indices:
        floor.answer(index, number, value=0.25)
        yield


def test_a_step_takes_the_first_and_tells_old_updates_as_updates_of_the_present(floor: Floor) -> None:
    first = floor.open(1)
    assert said(floor.step(first, answers(floor, 1, 2, 0))) == {2: 1.25, 0: 1.25}
    assert first.devices == {FIRST_NODE + 2: device_id(2), FIRST_NODE: device_id(0)}
    floor.close(1)
    floor.answer(1, 1, value=0.5)
    second = floor.open(2)
    assert floor.asked(2) == [0, 2], "one is still at work, the update of another waits"
    assert said(floor.step(second, answers(floor, 2, 0))) == {1: 2.5, 0: 2.25}
    assert second.staleness == {FIRST_NODE + 1: 1, FIRST_NODE: 0}
    assert [floor.row(*of).step for of in ((1, 1), (0, 2))] == [2, 2]


def test_a_step_that_has_taken_its_updates_takes_the_same_again_whatever_has_come(floor: Floor) -> None:
    taken = said(floor.step(floor.open(1), answers(floor, 1, 2, 0)))
    floor.answer(1, 1)
    with floor.db.transaction() as session:
        # It had been received first, and was committed last.
        session.get_one(Update, f"{floor.run_id}-1-train-{FIRST_NODE + 1}").received_at = NOW
    again = floor.open(1)
    assert said(floor.step(again)) == taken
    assert again.devices.keys() == {FIRST_NODE, FIRST_NODE + 2}
    floor.close(1)
    assert said(floor.step(floor.open(2), answers(floor, 2, 0))) == {1: 2.0, 0: 2.25}


def test_at_the_deadline_the_quorum_of_what_could_have_come_is_enough(floor: Floor) -> None:
    def too_few() -> Iterator[None]:
        floor.answer(3, 1, value=0.25)
        yield
        floor.later(DEADLINE_S - 3)
        yield
        floor.later(5)
        yield

    assert said(floor.step(floor.open(1), too_few())) == {3: 1.25}
    assert floor.said == [(0, 2), (1, 2), (1, 2), (1, 2)], "what has come, of what fills the buffer"


def test_without_any_update_the_step_gives_up_long_after_its_deadline(floor: Floor) -> None:
    grid = floor.open(1)
    with pytest.raises(Conflict, match="0 usable updates came in 400 s; 1 needed") as caught:
        floor.step(grid, (floor.later(100) for _ in range(4)))
    assert caught.value.code == "quorum_not_reached"


def test_a_device_past_its_deadline_is_free_again_and_what_it_sends_is_late_once(floor: Floor) -> None:
    floor.step(floor.open(1), answers(floor, 1, 2, 0))
    floor.close(1)
    floor.later(4 * DEADLINE_S)
    second = floor.open(2)
    assert floor.asked(2) == [0, 1, 2, 3]
    floor.answer(1, 1)
    assert floor.row(1, 1).verdict == "LATE"
    assert said(floor.step(second, answers(floor, 2, 1, 3))) == {1: 2.25, 3: 2.25}
    assert (floor.row(1, 1).step, floor.row(1, 1).code) == (2, "round_over"), "it is in the figures of one step"


def test_a_device_that_was_asked_anew_has_one_update_whatever_the_gateways_clock_says(floor: Floor) -> None:
    floor.step(floor.open(1), answers(floor, 1, 2, 0))
    floor.close(1)
    floor.later(4 * DEADLINE_S)
    second = floor.open(2)
    now, floor.now = floor.now, NOW
    floor.answer(1, 1)
    floor.now = now
    assert floor.row(1, 1).verdict == "LATE"
    assert said(floor.step(second, answers(floor, 2, 1, 3))) == {1: 2.25, 3: 2.25}


def test_what_is_too_stale_is_late_and_frees_its_device(floor: Floor) -> None:
    for number in (1, 2, 3):
        assert said(floor.step(floor.open(number), answers(floor, number, 2, 0))).keys() == {0, 2}
        floor.close(number)
    floor.answer(1, 1)
    fourth = floor.open(4)
    assert floor.asked(4) == [0, 2]
    assert said(floor.step(fourth, answers(floor, 4, 0, 2))).keys() == {0, 2}
    assert (floor.row(1, 1).verdict, floor.row(1, 1).code, floor.row(1, 1).step) == ("LATE", "too_stale", 4)
    floor.close(4)
    floor.open(5)
    assert floor.asked(5) == [0, 1, 2]


def test_failed_devices_fill_no_buffer(floor: Floor) -> None:
    def one_fails() -> Iterator[None]:
        floor.answer(0, 1, error_code="disk_full", error_message="no")
        yield
        yield from answers(floor, 1, 1, 2)

    assert said(floor.step(floor.open(1), one_fails())) == {0: "disk_full", 1: 1.25, 2: 1.25}


def test_when_all_have_failed_nobody_waits(floor: Floor) -> None:
    def all_fail() -> Iterator[None]:
        for index in range(4):
            floor.answer(index, 1, error_code="disk_full", error_message="no")
            yield

    assert set(said(floor.step(floor.open(1), all_fail())).values()) == {"disk_full"}


def test_devices_that_come_while_a_step_waits_are_asked_once(floor: Floor) -> None:
    with floor.db.transaction() as session:
        for index in (1, 2, 3):
            session.get_one(Device, device_id(index)).lease_until = NOW
    floor.later(1)
    floor.open(1)
    assert floor.asked(1) == [0]

    def come(index: int) -> None:
        with floor.db.transaction() as session:
            session.get_one(Device, device_id(index)).lease_until = NOW + timedelta(days=1)
        floor.later(6)

    def comes_and_the_trainer_dies() -> Iterator[None]:
        come(3)
        yield

    with pytest.raises(RuntimeError):
        floor.step(floor.open(1), comes_and_the_trainer_dies())
    assert floor.asked(1) == [0, 3]

    def second_life() -> Iterator[None]:
        floor.later(6)
        yield
        yield from answers(floor, 1, 3, 0)

    assert said(floor.step(floor.open(1), second_life())) == {3: 1.25, 0: 1.25}


def test_a_step_with_nobody_to_ask_waits_for_those_at_work_and_for_those_who_come(floor: Floor) -> None:
    floor.step(floor.open(1), answers(floor, 1, 2, 0))
    floor.close(1)
    with floor.db.transaction() as session:
        for index in range(4):
            session.get_one(Device, device_id(index)).lease_until = NOW
    second = floor.open(2)
    assert floor.asked(2) == []
    assert list(second.get_node_ids()) == [NOBODY]

    def one_answers_and_one_comes() -> Iterator[None]:
        floor.answer(1, 1, value=0.5)
        yield
        with floor.db.transaction() as session:
            session.get_one(Device, device_id(0)).lease_until = NOW + timedelta(days=1)
        floor.later(6)
        yield
        assert floor.asked(2) == [0]
        floor.answer(0, 2, value=0.25)
        yield

    assert said(floor.step(second, one_answers_and_one_comes())) == {1: 2.5, 0: 2.25}


def test_a_paused_run_finishes_its_step_with_the_devices_it_has(floor: Floor) -> None:
    with floor.db.transaction() as session:
        session.get_one(Device, device_id(3)).lease_until = NOW

    def paused() -> Iterator[None]:
        with floor.db.transaction() as session:
            lifecycle.pause_run(session, floor.run_id, now=floor.now)
            session.get_one(Device, device_id(3)).lease_until = NOW + timedelta(days=1)
        floor.later(6)
        yield
        yield from answers(floor, 1, 2, 0)

    floor.later(1)
    assert said(floor.step(floor.open(1), paused())).keys() == {0, 2}
    assert floor.asked(1) == [0, 1, 2]


def test_no_more_than_max_devices_are_at_work(database: Database, blobs: BlobStore, doorbell: Doorbell) -> None:
    floor = Floor(database, blobs, doorbell, max_devices=3)
    first = floor.open(1)
    asked = floor.asked(1)
    assert len(asked) == 3
    floor.step(first, answers(floor, 1, *asked[:2]))
    floor.close(1)
    floor.open(2)
    assert len(floor.asked(2)) == 2
    assert asked[2] not in floor.asked(2)


def test_why_not_says_who_is_at_work_since_when_and_whose_update_waits(floor: Floor) -> None:
    floor.step(floor.open(1), answers(floor, 1, 2, 0))
    assert floor.notes(1) == (True, ["round 1 is under way with it", "it is at work: it began with round 1"])
    floor.close(1)
    floor.step(floor.open(2), answers(floor, 2, 2, 0))
    floor.close(2)
    floor.answer(3, 1)
    floor.open(3)
    assert floor.notes(1)[1][1] == "it is at work: it began with round 1, 2 steps ago"
    assert floor.notes(3)[1][1] == "its update waits for a step to take it: it began with round 1, 2 steps ago"


def test_the_end_of_the_run_stops_who_is_at_work_and_counts_nothing_that_waits(floor: Floor) -> None:
    floor.step(floor.open(1), answers(floor, 1, 2, 0))
    floor.close(1)
    floor.answer(1, 1)
    with floor.db.transaction() as session:
        buffer.close(session, floor.run_id)
        assert not session.scalars(select(Task).where(Task.closed.is_(False))).all()
    floor.answer(3, 1)
    assert [(row.verdict, row.code) for row in (floor.row(1, 1), floor.row(3, 1))] == [("LATE", "round_over")] * 2
    assert floor.row(0, 1).verdict == "ACCEPTED"
    with floor.db.read() as session:
        views = {view.device_id: view for view in service.updates_of(session, floor.run_id)}
    assert (views[device_id(0)].step, views[device_id(0)].staleness) == (1, 0)
    assert (views[device_id(1)].step, views[device_id(1)].staleness) == (None, None)
