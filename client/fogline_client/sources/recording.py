"""Replay of recorded sensors with their own time stamps, at real time or faster.

An ``.npz`` file with, for each sensor, ``NAME.t`` (n,) in seconds and ``NAME.x`` (n, channels) in raw units. Samples come in
the order of their times; of the same time, in the order of the names.
"""

from __future__ import annotations

import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fogline_client.sources import _options as options
from fogline_client.sources.base import Options, Sample
from fogline_shared.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Recording(Options):
    """``speed``: 1 is real time, 10 is ten times as fast, 0 is as fast as samples are taken.

    Raises InvalidInput ``invalid_source_option``, and ``bad_recording`` when the file is not such a recording.
    """

    path: str | Path
    speed: float = 1.0

    def __post_init__(self) -> None:
        options.text(self, "path")
        options.number(self, "speed", low=0, high=1e6)

    def samples(self, stop: threading.Event | None = None) -> Iterator[Sample]:
        """The recording, once."""
        sensors = _read(Path(self.path))
        names = sorted(sensors)
        times = np.concatenate([sensors[name][0] for name in names])
        owner = np.repeat(np.arange(len(names)), [len(sensors[name][0]) for name in names])
        place = np.concatenate([np.arange(len(sensors[name][0])) for name in names])
        begun, order = time.monotonic(), np.argsort(times, kind="stable")
        first = times[order[0]]
        for i in order:
            if self.speed:
                ahead = begun + (times[i] - first) / self.speed - time.monotonic()
                if ahead > 0 and (stop or threading.Event()).wait(ahead):
                    return
            name = names[owner[i]]
            yield Sample(x=sensors[name][1][place[i]], time=float(times[i]), sensor=name)


SOURCE = Recording


def _read(path: Path) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float32]]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [key.removesuffix(".t") for key in arrays if key.endswith(".t")]
            sensors = {
                name: (
                    np.asarray(arrays[f"{name}.t"], dtype=np.float64),
                    np.asarray(arrays[f"{name}.x"], dtype=np.float32),
                )
                for name in names
            }
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InvalidInput("bad_recording", f"{path} is not a recording: {error}", path=str(path)) from error
    for name, (times, x) in sensors.items():
        if times.ndim != 1 or not len(times) or x.ndim != 2 or len(x) != len(times) or not np.isfinite(times).all():
            message = f"{path}: {name}.t {times.shape}, {name}.x {x.shape}; want (n,), finite, and (n, channels)"
            raise InvalidInput("bad_recording", message, path=str(path))
    if not sensors:
        raise InvalidInput("bad_recording", f"{path} has no sensor: want NAME.t and NAME.x", path=str(path))
    return sensors
