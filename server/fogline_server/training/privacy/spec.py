"""What a run asks of privacy: one frozen, validated value."""

from __future__ import annotations

from dataclasses import dataclass

from fogline_shared.checks import from_fields, number
from fogline_shared.errors import InvalidInput
from fogline_shared.privacy.accountant import NOISE

# What they make of a round depends on the devices' mean alone, whose sensitivity clipping bounds.
SOUND = frozenset({"fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad"})
CLIP = (1e-6, 1e6)
# The noise in the count of an adaptive run, in noise multipliers: the updates' own grows by a thirtieth for it.
_COUNT_NOISE = 2.0


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """Central differential privacy at a ``population``'s cost; off without one.

    No update is longer than ``clip``; the noise in their sum has a standard deviation of ``noise_multiplier`` times that.
    With a ``clip_quantile`` the clip starts there and follows that quantile of the updates' lengths, by a factor of at most
    about e^``clip_rate`` a round; ``count_noise`` is the standard deviation of the noise in the number of devices within the
    clip (None: twice the noise multiplier), and the updates' noise is larger, so that a round costs what it would without.
    Raises InvalidInput ``invalid_privacy``, naming the field and its range.
    """

    population: str | None = None
    noise_multiplier: float = 1.0
    clip: float = 1.0
    clip_quantile: float | None = None
    clip_rate: float = 0.2
    count_noise: float | None = None

    def __post_init__(self) -> None:
        if self.population is not None and not (isinstance(self.population, str) and self.population):
            raise InvalidInput("invalid_privacy", "privacy.population is the name of a population")
        low, high = NOISE
        number("privacy.noise_multiplier", self.noise_multiplier, low=low, high=high, code="invalid_privacy")
        number("privacy.clip", self.clip, low=CLIP[0], high=CLIP[1], code="invalid_privacy")
        number("privacy.clip_rate", self.clip_rate, low=0.001, high=2.0, code="invalid_privacy")
        if self.clip_quantile is not None:
            number("privacy.clip_quantile", self.clip_quantile, low=0.01, high=0.99, code="invalid_privacy")
        if self.count_noise is None:
            return
        if self.clip_quantile is None:
            raise InvalidInput(
                "invalid_privacy", "privacy.count_noise needs privacy.clip_quantile: a fixed clip counts nothing"
            )
        # At half the noise multiplier the count alone would cost what the whole round may.
        least = 0.501 * self.noise_multiplier
        number("privacy.count_noise", self.count_noise, low=least, high=1e6, code="invalid_privacy")

    def __bool__(self) -> bool:
        return self.population is not None

    @property
    def noise_of_count(self) -> float | None:
        """Standard deviation of the noise in the number of devices within the clip; None: it is not released."""
        if self.clip_quantile is None:
            return None
        return _COUNT_NOISE * self.noise_multiplier if self.count_noise is None else self.count_noise

    @property
    def update_noise(self) -> float:
        """The updates' own noise multiplier, which together with the count's noise costs ``noise_multiplier``."""
        if (count := self.noise_of_count) is None:
            return self.noise_multiplier
        return float((self.noise_multiplier**-2 - (2 * count) ** -2) ** -0.5)

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
    def from_json(cls, value: object) -> Privacy:
        """Inverse of ``asdict``; fields left out have their defaults. Raises InvalidInput ``invalid_privacy``."""
        return from_fields(cls, value, name="privacy", code="invalid_privacy")
