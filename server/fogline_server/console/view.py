"""What the console's page shows: one consistent look at the database, as values for the template."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fogline_server.console.charts import Chart, Series, chart
from fogline_server.db import events
from fogline_server.db.events import Event
from fogline_server.devices.service import is_online
from fogline_server.devices.tables import Device
from fogline_server.jobs.service import list_jobs
from fogline_server.jobs.tables import Job
from fogline_server.registry import left_out
from fogline_server.registry.left_out import LeftOut
from fogline_server.registry.notes import Note, notes_of
from fogline_server.registry.service import list_aliases, list_releases, variants_of
from fogline_server.registry.tables import Release, Variant
from fogline_server.rollouts.service import list_rollouts, stages_of
from fogline_server.rollouts.tables import Assignment, Rollout, Stage
from fogline_server.search.service import list_searches
from fogline_server.search.tables import Search
from fogline_server.training.service import list_runs, rounds_of
from fogline_server.training.tables import Run
from fogline_shared.states import ROLLOUT, DeviceState, JobState, RolloutState, RoundState, RunState, StageState

DEVICES_SHOWN = 100
_ACCURACIES = {"holdout_accuracy": "holdout", "accuracy": "devices"}


@dataclass(frozen=True, kw_only=True)
class DeviceCard:
    """A device, whether it is online, and the release its active artifact belongs to."""

    device: Device
    online: bool
    release: str


@dataclass(frozen=True, kw_only=True)
class RunPanel:
    """A run with its curves; None where nothing has been measured yet.

    ``failed``: attempts at rounds that came to nothing. ``refusals``: rounds that the gate refused, ``why`` the last of them.
    """

    run: Run
    accuracy: Chart | None
    loss: Chart | None
    refused: int
    failed: int
    refusals: int
    why: str


@dataclass(frozen=True, kw_only=True)
class StagePanel:
    """A stage and how many of its devices are in which state; ``reached``: false once it can no longer begin."""

    stage: Stage
    devices: dict[str, int]
    reached: bool


@dataclass(frozen=True, kw_only=True)
class RolloutPanel:
    """A rollout and its stages. ``caught_up``: devices by state that came to it after its last stage."""

    rollout: Rollout
    release: str
    stages: Sequence[StagePanel]
    caught_up: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class ReleaseRow:
    release: Release
    variants: Sequence[Variant]
    left_out: Sequence[LeftOut]
    notes: Sequence[Note]
    aliases: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class SearchRow:
    """A compression search, its job, and the name of the release whose student it compresses."""

    search: Search
    job: Job
    release: str


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Everything on the page. ``seq``: the last event it includes."""

    seq: int
    now: datetime
    devices_total: int
    devices_online: int
    devices: Sequence[DeviceCard]
    runs: Sequence[RunPanel]
    rollouts: Sequence[RolloutPanel]
    jobs: Sequence[Job]
    jobs_by_state: dict[str, int]
    releases: Sequence[ReleaseRow]
    searches: Sequence[SearchRow]
    events: Sequence[Event]


def overview(session: Session, *, now: datetime) -> Overview:
    """The page as of ``now``."""
    releases = list_releases(session, limit=8)
    rows = [
        ReleaseRow(
            release=release,
            variants=variants_of(session, release.id),
            left_out=left_out.of_release(release),
            notes=notes_of(session, release.id, last=3),
            aliases=[alias.name for alias in list_aliases(session, release.id)],
        )
        for release in releases
    ]
    admitted = Device.state != DeviceState.REVOKED
    return Overview(
        seq=events.last_seq(session),
        now=now,
        devices_total=session.scalar(select(func.count()).select_from(Device).where(admitted)) or 0,
        devices_online=_online(session, now),
        devices=_cards(session, now),
        runs=[_run_panel(session, run) for run in _current_runs(session)],
        rollouts=[_rollout_panel(session, rollout) for rollout in list_rollouts(session, limit=3)],
        jobs=[job for job in list_jobs(session, limit=60) if job.parent_id is None][:10],
        jobs_by_state=dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all()),
        releases=rows,
        searches=[
            SearchRow(search=search, job=job, release=session.get_one(Release, search.release_id).name)
            for search, job in list_searches(session, limit=3)
        ],
        events=events.latest_events(session, limit=15),
    )


def _online(session: Session, now: datetime) -> int:
    holds = (Device.state == DeviceState.ACTIVE, Device.lease_until > now)
    return session.scalar(select(func.count()).select_from(Device).where(*holds)) or 0


def _cards(session: Session, now: datetime) -> list[DeviceCard]:
    query = select(Device).where(Device.state != DeviceState.REVOKED).order_by(Device.name).limit(DEVICES_SHOWN)
    devices = session.scalars(query).all()
    digests = {device.active_digest for device in devices if device.active_digest}
    named = session.execute(
        select(Variant.digest, Release.name)
        .join(Release, Release.id == Variant.release_id)
        .where(Variant.digest.in_(digests))
    )
    names = dict(named.all())
    return [
        DeviceCard(
            device=device,
            online=is_online(device, now),
            release=names.get(device.active_digest, device.active_digest[:8]),
        )
        for device in devices
    ]


def _current_runs(session: Session) -> Sequence[Run]:
    """The latest runs, those that still go on first."""
    runs = list_runs(session, limit=4)
    over = {RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELED}
    return sorted(runs, key=lambda run: run.state in over)


def _run_panel(session: Session, run: Run) -> RunPanel:
    told = rounds_of(session, run.id)
    rounds = [r for r in told if r.number > 0 and r.closed_at is not None]
    refused = [r for r in rounds if r.state == RoundState.REFUSED]

    def series(metric: str, name: str) -> Series:
        points = [(float(r.number), r.metrics[metric]) for r in rounds if _is_number(r.metrics.get(metric))]
        return Series(name=name, points=points)

    return RunPanel(
        run=run,
        accuracy=chart(
            [series(metric, name) for metric, name in _ACCURACIES.items()], x_max=run.rounds_total, percent=True
        ),
        loss=chart([series("loss", "loss")], x_max=run.rounds_total, percent=False),
        refused=sum(r.metrics.get("refused", 0) for r in rounds),
        failed=sum(len(r.attempts) for r in told),
        refusals=len(refused),
        why=(refused[-1].error or {}).get("message", "") if refused else "",
    )


def _rollout_panel(session: Session, rollout: Rollout) -> RolloutPanel:
    counted = select(Assignment.stage, Assignment.state, func.count()).where(Assignment.rollout_id == rollout.id)
    by_stage: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for number, state, count in session.execute(counted.group_by(Assignment.stage, Assignment.state)):
        by_stage[number][state] = count
    stages = stages_of(session, rollout.id)
    over = rollout.state == RolloutState.ROLLING_BACK or ROLLOUT.terminal(RolloutState(rollout.state))
    return RolloutPanel(
        rollout=rollout,
        release=session.get_one(Release, rollout.release_id).name,
        stages=[
            StagePanel(
                stage=stage, devices=by_stage[stage.number], reached=not over or stage.state != StageState.PENDING
            )
            for stage in stages
        ],
        caught_up=by_stage[len(stages)],
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def job_share(job: Job) -> float:
    """How much of a job is done, from 0 to 1."""
    if job.state == JobState.SUCCEEDED:
        return 1.0
    return min(1.0, job.done / job.total) if job.total else 0.0
