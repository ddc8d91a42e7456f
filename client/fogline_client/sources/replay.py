"""Replay recorded examples from an ``.npz`` file: ``x`` (n, *input_shape) in raw units and, optionally, ``y`` (n,)."""

from __future__ import annotations

import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fogline_client.sources import _options as options
from fogline_client.sources.base import Sample
from fogline_shared.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Replay:
    """``rate_hz``: examples a second, 0 for no pause; ``loop``: start again at the end; ``labels``: hand on ``y``.

    Options come from text, so numbers and truth values are parsed. Raises InvalidInput ``invalid_source_option``, and
    ``bad_recording`` when the file is not such a recording.
    """

    path: str | Path
    rate_hz: float = 10.0
    loop: bool = True
    labels: bool = True
    flaws: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        options.text(self, "path")
        options.number(self, "rate_hz", low=0, high=1e6)
        options.flag(self, "loop")
        options.flag(self, "labels")

    def samples(self, stop: threading.Event | None = None) -> Iterator[Sample]:
        """The recording, once or for ever."""
        del stop
        x, y = _read(Path(self.path))
        while True:
            for i in range(len(x)):
                yield Sample(x=x[i], truth=int(y[i]) if self.labels and y is not None else None)
            if not self.loop:
                return


SOURCE = Replay


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x = np.asarray(arrays["x"], dtype=np.float32)
            y = np.asarray(arrays["y"], dtype=np.int64) if "y" in arrays else None
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InvalidInput("bad_recording", f"{path} is not a recording: {error}", path=str(path)) from error
    if x.ndim < 2 or not len(x) or (y is not None and y.shape != (len(x),)):
        shapes = f"x {x.shape}, y {None if y is None else y.shape}"
        raise InvalidInput("bad_recording", f"{path}: {shapes}; want x (n, ...) and y (n,)", path=str(path))
    return x, y
