"""Build the deltas that lead to a release. A job's body."""

from __future__ import annotations

from sqlalchemy.orm import Session

from fogline_server.blobs.store import BlobStore
from fogline_server.db import events
from fogline_server.db.base import utc_now
from fogline_server.jobs.runner import JobContext, Outcome
from fogline_server.registry.deltas import build, service
from fogline_server.registry.deltas.service import Pair
from fogline_shared.delta import NOTHING
from fogline_shared.errors import Corrupt, NotFound


def build_deltas(ctx: JobContext) -> Outcome:
    """Those that are smaller than the compressed artifact, and that if it is smaller than the plain one."""
    release_id = str(ctx.spec["release_id"])
    with ctx.db.read() as session:
        pairs = service.wanted(session, release_id)
    kept: list[tuple[Pair, str, int, int]] = []
    skipped = {}
    for done, pair in enumerate(pairs):
        ctx.lease.progress(done, len(pairs), _named(pair))
        target = ctx.blobs.read(pair.target)
        try:
            made = _smallest(ctx.blobs, pair.base, target)
        except (Corrupt, NotFound) as error:
            # A base that is lost helps nobody; the deltas from others do.
            skipped[_named(pair)] = error.code
            continue
        if made is not None:
            blob = ctx.blobs.put([made])
            kept.append((pair, blob.digest, blob.size, len(target)))

    def commit(session: Session) -> None:
        now = utc_now()
        for pair, digest, size, target_size in kept:
            service.add(session, pair, digest=digest, size=size, target_size=target_size, now=now)
        events.record(session, "release.deltas_built", "release", release_id, deltas=len(kept))

    sizes = {_named(pair): size for pair, _, size, _ in kept}
    return Outcome(result={"deltas": sizes, "skipped": skipped}, commit=commit)


def _smallest(blobs: BlobStore, base: str, target: bytes) -> bytes | None:
    """The delta, if it is worth it."""
    packed = build.pack(target)
    if base == NOTHING:
        return packed if len(packed) < len(target) else None
    made = build.build(blobs.read(base), target)
    return made if len(made) < min(len(packed), len(target)) else None


def _named(pair: Pair) -> str:
    return f"{pair.variant} from {'nothing' if pair.base == NOTHING else pair.base[:12]}"
