"""Any device of a virtual fleet, made from its number when it is asked for: memory does not grow with the fleet."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from fogline_recipes.device import Held, fingerprint_of
from fogline_server.simulation import splits
from fogline_server.simulation.attacks import Attack, is_attacker
from fogline_server.simulation.availability import speed_of
from fogline_server.simulation.choices import chance
from fogline_server.simulation.spec import GENERIC, SimulationSpec
from fogline_server.simulation.splits import Rows, Shards
from fogline_shared.errors import Conflict, InvalidInput
from fogline_shared.recipe import Dataset, Recipe, check_data

# Keys whose data stay in memory; a fleet may have more.
_KEYS_KEPT, _COUNTS_KEPT = 64, 4096
# Candidates looked at for one place in a cohort, and how far virtual time is moved on when too few of them are there.
_CANDIDATES = 8
_STEP_S = 300.0
_LONGEST_WAIT_S = 7 * 86_400.0


class Population:
    """``device``: from 0 to one less than the spec's ``devices``."""

    def __init__(self, recipe: Recipe, spec: SimulationSpec) -> None:
        self._recipe, self._spec, self._seed = recipe, spec, spec.run.seed
        self._key = lru_cache(maxsize=_KEYS_KEPT)(self._load)
        self._examples_of_key = lru_cache(maxsize=_COUNTS_KEPT)(lambda key: len(self._key(key).data))

    def cohort(
        self, round_number: int, at_s: float, *, asked: int | None = None, resting: Collection[int] = ()
    ) -> tuple[list[int], float]:
        """Devices to ask, ascending, and when: as soon as ``min_devices`` of those drawn are there.

        ``asked`` None: as the spec says. Those that rest are asked if there are too few others.
        Raises Conflict ``no_devices_available`` when that is not so for a week.
        """
        spec, began = self._spec, at_s
        asked = asked or spec.asked
        count = min(spec.devices, max(_CANDIDATES * asked, 64))
        candidates = random.Random(f"cohort {self._seed} {round_number}").sample(range(spec.devices), count)  # noqa: S311
        while True:
            there = [device for device in candidates if spec.available.there(device, at_s)]
            there = sorted(there, key=resting.__contains__)[:asked]
            if len(there) >= spec.run.min_devices:
                return sorted(there), at_s
            at_s += _STEP_S
            if at_s - began > _LONGEST_WAIT_S:
                message = f"round {round_number}: {spec.run.min_devices} devices were never there at once, for a week"
                raise Conflict("no_devices_available", message)

    def answers_after(self, device: int, round_number: int, kind: str, *, epochs: float, at_s: float) -> float | None:
        """Virtual seconds until the device answers; None: it never does, by chance or since it has gone by then."""
        spec = self._spec
        if chance(self._seed, f"drops {kind}", device, round_number).random() < spec.dropout:
            return None
        speed = speed_of(device, median=spec.speed, spread=spec.spread, seed=self._seed)
        seconds = epochs * self.examples(device) / speed
        return seconds if spec.available.there(device, at_s + seconds) else None

    def attack(self, device: int) -> Attack | None:
        """What the device does, if it is an attacker."""
        spec = self._spec
        if spec.attack_by is None:
            return None
        bad = is_attacker(device, devices=spec.devices, share=spec.attackers, seed=self._seed)
        return spec.attack_by if bad else None

    def device_class(self, device: int) -> str:
        """The device's class, by chance as the shares say."""
        drawn = chance(self._seed, "class", device).random()
        for name, share in self._spec.classes.items():
            drawn -= share
            if drawn < 0:
                return name
        return GENERIC

    def examples(self, device: int) -> int:
        """How many examples the device holds, at most."""
        if self._spec.split_by[0] == "key":
            whole = self._examples_of_key(device % len(self._spec.keys))
            return whole if self._spec.samples is None else min(whole, self._spec.samples)
        return self._samples if self._shards is None else self._shards.samples

    def held(self, device: int) -> Held:
        """The device's data. Raises what the recipe's ``device_data`` raises, and InvalidInput ``invalid_simulation``."""
        if self._spec.split_by[0] == "key" and self._spec.samples is None:
            copies, key = divmod(device, len(self._spec.keys))
            # The first device of a key is the one in the field; others with its data see them in another order.
            whole = self._key(key)
            own = Held(data=whole.data, fingerprint=whole.fingerprint + copies)
        else:
            data = self._part(device)
            own = Held(data=data, fingerprint=fingerprint_of(data) + device)
        attack = self.attack(device)
        return own if attack is None else replace(own, data=attack.data(own.data, len(self._recipe.classes)))

    def _part(self, device: int) -> Dataset:
        name, amount = self._spec.split_by
        rng = chance(self._seed, f"split {name}", device)
        if name == "key":
            assert self._spec.samples is not None, "whole keys are not cut"
            whole = self._key(device % len(self._spec.keys)).data
            return _take(whole, splits.uniform(len(whole), self._spec.samples, rng))
        if self._shards is not None:
            return _take(self._pool, self._shards.rows(device))
        return _take(self._pool, splits.dirichlet(self._pool.y, self._samples, amount, rng))

    def _load(self, key: int) -> Held:
        options = dict(self._spec.keys[key])
        data = check_data(self._recipe, self._recipe.device_data(options), what=f"the data of {options}")
        return Held(data=data, fingerprint=fingerprint_of(data))

    @cached_property
    def _pool(self) -> Dataset:
        return _joined([self._load(key).data for key in range(len(self._spec.keys))])

    @cached_property
    def _samples(self) -> int:
        usual = max(1, len(self._pool) // len(self._spec.keys))
        return min(len(self._pool), usual if self._spec.samples is None else self._spec.samples)

    @cached_property
    def _shards(self) -> Shards | None:
        name, amount = self._spec.split_by
        return Shards(self._pool.y, self._samples, int(amount), self._seed) if name == "shards" else None


def _take(data: Dataset, rows: Rows) -> Dataset:
    source = None if data.source is None else _source(data).take(rows)
    return Dataset(x=data.x[rows], y=data.y[rows], source=source)


def _joined(parts: Sequence[Dataset]) -> Dataset:
    sources: list[Any] = [_source(part) for part in parts if part.source is not None]
    return Dataset(
        x=np.concatenate([part.x for part in parts]),
        y=np.concatenate([part.y for part in parts]),
        source=type(sources[0]).joined(sources) if sources else None,
    )


def _source(data: Dataset) -> Any:
    """What augmentation needs, if it can be cut and joined as the examples are."""
    if not (hasattr(data.source, "take") and hasattr(data.source, "joined")):
        kind = type(data.source).__name__
        message = f"the recipe's data carry a {kind} without take() and joined(): use --split key without --samples"
        raise InvalidInput("invalid_simulation", message, field="split")
    return data.source
