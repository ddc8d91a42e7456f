"""What the blob store holds, and the removal of what nobody needs: mark and sweep.

A blob goes when no row needs it and it was written a grace period ago, and before every job that still runs was started: a blob
is written before the row that names it. Rows are read again for each batch, while no writer publishes. Killed anywhere, the next
collection finds what is left to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import func, select

from fogline_server.blobs.store import BlobStore, Freed
from fogline_server.db import events
from fogline_server.db.database import Database
from fogline_server.jobs.tables import Job
from fogline_server.rollouts.tables import Assignment, Rollout
from fogline_server.storage.holders import kinds, needed
from fogline_shared.states import JobState, RolloutState

UNKNOWN = "unknown"
# Writers wait for a batch at most.
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Share:
    """Blobs of a kind: how many, and their bytes in each tier."""

    kind: str
    blobs: int = 0
    hot_bytes: int = 0
    cold_bytes: int = 0
    # Of them, those that no row needs, of any age.
    free_blobs: int = 0
    free_hot_bytes: int = 0
    free_cold_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The store as a whole. ``chunk_bytes``: pieces in the cold tier, which blobs share; they are in no blob's own bytes."""

    shares: tuple[Share, ...]
    chunk_bytes: int
    tiers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What a collection removed, or would remove. ``more``: it stopped at its limit; ``chunk_bytes``: not told beforehand."""

    dry_run: bool
    freed: Freed
    chunk_bytes: int = 0
    more: bool = False


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A blob at rest. ``written_at``: the later of both tiers'; None: one of them does not tell, so it is never old enough."""

    hot_bytes: int
    cold_bytes: int
    written_at: float | None


def standing(db: Database, blobs: BlobStore) -> Standing:
    """What there is, by kind; raises Unavailable ``cold_unreachable``."""
    found = _found(blobs)
    with db.read() as session:
        kind_of, kept = kinds(session), needed(session)
    sums: dict[str, list[int]] = {}
    for digest, each in found.items():
        sizes = [1, each.hot_bytes, each.cold_bytes]
        free = [0, 0, 0] if digest in kept else sizes
        counted = sums.setdefault(kind_of.get(digest, UNKNOWN), [0] * 6)
        sums[kind_of.get(digest, UNKNOWN)] = [a + b for a, b in zip(counted, sizes + free, strict=True)]
    cold = blobs.cold
    return Standing(
        shares=tuple(_share(kind, *counted) for kind, counted in sorted(sums.items())),
        chunk_bytes=0 if cold is None else sum(each.size for each in cold.chunks().values()),
        tiers=("hot",) if cold is None else ("hot", "cold"),
    )


def _share(kind: str, blobs: int, hot: int, cold: int, free: int, free_hot: int, free_cold: int) -> Share:
    return Share(
        kind=kind,
        blobs=blobs,
        hot_bytes=hot,
        cold_bytes=cold,
        free_blobs=free,
        free_hot_bytes=free_hot,
        free_cold_bytes=free_cold,
    )


def collect(
    db: Database, blobs: BlobStore, *, now: float, grace_s: float, dry_run: bool, limit: int, actor: str = events.SYSTEM
) -> Collection:
    """Remove at most ``limit`` blobs that no row needs and that were written before ``now`` - ``grace_s`` (Unix time).

    Raises Unavailable ``cold_unreachable`` and ``storage_busy``; what was removed by then is gone, and was not needed.
    """

    def keep() -> set[str]:
        with db.read() as session:
            return needed(session)

    before = min(now - grace_s, _oldest_job(db))
    found, kept = _found(blobs), keep()
    free = [d for d, f in found.items() if d not in kept and f.written_at is not None and f.written_at <= before]
    more, free = len(free) > limit, sorted(free)[:limit]
    if dry_run:
        return Collection(dry_run=True, freed=sum((_as_freed(found[digest]) for digest in free), Freed()), more=more)
    freed = Freed()
    for batch in _batches(free):
        freed += blobs.remove(batch, before=before, keep=keep)
    chunk_bytes = blobs.remove_unused_chunks(before=before)
    if freed.blobs or chunk_bytes:
        with db.transaction() as session:
            told = {"blobs": freed.blobs, "hot_bytes": freed.hot_bytes, "cold_bytes": freed.cold_bytes + chunk_bytes}
            events.record(session, "storage.collected", "storage", "blobs", actor=actor, **told)
    return Collection(dry_run=False, freed=freed, chunk_bytes=chunk_bytes, more=more)


def prefetch(db: Database, blobs: BlobStore) -> int:
    """Bring back what devices will ask for: artifacts of rollouts under way, and what their devices would return to."""
    live = [RolloutState.SCHEDULED, RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ROLLING_BACK]
    with db.read() as session:
        wanted = set(session.scalars(select(Rollout.artifact_digest).where(Rollout.state.in_(live))))
        returning = select(Assignment.previous_digest).join(Rollout, Rollout.id == Assignment.rollout_id)
        wanted |= set(session.scalars(returning.where(Rollout.state.in_(live)).distinct()))
    return blobs.prefetch(sorted(wanted - {""}))


def _oldest_job(db: Database) -> float:
    """When the oldest running job was started, Unix time: what it has written is in no row yet."""
    with db.read() as session:
        started = session.scalar(select(func.min(Job.started_at)).where(Job.state == JobState.RUNNING))
    return math.inf if started is None else started.timestamp()


def _batches(digests: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(digests), _BATCH):
        yield digests[start : start + _BATCH]


def _found(blobs: BlobStore) -> Mapping[str, _Found]:
    found = {
        digest: _Found(hot_bytes=each.size, cold_bytes=0, written_at=each.used_at)
        for digest, each in blobs.held().items()
    }
    for digest, stored in blobs.cold.listing().items() if blobs.cold is not None else ():
        hot = found.get(digest)
        times = [stored.written_at, hot.written_at if hot else stored.written_at]
        known = [each for each in times if each is not None]
        found[digest] = _Found(
            hot_bytes=hot.hot_bytes if hot else 0,
            cold_bytes=stored.size,
            written_at=max(known) if len(known) == len(times) else None,
        )
    return found


def _as_freed(found: _Found) -> Freed:
    return Freed(blobs=1, hot_bytes=found.hot_bytes, cold_bytes=found.cold_bytes)
