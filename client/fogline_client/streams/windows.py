"""Samples of several sensors → windows on a common clock, as they come.

The grid is absolute: instant ``i`` is ``i / rate_hz`` seconds, and windows begin at every ``hop``-th. The same samples give
the same windows whenever one begins to listen. Time is the samples' own; the only clock that is read is theirs.

A sample is *settled* once nothing that is ``reorder_s`` later can come before it. A window is cut when every sensor has
settled a sample at or after its last instant, or when the streams are more than ``wait_s`` past it. ``wait_s`` is at least every
``max_gap_s``, so samples that come later could not have changed it: the windows are those of an offline computation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fogline_client.streams.checks import one_of, text
from fogline_client.streams.fusion.base import Times, Values, load_fusion
from fogline_client.streams.fusion.hold import hold
from fogline_client.streams.track import Track
from fogline_shared.checks import number
from fogline_shared.errors import InvalidInput

LAYOUTS = ("channels_first", "time_first")
NAN_POLICIES = ("drop", "hold")
# So many samples in a row from long ago are a clock that was set back; one alone is a stray stamp.
_BELIEVED = 3


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """One sensor. ``fusion``: how its samples become values on the grid, valid over gaps of up to ``max_gap_s`` seconds.

    Across longer ones its last sample stands in up to the age of ``hold_s`` (0: not at all), else the window is skipped.
    ``nan``: a sample with NaN or infinity is dropped, or such channels ``hold`` their last value.
    Raises InvalidInput ``invalid_pipeline`` or ``unknown_fusion``.
    """

    name: str
    channels: int
    fusion: str = "linear"
    max_gap_s: float = 0.1
    hold_s: float = 0.0
    nan: str = "drop"

    def __post_init__(self) -> None:
        text("name", self.name)
        number("channels", self.channels, low=1, high=4096, whole=True, code="invalid_pipeline")
        number("max_gap_s", self.max_gap_s, low=1e-6, high=1e6, code="invalid_pipeline")
        number("hold_s", self.hold_s, low=0, high=1e6, code="invalid_pipeline")
        one_of("nan", self.nan, NAN_POLICIES)
        load_fusion(self.fusion)


@dataclass(frozen=True, kw_only=True)
class Windows:
    """``length`` instants at ``rate_hz``, a new window each ``hop``; (channels, length), or (length, channels) ``time_first``.

    Seconds: ``reorder_s``, how much later than its time a sample may come; ``wait_s``, how long a window waits for a sensor
    that lags (default: the longest ``max_gap_s``); ``jump_s``, how far back is a clock that was set and no late sample.
    ``max_samples`` bounds what is kept of a sensor. Raises InvalidInput ``invalid_pipeline``.
    """

    rate_hz: float
    length: int
    hop: int
    layout: str = "channels_first"
    reorder_s: float = 0.0
    wait_s: float | None = None
    jump_s: float = 1.0
    max_samples: int = 65_536

    def __post_init__(self) -> None:
        number("rate_hz", self.rate_hz, low=1e-3, high=1e6, code="invalid_pipeline")
        number("length", self.length, low=1, high=1 << 20, whole=True, code="invalid_pipeline")
        number("hop", self.hop, low=1, high=1 << 20, whole=True, code="invalid_pipeline")
        number("reorder_s", self.reorder_s, low=0, high=3600, code="invalid_pipeline")
        number("max_samples", self.max_samples, low=2, high=1 << 24, whole=True, code="invalid_pipeline")
        if self.wait_s is not None:
            number("wait_s", self.wait_s, low=0, high=1e6, code="invalid_pipeline")
        number("jump_s", self.jump_s, low=0, high=1e9, code="invalid_pipeline")
        if self.jump_s < self.reorder_s:
            message = f"jump_s ({self.jump_s:g}) is not below reorder_s ({self.reorder_s:g}): late samples are no jump"
            raise InvalidInput("invalid_pipeline", message, field="jump_s")
        one_of("layout", self.layout, LAYOUTS)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What the model is asked. ``time``: its last instant; ``arrived``: when its newest sample did, by the monotonic clock."""

    x: Values
    time: float
    arrived: float
    truth: int | None = None


