"""Which deltas there are, which are to be built, and the cheapest way to an artifact from what a device holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fogline_server.devices.tables import Device
from fogline_server.jobs import service as jobs
from fogline_server.registry.model import TEACHER
from fogline_server.registry.tables import Alias, Delta, Release, Variant
from fogline_shared.delta import NOTHING
from fogline_shared.protocol import DeltaStep
from fogline_shared.states import DeviceState

KIND, QUEUE = "deltas", "compute"
CHAMPION = "champion"
# Bases a variant gets deltas from, beside the champion's: what most devices run.
MOST_BASES = 8
# Deltas one after the other at most: each is a pass over the file on the device.
LONGEST = 4


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A delta to be built, of one variant from an artifact of the same variant."""

    variant: str
    base: str
    target: str


def ask(session: Session, release: Release, *, now: datetime) -> None:
    """Have a release's deltas built; asking twice is asking once."""
    jobs.submit(session, KIND, {"release_id": release.id}, queue=QUEUE, now=now, dedupe_key=f"{KIND}:{release.id}")


def wanted(session: Session, release_id: str) -> list[Pair]:
    """The pairs that a release's devices can use and that are not built yet.

    Each variant from nothing, from what devices run now, and from the champion. A teacher stays at the cloud, unless devices
    run one.
    """
    release = session.get_one(Release, release_id)
    targets = {row.name: row.digest for row in _variants(session, release_id)}
    alias = session.get(Alias, CHAMPION)
    champion = {row.name: row.digest for row in _variants(session, alias.release_id)} if alias else {}
    running = _running(session, release.recipe)
    pairs = []
    for name, target in sorted(targets.items()):
        bases = list(running.get(name, ()))
        if name != TEACHER:
            bases += [champion[name]] if name in champion else []
            bases.append(NOTHING)
        pairs += [Pair(variant=name, base=base, target=target) for base in dict.fromkeys(bases) if base != target]
    built = {
        (row.base_digest, row.target_digest)
        for row in session.scalars(select(Delta).where(Delta.target_digest.in_(targets.values())))
    }
    return [pair for pair in pairs if (pair.base, pair.target) not in built]


def _variants(session: Session, release_id: str) -> Sequence[Variant]:
    return session.scalars(select(Variant).where(Variant.release_id == release_id)).all()


def _running(session: Session, recipe: str) -> Mapping[str, list[str]]:
    """Variant → the artifacts of it that most devices run, of any release of the recipe."""
    devices = func.count(Device.id.distinct())
    rows = session.execute(
        select(Variant.name, Variant.digest)
        .join(Release, Release.id == Variant.release_id)
        .join(Device, Device.active_digest == Variant.digest)
        .where(Device.state == DeviceState.ACTIVE, Release.recipe == recipe)
        .group_by(Variant.name, Variant.digest)
        .order_by(devices.desc(), Variant.digest)
    )
    running: dict[str, list[str]] = {}
    for name, digest in rows:
        if len(bases := running.setdefault(name, [])) < MOST_BASES:
            bases.append(digest)
    return running


def add(session: Session, pair: Pair, *, digest: str, size: int, target_size: int, now: datetime) -> None:
    """Keep the row of a stored delta, unless another job has."""
    if session.get(Delta, (pair.target, pair.base)) is None:
        session.add(
            Delta(
                target_digest=pair.target,
                base_digest=pair.base,
                digest=digest,
                size=size,
                target_size=target_size,
                created_at=now,
            )
        )


def of_release(session: Session, release_id: str) -> Sequence[tuple[Variant, Delta]]:
    """The deltas that lead to a release's variants, by variant and size."""
    query = (
        select(Variant, Delta)
        .join(Delta, Delta.target_digest == Variant.digest)
        .where(Variant.release_id == release_id)
        .order_by(Variant.name, Delta.size, Delta.base_digest)
    )
    return [(variant, delta) for variant, delta in session.execute(query)]


def names_of(session: Session, digests: Collection[str]) -> Mapping[str, str]:
    """The newest release that has each artifact, by digest."""
    rows = session.execute(
        select(Variant.digest, Release.name)
        .join(Release, Release.id == Variant.release_id)
        .where(Variant.digest.in_(digests))
        .order_by(Release.id)
    )
    return {row.digest: row.name for row in rows}


def way(session: Session, target: str, target_size: int, held: Collection[str]) -> list[DeltaStep]:
    """The deltas, in order, that bring a device to ``target`` in the fewest bytes; none: the artifact itself is cheapest."""
    best = cheapest(_leading_to(session, target), target, held)
    return best if sum(step.size for step in best) < target_size else []


def cheapest(deltas: Collection[DeltaStep], target: str, held: Collection[str]) -> list[DeltaStep]:
    """The chain of fewest bytes from anything held, or from nothing, to ``target``; none: there is no such chain. Pure."""
    # Shortest paths backwards from the target, one delta longer with each pass (Bellman, 1958).
    ways: dict[str, list[DeltaStep]] = {target: []}
    for _ in range(LONGEST):
        longer = dict(ways)
        for step in deltas:
            if step.target not in ways or step.base == target:
                continue
            through = [step, *ways[step.target]]
            if step.base not in longer or _bytes(through) < _bytes(longer[step.base]):
                longer[step.base] = through
        ways = longer
    return min((ways[start] for start in {NOTHING, *held} - {target} if start in ways), key=_bytes, default=[])


def _bytes(steps: Sequence[DeltaStep]) -> int:
    return sum(step.size for step in steps)


def leads_to(session: Session, digest: str, target: str) -> bool:
    """Whether blob ``digest`` is a delta on a way to ``target``."""
    return any(step.digest == digest for step in _leading_to(session, target))


def _leading_to(session: Session, target: str) -> list[DeltaStep]:
    """Every delta on a way of at most :data:`LONGEST` to ``target``."""
    found: dict[str, DeltaStep] = {}
    seen, ends = {NOTHING}, {target}
    for _ in range(LONGEST):
        rows = session.scalars(select(Delta).where(Delta.target_digest.in_(sorted(ends)))).all()
        found |= {row.digest: _step(row) for row in rows}
        seen |= ends
        ends = {row.base_digest for row in rows} - seen
        if not ends:
            break
    return list(found.values())


def _step(row: Delta) -> DeltaStep:
    return DeltaStep(
        digest=row.digest, size=row.size, base=row.base_digest, target=row.target_digest, target_size=row.target_size
    )
