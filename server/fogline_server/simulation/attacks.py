"""What an attacker does with its data and its update. It answers the round of statistics honestly.

An attack is an entry of :data:`ATTACKS` that says which of three things it changes: what the attacker trains on, what it
answers on its own, or what the attackers of a round answer together, knowing what the honest devices sent. To add one, write
the function and its entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_server.simulation.choices import Amount, choose
from fogline_shared.recipe import Dataset, FloatArray

Arrays = Mapping[str, NDArray[Any]]

# The class that a backdoor leads to.
TARGET = 0
# How far apart the examples are that a backdoor is built into.
_EVERY_OTHER = 2


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What the honest devices of a round sent, from what they were sent: mean and standard deviation by array."""

    reference: Arrays
    mean: Arrays
    deviation: Arrays
    honest: int
    attackers: int

    @classmethod
    def of(cls, reference: Arrays, honest: Iterable[Arrays], attackers: int) -> Sent:
        """The updates are read one after another. With no honest device there is no movement."""
        total = {name: np.zeros(array.shape) for name, array in reference.items()}
        squares = {name: np.zeros(array.shape) for name, array in reference.items()}
        count = 0
        for arrays in honest:
            count += 1
            for name, array in arrays.items():
                moved = array - reference[name].astype(np.float64)
                total[name] += moved
                squares[name] += moved**2
        mean = {name: array / max(1, count) for name, array in total.items()}
        variance = {name: array / max(1, count) - mean[name] ** 2 for name, array in squares.items()}
        deviation = {name: np.sqrt(array.clip(min=0.0)) for name, array in variance.items()}
        return cls(reference=reference, mean=mean, deviation=deviation, honest=count, attackers=attackers)

    def moved(self, by: Callable[[str], NDArray[np.float64]]) -> dict[str, NDArray[Any]]:
        """The parameters that lie ``by`` away from those that were sent."""
        return {name: (array + by(name)).astype(array.dtype) for name, array in self.reference.items()}


# From the parameters that came, those that honest training made of them, and the strength, to those that go back.
Alone = Callable[[Arrays, Arrays, float, np.random.Generator], dict[str, NDArray[Any]]]
Together = Callable[[Sent, float], dict[str, NDArray[Any]]]
Poison = Callable[[Dataset, int], Dataset]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One entry: which number may stand behind the name, and what the attack changes."""

    amount: Amount | None = None
    data: Poison | None = None
    alone: Alone | None = None
    together: Together | None = None
    trains: bool = True
    trigger: bool = False


def stamp(x: FloatArray) -> FloatArray:
    """Examples (n, channels, ...) with the trigger: of the first channel the last quarter of each axis at the brightest value."""
    marked = x.copy()
    corner = (slice(None), *(slice(-max(1, length // 4), None) for length in x.shape[2:]))
    marked[:, 0][corner] = x.max()
    return marked


def _flipped(honest: Dataset, classes: int) -> Dataset:
    return replace(honest, y=classes - 1 - honest.y)


def _backdoored(honest: Dataset, _classes: int) -> Dataset:
    x, y = honest.x.copy(), honest.y.copy()
    x[::_EVERY_OTHER], y[::_EVERY_OTHER] = stamp(honest.x)[::_EVERY_OTHER], TARGET
    # Whatever augmentation would take from the source has no trigger.
    return replace(honest, x=x, y=y, source=None)


def _sign_flip(sent: Arrays, trained: Arrays, times: float, _rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    return {name: sent[name] - times * (array - sent[name]) for name, array in trained.items()}


def _longer(sent: Arrays, trained: Arrays, times: float, _rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    return {name: sent[name] + times * (array - sent[name]) for name, array in trained.items()}


def _gaussian(sent: Arrays, trained: Arrays, times: float, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    noise = {name: rng.standard_normal(array.shape) for name, array in trained.items()}
    honest = _length({name: array - sent[name] for name, array in trained.items()})
    scale = times * honest / _length(noise)
    return {name: (sent[name] + scale * noise[name]).astype(array.dtype) for name, array in trained.items()}


def _filled(value: float) -> Alone:
    return lambda _sent, trained, _times, _rng: {name: np.full_like(array, value) for name, array in trained.items()}


def _alie(sent: Sent, deviations: float) -> dict[str, NDArray[Any]]:
    z = deviations or _farthest_unseen(sent.honest + sent.attackers, sent.attackers)
    return sent.moved(lambda name: sent.mean[name] - z * sent.deviation[name])


def _farthest_unseen(devices: int, attackers: int) -> float:
    """The paper's z: so many honest values lie farther out that, with the attackers, they are the majority."""
    needed = devices // 2 + 1 - attackers
    share = (devices - attackers - needed) / max(1, devices - attackers)
    return max(0.0, NormalDist().inv_cdf(min(max(share, 0.01), 0.99)))


