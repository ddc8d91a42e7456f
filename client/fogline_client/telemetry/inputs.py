"""Counts inputs for drift, at next to no cost for the call that brings them: a copy now, the arithmetic when a window ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fogline_shared.drift import FEWEST, Features, InputCounts, Reference
from fogline_shared.manifest import Manifest

# At most one input is looked at in so many seconds.
EVERY_S = 0.05
# Of the copies that wait for the end of a window, by artifact.
_MOST_BYTES = 1 << 20
_MOST_COPIES = 1024
# Artifacts whose counts are kept until they are enough: the active one, the one before, personal ones.
_MOST_ARTIFACTS = 4


@dataclass(frozen=True, kw_only=True)
class Drift:
    """By feature its population stability index, over so many inputs."""

    psi: Mapping[str, float] = field(default_factory=dict)
    inputs: int = 0


class Copies:
    """Inputs of one artifact in one window. The caller holds the lock."""

    def __init__(
        self, reference: Reference, shape: tuple[int, ...], *, every_s: float, clock: Callable[[], float]
    ) -> None:
        self.reference, self.shape = reference, shape
        self.taken: list[NDArray[np.float32]] = []
        self._features = Features(shape)
        self._every_s, self._clock = every_s, clock
        self._next, self._room = -np.inf, _MOST_COPIES

    def add(self, x: ArrayLike) -> None:
        """Keep what is looked at of one example, if it is time for one and there is room."""
        now = self._clock()
        if now < self._next or len(self.taken) >= self._room:
            return
        self._next = now + self._every_s
        copy = self._features.take(np.asarray(x).reshape(1, *self.shape))
        self.taken.append(copy)
        self._room = min(_MOST_COPIES, max(1, _MOST_BYTES // copy.nbytes))


class Inputs:
    """Counts over windows until there are enough for an index. Not thread-safe."""

    def __init__(self) -> None:
        self._counts: dict[str, InputCounts] = {}

    def end_window(self, digest: str, copies: Copies | None) -> Drift:
        """Count the copies; the drift since the one before, if there are ``FEWEST`` inputs by now, else nothing."""
        if copies is None or not copies.taken:
            return Drift()
        counts = self._counts.pop(digest, None) or InputCounts(copies.reference, copies.shape)
        counts.add(np.stack(copies.taken))
        if counts.inputs >= FEWEST:
            return Drift(psi=counts.psi(), inputs=counts.inputs)
        self._counts[digest] = counts
        if len(self._counts) > _MOST_ARTIFACTS:
            del self._counts[next(iter(self._counts))]
        return Drift()


def copies_of(manifest: Manifest | None, *, every_s: float, clock: Callable[[], float]) -> Copies | None:
    """Where to keep inputs of that artifact; None: it has no reference."""
    if manifest is None or manifest.reference is None:
        return None
    return Copies(manifest.reference, manifest.input_shape, every_s=every_s, clock=clock)
