"""Identity, settings, who owns them, the certificate, the clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from fogline_client import config as settings
from fogline_client import identity, state_format
from fogline_client.doctor.findings import Finding
from fogline_client.doctor.patient import Patient
from fogline_client.trust import floor
from fogline_shared.errors import Conflict, Corrupt, FoglineError, Unauthenticated

_ENROLL = "`fogline token create` at the coordinator, then `fogline-agent enroll TOKEN` here"
_AGAIN = (
    "at the coordinator `fogline device revoke` (it frees the device's name) and `fogline token create`, then here "
    "`fogline-agent enroll TOKEN --replace`; settings and model stay"
)
# Before this nobody had this software: a machine without a clock of its own starts in 1970, or when its image was made.
_EARLIEST = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
# For so long a coordinator takes a certificate that has ended, unless it is set otherwise.
_GRACE_S = 180 * 86_400.0
# Files are written a moment after the clock was read, and clocks are mended in small steps.
_SLACK_S = 120.0


def enrolled(patient: Patient) -> Iterator[Finding]:
    """The identity."""
    try:
        identity.load(patient.state.identity)
    except Unauthenticated as error:
        means = "the device has no right to connect, and no way to get a model"
        yield Finding(error.code, f"{patient.state.root} has no identity", means, _ENROLL)
    except Corrupt as error:
        means = "the agent does not start; a process that embeds the Predictor still answers from the active slot"
        yield Finding(error.code, error.message, means, _AGAIN)


def readable(patient: Patient) -> Iterator[Finding]:
    """Whether an agent of this version may touch the folder."""
    try:
        state_format.number_of(patient.state)
    except Conflict as error:
        means = "this agent does not start here, and changes nothing; a process that embeds the Predictor still answers"
        do = "install that version again (`pip install fogline==…`); folders are not brought down"
        yield Finding(error.code, error.message, means, do)
    except Corrupt as error:
        do = f'write {{"format": {state_format.FORMAT}}} into it if this version wrote the folder; check the disk'
        yield Finding(error.code, error.message, "the agent does not start", do)


def configured(patient: Patient) -> Iterator[Finding]:
    """The settings."""
    try:
        settings.load(patient.state.config)
    except FoglineError as error:
        if error.code == "not_configured" and patient.identity is None:
            return  # not enrolled, and said so already
        do = f"mend {patient.state.config}, or write it anew with `fogline-agent enroll TOKEN --replace`"
        yield Finding(error.code, error.message, "the agent does not start", do)


def certificate(patient: Patient) -> Iterator[Finding]:
    """Whether it is valid now."""
    if patient.identity is None:
        return
    try:
        parsed = x509.load_pem_x509_certificate(patient.identity.certificate_pem.encode())
    except ValueError as error:
        yield Finding("bad_identity", f"the certificate cannot be read: {error}", "the coordinator refuses it", _AGAIN)
        return
    begin, end = parsed.not_valid_before_utc.timestamp(), parsed.not_valid_after_utc.timestamp()
    if patient.machine.now >= end:
        returns = bool(patient.identity.enroll_target) and patient.machine.now - end < _GRACE_S
        means = "the device was offline too long to renew it, or its clock is ahead: it predicts, and cannot connect"
        yield Finding(
            "certificate_expired",
            f"the certificate ended {_day(end)}; the clock says {_day(patient.machine.now)}",
            f"{means} until the agent, as soon as it reaches the coordinator, has got the next one"
            if returns
            else means,
            f"bring the device online; if the agent's log then says certificate_too_old, {_AGAIN}"
            if returns
            else f"set the clock if it is wrong, otherwise {_AGAIN}",
            serious=not returns,
        )
    elif patient.machine.now < begin:
        yield Finding(
            "certificate_not_yet_valid",
            f"the certificate begins {_day(begin)}; the clock says {_day(patient.machine.now)}",
            "the clock is behind: no secure connection comes about, the device predicts and gets no update",
            "set the clock (`timedatectl set-ntp true`, or a clock that keeps its time without power)",
        )
    elif patient.machine.now >= patient.identity.renewal_at and not patient.told.get("online"):
        yield Finding(
            "certificate_ends_soon",
            f"the certificate ends {_day(end)} and waits to be renewed",
            "the agent renews it when it is connected; after that day it cannot connect any more",
            "bring the device online before",
            serious=False,
        )


def clock(patient: Patient) -> Iterator[Finding]:
    """The clock, beside the times that are known to have been."""
    now = patient.machine.now
    set_it = "set the clock (`timedatectl set-ntp true`, or a clock that keeps its time without power)"
    if now < _EARLIEST:
        means = "certificates and signatures are judged by the clock: the device predicts, and cannot connect"
        yield Finding("clock_not_set", f"the clock says {_day(now)}", means, set_it)
        return
    known = dict(_known_times(patient))
    if not known:
        return
    what, at = max(known.items(), key=lambda pair: pair[1])
    if now < at - _SLACK_S:
        yield Finding(
            "clock_behind",
            f"the clock says {_day(now)}, but {what} is of {_day(at)}",
            "the clock has jumped back, or was ahead then; signatures are judged by the later time, telemetry by the clock",
            f"{set_it}; if it is right now, nothing",
            serious=False,
        )


def _known_times(patient: Patient) -> Iterator[tuple[str, float]]:
    if patient.identity is not None:
        yield "the enrolment", patient.identity.issued_at
    with suppress(FoglineError):  # the check of trust tells
        yield "the newest signed metadata", floor.load(patient.state.trust.floor).time
    for path in (patient.state.journal, patient.state.spool, patient.state.status):
        if path.exists():
            yield path.name, path.stat().st_mtime


def shown_to_others(patient: Patient) -> Iterator[Finding]:
    """The private key."""
    path = patient.state.identity
    if path.exists() and path.stat().st_mode & 0o077:
        yield Finding(
            "identity_exposed",
            f"{path} may be read by other users (mode {path.stat().st_mode & 0o777:o})",
            "whoever copies the private key in it is this device",
            f"chmod 600 {path}; if others had access, revoke the device and enrol it again",
        )


def owners(patient: Patient) -> Iterator[Finding]:
    """Whether one user owns the folder and what is in it."""
    root = patient.state.root
    owner = root.stat().st_uid
    foreign = next((path for path in _entries(root) if path.lstat().st_uid != owner), None)
    if foreign is not None:
        yield Finding(
            "foreign_owner",
            f"{foreign} belongs to user {foreign.lstat().st_uid}, {root} to user {owner}",
            "somebody ran fogline-agent here as another user: the agent may not be able to write its own files",
            f"chown -R {owner} {root}",
        )
    elif patient.machine.uid not in {0, owner}:
        yield Finding(
            "not_the_owner",
            f"{root} belongs to user {owner}, this is user {patient.machine.uid}",
            "what may not be read cannot be checked",
            "look again as the agent's user, or as root",
            serious=False,
        )


def _entries(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from sorted(path.iterdir())


def _day(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


CHECKS = (readable, enrolled, configured, shown_to_others, owners, certificate, clock)
