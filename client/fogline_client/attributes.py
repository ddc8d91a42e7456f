"""Facts a device tells of itself; what the rules of eligibility look at, at the coordinator and here."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping

import psutil

from fogline_client.config import AgentConfig
from fogline_client.limits import Limits
from fogline_shared.eligibility import BATTERY, CHARGING, CONSENT, FREE_MEMORY, METERED, SAMPLES
from fogline_shared.protocol import Scalar

# Free memory and a battery never stand still: smaller changes than these are not worth a message.
_BATTERY_POINTS = 5
_MEMORY_SHARE = 0.25


class Facts:
    """What this device tells. ``changed`` is called when the coordinator should hear of :attr:`told` anew.

    ``samples``: how many examples the device's data has, once a task has counted them; ``personal``: whether a personal
    model serves.
    """

    def __init__(self, config: AgentConfig, changed: Callable[[], None]) -> None:
        self._config = config
        self._changed = changed
        self.samples: int | None = None
        self.personal: Mapping[str, Scalar] = {}
        self.told: Mapping[str, Scalar] = self.measure()

    def measure(self) -> dict[str, Scalar]:
        """What is so now, as the operating system reports it; what was configured wins."""
        limits = Limits()
        facts: dict[str, Scalar] = {
            "arch": platform.machine(),
            "cores": limits.cpus(),
            "memory_mb": limits.memory_bytes() // 2**20,
            FREE_MEMORY: limits.free_memory_bytes() // 2**20,
            METERED: self._config.metered,
        }
        battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
        if battery is not None:
            facts |= {BATTERY: round(battery.percent), CHARGING: bool(battery.power_plugged)}
        if self._config.consent is not None:
            facts[CONSENT] = self._config.consent
        if self.samples is not None:
            facts[SAMPLES] = self.samples
        return {**facts, **self.personal, **self._config.attributes}

    def look(self) -> None:
        """Tell the coordinator if something has changed that matters."""
        if worth_telling(self.told, self.measure()):
            self.tell()

    def tell(self) -> None:
        """Tell the coordinator what is so now."""
        self.told = self.measure()
        self._changed()


def worth_telling(told: Mapping[str, Scalar], now: Mapping[str, Scalar]) -> bool:
    """Whether the difference between what was told and what is so matters to anybody."""
    slack = {BATTERY: _BATTERY_POINTS, FREE_MEMORY: _MEMORY_SHARE * _size(told.get(FREE_MEMORY))}
    for name in told.keys() | now.keys():
        before, after = told.get(name), now.get(name)
        if name in slack and before is not None and after is not None:
            if abs(_size(after) - _size(before)) >= slack[name]:
                return True
        elif before != after:
            return True
    return False


def _size(value: Scalar | None) -> float:
    return 0.0 if value is None or isinstance(value, str) else float(value)
