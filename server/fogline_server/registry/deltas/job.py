"""Build the deltas that lead to a release. A job's body."""

from __future__ import annotations

from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.db.base import utc_now
from fogline_server.jobs.runner import JobContext, Outcome
from fogline_server.registry.deltas import build, service
from fogline_server.registry.deltas.service import Pair
from fogline_shared.delta import NOTHING


def build_deltas(ctx: JobContext) -> Outcome:
    """Those that are smaller than the compressed artifact, and that if it is smaller than the plain one."""
    release_id = str(ctx.spec["release_id"])
    with ctx.db.read() as session:
        pairs = service.wanted(session, release_id)
    kept: list[tuple[Pair, str, int, int]] = []
    for done, pair in enumerate(pairs):
        ctx.lease.progress(done, len(pairs), f"{pair.variant} from {pair.base[:12]}")
        target = ctx.blobs.read(pair.target)
        packed = build.pack(target)
        if pair.base == NOTHING:
            made, limit = packed, len(target)
        else:
            made, limit = build.build(ctx.blobs.read(pair.base), target), min(len(packed), len(target))
        if len(made) < limit:
            blob = ctx.blobs.put([made])
            kept.append((pair, blob.digest, blob.size, len(target)))

    def commit(session: Session) -> None:
        now = utc_now()
        for pair, digest, size, target_size in kept:
            service.add(session, pair, digest=digest, size=size, target_size=target_size, now=now)
        events.record(session, "release.deltas_built", "release", release_id, deltas=len(kept))

    sizes = {f"{pair.variant} from {pair.base[:12]}": size for pair, _, size, _ in kept}
    return Outcome(result={"deltas": sizes}, commit=commit)