class Fuser:
    """One thread. Counts ``dropped`` samples by cause, ``skipped`` windows by the missing sensor, and ``noted``: no loss."""

    def __init__(self, windows: Windows, sensors: Sequence[Sensor]) -> None:
        names = [sensor.name for sensor in sensors]
        if not names or len(set(names)) < len(names):
            raise InvalidInput("invalid_pipeline", f"windows need sensors of different names, got {names}")
        longest = max(sensor.max_gap_s for sensor in sensors)
        self._wait_s = longest if windows.wait_s is None else windows.wait_s
        if self._wait_s < longest:
            message = f"wait_s ({self._wait_s:g}) is at least each sensor's max_gap_s ({longest:g})"
            raise InvalidInput("invalid_pipeline", message, field="wait_s")
        self._spec = windows
        self._sensors = {sensor.name: sensor for sensor in sensors}
        self._fusions = {sensor.name: load_fusion(sensor.fusion) for sensor in sensors}
        self.dropped: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()
        self._tracks: dict[str, Track] = {}
        self._last: dict[str, Values] = {}
        self._seen = -math.inf
        self._next: int | None = None
        self._restart()

    @property
    def shape(self) -> tuple[int, int]:
        """Of every window."""
        channels, length = sum(sensor.channels for sensor in self._sensors.values()), self._spec.length
        return (channels, length) if self._spec.layout == "channels_first" else (length, channels)

    def add(self, name: str, x: ArrayLike, *, time: float, arrived: float, truth: int | None = None) -> list[Frame]:
        """Take a sample (channels,) of one sensor; returns the windows that it completes, in order.

        Of several sensors' samples none has a label of its own, so ``truth`` is not used.
        """
        del truth
        sensor = self._sensors.get(name)
        if sensor is None:
            self.dropped["unknown_sensor"] += 1
            return []
        values = self._sound(sensor, x)
        if values is None or not self._in_time(name, time):
            return []
        self._tracks[name].put(time, values, arrived)
        self._seen = max(self._seen, time)
        settled = self._seen - self._spec.reorder_s
        self._settle(settled)
        # A sample that is still to come may be at ``settled``, and just near enough: rounding must not decide against it.
        return self._cut_all(settled - self._wait_s - 4 * math.ulp(self._seen))

    def flush(self) -> list[Frame]:
        """The streams have ended: the windows up to the last sample."""
        self._settle(math.inf)
        return self._cut_all(self._seen)

    def _restart(self) -> None:
        self._tracks = {
            name: Track(sensor.channels, limit=self._spec.max_samples) for name, sensor in self._sensors.items()
        }
        self._last = {}
        self._seen = -math.inf
        self._next = None

    def _sound(self, sensor: Sensor, x: ArrayLike) -> Values | None:
        """The sample as float32 (channels,) without NaN; None, counted, when it cannot be."""
        try:
            values = np.array(x, dtype=np.float32).reshape(-1)
        except (TypeError, ValueError):
            values = np.empty(0, dtype=np.float32)
        if len(values) != sensor.channels:
            self.dropped["bad_shape"] += 1
            return None
        finite = np.isfinite(values)
        if not finite.all():
            last = self._last.get(sensor.name)
            if sensor.nan == "drop" or last is None:
                self.dropped["nan"] += 1
                return None
            self.noted["nan_held"] += 1
            values = np.where(finite, values, last)
        self._last[sensor.name] = values
        return values

    def _in_time(self, name: str, time: float) -> bool:
        """Whether the sample's time can still be used. Begins anew when the clock was set back."""
        if not math.isfinite(time):
            self.dropped["bad_time"] += 1
            return False
        track = self._tracks[name]
        track.backwards = track.backwards + 1 if time < track.newest - self._spec.jump_s else 0
        if track.backwards >= _BELIEVED:
            self.noted["clock_set_back"] += 1
            self.dropped["clock_set_back"] += sum(each.waiting for each in self._tracks.values())
            self._restart()
            return True
        if time <= track.frontier:
            self.dropped["duplicate" if time == track.frontier else "late"] += 1
            return False
        return True

    def _settle(self, until: float) -> None:
        for track in self._tracks.values():
            duplicates, lost = track.settle(until)
            self.dropped["duplicate"] += duplicates
            self.dropped["no_room"] += lost

    def _cut_all(self, expired: float) -> list[Frame]:
        """Windows that are complete, or end at ``expired`` or before."""
        if self._next is None:
            first = min(track.first for track in self._tracks.values())
            if math.isinf(first):
                return []
            self._next = -(-self._instant_from(first) // self._spec.hop)
        frames = []
        frontier = min(track.frontier for track in self._tracks.values())
        while self._end(self._next) <= max(frontier, expired):
            frame, skipped = self._cut(self._next, expired)
            if frame is not None:
                frames.append(frame)
            self._next += max(skipped, 1)
            for track in self._tracks.values():
                track.forget(self._next * self._spec.hop / self._spec.rate_hz)
        return frames

    def _cut(self, k: int, expired: float) -> tuple[Frame | None, int]:
        """Window ``k``; or None, and how many windows from it on cannot be, for the same gap of the same sensor."""
        grid = (k * self._spec.hop + np.arange(self._spec.length)) / self._spec.rate_hz
        parts, held = [], False
        for name, sensor in self._sensors.items():
            track = self._tracks[name]
            values, stands = self._values(track, sensor, grid)
            if sensor.hold_s and not stands.all() and len(track.times):
                kept, young = hold(track.times, track.values, grid, sensor.hold_s)
                values, stands, held = np.where(stands[:, None], values, kept), stands | young, True
            if not stands.all():
                skipped = self._hopeless(k, track, sensor, float(grid[np.argmin(stands)]), expired)
                self.skipped[name] += skipped
                return None, skipped
            parts.append(values)
        self.noted["held"] += held
        x = np.concatenate(parts, axis=1)
        arrived = max(track.arrival(float(grid[-1])) for track in self._tracks.values())
        turned = x.T if self._spec.layout == "channels_first" else x
        return Frame(x=np.ascontiguousarray(turned), time=float(grid[-1]), arrived=arrived), 1

    def _values(self, track: Track, sensor: Sensor, grid: Times) -> tuple[Values, NDArray[np.bool_]]:
        if not len(track.times):
            return np.zeros((len(grid), sensor.channels), dtype=np.float32), np.zeros(len(grid), dtype=np.bool_)
        return self._fusions[sensor.name](track.times, track.values, grid, sensor.max_gap_s)

    def _hopeless(self, k: int, track: Track, sensor: Sensor, gap: float, expired: float) -> int:
        """How many windows from ``k`` on hold an instant at which the sensor is missing, from the instant ``gap`` on.

        That lasts until its next sample comes near. A stream that pauses for a year must not be counted window by window.
        """
        hop, length = self._spec.hop, self._spec.length
        following = track.after(gap)
        # Windows that end later than this are not to be judged yet.
        until = min(expired, self._seen) if math.isinf(following) else self._seen
        beyond = (self._instant_until(until) - length + 1) // hop + 1
        if not math.isinf(following):
            beyond = min(beyond, self._instant_until(following - sensor.max_gap_s) // hop)
        return max(beyond - k, 1)

    def _instant_from(self, time: float) -> int:
        """The first instant that is not before ``time``."""
        i = math.ceil(time * self._spec.rate_hz)
        while i / self._spec.rate_hz < time:
            i += 1
        while (i - 1) / self._spec.rate_hz >= time:
            i -= 1
        return i

    def _instant_until(self, time: float) -> int:
        """The last instant that is not after ``time``."""
        i = self._instant_from(time)
        return i if i / self._spec.rate_hz == time else i - 1

    def _end(self, k: int) -> float:
        return (k * self._spec.hop + self._spec.length - 1) / self._spec.rate_hz
