"""Virtual time: when each asked device answers, and when the coordinator closes the exchange. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fogline_server.training.admission import quorum_of
from fogline_server.training.pacing import GIVE_UP_FACTOR


@dataclass(frozen=True, kw_only=True)
class Closing:
    """How an exchange ended, ``seconds`` after it began. ``reached``: whether the quorum was there.

    ``answers_s``: when each that answers before everybody gives up does so. ``device_s``: device time spent on answers, late ones included; ``wasted_s``: on those that did not count.
    """

    seconds: float
    reached: bool
    in_time: frozenset[int]
    late: frozenset[int]
    lost: frozenset[int]
    answers_s: Mapping[int, float] = field(default_factory=dict)
    device_s: float
    wasted_s: float


def close(
    answers: Mapping[int, float | None], *, quorum: float, deadline_s: float, target: int | None = None
) -> Closing:
    """By the rule of a live round. ``answers``: seconds by device, None for one that never answers.

    ``target``: how many answers are enough; None: all. All have answered, or as many as are enough; or the deadline has come and the quorum is there; or the quorum's last has come after the deadline;
    or nothing of that at four times the deadline.
    """
    times = sorted(seconds for seconds in answers.values() if seconds is not None)
    enough = min(target or len(answers), len(answers))
    needed, give_up = quorum_of(quorum, enough), GIVE_UP_FACTOR * deadline_s
    quorum_at = times[needed - 1] if len(times) >= needed else give_up
    ends = min(max(deadline_s, quorum_at), give_up)
    if len(times) >= enough:
        ends = min(ends, times[enough - 1] if times else 0.0)
    in_time = frozenset(device for device, seconds in answers.items() if seconds is not None and seconds <= ends)
    lost = frozenset(device for device, seconds in answers.items() if seconds is None)
    reached = len(in_time) >= needed
    spent = sum(seconds for seconds in times if seconds <= ends)
    late = frozenset(answers) - in_time - lost
    beyond = sum(seconds for seconds in times if seconds > ends)
    return Closing(
        seconds=ends,
        reached=reached,
        in_time=in_time,
        late=late,
        lost=lost,
        answers_s={d: seconds for d, seconds in answers.items() if seconds is not None and seconds <= give_up},
        device_s=spent + beyond,
        wasted_s=beyond if reached else spent + beyond,
    )
