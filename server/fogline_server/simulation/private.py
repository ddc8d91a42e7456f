"""Privacy in a simulation: the mechanisms of live runs, with noise that a seed repeats, and what they have cost so far."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from fogline_server.simulation.spec import SimulationSpec
from fogline_server.training.privacy.central import Central
from fogline_server.training.privacy.run import PrivateRun
from fogline_shared.privacy.accountant import Releases, epsilon
from fogline_shared.states import RoundState

# Round 0 of a run that asks devices for nothing without noise: its facts.
_TIMES = dict.fromkeys(("began_s", "seconds", "device_s", "wasted_s"), 0.0)
_COUNTS = dict.fromkeys(("number", "asked", "answered", "late", "lost", "accepted"), 0)
NOBODY_ASKED: Mapping[str, Any] = {"state": RoundState.COMMITTED, "left_out": {}, **_TIMES, **_COUNTS}


def secret_of(seed: int, *of: int) -> bytes:
    """What noise is drawn from. Anybody can make it: a simulation protects nobody."""
    return hashlib.sha256(f"simulated {seed} {of}".encode()).digest()


class Ledger:
    """What the rounds of a simulated run release, and ε so far: of a population, or of a device that is in every round."""

    def __init__(self, spec: SimulationSpec) -> None:
        self._spec, self._released = spec, 0
        run = spec.run
        self._private = PrivateRun(run.privacy, secret_of(run.seed)) if run.privacy else None

    def round(self, number: int, *, asked: int) -> Central | None:
        """The mechanism of a round; None in a run without central privacy."""
        return None if self._private is None else self._private.round(number, asked=asked)

    def released(self, further: Mapping[str, float]) -> Mapping[str, float] | None:
        """A round's model is made, whether it is kept or not: what it released and ε so far; None without privacy."""
        run = self._spec.run
        self._released += 1
        if self._private is not None:
            self._private.follow(further)
            spent = Releases(noise_multiplier=run.privacy.noise_multiplier, rounds=self._released)
            return {**further, "epsilon": epsilon([spent], self._spec.delta)}
        if run.local_privacy:
            return {"clip": run.local_privacy.clip, "epsilon": run.local_privacy.spent(self._released)}
        return None

    def state(self) -> dict[str, NDArray[Any]]:
        """What a refused round leaves as it was."""
        return {} if self._private is None else self._private.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Inverse of :meth:`state`; other names are somebody else's."""
        if self._private is not None:
            self._private.restore(state)
