"""When a virtual device is there, and for how long it works."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fogline_server.simulation.choices import Amount, chance, choose
from fogline_shared.errors import InvalidInput

DAY_S = 86_400.0
CHOICES: Mapping[str, Amount | None] = {"always": None, "diurnal": Amount(low=0.1, high=24.0)}
_TRACE = "trace:"
_COLUMNS = ("trace", "start_s", "end_s")

Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Availability:
    """``traces``: spans in seconds that repeat every ``period_s``; device i follows trace i modulo their number.

    ``hours``: of each day, beginning at an hour that is the device's own; 24 is always. Not used with traces.
    """

    seed: int
    hours: float = 24.0
    traces: Sequence[Spans] = ()
    period_s: float = DAY_S

    @classmethod
    def parse(cls, text: str, *, seed: int) -> Availability:
        """``always``, ``diurnal:HOURS`` or ``trace:FILE``; raises InvalidInput ``invalid_simulation``."""
        if text.startswith(_TRACE):
            traces = _read(Path(text.removeprefix(_TRACE)))
            return cls(seed=seed, traces=traces, period_s=max(end for spans in traces for _, end in spans))
        if text.partition(":")[0] not in CHOICES:
            message = f"availability must be one of always, diurnal:HOURS, trace:FILE; got {text!r}"
            raise InvalidInput("invalid_simulation", message, field="availability")
        name, hours = choose("availability", text, CHOICES)
        return cls(seed=seed, hours=24.0 if name == "always" else hours)

    def there(self, device: int, at_s: float) -> bool:
        """Whether the device is there at that virtual time."""
        if self.traces:
            now = at_s % self.period_s
            return any(start <= now < end for start, end in self.traces[device % len(self.traces)])
        if self.hours >= 24.0:
            return True
        begins = chance(self.seed, "wakes", device).uniform(0.0, DAY_S)
        return (at_s - begins) % DAY_S < self.hours * 3600.0


def speed_of(device: int, *, median: float, spread: float, seed: int) -> float:
    """Examples a second: log-normal over the fleet, always the same for one device."""
    return float(chance(seed, "speed", device).lognormal(math.log(median), spread))


def _read(path: Path) -> list[Spans]:
    """The traces of a CSV file, by name in order of appearance."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        message = f"the trace {path} cannot be read: {error}"
        raise InvalidInput("invalid_simulation", message, field="availability") from error
    traces: dict[str, list[tuple[float, float]]] = {}
    for line, row in enumerate(rows, start=2):
        try:
            name, start, end = row["trace"], float(row["start_s"]), float(row["end_s"])
        except (KeyError, TypeError, ValueError):
            start = end = math.nan
            name = ""
        if not 0.0 <= start < end < math.inf:
            wanted = f"{', '.join(_COLUMNS)} with 0 <= start_s < end_s"
            message = f"line {line} of the trace {path} must have the columns {wanted}"
            raise InvalidInput("invalid_simulation", message, field="availability")
        traces.setdefault(name, []).append((start, end))
    if not traces:
        raise InvalidInput("invalid_simulation", f"the trace {path} has no rows", field="availability")
    return list(traces.values())
