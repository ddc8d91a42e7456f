"""Values of measuring on devices. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fogline_shared.checks import number
from fogline_shared.errors import InvalidInput

MOST_DEVICES = 1000
# Devices times variants of one request.
MOST_AT_ONCE = 10_000
EXPIRES_S = (10.0, 30 * 86_400.0)


class MeasurementState(StrEnum):
    """``EXPIRED`` is derived from ``ASKED`` and the time, never stored; an answer that comes later still counts."""

    ASKED = "ASKED"
    DONE = "DONE"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, kw_only=True)
class Request:
    """Who is to measure what. Raises InvalidInput ``invalid_measurement``.

    ``devices``: ids or names, online or not; empty: at most ``most`` devices that are online, of ``device_class`` or of any.
    ``variants``: names; empty: all but the teacher, which stays at the cloud. ``expires_s``: from when on no answer is waited
    for, seconds.
    """

    device_class: str | None = None
    devices: Sequence[str] = ()
    variants: Sequence[str] = ()
    most: int = 10
    expires_s: float = 3600.0

    def __post_init__(self) -> None:
        if self.devices and self.device_class is not None:
            message = "name devices, or a device class of which some are chosen, not both"
            raise InvalidInput("invalid_measurement", message)
        number("most", self.most, low=1, high=MOST_DEVICES, whole=True, code="invalid_measurement")
        number("expires_s", self.expires_s, low=EXPIRES_S[0], high=EXPIRES_S[1], code="invalid_measurement")
        if len(self.devices) > MOST_DEVICES:
            message = f"at most {MOST_DEVICES} devices at once, not {len(self.devices)}"
            raise InvalidInput("invalid_measurement", message)
