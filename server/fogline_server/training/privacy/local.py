"""What a run asks of local privacy, and which of the noisy updates that come back are believed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from fogline_server.training.admission import Judgement
from fogline_shared.checks import from_fields, number
from fogline_shared.errors import InvalidInput
from fogline_shared.privacy.accountant import DELTA, Releases, epsilon, least_noise
from fogline_shared.privacy.local import CLIP, Local
from fogline_shared.states import UpdateVerdict

# They weigh by what a reply tells beside its parameters, which tells nothing here.
UNSOUND = frozenset({"scaffold", "qfedavg"})
EPSILON = (0.01, 100.0)


@dataclass(frozen=True, kw_only=True)
class LocalPrivacy:
    """Each device makes its own updates private: ``epsilon`` and ``delta`` of each; off without an ``epsilon``.

    No update is longer than ``clip`` before the noise. Raises InvalidInput ``invalid_privacy``, naming the field and its range.
    """

    epsilon: float | None = None
    delta: float = 1e-5
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.epsilon is not None:
            number("local_privacy.epsilon", self.epsilon, low=EPSILON[0], high=EPSILON[1], code="invalid_privacy")
        number("local_privacy.delta", self.delta, low=DELTA[0], high=DELTA[1], code="invalid_privacy")
        number("local_privacy.clip", self.clip, low=CLIP[0], high=CLIP[1], code="invalid_privacy")

    def __bool__(self) -> bool:
        return self.epsilon is not None

    @cached_property
    def mechanism(self) -> Local | None:
        """What the devices are told; None: nothing."""
        if self.epsilon is None:
            return None
        return Local(clip=self.clip, noise_multiplier=least_noise(self.epsilon, self.delta, 1))

    def spent(self, rounds: int) -> float:
        """ε, at ``delta``, of a device that took part in so many rounds."""
        if self.mechanism is None:
            return 0.0
        return epsilon([Releases(noise_multiplier=self.mechanism.noise_multiplier, rounds=rounds)], self.delta)

    def check(self, *, strategy: str, **exact: object) -> None:
        """Raise InvalidInput ``strategy_not_private`` or ``invalid_privacy`` for what a run with local privacy cannot have.

        ``exact``: options by name that, when set, have devices tell of their data without noise, or clip and noise them twice.
        """
        if not self:
            return
        if strategy in UNSOUND:
            text = f"{strategy} needs more of a device than its parameters, which is all that local privacy lets out"
            raise InvalidInput("strategy_not_private", text)
        for name, value in exact.items():
            if value:
                raise InvalidInput("invalid_privacy", f"{name} and local_privacy do not go together")

    @classmethod
    def from_json(cls, value: object) -> LocalPrivacy:
        """Inverse of ``asdict``; fields left out have their defaults. Raises InvalidInput ``invalid_privacy``."""
        return from_fields(cls, value, name="local_privacy", code="invalid_privacy")


def judged(
    local: Local, judgements: Sequence[Judgement], *, marked: Collection[int], values: int, plain: bool
) -> list[Judgement]:
    """Refuse replies that were not made private, and those longer than clip and noise together can be.

    Noise is nearly all of an honest update's length and is the same for all, so there is a bound that needs no cohort to
    compare with. ``marked``: nodes whose reply says that it is private; ``values``: of the model; ``plain``: without a codec,
    which may carry over what it left out before.
    """
    return [_judged(local, each, marked, values, plain) for each in judgements]


def _judged(local: Local, judgement: Judgement, marked: Collection[int], values: int, plain: bool) -> Judgement:  # noqa: FBT001
    if judgement.verdict != UpdateVerdict.ACCEPTED:
        return judgement
    if judgement.node_id not in marked:
        reason = (
            "the reply does not say that it was clipped and noised: is this device's agent older than local privacy?"
        )
        return replace(judgement, verdict=UpdateVerdict.REFUSED, code="not_private", reason=reason)
    squares = judgement.norm**2 + judgement.running_norm**2
    longest = local.longest(values)
    if plain and squares > longest**2:
        reason = f"it moved by {squares**0.5:.3g}; an update of {values} values, clipped and noised, by at most {longest:.3g}"
        return replace(judgement, verdict=UpdateVerdict.REFUSED, code="implausible_norm", reason=reason)
    return judgement
