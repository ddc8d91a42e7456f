"""How much noise a cohort would get for a budget: what to know before asking for privacy. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fogline_shared.checks import number
from fogline_shared.privacy.accountant import least_noise

# From this ratio on, a round's noise is as long as the update it hides.
DROWNED = 1.0


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What ``devices`` a round can have.

    ``noise_multiplier``: the noise's standard deviation in the sum of the updates, in lengths of the longest one allowed; with
    local privacy in each update, in lengths of twice that.
    ``per_value``: the same in their mean. ``noise_to_update``: expected length of the noise in the mean over that of the longest
    mean there can be; above 1 a round's direction is mostly chance, though chance averages out over rounds.
    """

    devices: int
    noise_multiplier: float
    per_value: float
    noise_to_update: float


def outlook(*, devices: int, parameters: int, rounds: int, target: float, delta: float, local: bool = False) -> Outlook:
    """Every device in every round, ``parameters`` values an update, ε ``target`` at ``delta`` over all rounds.

    ``local``: each device adds noise of its own, where otherwise the coordinator adds it once.
    Raises InvalidInput ``invalid_privacy``, naming the field and its range.
    """
    number("devices", devices, low=1, high=100_000_000, code="invalid_privacy", whole=True)
    number("parameters", parameters, low=1, high=10**12, code="invalid_privacy", whole=True)
    noise = least_noise(target, delta, rounds)
    per_value = 2 * noise / math.sqrt(devices) if local else noise / devices
    return Outlook(
        devices=devices,
        noise_multiplier=noise,
        per_value=per_value,
        noise_to_update=per_value * math.sqrt(parameters),
    )


def devices_for(ratio: float, *, parameters: int, noise_multiplier: float, local: bool = False) -> int:
    """How many devices a round needs for ``noise_to_update`` to be at most ``ratio``."""
    if local:
        # A hair less than the square may round to: what is asked for is the smallest number.
        return math.ceil(4 * noise_multiplier**2 * parameters / ratio**2 * (1 - 1e-12))
    return math.ceil(noise_multiplier * math.sqrt(parameters) / ratio)
