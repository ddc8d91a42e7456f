"""Which deltas a device is offered, and what of an artifact, or of deltas that lead to it, it may read."""

from __future__ import annotations

from sqlalchemy.orm import Session

from fogline_server.devices.service import require_admitted
from fogline_server.registry.deltas import service
from fogline_server.rollouts import desired
from fogline_server.rollouts.tables import Desired
from fogline_shared.delta import VERSION
from fogline_shared.errors import NotFound
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.wire import deltas_to_pb

# A device has two slots; more is not looked at.
_MOST_HELD = 8


def offered(device_id: str, request: pb.DeltasRequest, session: Session) -> pb.DeltasReply:
    """The cheapest way to the artifact the device should run; raises NotFound ``blob_not_found`` for any other."""
    require_admitted(session, device_id)
    row = session.get(Desired, device_id)
    if row is None or not desired.reads(session, device_id, request.target_digest):
        raise NotFound("blob_not_found", f"no artifact {request.target_digest[:80]!r} for this device")
    if request.version < VERSION:
        return pb.DeltasReply()
    held = request.held[:_MOST_HELD]
    return deltas_to_pb(service.way(session, row.artifact_digest, row.artifact_size, held))


def assignment_reading(session: Session, device_id: str, digest: str) -> str | None:
    """The assignment for which the device may fetch a blob, as its artifact or as a delta on the way; None: it may not."""
    row = session.get(Desired, device_id)
    if row is None:
        return None
    may = desired.reads(session, device_id, digest) or service.leads_to(session, digest, row.artifact_digest)
    return row.assignment_id if may else None
