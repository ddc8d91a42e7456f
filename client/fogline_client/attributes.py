"""Facts a device tells of itself; what the coordinator's eligibility rules look at."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

import psutil

from fogline_shared.protocol import Scalar


def measure(configured: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The hardware as the operating system reports it; what was configured wins."""
    facts: dict[str, Scalar] = {
        "arch": platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_mb": psutil.virtual_memory().total // 2**20,
    }
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is not None:
        facts |= {"battery_percent": round(battery.percent), "charging": bool(battery.power_plugged)}
    return {**facts, **configured}
