"""Schedules fire once, in time or by their policy, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.db.database import Database
from fogline_server.db.events import Event
from fogline_server.jobs import service as jobs
from fogline_server.schedules import service
from fogline_server.schedules.service import Action, ScheduleSpec
from fogline_server.schedules.tick import tick
from fogline_shared.errors import Conflict, InvalidInput

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def start(session: Session, spec: Mapping[str, Any], now: datetime, actor: str) -> str:
    if "fails" in spec:
        events.record(session, "half.done", "test", "x")
        raise Conflict("not_now", "try later") if spec["fails"] == "kindly" else RuntimeError("a bug")
    return jobs.submit(session, "work", {}, queue="compute", now=now, actor=actor).id


def check(spec: Mapping[str, Any]) -> None:
    if "wrong" in spec:
        raise InvalidInput("invalid_thing", "wrong")


ACTIONS = {name: Action(check=check, start=start) for name in service.ACTIONS}


def make(db: Database, *, now: datetime = NOON, **fields: Any) -> str:
    spec = ScheduleSpec(**{"name": "s", "action": "job", **fields})
    with db.transaction() as session:
        return service.create_schedule(session, spec, actions=ACTIONS, now=now, actor="ann").id


def change(db: Database, schedule_id: str, *, now: datetime, **fields: Any) -> None:
    with db.transaction() as session:
        spec = replace(service.spec_of(service.get_schedule(session, schedule_id)), **fields)
        service.update_schedule(session, schedule_id, spec, actions=ACTIONS, now=now, actor="ann")


def look(db: Database, now: datetime) -> int:
    return tick(db, now=now, actions=ACTIONS)


def started(db: Database) -> int:
    with db.read() as session:
        return len(jobs.list_jobs(session))


def last(db: Database, schedule_id: str) -> dict[str, Any]:
    with db.read() as session:
        return service.get_schedule(session, schedule_id).last_result or {}


def test_two_coordinators_fire_an_instant_once(database: Database) -> None:
    for number in range(5):
        make(database, name=f"s{number}", cron="0 * * * *")
    replicas = [Database(database.url) for _ in range(3)]
    threads = [threading.Thread(target=look, args=(db, NOON + timedelta(hours=1))) for db in replicas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for db in replicas:
        db.dispose()
    look(database, NOON + timedelta(hours=1))
    assert started(database) == 5


def test_times_missed_while_nobody_looked_are_made_up_for_once(database: Database) -> None:
    make(database, cron="0 * * * *")
    assert look(database, NOON + timedelta(hours=50, minutes=30)) == 1
    assert look(database, NOON + timedelta(hours=50, minutes=31)) == 0
    assert look(database, NOON + timedelta(hours=51)) == 1
    assert started(database) == 1  # the first is unfinished


def test_or_skipped(database: Database) -> None:
    schedule_id = make(database, cron="0 * * * *", misfire="skip")
    look(database, NOON + timedelta(hours=5, minutes=30))
    assert (started(database), last(database, schedule_id)["skipped"]) == (0, "misfire")
    look(database, NOON + timedelta(hours=6))
    assert started(database) == 1


def test_a_skipped_time_does_not_forget_what_is_under_way(database: Database) -> None:
    schedule_id = make(database, cron="0 * * * *", misfire="skip", overlap="skip")
    look(database, NOON + timedelta(hours=1))
    look(database, NOON + timedelta(hours=2, minutes=30))
    look(database, NOON + timedelta(hours=3))
    assert (started(database), last(database, schedule_id)["skipped"]) == (1, "overlap")


def test_at_a_past_time_fires_at_once_and_never_again(database: Database) -> None:
    schedule_id = make(database, at=NOON - timedelta(days=1))
    assert look(database, NOON) == 1
    for again in ({"name": "renamed"}, {"enabled": False}, {"enabled": True}):
        change(database, schedule_id, now=NOON + timedelta(hours=1), overlap="allow", **again)
        assert look(database, NOON + timedelta(hours=1)) == 0
    assert started(database) == 1
    change(database, schedule_id, now=NOON, at=NOON + timedelta(hours=2))
    assert look(database, NOON + timedelta(hours=2)) == 1
    assert started(database) == 2


def test_what_is_disabled_or_deleted_while_due_does_not_fire(database: Database) -> None:
    first = make(database, name="a", cron="0 * * * *")
    second = make(database, name="b", cron="0 * * * *")
    change(database, first, now=NOON, enabled=False)
    with database.transaction() as session:
        service.delete_schedule(session, second, now=NOON, actor="ann")
    assert look(database, NOON + timedelta(hours=1)) == 0
    change(database, first, now=NOON + timedelta(hours=1, minutes=1), enabled=True)
    assert look(database, NOON + timedelta(hours=1, minutes=2)) == 0
    assert look(database, NOON + timedelta(hours=2)) == 1


@pytest.mark.parametrize(("fails", "code"), [("kindly", "not_now"), ("badly", "internal")])
def test_an_action_that_fails_leaves_its_reason_and_nothing_else(database: Database, fails: str, code: str) -> None:
    schedule_id = make(database, cron="0 * * * *", spec={"fails": fails})
    assert look(database, NOON + timedelta(hours=1)) == 1
    assert last(database, schedule_id)["code"] == code
    with database.read() as session:
        kinds = set(session.scalars(select(Event.kind)))
    assert "half.done" not in kinds
    assert "schedule.fired" in kinds


def test_a_schedule_that_can_no_longer_be_read_stops_no_other(database: Database) -> None:
    lost = make(database, name="lost", cron="0 * * * *")
    make(database, name="sound", cron="0 * * * *")
    with database.transaction() as session:
        service.get_schedule(session, lost).time_zone = "Atlantis/Capital"
    look(database, NOON + timedelta(hours=1))
    assert started(database) == 1


def test_a_spec_that_can_never_start_is_not_stored(database: Database) -> None:
    with pytest.raises(InvalidInput, match="invalid_thing"):
        make(database, cron="0 * * * *", spec={"wrong": 1})
    schedule_id = make(database, cron="0 * * * *")
    with pytest.raises(InvalidInput, match="invalid_thing"):
        change(database, schedule_id, now=NOON, spec={"wrong": 1})
    assert make(database, name="t", cron="0 * * * *")
