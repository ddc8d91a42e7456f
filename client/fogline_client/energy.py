"""What work costs: processor seconds always, joules where the machine tells them.

RAPL counts what the processor's packages took, whoever used them; a battery tells what it gives at the moment, to the whole
device. So what the machine takes when it does nothing is measured first, and taken off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_SYS = Path("/sys/class")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of 1,000 pieces of work. ``joules`` is None, and ``source`` "cpu_seconds", where only processor time is known."""

    cpu_s: float
    joules: float | None
    source: str


class Meter:
    """Reads joules that were used so far, from ``rapl`` or ``battery``; ``source`` is empty where neither tells."""

    def __init__(self, sys_class: Path = _SYS, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sys, self._clock = sys_class, clock
        self._ends = dict(_rapl_ranges(sys_class))
        self._last = self._rapl() if self._ends else {}
        self._watts = None if self._ends else _battery_watts(sys_class)
        self._at, self._joules = clock(), 0.0
        self.source = "rapl" if self._ends else "battery" if self._watts is not None else ""

    def joules(self) -> float:
        """Since the meter was made. A battery is read as its mean power since the last look."""
        if self._ends:
            try:
                now = self._rapl()
            except OSError:  # not for us any more
                return self._joules
            for name, value in now.items():
                used = value - self._last[name]
                self._joules += (used if used >= 0 else used + self._ends[name]) / 1e6
            self._last = now
        elif self._watts is not None:
            at, watts = self._clock(), _battery_watts(self._sys)
            if watts is None:  # it charges now
                self.source, self._watts = "", None
                return self._joules
            self._joules += (at - self._at) * (self._watts + watts) / 2
            self._at, self._watts = at, watts
        return self._joules

    def _rapl(self) -> Mapping[str, int]:
        return {name: int((self._sys / "powercap" / name / "energy_uj").read_text()) for name in self._ends}


def exposition(meter: Meter) -> str:
    """What this process and the machine used, for Prometheus; without joules where no counter tells them."""
    lines = [
        "# TYPE process_cpu_seconds_total counter",
        f"process_cpu_seconds_total {time.process_time():.3f}",
        "# TYPE process_resident_memory_bytes gauge",
        f"process_resident_memory_bytes {psutil.Process().memory_info().rss}",
    ]
    # A battery's power between two looks is a guess that may be minutes old; a counter is none.
    if meter.source == "rapl":
        lines += [
            "# TYPE fogline_machine_joules_total counter",
            f"fogline_machine_joules_total {meter.joules():.3f}",
        ]
    return "\n".join([*lines, ""])


def measure(
    work: Callable[[], object],
    *,
    seconds: float,
    meter: Meter | None = None,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Cost:
    """What ``work`` costs, asked again and again for so long, after as long a pause for what costs nothing to do."""
    meter = meter or Meter()
    before, began = meter.joules(), clock()
    if meter.source:
        sleep(seconds)
    middle, paused_s = meter.joules(), clock() - began
    cpu, start, times = time.process_time(), clock(), 0
    while not times or clock() - start < seconds:
        work()
        times += 1
    cpu, worked_s = time.process_time() - cpu, clock() - start
    used = meter.joules() - middle
    if not meter.source or not paused_s:
        return Cost(cpu_s=cpu * 1000 / times, joules=None, source="cpu_seconds")
    idle = (middle - before) / paused_s * worked_s
    return Cost(cpu_s=cpu * 1000 / times, joules=max(0.0, used - idle) * 1000 / times, source=meter.source)


def _rapl_ranges(sys_class: Path) -> Iterator[tuple[str, int]]:
    """Where each package's counter begins anew, microjoules; those that may be read. Parts of packages are in them already."""
    for folder in sorted((sys_class / "powercap").glob("intel-rapl:*")):
        with suppress(OSError, ValueError):
            if folder.name.count(":") == 1 and (folder / "name").read_text().startswith("package"):
                int((folder / "energy_uj").read_text())
                yield folder.name, int((folder / "max_energy_range_uj").read_text())


def _battery_watts(sys_class: Path) -> float | None:
    """What the batteries give now; None where there is none, or it is being charged."""
    watts = []
    for folder in sorted((sys_class / "power_supply").glob("*")):
        with suppress(OSError, ValueError):
            if (folder / "type").read_text().strip() == "Battery" and (
                (folder / "status").read_text().strip() == "Discharging"
            ):
                watts.append(_watts(folder))
    return sum(watts) if watts else None


def _watts(folder: Path) -> float:
    if (folder / "power_now").exists():
        return abs(int((folder / "power_now").read_text())) / 1e6
    amperes, volts = (abs(int((folder / name).read_text())) / 1e6 for name in ("current_now", "voltage_now"))
    return amperes * volts
