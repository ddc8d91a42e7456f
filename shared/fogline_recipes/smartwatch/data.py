"""seglearn's smartwatch recordings, cut into windows of one person or several."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_shared.errors import Unavailable
from fogline_shared.recipe import Dataset

WIDTH, HOP = 128, 64
PEOPLE = range(1, 11)
CLASSES = (
    "pendulum",
    "abduction",
    "forward_elevation",
    "internal_rotation",
    "external_rotation",
    "trapezius_extension",
    "row",
)


@dataclass(frozen=True, kw_only=True)
class Recordings:
    """Whole recordings end to end, and where windows lie in them: augmentation moves and stretches windows.

    ``series``: (samples, 6) float32. Per window, in samples: ``start``; the recording's ``first`` and ``last`` sample.
    """

    series: NDArray[np.float32]
    start: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Recordings:
        """Of these windows alone; the recordings stay one array."""
        return replace(self, start=self.start[rows], first=self.first[rows], last=self.last[rows])

    @staticmethod
    def joined(parts: Sequence[Recordings]) -> Recordings:
        """Recordings and windows of all parts, in order."""
        offsets = np.cumsum([0, *(len(part.series) for part in parts)])
        moved = list(zip(parts, offsets, strict=False))
        return Recordings(
            series=np.concatenate([part.series for part in parts]),
            start=np.concatenate([part.start + offset for part, offset in moved]),
            first=np.concatenate([part.first + offset for part, offset in moved]),
            last=np.concatenate([part.last + offset for part, offset in moved]),
        )


@lru_cache(maxsize=1)
def _raw() -> dict[str, Any]:
    spec = importlib.util.find_spec("seglearn")
    if spec is None or spec.origin is None:
        raise Unavailable("no_smartwatch_data", "the data comes with the package seglearn: install fogline[demo]")
    # The file holds object arrays: pickle. It is part of a pinned package, as trusted as that package's code.
    raw: dict[str, Any] = np.load(Path(spec.origin).parent / "data" / "watch_dataset.npy", allow_pickle=True).item()
    return raw


def windows(people: Collection[int], *, hop: int) -> Dataset:
    """Every window of those people's recordings, a new one each ``hop`` samples, grouped by recording.

    ``source`` is :class:`Recordings`. Raises Unavailable ``no_smartwatch_data`` when seglearn is not installed.
    """
    raw = _raw()
    chosen = [i for i, person in enumerate(raw["subject"]) if person in people]
    series = [np.asarray(raw["X"][i], dtype=np.float32) for i in chosen]
    offsets = np.cumsum([0, *map(len, series)])
    rows = [
        (offset + start, offset, offset + len(one) - 1, label)
        for one, offset, label in zip(series, offsets[:-1], (int(raw["y"][i]) for i in chosen), strict=True)
        for start in range(0, len(one) - WIDTH + 1, hop)
    ]
    start, first, last, y = np.array(rows, dtype=np.int64).T
    joined = np.concatenate(series)
    x = joined[start[:, None] + np.arange(WIDTH)].transpose(0, 2, 1)
    return Dataset(
        x=np.ascontiguousarray(x),
        y=y.copy(),
        source=Recordings(series=joined, start=start, first=first, last=last),
        groups=first.copy(),
    )
