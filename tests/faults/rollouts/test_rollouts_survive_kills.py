"""A coordinator killed between, or within, any two steps of a rollout; two coordinators at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from fleet import Fleet, Model
from sqlalchemy import event, select

from fogline_server.db.database import Database
from fogline_server.db.events import Event
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.rollouts import service
from fogline_server.rollouts import tick as ticking
from fogline_server.rollouts.tables import Assignment

GATES = [{"gate": "error_rate", "options": {}}]


class Killed(BaseException):
    """Ends a tick as abruptly as a test can within its own process: nothing after it runs, nothing is committed."""


@pytest.fixture
def fleet(database: Database, doorbell: Doorbell) -> Fleet:
    return Fleet(database, doorbell)


def killed_before_commit(fleet: Fleet, number: int) -> bool:
    """Run a tick that dies just before its ``number``-th commit; whether it came that far."""
    seen = 0

    def die(_connection: object) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            raise Killed

    event.listen(fleet.db.engine, "commit", die)
    try:
        fleet.tick()
    except Killed:
        return True
    finally:
        event.remove(fleet.db.engine, "commit", die)
    return False


@pytest.mark.parametrize("bad", [False, True])
def test_a_tick_killed_before_each_of_its_commits_changes_nothing_in_the_end(fleet: Fleet, *, bad: bool) -> None:
    fleet.enrol(6)
    first = fleet.rollout(fleet.release("v1"), stages=[100], soak_s=0)
    fleet.until(first, "SUCCEEDED")
    model = Model(error_rate=0.5) if bad else Model()
    rollout_id = fleet.rollout(fleet.release("v2", model), stages=[30, 60, 100], soak_s=5, gates=GATES)
    kills = 0
    for _ in range(40):
        fleet.pass_time(5)
        number = 1
        while killed_before_commit(fleet, number):
            number, kills = number + 1, kills + 1
        fleet.sync()
        if fleet.get(rollout_id).state in {"SUCCEEDED", "ROLLED_BACK"}:
            break
    assert fleet.get(rollout_id).state == ("ROLLED_BACK" if bad else "SUCCEEDED")
    assert len(fleet.running("v1" if bad else "v2")) == 6
    # A rollout that ends in its first stage has fewer commits to be killed at than one of three stages.
    assert kills > (10 if bad else 20)
    with fleet.db.read() as session:
        kinds = Counter(session.scalars(select(Event.kind).where(Event.subject_id == rollout_id)))
        devices = Counter(session.scalars(select(Assignment.device_id).where(Assignment.rollout_id == rollout_id)))
    assert set(devices.values()) == {1}
    assert kinds["rollout.stage_admitting"] == (1 if bad else 3)
    assert kinds["rollout.rolled_back" if bad else "rollout.succeeded"] == 1


def test_two_coordinators_at_once_take_each_step_once(fleet: Fleet) -> None:  # noqa: C901 - one scene, read in order
    fleet.enrol(12)
    fleet.enrol(3, online=False)
    rollout_id = fleet.rollout(fleet.release("v1"), stages=[25, 50, 100], soak_s=5, gates=GATES)
    errors: list[BaseException] = []

    def coordinator(db: Database) -> None:
        try:
            for _ in range(4):
                ticking.tick(db, now=fleet.now, doorbell=fleet.doorbell)
        except BaseException as error:
            errors.append(error)

    replicas = [Database(fleet.db.url) for _ in range(2)]
    for round_number in range(40):
        fleet.pass_time(5)
        threads = [threading.Thread(target=coordinator, args=(db,)) for db in replicas]
        for thread in threads:
            thread.start()
        # Devices report meanwhile.
        fleet.sync()
        for thread in threads:
            thread.join()
        if round_number == 20:
            for device in fleet.devices.values():
                device.online = True
        if round_number > 20 and len(fleet.running("v1")) == 15:
            break
    for db in replicas:
        db.dispose()
    assert errors == []
    assert fleet.get(rollout_id).state == "SUCCEEDED"
    assert len(fleet.running("v1")) == 15
    with fleet.db.read() as session:
        kinds = Counter(session.scalars(select(Event.kind).where(Event.subject_id == rollout_id)))
        assert len(service.assignments_of(session, rollout_id)) == 15
    assert kinds["rollout.started"] == 1
    assert kinds["rollout.stage_passed"] == 3


_TICKING = """
import sys
from datetime import datetime
from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.rollouts.tick import tick
import fogline_server.schema
db, doorbell = Database(sys.argv[1]), Doorbell(sys.argv[2])
print("up", flush=True)
for line in sys.stdin:
    tick(db, now=datetime.fromisoformat(line.strip()), doorbell=doorbell)
    print("done", flush=True)
"""


def test_a_coordinator_process_killed_with_sigkill_in_the_middle_of_a_tick(fleet: Fleet, tmp_path: Path) -> None:
    fleet.enrol(20)
    rollout_id = fleet.rollout(fleet.release("v1"), stages=[50, 100], soak_s=5, gates=GATES)
    script = tmp_path / "ticking.py"
    script.write_text(_TICKING)
    for delay_ms in (1, 4, 8, 15, 30):
        fleet.pass_time(2)
        with subprocess.Popen(
            [sys.executable, str(script), fleet.db.url, fleet.doorbell.url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            process.stdin.write(f"{fleet.now.isoformat()}\n")
            process.stdin.flush()
            threading.Event().wait(delay_ms / 1000)
            os.kill(process.pid, signal.SIGKILL)
        fleet.sync()
    fleet.until(rollout_id, "SUCCEEDED")
    assert len(fleet.running("v1")) == 20
    with fleet.db.read() as session:
        assert len(service.assignments_of(session, rollout_id)) == 20
