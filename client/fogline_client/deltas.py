"""Brings an artifact by deltas from what the slots hold, where the coordinator has some that are cheaper, else whole.

Nothing of an update depends on deltas: whatever is wrong with one, the whole artifact follows, and what is made is believed by
its digest alone. Each file made appears whole or not at all, so that a power cut costs at most making it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import structlog

from fogline_client import durable
from fogline_client.slots import NAMES, Slots
from fogline_shared import delta
from fogline_shared.delta import NOTHING
from fogline_shared.errors import Corrupt, FoglineError, NotFound, Unavailable
from fogline_shared.protocol import DeltaStep

log = structlog.get_logger()

Fetch = Callable[[str, int, Path], Awaitable[None]]
"""``(digest, size, target)``: bring a blob to ``target``, resuming, believed by its digest."""

Ask = Callable[[str, Sequence[str]], Awaitable[list[DeltaStep]]]
"""``(target, held)``: how the coordinator would make one artifact of others; none: whole."""

# An artifact on the way may be so much larger than the one wanted; the disk has to hold it for a moment.
_GROWTH = 4


class Deltas:
    """``fetch``: how blobs come, and the whole artifact where no delta helps."""

    def __init__(self, slots: Slots, *, ask: Ask, fetch: Fetch) -> None:
        self._slots, self._ask, self._fetch = slots, ask, fetch

    async def fetch(self, digest: str, size: int, target: Path) -> None:
        """Bring an artifact to ``target``, flushed to disk, its SHA-256 checked. Raises as a download of the whole does."""
        # What is half here whole goes on whole.
        if not target.exists() and not target.with_name(target.name + ".part").exists():
            held = await asyncio.to_thread(self._held)
            try:
                steps = await self._steps(digest, size, held)
                if steps:
                    await self._follow(steps, held, target)
                    return
            except (Corrupt, NotFound) as error:
                log.warning("delta refused, fetching the whole artifact", code=error.code, reason=error.message)
        await self._fetch(digest, size, target)

    def _held(self) -> dict[str, Path]:
        """What lies in the slots, by what it hashes to now."""
        paths = [path for path in map(self._slots.path, NAMES) if path.exists()]
        return {durable.digest_of(path): path for path in paths}

    async def _steps(self, digest: str, size: int, held: Mapping[str, Path]) -> list[DeltaStep]:
        try:
            steps = await self._ask(digest, sorted(held))
        except Unavailable:
            raise
        except FoglineError as error:
            log.warning("no deltas", code=error.code, reason=error.message)
            return []
        if steps and not _sound(steps, digest, size, held):
            raise Corrupt("delta_wrong_target", f"the deltas offered do not lead to {digest}", digest=digest)
        return steps

    async def _follow(self, steps: Sequence[DeltaStep], held: Mapping[str, Path], target: Path) -> None:
        folder = target.parent
        log.info("fetching deltas", steps=len(steps), bytes=sum(step.size for step in steps))
        for step in steps:
            made = target if step is steps[-1] else folder / step.target
            if made.exists() and await asyncio.to_thread(durable.digest_of, made) == step.target:
                continue
            fetched = folder / step.digest
            await self._fetch(step.digest, step.size, fetched)
            base = None if step.base == NOTHING else held.get(step.base, folder / step.base)
            await asyncio.to_thread(make, step, fetched, base, made)


def make(step: DeltaStep, fetched: Path, base: Path | None, made: Path) -> None:
    """Apply the delta in ``fetched``; ``made`` then has the digest it should, and is flushed to disk.

    Raises as :func:`fogline_shared.delta.apply` does, and Exhausted ``disk_full``; leaves nothing behind then.
    """
    part = made.with_name(made.name + ".making")
    with durable.full_disk_named(part), contextlib.ExitStack() as files:
        files.callback(part.unlink, missing_ok=True)
        source = files.enter_context(base.open("rb")) if base is not None and base.exists() else None
        with part.open("wb") as out:
            delta.apply(files.enter_context(fetched.open("rb")), source, out, digest=step.target, size=step.target_size)
            out.flush()
            os.fsync(out.fileno())
        durable.move(part, made)


def _sound(steps: Sequence[DeltaStep], digest: str, size: int, held: Mapping[str, Path]) -> bool:
    """Whether the steps lead from something held, or from nothing, to what is wanted, and are worth it."""
    starts = [*held, NOTHING]
    return (
        steps[0].base in starts
        and all(before.target == after.base for before, after in pairwise(steps))
        and (steps[-1].target, steps[-1].target_size) == (digest, size)
        and all(step.target_size <= _GROWTH * size for step in steps)
        and sum(step.size for step in steps) < size
    )
