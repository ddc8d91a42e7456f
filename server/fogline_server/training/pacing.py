"""How many devices a round asks, until when, and which may rest: over-selection, self-tuning, pace steering. Pure.

After Bonawitz et al., "Towards Federated Learning at Scale" (MLSys 2019): a round asks more devices than it needs and closes
when enough have answered; what it needs is learned from earlier rounds; devices that have just been asked let others go first.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from fogline_server.training.admission import quorum_of
from fogline_shared.checks import from_fields, number
from fogline_shared.errors import InvalidInput

# What waits without a quorum gives up at this many times the deadline. No reply comes later.
GIVE_UP_FACTOR = 4
# A round may ask so many times more devices than it needs, whatever has been observed.
MOST_OVER_SELECTION = 4.0
# How sure a round must be of its quorum, from what earlier rounds have shown.
_SURE = 0.99
# Earlier attempts that count; what was longer ago was another fleet.
WINDOW = 10
# The deadline: so many times as long as all but the slowest answers took.
_SLACK, _ALL_BUT_THE_SLOWEST = 1.5, 0.95

# What another cohort may do better.
_WORTH_ANOTHER = frozenset({"quorum_not_reached", "no_update_accepted"})

D = TypeVar("D")


@dataclass(frozen=True, kw_only=True)
class Pacing:
    """How a run goes about rounds; by default it asks all devices it may, once, and waits as its deadline says.

    ``target``: how many usable answers a round is for; it closes when it has them. ``over_selection``: the share of devices
    asked beyond that. ``self_tuning``: from the second round on both it and the deadline follow what earlier rounds have shown.
    ``steering``: devices that were just asked rest while there are others. ``retries``: how often a round that failed is tried
    again with another cohort before the run fails. Raises InvalidInput ``invalid_run``, naming the field and its range.
    """

    target: int | None = None
    over_selection: float = 0.0
    self_tuning: bool = False
    steering: bool = False
    retries: int = 0

    def __post_init__(self) -> None:
        if self.target is not None:
            number("pacing.target", self.target, low=1, high=10_000, whole=True)
        number("pacing.over_selection", self.over_selection, low=0.0, high=MOST_OVER_SELECTION)
        number("pacing.retries", self.retries, low=0, high=100, whole=True)
        for name in ("self_tuning", "steering"):
            if not isinstance(value := getattr(self, name), bool):
                raise _invalid(name, f"must be true or false, got {value!r}"[:200])
        if self.target is None:
            for name in ("over_selection", "self_tuning", "steering"):
                if getattr(self, name):
                    raise _invalid(name, "needs pacing.target: how many answers a round is for")

    @classmethod
    def from_json(cls, value: object) -> Pacing:
        """Inverse of ``asdict``; fields left out have their defaults. Raises InvalidInput ``invalid_run``."""
        return from_fields(cls, value, name="pacing", code="invalid_run")


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What one attempt at a round goes by: devices to ask, usable answers that close it, seconds until its deadline.

    ``dropout``: the share of devices that is expected not to answer in time; None: nothing has been observed.
    """

    asked: int
    target: int
    deadline_s: float
    dropout: float | None = None

    def as_json(self) -> dict[str, Any]:
        """For the round's row."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Past:
    """An earlier attempt: when it was sent (seconds on any clock), and after how long each usable answer came, late ones too."""

    sent_s: float
    deadline_s: float
    asked: int
    answers_s: Sequence[float]


def pace_of(
    pacing: Pacing, past: Iterable[Past], *, quorum: float, fewest: int, deadline_s: float, now_s: float
) -> Pace | None:
    """The next attempt's pace; None: the run has no target.

    ``quorum``: share of the target that must answer; ``fewest``: updates that must be accepted; ``deadline_s``: as configured.
    An attempt counts once its deadline has passed: before, one that closed early cannot tell the slow from the lost.
    """
    if pacing.target is None:
        return None
    asked = math.ceil(round(pacing.target * (1.0 + pacing.over_selection), 6))
    complete = [each for each in past if each.sent_s + each.deadline_s <= now_s][-WINDOW:]
    times = sorted(seconds for each in complete for seconds in each.answers_s)
    if not pacing.self_tuning or not complete:
        return Pace(asked=asked, target=pacing.target, deadline_s=deadline_s)
    if times:
        usual = times[math.ceil(_ALL_BUT_THE_SLOWEST * len(times)) - 1]
        deadline_s = round(min(max(1.0, _SLACK * usual), GIVE_UP_FACTOR * deadline_s), 3)
    in_time = sum(seconds <= deadline_s for seconds in times)
    lost = sum(each.asked for each in complete) - in_time
    needed = max(quorum_of(quorum, pacing.target), min(fewest, pacing.target))
    asked = _asked(needed, pacing.target, in_time, lost)
    return Pace(
        asked=asked, target=pacing.target, deadline_s=deadline_s, dropout=round(lost / max(1, in_time + lost), 4)
    )


def _asked(needed: int, target: int, in_time: int, lost: int) -> int:
    """The fewest devices, from ``target`` on, of which ``needed`` answer in time almost surely."""
    low, high = target, math.ceil(target * (1.0 + MOST_OVER_SELECTION))
    while low < high:
        middle = (low + high) // 2
        if _chance_of(needed, middle, in_time, lost) >= _SURE:
            high = middle
        else:
            low = middle + 1
    return low


def _chance_of(needed: int, asked: int, in_time: int, lost: int) -> float:
    """That at least ``needed`` of ``asked`` devices answer: beta-binomial, so that few observations make nobody sure.

    The prior is Jeffreys': half an answer, half a loss.
    """
    a, b = in_time + 0.5, lost + 0.5
    whole = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) - math.lgamma(a + b + asked) + math.lgamma(asked + 1)
    too_few = (
        math.exp(
            whole + math.lgamma(a + k) + math.lgamma(b + asked - k) - math.lgamma(k + 1) - math.lgamma(asked - k + 1)
        )
        for k in range(needed)
    )
    return 1.0 - math.fsum(too_few)


def worth_another(pacing: Pacing, number: int, code: str) -> bool:
    """Whether a round whose attempt ``number`` (from 1) failed with that code is tried again."""
    return number <= pacing.retries and code in _WORTH_ANOTHER


def rest_rounds(fleet: int, asked: int) -> int:
    """How many rounds a device rests after one: so many that still half of the others can be chosen from.

    None in a fleet that a few rounds go through: there all are needed each time.
    """
    return max(0, (fleet // max(1, asked) - 1) // 2)


def draw(devices: Sequence[D], count: int, *, lot: str, rests: Sequence[Collection[D]] = ()) -> list[D]:
    """``count`` of the devices by lot, those that rest only if there are too few others, the longest rested first.

    The same ``lot`` draws the same of the same. All of them, in their order, when there are no more.
    """
    if len(devices) <= count:
        return list(devices)
    rests = list(rests)
    while True:
        tired = {device for cohort in rests for device in cohort}
        fresh = [device for device in devices if device not in tired]
        if len(fresh) >= count:
            # Not a secret: the same run over the same fleet should pick the same devices.
            return random.Random(lot).sample(fresh, count)  # noqa: S311
        rests.pop()


def _invalid(name: str, text: str) -> InvalidInput:
    field = f"pacing.{name}"
    return InvalidInput("invalid_run", f"{field} {text}", field=field)