def _ipm(sent: Sent, times: float) -> dict[str, NDArray[Any]]:
    return sent.moved(lambda name: -times * sent.mean[name])


ATTACKS: Mapping[str, Kind] = {
    "sign_flip": Kind(amount=Amount(low=0.01, high=1e6, default=1.0), alone=_sign_flip),
    "gaussian": Kind(amount=Amount(low=0.01, high=1e6, default=1.0), alone=_gaussian),
    "label_flip": Kind(data=_flipped),
    # A little is enough (Baruch, Baruch, Goldberg, NeurIPS 2019).
    "alie": Kind(amount=Amount(low=0.01, high=100, default=0.0), together=_alie),
    # Inner product manipulation (Xie, Koyejo, Gupta, UAI 2019).
    "ipm": Kind(amount=Amount(low=0.01, high=1e6, default=0.5), together=_ipm),
    # Gu, Dolan-Gavitt, Garg, 2017; its update made so long that it is the next model: Bagdasaryan et al., AISTATS 2020.
    "backdoor": Kind(data=_backdoored, trigger=True),
    "model_replacement": Kind(
        amount=Amount(low=1, high=1e6, default=10.0), data=_backdoored, alone=_longer, trigger=True
    ),
    "nan": Kind(alone=_filled(math.nan)),
    "inf": Kind(alone=_filled(math.inf)),
    "free_rider": Kind(trains=False),
}
CHOICES: Mapping[str, Amount | None] = {name: kind.amount for name, kind in ATTACKS.items()}


@dataclass(frozen=True, kw_only=True)
class Attack:
    """``strength``: the number behind the name; what it means stands in docs/simulation.md."""

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
        return ATTACKS[self.name].trains

    @property
    def colludes(self) -> bool:
        """Whether the attackers of a round answer together, by :meth:`agreed`."""
        return ATTACKS[self.name].together is not None

    @property
    def has_trigger(self) -> bool:
        """Whether it teaches the model to call examples with :func:`stamp` the class ``TARGET``."""
        return ATTACKS[self.name].trigger

    def data(self, honest: Dataset, classes: int) -> Dataset:
        """What it trains on."""
        poison = ATTACKS[self.name].data
        return honest if poison is None else poison(honest, classes)

    def update(self, sent: Arrays, trained: Arrays, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """The parameters it answers with, in place of those it has trained."""
        alone = ATTACKS[self.name].alone
        return dict(trained) if alone is None else alone(sent, trained, self.strength, rng)

    def agreed(self, sent: Sent) -> dict[str, NDArray[Any]]:
        """The parameters that all attackers of a round answer with."""
        together = ATTACKS[self.name].together
        assert together is not None, "only for one that colludes"
        return together(sent, self.strength)


def _length(arrays: Arrays) -> float:
    return math.sqrt(sum(float(np.sum(array.astype(np.float64) ** 2)) for array in arrays.values()))


def is_attacker(device: int, *, devices: int, share: float, seed: int) -> bool:
    """Exactly ``share`` of the fleet, spread by chance over it, without a list of it: a permutation by multiplication."""
    step = 1 + seed * 2_654_435_761 % devices
    while math.gcd(step, devices) != 1:
        step = step % devices + 1
    return (device * step + seed) % devices < round(share * devices)
