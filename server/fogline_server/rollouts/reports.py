"""Takes what a device reports about its assignment. Any report may come twice, late, or never."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.devices.tables import Device
from fogline_server.rollouts import desired
from fogline_server.rollouts.tables import Assignment, Desired
from fogline_shared.errors import InvalidInput
from fogline_shared.protocol import Report
from fogline_shared.states import ASSIGNMENT, AssignmentState

# The device itself refused the artifact, or went back from it.
FAILED = frozenset({AssignmentState.REJECTED, AssignmentState.REVERTED})
# What a device may say of itself; the rest is the coordinator's to decide.
REPORTABLE = FAILED | {
    AssignmentState.DOWNLOADING,
    AssignmentState.STAGED,
    AssignmentState.ACTIVATING,
    AssignmentState.PROBATION,
    AssignmentState.SUCCEEDED,
}
_TOLD = FAILED | {AssignmentState.SUCCEEDED}
_LARGEST_SEQ = 2**63 - 1


def take(session: Session, device_id: str, report: Report, *, now: datetime) -> bool:
    """Apply one report; return False when it was taken before or concerns no assignment of this device.

    A report that comes too late to change anything (its assignment has ended, or was taken back) is taken without
    effect, so that the device stops sending it. Raises InvalidInput ``invalid_report`` for a state no device may claim.
    """
    if report.state not in REPORTABLE or not 0 <= report.seq <= _LARGEST_SEQ or not 0 < len(report.boot_id) <= 60:
        raise InvalidInput(
            "invalid_report", f"a device cannot report the state {report.state[:40]!r}, seq {report.seq}"
        )
    assignment = session.get(Assignment, report.assignment_id, with_for_update=True, populate_existing=True)
    if assignment is None or assignment.device_id != device_id:
        return False
    if report.boot_id == assignment.report_boot_id and report.seq <= assignment.report_seq:
        return False
    assignment.report_boot_id, assignment.report_seq = report.boot_id, report.seq
    _note_what_runs(session, device_id, report)
    target = AssignmentState(report.state)
    current = AssignmentState(assignment.state)
    # The attempt above the assignment's own is its take-back: nothing of the assignment changes any more.
    if report.attempt == assignment.attempt and target in ASSIGNMENT.table[current]:
        _move(session, assignment, target, report, now=now)
    elif report.attempt == assignment.attempt and target == current and report.code:
        _note(assignment, report, now=now)  # why a step is tried again
    return True


def _move(session: Session, assignment: Assignment, target: AssignmentState, report: Report, *, now: datetime) -> None:
    assignment.state = ASSIGNMENT.check(AssignmentState(assignment.state), target)
    _note(assignment, report, now=now)
    if target in FAILED:
        desired.take_back(session, assignment, now=now)
    if target in _TOLD:
        events.record(
            session,
            f"assignment.{target.lower()}",
            "assignment",
            assignment.id,
            actor=f"device:{assignment.device_id}",
            rollout_id=assignment.rollout_id,
            device_id=assignment.device_id,
            code=assignment.code,
            message=assignment.message,
        )


def _note(assignment: Assignment, report: Report, *, now: datetime) -> None:
    assignment.code, assignment.message = _clean(report.code)[:100], _clean(report.message)[:2000]
    assignment.updated_at = now


def _note_what_runs(session: Session, device_id: str, report: Report) -> None:
    """A device that succeeded with the present generation runs what it was told to run."""
    row = session.get(Desired, device_id)
    if report.state != AssignmentState.SUCCEEDED or row is None or row.generation != report.generation:
        return
    device = session.get_one(Device, device_id)
    device.active_digest, device.active_generation = row.artifact_digest, row.generation


def _clean(text: str) -> str:
    """PostgreSQL stores no NUL."""
    return text.replace("\x00", "")
