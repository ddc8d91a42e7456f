"""Attempts at rounds, in SQL: what earlier ones have shown, who has just been asked, how one fails, how many were refused.

A round that fails keeps its number. Its row notes the attempt that came to nothing and waits for another cohort; the tasks of
each attempt have the attempt's number, so a device may be asked again, and a late reply to the first is late for ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.training.pacing import (
    GIVE_UP_FACTOR,
    WINDOW,
    Pace,
    Pacing,
    Past,
    pace_of,
    rest_rounds,
    worth_another,
)
from fogline_server.training.spec import RunSpec
from fogline_server.training.statistics import TooFewAccepted
from fogline_server.training.tables import Round, Task, Update
from fogline_shared.errors import FoglineError
from fogline_shared.states import RoundState, UpdateVerdict

# Of an update that was good, in an attempt that failed.
ATTEMPT_FAILED = "attempt_failed"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A cohort at work on a round. ``nodes``: device id by node id, in the cohort's order; ``target`` None: all of them.

    ``opened_at``: when it was chosen.
    """

    round: int
    number: int
    nodes: Mapping[int, str]
    target: int | None
    deadline_s: float
    opened_at: datetime


def attempt_of(row: Round, spec: RunSpec, nodes: Mapping[int, str]) -> Attempt:
    """The attempt that an open round's row tells of."""
    pace = row.pace or {"target": None, "deadline_s": spec.round_deadline_s}
    return Attempt(
        round=row.number,
        number=number_of(row),
        nodes=nodes,
        target=pace["target"],
        deadline_s=pace["deadline_s"],
        opened_at=row.started_at,
    )


def number_of(row: Round | None) -> int:
    """The number, from 1, of a round's present attempt or of the one to come."""
    return 1 if row is None else len(row.attempts) + 1


def may_retry(pacing: Pacing, attempt: Attempt, error: FoglineError) -> bool:
    """Whether a round that failed is tried again."""
    return worth_another(pacing, attempt.number, error.code)


def pace(session: Session, run_id: str, spec: RunSpec, *, now: datetime) -> Pace | None:
    """The pace of the next attempt, from the rows of earlier ones; None: the run has no target."""
    return pace_of(
        spec.pacing,
        past_of(session, run_id) if spec.pacing.self_tuning else (),
        quorum=spec.quorum,
        fewest=spec.fewest_updates,
        deadline_s=spec.round_deadline_s,
        now_s=now.timestamp(),
    )


def to_ask(spec: RunSpec, pace: Pace | None, *, fleet: int) -> int:
    """How many of ``fleet`` eligible devices an attempt at that pace asks."""
    return min(fleet if pace is None else pace.asked, spec.max_devices or fleet)


def resting(session: Session, run_id: str, spec: RunSpec, *, fleet: int, asked: int) -> list[list[str]]:
    """The cohorts whose devices rest when ``asked`` of ``fleet`` eligible devices are to be chosen, the latest first."""
    return cohorts_of(session, run_id)[: rest_rounds(fleet, asked)] if spec.pacing.steering else []


def rest_left(session: Session, run_id: str, spec: RunSpec, device_id: str, *, fleet: int, asked: int) -> int | None:
    """For how many more cohorts a device rests; None: it does not. A further attempt at a round is a cohort too."""
    rests = resting(session, run_id, spec, fleet=fleet, asked=asked)
    latest = next((ago for ago, cohort in enumerate(rests) if device_id in cohort), None)
    return None if latest is None else rest_rounds(fleet, asked) - latest


def cohorts_of(session: Session, run_id: str) -> list[list[str]]:
    """Device ids that were asked, by attempt, the latest first; statistics do not tire."""
    rows = session.scalars(select(Round).where(Round.run_id == run_id, Round.number > 0).order_by(Round.number.desc()))
    cohorts: list[list[str]] = []
    for row in rows:
        cohorts += [each for each in (row.cohort, *(tried["cohort"] for tried in reversed(row.attempts))) if each]
    return cohorts


