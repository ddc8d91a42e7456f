"""What a run asks of privacy: one frozen, validated value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fogline_server.training.privacy.accountant import NOISE
from fogline_shared.checks import number
from fogline_shared.errors import InvalidInput

# What they make of a round depends on the devices' mean alone, whose sensitivity clipping bounds.
SOUND = frozenset({"fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad"})


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """Central differential privacy at a ``population``'s cost; off without one.

    No update is longer than ``clip``; the noise in their sum has a standard deviation of ``noise_multiplier`` times that. Raises
    InvalidInput ``invalid_privacy``, naming the field and its range.
    """

    population: str | None = None
    noise_multiplier: float = 1.0
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.population is not None and not (isinstance(self.population, str) and self.population):
            raise InvalidInput("invalid_privacy", "privacy.population is the name of a population")
        low, high = NOISE
        number("privacy.noise_multiplier", self.noise_multiplier, low=low, high=high, code="invalid_privacy")
        number("privacy.clip", self.clip, low=1e-6, high=1e6, code="invalid_privacy")

    def __bool__(self) -> bool:
        return self.population is not None

    def check(self, *, strategy: str, **exact: object) -> None:
        """Raise InvalidInput ``strategy_not_private`` or ``invalid_privacy`` for what a private run cannot have.

        ``exact``: options by name that, when set, tell something of devices' data without noise.
        """
        if not self:
            return
        if strategy not in SOUND:
            known = ", ".join(sorted(SOUND))
            raise InvalidInput(
                "strategy_not_private", f"one device may move {strategy} without bound; private: {known}"
            )
        for name, value in exact.items():
            if value:
                raise InvalidInput(
                    "invalid_privacy", f"{name} uses devices' data without noise: a private run has none"
                )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Privacy:
        """From its fields; those left out have their defaults."""
        known = [each.name for each in fields(cls)]
        if unknown := sorted(set(value) - set(known)):
            raise InvalidInput("invalid_privacy", f"privacy has no field {unknown[0]!r}; fields: {', '.join(known)}")
        return cls(**value)
