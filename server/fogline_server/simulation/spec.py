"""What is simulated: one frozen, validated value beside the run's own spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

from fogline_server.simulation import splits
from fogline_server.simulation.attacks import Attack
from fogline_server.simulation.availability import Availability
from fogline_server.simulation.choices import choose
from fogline_server.training.spec import RunSpec
from fogline_shared.checks import number
from fogline_shared.errors import InvalidInput
from fogline_shared.privacy.accountant import DELTA
from fogline_shared.recipe import Options, Recipe

_MOST_DEVICES = 10_000_000
_MOST_ASKED = 100_000
_USUAL_COHORT = 50
# The class of a device that says none.
GENERIC = "generic"
# What ``a..b`` may list.
_LONGEST_RANGE = 100_000


@dataclass(frozen=True, kw_only=True)
class SimulationSpec:
    """A fleet of virtual devices and the run they take part in.

    ``keys``: the device options whose data make up the pool. ``cohort``: devices asked a round; None: 50, or all of fewer.
    ``samples``: examples a device holds; None: its key's own, or as many as a key has on average. ``attackers``: share of
    the fleet. ``dropout``: chance that an asked device never answers. ``speed``: examples a second of the median device;
    ``spread``: standard deviation of the speeds' logarithm. ``classes``: share of the fleet by device class; the rest is
    ``generic``. ``delta``: at which the report tells a private run's ε. Times are virtual seconds.
    Raises InvalidInput ``invalid_simulation``, naming the field and its range.
    """

    run: RunSpec
    keys: Sequence[Mapping[str, str]]
    devices: int
    cohort: int | None = None
    split: str = "key"
    samples: int | None = None
    attack: str | None = None
    attackers: float = 0.0
    dropout: float = 0.0
    availability: str = "always"
    speed: float = 200.0
    spread: float = 0.5
    classes: Mapping[str, float] = field(default_factory=dict)
    delta: float = 1e-5

    def __post_init__(self) -> None:
        _whole("devices", self.devices, 1, _MOST_DEVICES)
        if self.cohort is not None:
            _whole("cohort", self.cohort, 1, min(self.devices, _MOST_ASKED))
        if self.samples is not None:
            _whole("samples", self.samples, 1, 10_000_000)
        for name in ("attackers", "dropout"):
            number(name, getattr(self, name), low=0.0, high=1.0, code="invalid_simulation")
        number("speed", self.speed, low=1e-3, high=1e9, code="invalid_simulation")
        number("spread", self.spread, low=0.0, high=3.0, code="invalid_simulation")
        number("delta", self.delta, low=DELTA[0], high=DELTA[1], code="invalid_simulation")
        self._check_classes()
        if not self.keys:
            message = "there is no device whose data could be used: name them by --data option=1..10"
            raise InvalidInput("invalid_simulation", message, field="keys")
        if (self.attack is None) != (self.attackers == 0.0):
            message = "attackers need both: an attack and a share above 0"
            raise InvalidInput("invalid_simulation", message, field="attackers")
        if self.run.min_devices > self.asked:
            message = f"min_devices must be at most the cohort's {self.asked}, got {self.run.min_devices}"
            raise InvalidInput("invalid_simulation", message, field="min_devices")
        # Raise for what cannot be read, before anything starts.
        _ = self.split_by, self.available, self.attack_by

    def _check_classes(self) -> None:
        for name, share in self.classes.items():
            number(f"class {name}"[:60], share, low=0.0, high=1.0, code="invalid_simulation")
        if sum(self.classes.values()) > 1.0 + 1e-9:
            message = f"the shares of the device classes sum to {sum(self.classes.values()):g}, more than 1"
            raise InvalidInput("invalid_simulation", message, field="classes")
        if self.run.ensemble:
            self.run.ensemble.check_classes({*self.classes, GENERIC})

    @property
    def asked(self) -> int:
        """Devices asked a round, when so many are there."""
        return self.cohort if self.cohort is not None else min(self.devices, _USUAL_COHORT)

    @cached_property
    def split_by(self) -> tuple[str, float]:
        """The split's name and number."""
        return choose("split", self.split, splits.CHOICES)

    @cached_property
    def available(self) -> Availability:
        """When devices are there."""
        return Availability.parse(self.availability, seed=self.run.seed)

    @cached_property
    def attack_by(self) -> Attack | None:
        """What attackers do."""
        return None if self.attack is None else Attack.parse(self.attack)

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        own = {name: value for name, value in asdict(self).items() if name not in {"run", "keys"}}
        return {**own, "cohort": self.asked, "keys": [dict(key) for key in self.keys], "run": self.run.as_json()}


def keys_of(recipe: Recipe, given: Mapping[str, str]) -> list[Options]:
    """Every combination of the values given for the recipe's device options, or what the recipe says of its fleet.

    A value is ``a..b`` for whole numbers, or a list with commas. Raises InvalidInput ``invalid_simulation``.
    """
    if unknown := sorted(set(given) - set(recipe.device_options)) if recipe.device_options else []:
        known = ", ".join(recipe.device_options)
        message = f"recipe {recipe.name} has no device option {unknown[0]!r}; options: {known}"
        raise InvalidInput("invalid_simulation", message, field="data")
    if given:
        values = [_values(name, text) for name, text in given.items()]
        return [dict(zip(given, combination, strict=True)) for combination in product(*values)]
    if keys := list(recipe.fleet()):
        return keys
    named = " ".join(f"--data {name}=…" for name in recipe.device_options) or "--data option=…"
    message = f"recipe {recipe.name} does not say which devices there are; say it by {named} (as 1..10, or a,b,c)"
    raise InvalidInput("invalid_simulation", message, field="data")


def _values(name: str, text: str) -> list[str]:
    first, dots, last = text.partition("..")
    if not dots:
        if "" in (values := text.split(",")):
            raise InvalidInput("invalid_simulation", f"data {name}={text!r} has an empty value", field="data")
        return values
    if not (first.isdecimal() and last.isdecimal() and 0 <= int(last) - int(first) < _LONGEST_RANGE):
        message = f"data {name}={text!r} must be two whole numbers as in 1..10, at most {_LONGEST_RANGE} values"
        raise InvalidInput("invalid_simulation", message, field="data")
    return [str(value) for value in range(int(first), int(last) + 1)]


def _whole(field: str, value: object, low: float, high: float) -> None:
    number(field, value, low=low, high=high, code="invalid_simulation", whole=True)
