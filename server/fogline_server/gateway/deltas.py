"""Which deltas a device is offered, and what of an artifact, or of deltas that lead to it, it may read."""

from __future__ import annotations

from sqlalchemy.orm import Session

from fogline_server.db.base import utc_now
from fogline_server.devices.service import require_admitted
from fogline_server.registry.deltas import service
from fogline_server.registry.measurements import offers as measurements
from fogline_server.rollouts import desired
from fogline_server.rollouts.tables import Desired
from fogline_shared.delta import VERSION
from fogline_shared.errors import NotFound
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.wire import deltas_to_pb

# A device has two slots; more is not looked at.
_MOST_HELD = 8


def offered(device_id: str, request: pb.DeltasRequest, session: Session) -> pb.DeltasReply:
    """The cheapest way to an artifact the device should run or measure; raises NotFound ``blob_not_found`` for any other."""
    require_admitted(session, device_id)
    row = session.get(Desired, device_id)
    sizes = measurements.artifacts_of(session, device_id, now=utc_now())
    if row is not None and desired.reads(session, device_id, request.target_digest):
        sizes[row.artifact_digest] = row.artifact_size
    size = sizes.get(request.target_digest)
    if size is None:
        raise NotFound("blob_not_found", f"no artifact {request.target_digest[:80]!r} for this device")
    if request.version < VERSION:
        return pb.DeltasReply()
    held = request.held[:_MOST_HELD]
    return deltas_to_pb(service.way(session, request.target_digest, size, held))


def assignment_reading(session: Session, device_id: str, digest: str) -> str | None:
    """The assignment for which the device may fetch a blob, as its artifact or as a delta on the way; None: it may not."""
    row = session.get(Desired, device_id)
    if row is None:
        return None
    may = desired.reads(session, device_id, digest) or service.leads_to(session, digest, row.artifact_digest)
    return row.assignment_id if may else None


def measurement_reading(session: Session, device_id: str, digest: str) -> bool:
    """Whether the device may fetch a blob to measure it, or because it leads to what it is to measure."""
    measured = measurements.artifacts_of(session, device_id, now=utc_now())
    return digest in measured or any(service.leads_to(session, digest, target) for target in measured)
