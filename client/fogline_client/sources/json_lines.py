"""One JSON object a line, from standard input, a file, a FIFO or a socket: what another program has measured.

``{"x": [0.1, 9.8, 0.2], "t": 12.5, "sensor": "accelerometer", "truth": 3}``, with ``t`` in seconds. Only ``x`` is needed;
a line may be its list alone.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fogline_client.sources import _bytes
from fogline_client.sources import _options as options
from fogline_client.sources.base import Options, Sample


@dataclass(frozen=True, kw_only=True)
class JsonLines(Options):
    """``path``: a file, a FIFO, ``tcp://HOST:PORT``, ``unix:PATH`` or ``-``. Longer lines than ``max_bytes`` are skipped.

    Flaws: ``too_long``, ``not_json``, ``bad_sample``. Raises InvalidInput ``invalid_source_option``.
    """

    path: str | Path = "-"
    max_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        options.text(self, "path")
        options.number(self, "max_bytes", low=16, high=1 << 30, whole=True)

    def samples(self, stop: threading.Event | None = None) -> Iterator[Sample]:
        """A sample for each line that is one; raises as :func:`_bytes.chunks`."""
        for line in _bytes.lines(self.path, stop, limit=self.max_bytes):
            if line is None:
                self.flaws["too_long"] += 1
            elif line.strip() and (sample := self._sample(line)) is not None:
                yield sample

    def _sample(self, line: bytes) -> Sample | None:
        try:
            return sample_of(json.loads(line))
        except (TypeError, KeyError):
            self.flaws["bad_sample"] += 1
        except (ValueError, RecursionError):
            self.flaws["not_json"] += 1
        return None


def sample_of(raw: Any) -> Sample:
    """From a line's JSON; raise TypeError or KeyError when it is no sample. NaN is allowed: it is judged later."""
    if isinstance(raw, list):
        raw = {"x": raw}
    if not isinstance(raw, dict):
        raise TypeError("a sample is an object or a list")
    time, sensor, truth = raw.get("t"), raw.get("sensor", ""), raw.get("truth")
    fits = (
        (time is None or (isinstance(time, int | float) and not isinstance(time, bool)))
        and isinstance(sensor, str)
        and (truth is None or (isinstance(truth, int) and not isinstance(truth, bool)))
    )
    if not fits:
        raise TypeError("t is a number, sensor a text, truth a whole number")
    try:
        x = np.asarray(raw["x"], dtype=np.float32)
        return Sample(x=x, truth=truth, time=None if time is None else float(time), sensor=sensor)
    except (ValueError, OverflowError) as error:
        raise TypeError(str(error)) from error


SOURCE = JsonLines
