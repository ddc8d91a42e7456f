"""Who may take part in a run, as data: what a run asks against what a device tells of itself. Pure.

The coordinator evaluates it on what it last heard, when it chooses a cohort; the device evaluates it again on what is so when a
task begins. Both give the same reasons in the same words.

A device that tells nothing of a battery is on mains power. Whoever does not tell of its network, its memory or its owner's
consent does not meet a condition on it. A number of samples that nobody knows excludes nobody: the device finds it out with its
first task. An owner who said no is obeyed whatever the run asks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from fogline_shared.checks import number
from fogline_shared.errors import InvalidInput
from fogline_shared.protocol import Scalar

# Attributes that conditions look at, as devices tell them.
BATTERY, CHARGING, METERED, FREE_MEMORY, SAMPLES, CONSENT = (
    "battery_percent",
    "charging",
    "metered",
    "free_memory_mb",
    "samples",
    "consent",
)
RANGES: Mapping[str, tuple[int, int]] = {
    "min_battery_percent": (0, 100),
    "min_free_memory_mb": (0, 1_000_000),
    "min_samples": (0, 1_000_000_000),
    "min_separation_s": (0, 365 * 86_400),
}
_WHOLE = {"min_free_memory_mb", "min_samples"}


@dataclass(frozen=True)
class Reason:
    """Why a device may not take part: a stable code, and words of which the device is the subject."""

    code: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Eligibility:
    """What a run asks of a device beyond its recipe and its tags; by default nothing.

    ``min_separation_s``: seconds between the end of one training of a device and the next round it may be asked for, whatever
    the run. Raises InvalidInput ``invalid_eligibility``, naming the field and its range.
    """

    min_battery_percent: float = 0
    charging: bool = False
    unmetered: bool = False
    min_free_memory_mb: int = 0
    min_samples: int = 0
    consent: bool = False
    min_separation_s: float = 0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in RANGES:
                low, high = RANGES[each.name]
                field, whole = f"eligibility.{each.name}", each.name in _WHOLE
                number(field, value, low=low, high=high, whole=whole, code="invalid_eligibility")
            elif not isinstance(value, bool):
                raise _invalid(each.name, f"must be true or false, got {value!r}")

    def unmet(self, attributes: Mapping[str, Scalar], *, since_training_s: float | None = None) -> list[Reason]:
        """Why a device with these attributes may not take part; empty: it may.

        ``since_training_s``: how long ago it last ended a training; None: it never did, or nobody knows.
        """
        return [*self._power(attributes), *self._resources(attributes), *self._will(attributes, since_training_s)]

    def _power(self, attributes: Mapping[str, Scalar]) -> Iterator[Reason]:
        battery = _number(attributes, BATTERY)
        if battery is not None and battery < self.min_battery_percent:
            yield Reason("battery_low", f"has a battery at {battery:g} %, asked are {self.min_battery_percent:g} %")
        if self.charging and attributes.get(CHARGING, battery is None) is not True:
            yield Reason("not_charging", "is not charging")

    def _resources(self, attributes: Mapping[str, Scalar]) -> Iterator[Reason]:
        if self.unmetered and attributes.get(METERED) is not False:
            metered = attributes.get(METERED) is True
            yield Reason(
                "network_metered",
                "is on a metered network" if metered else "does not tell whether its network is metered",
            )
        free = _number(attributes, FREE_MEMORY)
        if self.min_free_memory_mb and (free is None or free < self.min_free_memory_mb):
            has = "does not tell its free memory" if free is None else f"has {free:g} MB of free memory"
            yield Reason("memory_low", f"{has}, asked are {self.min_free_memory_mb} MB")
        samples = _number(attributes, SAMPLES)
        if samples is not None and samples < self.min_samples:
            yield Reason("too_few_samples", f"has {samples:g} samples, asked are {self.min_samples}")

    def _will(self, attributes: Mapping[str, Scalar], since_training_s: float | None) -> Iterator[Reason]:
        if attributes.get(CONSENT) is False:
            yield Reason("consent_refused", "must not train: its owner does not consent")
        elif self.consent and attributes.get(CONSENT) is not True:
            yield Reason("consent_missing", "has no consent of its owner")
        if since_training_s is not None and 0 <= since_training_s < self.min_separation_s:
            yield Reason(
                "trained_recently",
                f"trained {since_training_s:.0f} s ago, asked are {self.min_separation_s:g} s in between",
            )

    def as_json(self) -> dict[str, Any]:
        """For the run's row and for the offer to a device."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Eligibility:
        """Inverse of :meth:`as_json`; fields left out have their defaults. Raises InvalidInput ``invalid_eligibility``.

        A condition that this program does not know is refused: it could not be kept.
        """
        if not isinstance(value, Mapping):
            raise InvalidInput("invalid_eligibility", "eligibility is an object of conditions", field="eligibility")
        known = [each.name for each in fields(cls)]
        if unknown := sorted(map(str, set(value) - set(known))):
            raise _invalid(unknown[0], f"is no condition; conditions: {', '.join(known)}")
        return cls(**value)

    @classmethod
    def parse(cls, text: str) -> Eligibility:
        """:meth:`from_json` of a text as a task's offer carries it; empty: no conditions."""
        try:
            value = json.loads(text or "{}")
        except (ValueError, RecursionError) as error:
            raise InvalidInput(
                "invalid_eligibility", f"eligibility is not JSON: {error}", field="eligibility"
            ) from error
        return cls.from_json(value)


def _invalid(name: str, text: str) -> InvalidInput:
    field = f"eligibility.{name}"
    return InvalidInput("invalid_eligibility", f"{field} {text}"[:400], field=field[:100])


def _number(attributes: Mapping[str, Scalar], name: str) -> float | None:
    """The attribute, if it is a number: what a device tells may be of any type."""
    value = attributes.get(name)
    return None if isinstance(value, bool | str) else value
