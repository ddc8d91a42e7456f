"""How long a model takes, as far as it has been seen: what admission reckons with. Pure, but for its clock."""

from __future__ import annotations

from collections.abc import Callable

from fogline_client.inference.model import LoadedModel

# Smoothing of TCP's round-trip times (RFC 6298): mean and mean deviation, and so many deviations of margin.
_MEAN_GAIN, _DEVIATION_GAIN, _DEVIATIONS = 1 / 8, 1 / 4, 4
# What one call may tell: so many times the mean.
_MOST = 4.0
# After so long without a measurement half of what was worse than at loading is forgotten.
_HALF_LIFE_S = 0.3


class Pace:
    """Of one model at a time: the first question about another begins anew, with what its loading measured."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._digest = ""
        self._mean = self._deviation = self._seen_at = 0.0

    def expect(self, model: LoadedModel, examples: int) -> tuple[float, float]:
        """Seconds that so many examples take, and what they may take beyond that."""
        loaded = model.warm_us / 1e6
        if model.digest != self._digest:
            self._digest, self._seen_at = model.digest, self._clock()
            self._mean, self._deviation = loaded, 0.0
        fading = 0.5 ** ((self._clock() - self._seen_at) / _HALF_LIFE_S)
        mean = loaded + (self._mean - loaded) * fading if self._mean > loaded else self._mean
        return examples * mean, _DEVIATIONS * self._deviation * fading

    def saw(self, digest: str, examples: int, seconds: float) -> None:
        """So many examples took so long."""
        if digest != self._digest:
            return
        # A call that was interrupted must not refuse all that follow; if calls stay slow, a few more say so.
        each = min(seconds / examples, _MOST * self._mean)
        self._deviation += _DEVIATION_GAIN * (abs(each - self._mean) - self._deviation)
        self._mean += _MEAN_GAIN * (each - self._mean)
        self._seen_at = self._clock()
