"""Whether there is room, whether it may be written, whether what was written can be read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing

from fogline_client import durable
from fogline_client.doctor.findings import Finding
from fogline_client.doctor.patient import Patient
from fogline_client.journal import read_ledger
from fogline_client.telemetry.spool import CAPACITY
from fogline_shared.errors import Corrupt, FoglineError
from fogline_shared.protocol import TaskReply
from fogline_shared.states import AssignmentState

MB = 1 << 20
# The journal, the spool and an identity want a megabyte; an update wants its artifact twice.
_FULL_BYTES, _LOW_BYTES = 2 * MB, 64 * MB
_FULL_FILES = 100
_LOW_MEMORY = 32 * MB


def room(patient: Patient) -> Iterator[Finding]:
    """Free space, and free memory."""
    machine, root = patient.machine, patient.state.root
    means = "the device predicts; updates, telemetry and the renewal of its certificate wait for room"
    do = f"free some (`du -x {root.absolute()}` shows what is the agent's)"
    if machine.free_bytes < _FULL_BYTES:
        yield Finding("disk_full", f"{machine.free_bytes / MB:.1f} MB are free for {root}", means, do)
    elif machine.free_files < _FULL_FILES:
        yield Finding("disk_full", f"{machine.free_files} files may still be made on the disk of {root}", means, do)
    elif machine.free_bytes < _LOW_BYTES:
        found = f"{machine.free_bytes / MB:.0f} MB are free for {root}"
        yield Finding("disk_low", found, "an update may not find room beside the model that serves", do, serious=False)
    if machine.read_only:
        yield Finding(
            "disk_read_only",
            f"the file system of {root} is mounted read-only",
            "the device predicts on the model it has; it takes no update and forgets telemetry. Linux remounts a disk "
            "read-only when it fails",
            "see `dmesg`; check the disk and mount it for writing",
        )
    if machine.free_memory < _LOW_MEMORY:
        found = f"{machine.free_memory / MB:.0f} MB of memory are free"
        means = "the kernel may end the agent, or a training, at any time"
        yield Finding("memory_low", found, means, "end other programs, or let the device only infer", serious=False)


def journal(patient: Patient) -> Iterator[Finding]:
    """What the agent was about to do."""
    try:
        ledger = read_ledger(patient.state.journal)
    except Corrupt as error:
        means = "the agent will start anew from what the coordinator desires; the active model serves"
        yield Finding(error.code, error.message, means, "start the agent: it writes the journal anew; check the disk")
        return
    attempt = ledger.attempt
    new = attempt or (ledger.watch if ledger.watch is not None and not ledger.watch.over else None)
    if new is not None and new.starts > 1:
        yield Finding(
            "crash_loop",
            f"the agent was started {new.starts} times since it took the model of generation {new.desired.generation}",
            "the new model may end the process; at the fourth start the agent goes back to the one before",
            "see the agent's log",
            serious=False,
        )
    if attempt is not None and not patient.running:
        found = f"an update was under way ({attempt.step}) when the agent ended"
        yield Finding("update_unfinished", found, "it goes on where it was", "start the agent", serious=False)


def spool(patient: Patient) -> Iterator[Finding]:
    """What waits for the coordinator."""
    path = patient.state.spool
    again = "the agent starts it anew and keeps the damaged file beside it; what was in it is lost"
    if path.with_name(path.name + ".damaged").exists():
        found = f"{path.name} was damaged once and begun anew"
        do = "check the disk and the power supply, then remove the file"
        yield Finding("spool_was_damaged", found, "the telemetry in it is lost", do, serious=False)
    if not path.exists():
        return
    try:
        # On a read-only disk SQLite cannot make the files it shares with others; nobody writes there anyway.
        mode = "immutable=1" if patient.machine.read_only else "mode=ro"
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=2.0)) as db:
            sound = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if sound != "ok":
                raise sqlite3.DatabaseError(sound)
            reports = db.execute("SELECT body FROM frames WHERE kind = 'Report' ORDER BY seq").fetchall()
            (waiting,) = db.execute("SELECT count(*) FROM frames").fetchone()
            (dropped,) = db.execute("SELECT coalesce(sum(value), 0) FROM counters WHERE name = 'dropped'").fetchone()
    except sqlite3.OperationalError as error:
        found = f"{path} does not open: {error}"
        yield Finding("spool_not_readable", found, "it cannot be looked at now", "look again later", serious=False)
        return
    except sqlite3.DatabaseError as error:
        yield Finding("spool_damaged", f"{path}: {error}", again, "restart the agent; check the disk")
        return
    yield from _refused_models([body for (body,) in reports])
    if dropped:
        found = f"{dropped} windows of telemetry were dropped, the oldest first"
        means = "the device was offline longer than its spool is long; the coordinator is told how many"
        yield Finding("windows_dropped", found, means, "nothing, or bring the device online more often", serious=False)
    if waiting > CAPACITY // 2:
        found = f"{waiting} reports and windows wait for the coordinator"
        means = f"of each kind {CAPACITY} are kept, then the oldest go"
        yield Finding("spool_filling", found, means, "bring the device online", serious=False)


def _refused_models(reports: Sequence[str]) -> Iterator[Finding]:
    """What the device refused to install, or went back from, and the coordinator does not know yet."""
    for body in reports:
        report = json.loads(body)
        if report.get("state") in {AssignmentState.REVERTED, AssignmentState.REJECTED}:
            yield Finding(
                "model_refused",
                f"the model of generation {report.get('generation')} was not kept: {report.get('code')}: {report.get('message')}",
                "the model before serves; the coordinator is told when the device is connected",
                "tell whoever builds the releases",
                serious=False,
            )


def outbox(patient: Patient) -> Iterator[Finding]:
    """Replies of trainings."""
    waiting = sorted(patient.state.outbox.glob("*.json"))
    for path in waiting:
        try:
            reply = TaskReply(**durable.read_json(path, code="bad_reply"))
            blob = path.with_suffix(".blob")
            if reply.digest and not (blob.exists() and durable.digest_of(blob) == reply.digest):
                raise Corrupt("bad_reply", f"{path} has lost its arrays")
        except (FoglineError, TypeError) as error:
            means = "a training's answer is lost, as after a power cut; the agent discards it and trains again if asked"
            yield Finding(
                "bad_reply", str(error), means, "nothing; check the power supply if it comes again", serious=False
            )
    if waiting and not patient.running:
        found = f"{len(waiting)} answers of trainings wait to be sent"
        yield Finding("replies_waiting", found, "their rounds may close without them", "start the agent", serious=False)


CHECKS = (room, journal, spool, outbox)
