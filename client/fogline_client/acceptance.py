"""Takes what an enrolment brought, an identity and a root of trust: both, or neither, wherever the power is cut.

The token is spent by then, so nothing may be lost; and an identity beside the root of another coordinator would refuse every update.
"""

from __future__ import annotations

from dataclasses import asdict

import structlog

from fogline_client import durable, identity
from fogline_client.config import StateDir
from fogline_client.identity import Identity
from fogline_client.trust import check
from fogline_shared.errors import Exhausted

log = structlog.get_logger()


def accept(state: StateDir, issued: Identity, root: bytes) -> None:
    """Replace identity and root (empty: none yet), and forget what an earlier coordinator wanted; raises Exhausted ``disk_full``."""
    durable.write_json(state.enrolled, {"identity": asdict(issued), "root": root.decode("latin-1")}, mode=0o600)
    finish(state)


def finish(state: StateDir) -> None:
    """Go on where a power cut came between, if one did; raises Exhausted ``disk_full``, ``disk_read_only``."""
    raw = durable.read_json(state.enrolled, code="bad_identity")
    if raw is None:
        return
    with durable.full_disk_named(state.journal):
        state.journal.unlink(missing_ok=True)
    check.begin(state.trust, raw["root"].encode("latin-1"))
    identity.save(Identity(**raw["identity"]), state.identity)
    state.enrolled.unlink()
    # Found again later, it would bring back a certificate that was renewed meanwhile.
    durable.flush_path(state.root)


def finish_if_possible(state: StateDir) -> None:
    """:func:`finish`, unless the disk is full or read-only: a device predicts also then."""
    try:
        finish(state)
    except Exhausted as error:
        log.warning("enrolment not finished", code=error.code, reason=error.message)
