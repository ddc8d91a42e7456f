"""Why a device does not take part in a run, in words: by the very rules that choose cohorts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.devices import service as devices
from fogline_server.training import attempts
from fogline_server.training.asynchronous import buffer
from fogline_server.training.asynchronous.buffer import Busy
from fogline_server.training.checkpoint import wanted
from fogline_server.training.service import get_run
from fogline_server.training.spec import RunSpec
from fogline_server.training.tables import Round, Run, Task, Update
from fogline_shared.eligibility import Reason
from fogline_shared.states import RoundState, RunState

# The code of a reply in which a device says that it does not meet the run's conditions.
NOT_ELIGIBLE = "not_eligible"


@dataclass(frozen=True, kw_only=True)
class WhyNot:
    """``reasons`` is empty when the next round may choose the device. ``round``: the open one; None: there is none.

    ``notes``: sentences on what the reasons do not tell: the round that is under way, the lot, what the device said itself.
    """

    device_id: str
    run_id: str
    eligible: bool
    reasons: Sequence[Reason]
    round: int | None
    taking_part: bool
    notes: Sequence[str]


def why_not(session: Session, device_id: str, run_id: str, *, now: datetime) -> WhyNot:
    """How the device stands to the run now; raises NotFound ``device_not_found`` or ``run_not_found``."""
    device, run = devices.get_device(session, device_id), get_run(session, run_id)
    spec = RunSpec.from_json(run.spec)
    latest = session.scalars(
        select(Round).where(Round.run_id == run_id).order_by(Round.number.desc()).limit(1)
    ).one_or_none()
    started = latest if latest is not None and latest.state == RoundState.OPEN else None
    # A run that takes its teacher's statistics, or a release's, has no round 0.
    known = spec.distil_from is not None or run.statistics is not None
    number = latest.number + (not _waits(latest)) if latest is not None else int(known)
    reasons = [] if run.finished_at is None else [Reason("run_ended", f"is not asked: the run is {run.state}")]
    reasons += devices.ineligible_reasons(device, wanted(run, spec, number), now=now)
    taking_part = started is not None and device_id in started.cohort
    busy = None
    if spec.rule().asynchronous:
        busy = buffer.busy_with(session, run_id, device_id, now=now)
        # It may have been asked many steps before, or have been taken already.
        taking_part = busy is not None if number > 1 else taking_part
    notes = [
        *_standing(run, spec, started, taking_part=taking_part),
        *([] if busy is None else _at_work(busy, latest)),
        *([] if reasons or busy is not None else _prospects(session, run, spec, number, device_id, now=now)),
        *_said(session, device_id, run_id),
    ]
    return WhyNot(
        device_id=device_id,
        run_id=run_id,
        eligible=not reasons,
        reasons=reasons,
        round=None if started is None else started.number,
        taking_part=taking_part,
        notes=notes,
    )


def _standing(run: Run, spec: RunSpec, started: Round | None, *, taking_part: bool) -> Iterator[str]:
    if run.state == RunState.PAUSED:
        yield "the run is PAUSED: no further round is opened before it is resumed"
    if started is None:
        return
    tried, most = attempts.number_of(started), spec.pacing.retries + 1
    if _waits(started):
        failed = started.attempts[-1]
        yield f"round {started.number} waits for another cohort: attempt {tried - 1} of {most} failed, {failed['message']}"
        return
    yield f"round {started.number} is under way {'with' if taking_part else 'without'} it"
    if tried > 1:
        last = ", the last: if it fails, so does the run" if tried == most else ""
        yield f"this is attempt {tried} of {most}{last}"


def _at_work(busy: Busy, latest: Round | None) -> Iterator[str]:
    behind = 0 if latest is None else latest.number - busy.round
    began = f"it began with round {busy.round}" + (
        f", {behind} {'step' if behind == 1 else 'steps'} ago" if behind else ""
    )
    yield f"it is at work: {began}" if not busy.waits else f"its update waits for a step to take it: {began}"


def _waits(row: Round) -> bool:
    """Whether a round is between two attempts: it has failed with a cohort, and has no other yet."""
    return row.state == RoundState.OPEN and not row.cohort and bool(row.attempts)


def _prospects(
    session: Session, run: Run, spec: RunSpec, number: int, device_id: str, *, now: datetime
) -> Iterator[str]:
    """What the next choice will do with a device that it may choose."""
    if number > spec.total_rounds:
        yield "the run has no further round"
        return
    fleet = len(devices.eligible(session, wanted(run, spec, number), now=now))
    asked = attempts.to_ask(spec, attempts.pace(session, run.id, spec, now=now), fleet=fleet)
    if (left := attempts.rest_left(session, run.id, spec, device_id, fleet=fleet, asked=asked)) is not None:
        again = f"from round {number + left} on it may be asked again, before only if there are too few others"
        yield f"it rests, since it was asked lately: {again}"
        return
    most = asked if spec.pacing.target is not None else spec.max_devices
    lot = "" if most is None else f"; at most {most} devices are drawn, by lot"
    yield f"round {number} may choose it{lot}"


def _said(session: Session, device_id: str, run_id: str) -> Iterator[str]:
    """The device's own refusal, if that is its last answer: it knows better than what it told last."""
    last = (
        select(Task.round, Update.code, Update.reason)
        .join(Update, Update.task_id == Task.id)
        .where(Task.run_id == run_id, Task.device_id == device_id)
        .order_by(Task.created_at.desc(), Task.id.desc())
        .limit(1)
    )
    answer = session.execute(last).tuples().one_or_none()
    if answer is not None and answer[1] == NOT_ELIGIBLE:
        yield f"it refused its task of round {answer[0]} itself: {answer[2]}"
