"""A coordinator's database with something of everything in it, written as the features write it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from fogline_server.access import service as access
from fogline_server.access.keys import KeyRing, Role
from fogline_server.actions import actions
from fogline_server.batch.model import BatchSpec
from fogline_server.batch.places import Places
from fogline_server.batch.service import submit_batch
from fogline_server.batch.tables import Shard
from fogline_server.blobs.store import BlobStore
from fogline_server.db import events
from fogline_server.db.base import new_id, utc_now
from fogline_server.db.database import Database
from fogline_server.devices.tables import Device, EnrollmentToken
from fogline_server.distillation.choice import choose
from fogline_server.jobs import service as jobs
from fogline_server.registry.tables import Alias, Release, Variant
from fogline_server.registry.tick import settle
from fogline_server.rollouts import service as rollouts
from fogline_server.rollouts.plan import RolloutPlan
from fogline_server.rollouts.tables import Assignment, Stage
from fogline_server.schedules.service import ScheduleSpec, create_schedule
from fogline_server.search.model import SearchSpec
from fogline_server.search.service import start_search
from fogline_server.telemetry.drift import DriftLimit
from fogline_server.telemetry.ingest import ingest
from fogline_server.training.service import create_run
from fogline_server.training.spec import RunSpec
from fogline_server.training.tables import Round, Task, Update
from fogline_shared.protocol import TelemetryWindow
from fogline_shared.sketch import Sketch

ARTIFACT = b"the bytes of an artifact"


@dataclass(frozen=True, kw_only=True)
class Population:
    """Ids of what was made."""

    device: str
    offline_device: str
    token: str
    run: str
    finished_run: str
    release: str
    rollout: str
    draft: str
    job: str
    batch: str
    failed_job: str
    failed_batch: str
    schedule: str
    key: str
    search: str
    digest: str
    # Root and targets that are trusted, and a root of strangers; the plant has the keys.
    trusted: list[str] = field(default_factory=list)
    strange_root: list[str] = field(default_factory=list)


def populate(db: Database, blobs: BlobStore, ring: KeyRing) -> Population:
    """Ten devices, two runs, a release with an alias, a rollout in its first stage and a draft, jobs, a schedule."""
    now = utc_now()
    digest = blobs.put([ARTIFACT]).digest
    with db.transaction() as session:
        devices = [_device(f"watch-{n:02}", n, digest, now) for n in range(1, 11)]
        session.add_all(devices)
        token = EnrollmentToken(
            id=new_id("tok"), secret_hash="0" * 64, tags=["lab"], expires_at=now + timedelta(hours=1), created_at=now
        )
        session.add(token)
        finished = create_run(session, RunSpec(recipe="tiny", size="student", rounds=8), now=now)
        finished.state, finished.rounds_done, finished.finished_at = "SUCCEEDED", 8, now
        finished.params_digest, finished.statistics = digest, {"mean": [0.0] * 6, "scale": [1.0] * 6}
        run = create_run(session, RunSpec(recipe="tiny", size="teacher", rounds=8), now=now)
        run.state, run.rounds_done = "RUNNING", 5
        session.flush()
        _rounds(session, finished.id, 8, devices, now)
        _rounds(session, run.id, 5, devices, now)
        training = jobs.get_job(session, run.job_id)
        training.state, training.done, training.started_at = "RUNNING", 5, now - timedelta(seconds=50)
        training.message = "round 6: 7 of 10 replies"
        # That nothing needs.
        _release(session, digest, finished.id, now, name="idle")
        release = _release(session, digest, finished.id, now)
        session.add(Alias(name="champion", release_id=release.id, moved_at=now))
        session.flush()
        search = start_search(session, release.id, SearchSpec(), now=now, actor="test")
        rollout, draft = _rollouts(session, release.id, devices, now)
        batch = _batch(session, release.id, now)
        failed = jobs.submit(session, "quantize", {"release_id": "rel_x"}, queue="compute", now=now)
        failed.state, failed.error = "FAILED", {"code": "int8_too_bad", "message": "int8 loses 4.1 % against float"}
        failed_batch = jobs.submit(session, "batch", {"release_id": release.id}, queue="compute", now=now)
        failed_batch.state, failed_batch.error = "FAILED", {"code": "input_not_found", "message": "there is no file"}
        schedule = create_schedule(
            session,
            ScheduleSpec(name="nightly", action="run", spec={"recipe": "tiny"}, cron="0 3 * * *"),
            actions=actions(Places.of(Path("/data"))),
            now=now,
            actor="test",
        )
        _telemetry(session, devices, digest, now)
        key, _ = access.create_key(session, ring, name="spare", role=Role.VIEWER, now=now)
        events.record(session, "note.made", "device", devices[0].id, text="é ✓ <script>alert(1)</script>")
        session.flush()
        return Population(
            device=devices[0].id,
            offline_device=devices[-1].id,
            token=token.id,
            run=run.id,
            finished_run=finished.id,
            release=release.id,
            rollout=rollout,
            draft=draft,
            job=training.id,
            batch=batch,
            failed_job=failed.id,
            failed_batch=failed_batch.id,
            schedule=schedule.id,
            key=key.id,
            search=search.id,
            digest=digest,
        )


def _device(name: str, number: int, digest: str, now: datetime) -> Device:
    online = number < 10
    return Device(
        id=new_id("dev"),
        name=name,
        node_id=number,
        state="ACTIVE",
        tags=["lab"],
        attributes={"arch": "x86_64"},
        recipes=["tiny"],
        agent_version="0.1.0",
        active_digest=digest if number < 4 else "",
        lease_until=now + timedelta(hours=1) if online else now - timedelta(hours=3),
        created_at=now,
        last_seen_at=now if online else now - timedelta(hours=3),
    )


def _rounds(session, run_id: str, count: int, devices: list[Device], now: datetime) -> None:
    for number in range(count + 1):
        learned = 1 - 0.75 ** (number + 1)
        metrics = {} if number == 0 else {"loss": 1.9 * (1 - learned) + 0.1, "holdout_accuracy": 0.3 + 0.6 * learned}
        metrics |= {"accepted": 9, "refused": 1 if number == 3 else 0}
        row = Round(run_id=run_id, number=number, state="COMMITTED", cohort=[d.id for d in devices], metrics=metrics)
        row.started_at = row.closed_at = now
        session.add(row)
    task = Task(id=f"{run_id}-1-train-1", run_id=run_id, round=1, kind="train", device_id=devices[0].id)
    task.recipe, task.records, task.blobs, task.message_type, task.group_id = "tiny", {}, [], "train", "1"
    task.node_id, task.max_reply_bytes, task.deadline, task.created_at, task.closed = 1, 1, now, now, True
    session.add(task)
    session.flush()
    session.add(
        Update(task_id=task.id, records={}, verdict="REFUSED", code="not_finite", reason="NaN", received_at=now)
    )


def _release(session, digest: str, run_id: str, now: datetime, *, name: str = "tiny-1") -> Release:
    release = Release(
        id=new_id("rel"), name=name, recipe="tiny", state="BUILDING", default_variant="student_int8", created_at=now
    )
    right = np.arange(200) < 176
    release.lineage = {"runs": {"student": run_id}}
    release.report = {"choice": choose({"student": right, "distilled": np.roll(right, 1)}).as_json()}
    session.add(release)
    session.flush()
    numbers = {"teacher_fp32": (0.91, 220.0), "student_fp32": (0.88, 39.0), "student_int8": (0.878, 41.5)}
    for variant, (accuracy, p50) in numbers.items():
        metrics = {"accuracy": accuracy, "worst_class_accuracy": accuracy - 0.1, "p50_us": p50}
        session.add(Variant(release_id=release.id, name=variant, digest=digest, size=len(ARTIFACT), metrics=metrics))
    session.flush()
    assert settle(session, release.id, now=now)
    return release


def _rollouts(session, release_id: str, devices: list[Device], now: datetime) -> tuple[str, str]:
    plan = RolloutPlan(stages=(30.0, 100.0))
    draft = rollouts.create_rollout(session, release_id, plan, now=now, actor="test")
    rollout = rollouts.create_rollout(session, release_id, plan, now=now, actor="test")
    rollouts.start(session, rollout.id, now=now, actor="test")
    rollout.state, rollout.started_at = "RUNNING", now
    stage = session.get_one(Stage, (rollout.id, 0))
    stage.state, stage.started_at, stage.soak_until = "SOAKING", now, now + timedelta(minutes=1)
    seen = {"observed": 0.002, "limit": 0.05, "samples": 480, "devices": 3}
    stage.evidence = [{"gate": "error_rate", "verdict": "HOLD", "reason": "480 predictions, 1 error"} | seen]
    for device, state in zip(devices[:3], ("SUCCEEDED", "SUCCEEDED", "PROBATION"), strict=True):
        made = Assignment(id=new_id("asg"), rollout_id=rollout.id, device_id=device.id, stage=0, state=state)
        made.created_at = made.updated_at = now
        session.add(made)
    return rollout.id, draft.id


def _batch(session, release_id: str, now: datetime) -> str:
    spec = BatchSpec(release_id=release_id, input="/data/in.parquet", output="/data/out.parquet")
    job = submit_batch(session, spec, places=Places.of(Path("/data")), now=now, actor="test")
    job.state, job.done, job.total, job.started_at = "RUNNING", 62_000, 100_000, now - timedelta(seconds=9)
    child = jobs.submit(session, "batch_shard", {}, queue="compute", now=now, parent_id=job.id)
    session.flush()
    session.add(Shard(job_id=job.id, number=0, shard_job_id=child.id, first_row=0, rows=100_000))
    return job.id


def _telemetry(session, devices: list[Device], digest: str, now: datetime) -> None:
    for device in devices[:3]:
        latency, confidence = Sketch(), Sketch()
        for value in range(30, 60):
            latency.add(value)
            confidence.add(value + 40)
        end = now.timestamp()
        window = TelemetryWindow(
            boot_id="boot",
            seq=1,
            artifact_digest=digest,
            start=end - 10,
            end=end,
            predictions=31,
            errors=1,
            latency_us=latency,
            confidence_pct=confidence,
            labelled=30,
            correct=27,
            class_counts=[10, 10, 10],
            drift={"mean_0": 0.4, "spread_0": 0.01},
            drift_inputs=240,
        )
        ingest(session, device.id, window, now=now, drift_limit=DriftLimit(reports=1))