def past_of(session: Session, run_id: str) -> list[Past]:
    """The latest attempts at training, in order. An answer that admission refused is none."""
    latest = session.scalars(
        select(Round.number)
        .where(Round.run_id == run_id, Round.number > 0)
        .order_by(Round.number.desc())
        .limit(2 * WINDOW)
    ).all()
    rows = session.execute(
        select(Task.round, Task.attempt, Task.created_at, Task.deadline, Update)
        .outerjoin(Update, Update.task_id == Task.id)
        .where(Task.run_id == run_id, Task.kind == "train", Task.round >= min(latest, default=0))
        .order_by(Task.round, Task.attempt)
    ).tuples()
    answers: defaultdict[tuple[datetime, datetime], list[float | None]] = defaultdict(list)
    for _, _, sent, deadline, reply in rows:
        good = reply is not None and _usable(reply)
        answers[sent, deadline].append((reply.received_at - sent).total_seconds() if good else None)
    return [
        Past(
            sent_s=sent.timestamp(),
            deadline_s=(deadline - sent).total_seconds() / GIVE_UP_FACTOR,
            asked=len(told),
            answers_s=[seconds for seconds in told if seconds is not None],
        )
        for (sent, deadline), told in answers.items()
    ]


def _usable(reply: Update) -> bool:
    if reply.verdict in {UpdateVerdict.ACCEPTED, UpdateVerdict.LATE}:
        # A late refusal has no parameters.
        return bool(reply.digest)
    return reply.code == ATTEMPT_FAILED


def fail(session: Session, row: Round, error: FoglineError, *, now: datetime) -> None:
    """Note that the present attempt has come to nothing: its round waits for another cohort, its updates count for nothing."""
    mine = (Task.run_id == row.run_id, Task.round == row.number, Task.attempt == number_of(row))
    # Closing before reading: the gateway locks the task's row, so a reply is either read here or late.
    session.execute(update(Task).where(*mine, Task.closed.is_(False)).values(closed=True))
    judged = {j.node_id: j for j in error.judgements} if isinstance(error, TooFewAccepted) else {}
    replies = session.execute(
        select(Task.node_id, Update).join(Update, Update.task_id == Task.id).where(*mine)
    ).tuples()
    answered = 0
    for node_id, reply in replies:
        answered += 1
        judgement = judged.get(node_id)
        if reply.verdict is not None:
            continue
        if judgement is not None and judgement.verdict != UpdateVerdict.ACCEPTED:
            reply.verdict, reply.code, reply.reason = judgement.verdict, judgement.code[:100], judgement.reason[:2000]
        elif reply.code:
            reply.verdict = UpdateVerdict.ERROR
        else:
            reply.verdict, reply.code = UpdateVerdict.REFUSED, ATTEMPT_FAILED
            reply.reason = "too few other updates of its round were usable"
    tried: dict[str, Any] = {
        "cohort": row.cohort,
        "pace": row.pace,
        "answered": answered,
        "code": error.code,
        "message": error.message,
        "started_at": row.started_at.isoformat(),
        "closed_at": now.isoformat(),
    }
    row.attempts = [*row.attempts, tried]
    row.cohort, row.pace = [], None
    events.record(
        session, "run.attempt_failed", "run", row.run_id, round=row.number, attempt=len(row.attempts), code=error.code
    )


def refusals(session: Session, run_id: str) -> tuple[int, str]:
    """How many of the latest rounds in a row were refused, and why the last was."""
    rows = session.execute(
        select(Round.state, Round.error)
        .where(Round.run_id == run_id, Round.number > 0, Round.state != RoundState.OPEN)
        .order_by(Round.number.desc())
    ).tuples()
    count, why = 0, ""
    for state, error in rows:
        if state != RoundState.REFUSED:
            break
        count, why = count + 1, why or (error or {}).get("message", "")
    return count, why
