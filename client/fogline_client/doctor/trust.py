"""May anything be installed: the root of trust, what was seen of it, and how long it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from fogline_client.doctor.findings import Finding
from fogline_client.doctor.patient import Patient
from fogline_client.trust import floor
from fogline_shared.errors import FoglineError

_MEANS = "the device predicts and installs nothing"
_AGAIN = "put root.json back, or enrol again (`fogline-agent enroll TOKEN --replace`, with `--trust-root` if you have the file)"


def root(patient: Patient) -> Iterator[Finding]:
    """The pinned root, and the newest one that it led to."""
    if patient.identity is None:
        return
    trust = patient.state.trust
    if not trust.pinned.exists():
        if trust.floor.exists():
            yield Finding("trust_root_lost", f"{trust.pinned} is gone", _MEANS, _AGAIN)
        else:
            found = "no root of trust is pinned yet"
            do = "nothing: it is taken from the coordinator with the first update"
            yield Finding("trust_not_set_up", found, "the device has not installed anything", do, serious=False)
        return
    try:
        _expires(trust.pinned)
    except ValueError as error:
        yield Finding("bad_trust_root", f"{trust.pinned}: {error}", _MEANS, _AGAIN)
        return
    newest = max((trust.cache / "root_history").glob("*.root.json"), key=_version, default=trust.pinned)
    try:
        end = _expires(newest)
    except ValueError as error:
        found = f"{newest} cannot be read: {error}"
        yield Finding("trust_cache_damaged", found, "it is fetched anew with the next update", "nothing", serious=False)
        return
    if end.timestamp() <= patient.machine.now:
        yield Finding(
            "trust_root_expired",
            f"the newest root of trust here ended {end:%Y-%m-%d} by this device's clock",
            "nothing is installed until the coordinator offers its successor, or the clock is right",
            "bring the device online; if it is, let the owner of the keys sign a new root (docs/trust.md)",
            serious=False,
        )


def seen(patient: Patient) -> Iterator[Finding]:
    """The floor."""
    path = patient.state.trust.floor
    try:
        floor.load(path)
    except FoglineError as error:
        do = f"enrol again; moving {path} away lets the device believe older metadata than it has seen, so know why it broke"
        yield Finding(error.code, error.message, _MEANS, do)


def _expires(path: Path) -> datetime:
    """Raises ValueError when the file is no root."""
    try:
        signed = json.loads(path.read_bytes())["signed"]
        if signed["_type"] != "root":
            raise ValueError(f"it is metadata of type {signed['_type']}")
        return datetime.strptime(signed["expires"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except (KeyError, TypeError) as error:
        raise ValueError("it is no root of trust") from error


def _version(path: Path) -> int:
    number = path.name.split(".")[0]
    return int(number) if number.isdecimal() else 0


CHECKS = (root, seen)
