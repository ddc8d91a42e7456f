"""Replay recorded examples from an ``.npz`` file: ``x`` (n, *input_shape) in raw units and, optionally, ``y`` (n,)."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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

    def __post_init__(self) -> None:
        try:
            rate = float(self.rate_hz)
        except ValueError:
            rate = -1.0
        if not 0.0 <= rate <= 1e6:
            raise InvalidInput("invalid_source_option", f"rate_hz is 0 to 1e6, got {self.rate_hz!r}", field="rate_hz")
        object.__setattr__(self, "rate_hz", rate)
        for name in ("loop", "labels"):
            object.__setattr__(self, name, _flag(name, getattr(self, name)))

    def samples(self) -> Iterator[Sample]:
        """The recording, once or for ever."""
        x, y = _read(Path(self.path))
        while True:
            for i in range(len(x)):
                yield Sample(x=x[i], truth=int(y[i]) if self.labels and y is not None else None)
            if not self.loop:
                return


SOURCE = Replay


def _flag(name: str, value: object) -> bool:
    if value in {True, "true", "1", "yes"}:
        return True
    if value in {False, "false", "0", "no"}:
        return False
    raise InvalidInput("invalid_source_option", f"{name} is true or false, got {value!r}", field=name)


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
