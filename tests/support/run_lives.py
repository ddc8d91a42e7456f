"""Lives of a federated run: to its end, or to a death at one of its commits, and what the rows say of it then."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from commit_points import Death, Life, Nursery, Place
from sqlalchemy import select
from training_fleet import add_devices, create_run

from fogline_server.db.database import Database
from fogline_server.db.events import Event
from fogline_server.training import service
from fogline_server.training.tables import Task, Update

# A metric that depends on the clock.
TIMED = "seconds"


class World:
    """A fleet and a database, and runs that live and die in them. ``spec``: what they have in common."""

    def __init__(self, nursery: Nursery, place: Place, db: Database, spec: Mapping[str, object]) -> None:
        self.db, self._nursery, self._place, self._spec = db, nursery, place, spec
        add_devices(db, place.devices)

    def dies(self, job_id: str, death: Death, *, life: int = 0) -> Life:
        """One life of a job that ends as it is told to."""
        lived = self.live(job_id, death, life=life)
        assert lived.exit_code == -signal.SIGKILL, f"{death} did not come"
        return lived

    def lives(self, job_id: str, *, life: int = 0, mortal_gateway: bool = False) -> Life:
        """A life that comes to the job's end."""
        lived = self.live(job_id, life=life, mortal_gateway=mortal_gateway)
        assert lived.exit_code == 0
        return lived

    def live(self, job_id: str, death: Death | None = None, *, life: int = 0, mortal_gateway: bool = False) -> Life:
        """One life of a job, which may end before its death comes; one that fails in any other way fails the test."""
        lived = self._nursery.live(self._place, job_id, number=life, death=death, mortal_gateway=mortal_gateway)
        assert lived.exit_code in {0, -signal.SIGKILL}, "see the standard error"
        return lived

    def undisturbed(self, **spec: object) -> tuple[list[str], dict[str, Any]]:
        """The sites of a run's commits, and its story."""
        run_id, job_id = create_run(self.db, **{**self._spec, **spec})
        return self.lives(job_id).sites, self.story(run_id)

    def killed_at(
        self, numbers: Sequence[int], sites: Sequence[str], **spec: object
    ) -> tuple[dict[str, Any], Sequence[int]]:
        """The story of a run that is killed right before each of those commits, and each time again right after it.

        And which of them it did not come to: a recovery need not tell again of a progress that it has not made.
        """
        run_id, job_id = create_run(self.db, **{**self._spec, **spec})
        life, landed = 0, 0
        for place, number in enumerate(numbers):
            site, nth = sites[number], sites[landed : number + 1].count(sites[number])
            for death in (Death("before", site, nth), Death("after", site)):
                lived = self.live(job_id, death, life=life)
                if lived.exit_code == 0:
                    return self.story(run_id), numbers[place + (death.moment == "after") :]
                assert life or lived.sites == sites[: number + 1]
                life += 1
            landed = number + 1
        self.lives(job_id, life=life)
        return self.story(run_id), ()

    def check_killed_at_each(
        self, numbers: Sequence[int], sites: Sequence[str], expected: Mapping[str, Any], *, apart: int = 1
    ) -> None:
        """Each of those commits kills a run before and after it. Every ``apart``-th share a run, to save time."""
        waiting = [numbers[first::apart] for first in range(apart)]
        while waiting:
            numbers = waiting.pop()
            found, left = self.killed_at(numbers, sites)
            assert found == expected, [(number, sites[number]) for number in numbers]
            assert len(left) < len(numbers)
            if left:
                # What it did not come to is the first of a run of its own.
                waiting.append(left)

    def forget_residuals(self) -> None:
        """Each device's disk is wiped."""
        for folder in Path(self._place.folder).glob("memory-*"):
            shutil.rmtree(folder)

    def story(self, run_id: str) -> dict[str, Any]:
        """Everything that the rows say of a run, but for its ids and times."""
        with self.db.read() as session:
            run = service.get_run(session, run_id)
            rounds = service.rounds_of(session, run_id)
            answered = select(Task, Update).outerjoin(Update, Update.task_id == Task.id).where(Task.run_id == run_id)
            tasks = session.execute(answered.order_by(Task.round, Task.kind, Task.node_id)).tuples().all()
            events = session.scalars(select(Event).where(Event.subject_id == run_id).order_by(Event.seq)).all()
        return {
            "run": (
                run.state,
                run.rounds_done,
                run.params_digest,
                run.strategy_state_digest,
                run.statistics,
                run.error,
            ),
            "rounds": [
                (r.number, r.state, r.cohort, r.params_in, r.params_out, {**r.metrics, TIMED: None}, r.error)
                for r in rounds
            ],
            "attempts": [
                (r.number, tried["cohort"], tried["answered"], tried["code"]) for r in rounds for tried in r.attempts
            ],
            "updates": [
                (t.round, t.kind, t.device_id, t.closed, u and u.step, u and (u.verdict, u.digest, u.duplicates))
                for t, u in tasks
            ],
            "events": [(e.kind, e.data.get("round")) for e in events],
        }
