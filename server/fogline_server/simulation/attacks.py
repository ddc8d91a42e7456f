"""What an attacker does with its data and its update. It answers the round of statistics honestly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_server.simulation.choices import Amount, choose
from fogline_shared.recipe import Dataset

Arrays = Mapping[str, NDArray[Any]]

CHOICES: Mapping[str, Amount | None] = {
    "sign_flip": Amount(low=0.01, high=1e6, default=1.0),
    "gaussian": Amount(low=0.01, high=1e6, default=1.0),
    "label_flip": None,
    "nan": None,
    "free_rider": None,
}


@dataclass(frozen=True, kw_only=True)
class Attack:
    """``strength``: of ``sign_flip`` and ``gaussian``, times the length of the honest update."""

    name: str
    strength: float

    @classmethod
    def parse(cls, text: str) -> Attack:
        """From ``name`` or ``name:strength``; raises InvalidInput ``invalid_simulation``."""
        name, strength = choose("attack", text, CHOICES)
        return cls(name=name, strength=strength)

    @property
    def trains(self) -> bool:
        """False for one that saves itself the work."""
        return self.name != "free_rider"

    def data(self, honest: Dataset, classes: int) -> Dataset:
        """What it trains on: ``label_flip`` calls class i of n class n - 1 - i."""
        return replace(honest, y=classes - 1 - honest.y) if self.name == "label_flip" else honest

    def update(self, sent: Arrays, trained: Arrays, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """The parameters it answers with, in place of those it has trained."""
        if self.name == "nan":
            return {name: np.full_like(array, np.nan) for name, array in trained.items()}
        if self.name == "sign_flip":
            return {name: sent[name] - self.strength * (array - sent[name]) for name, array in trained.items()}
        if self.name == "gaussian":
            return self._noise(sent, trained, rng)
        return dict(trained)

    def _noise(self, sent: Arrays, trained: Arrays, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        noise = {name: rng.standard_normal(array.shape) for name, array in trained.items()}
        honest = _length({name: array - sent[name] for name, array in trained.items()})
        scale = self.strength * honest / _length(noise)
        return {name: (sent[name] + scale * noise[name]).astype(array.dtype) for name, array in trained.items()}


def _length(arrays: Arrays) -> float:
    return math.sqrt(sum(float(np.sum(array.astype(np.float64) ** 2)) for array in arrays.values()))


def is_attacker(device: int, *, devices: int, share: float, seed: int) -> bool:
    """Exactly ``share`` of the fleet, spread by chance over it, without a list of it: a permutation by multiplication."""
    step = 1 + seed * 2_654_435_761 % devices
    while math.gcd(step, devices) != 1:
        step = step % devices + 1
    return (device * step + seed) % devices < round(share * devices)
