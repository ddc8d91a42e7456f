"""Which replies may reach a strategy. Pure: replies in, judgements out; a bad reply is a row with a reason, never a crash.

Flower's strategies trust what they get: NaN poisons a mean and a median, ``num-examples = 1e12`` replaces the model, a
missing array raises out of the round. So every reply is checked against the model that was sent and against what the
device, and its cohort, can plausibly hold; only then is it aggregated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fogline_shared.checks import finite
from fogline_shared.errors import Corrupt
from fogline_shared.states import UpdateVerdict

SAMPLES, LOSS = "num-examples", "loss"
# A device may have collected data since it told how much it has; more than this many times as much is a lie.
PLAUSIBLE_GROWTH = 10
# Beyond it floats no longer tell whole numbers apart, and sums of counts would not either.
MOST_SAMPLES = 2**53
# Values that are compared at a time: they and their differences stay in the processor's cache.
_BLOCK = 1 << 15
# More would each want its share of the machine from the gateway, which is still taking replies of other runs.
_MEASURED_AT_ONCE = 2
# Below three replies there is no majority to compare a norm with.
SMALLEST_COHORT = 3


class Tensor(Protocol):
    """An array that is read when asked for."""

    dtype: str
    shape: tuple[int, ...]

    def numpy(self) -> NDArray[Any]: ...


def _in_pieces() -> None:
    """There is no one vector."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One device's reply, taken apart. ``error``: code and message; ``fault``: it failed on the device, not here.

    ``flat``: all values of ``arrays``, in their order, as one vector; None where they do not lie so.
    """

    node_id: int
    metrics: Mapping[str, Any] | None = None
    arrays: Mapping[str, Tensor] | None = None
    flat: Callable[[], NDArray[Any] | None] = _in_pieces
    error: tuple[str, str] | None = None
    fault: bool = False


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """``samples`` and ``loss`` are what may be aggregated.

    ``norm`` is the length of the update of what is learned, ``running_norm`` that of running statistics (BatchNorm's).
    """

    node_id: int
    verdict: UpdateVerdict
    code: str = ""
    reason: str = ""
    samples: int = 0
    loss: float = 0.0
    norm: float = 0.0
    running_norm: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """``enrolled``: examples each node told of in round 0; empty: unknown, so counts are only compared in the cohort."""

    enrolled: Mapping[int, int]
    max_norm_ratio: float


def quorum_of(share: float, sent: int) -> int:
    """How many of ``sent`` messages must come to a usable reply."""
    return max(1, math.ceil(share * sent))


class _Refused(Exception):
    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Sent:
    """The parameters that were sent, as replies are compared with them.

    ``running``: names of running statistics; ``flat``: all values in the arrays' order as one vector, where they are of one type.
    """

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], *, running: Collection[str] = (), flat: NDArray[Any] | None = None
    ) -> None:
        self.arrays, self.running, self.flat = arrays, frozenset(running), flat
        self.forms = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
        self.stretches = list(_stretches(arrays, self.running))


def _stretches(arrays: Mapping[str, NDArray[Any]], running: Collection[str]) -> Iterator[tuple[slice, bool]]:
    """Where neighbours lie in the one vector that are, or are not, all running statistics."""
    start = end = 0
    kind = False
    for name, array in arrays.items():
        if (name in running) != kind:
            yield slice(start, end), kind
            start, kind = end, not kind
        end += array.size
    yield slice(start, end), kind


def judge_updates(candidates: Sequence[Candidate], sent: Sent, limits: Limits) -> list[Judgement]:
    """A judgement each, in order.

    Learned parameters are compared with the cohort's median, since the learning rate decides how far all move. Running
    statistics move towards each device's own data whatever the learning rate, so they are also compared with their size.
    """
    judged = [_judge(candidate, limits, (LOSS,)) for candidate in candidates]
    # Every value of every reply is read, and numpy lets go of the interpreter while it does.
    with ThreadPoolExecutor(_MEASURED_AT_ONCE) as threads:
        judged = list(threads.map(partial(_measure, sent=sent), judged, candidates))
    accepted = [j for j in judged if j.verdict == UpdateVerdict.ACCEPTED]
    if len(accepted) < SMALLEST_COHORT:
        return judged
    size = math.sqrt(sum(float(np.sum(sent.arrays[name].astype(np.float64) ** 2)) for name in sent.running))
    norm = median(j.norm for j in accepted)
    running_norm = max(size, median(j.running_norm for j in accepted))
    return [_compare_norms(j, norm, running_norm, limits.max_norm_ratio) for j in judged]


def judge_metrics(candidates: Sequence[Candidate], limits: Limits, *, required: Sequence[str] = ()) -> list[Judgement]:
    """The same for replies without arrays (statistics, evaluations), which must have the ``required`` metrics."""
    return [_judge(candidate, limits, required) for candidate in candidates]


def _judge(candidate: Candidate, limits: Limits, required: Sequence[str]) -> Judgement:
    node_id = candidate.node_id
    if candidate.error is not None:
        code, reason = candidate.error
        verdict = UpdateVerdict.ERROR if candidate.fault else UpdateVerdict.REFUSED
        return Judgement(node_id=node_id, verdict=verdict, code=code, reason=reason)
    try:
        samples = _samples(candidate, limits)
        loss = _checked_loss(candidate.metrics or {}, required)
    except _Refused as refused:
        return _refusal(node_id, refused)
    return Judgement(node_id=node_id, verdict=UpdateVerdict.ACCEPTED, samples=samples, loss=loss)


def _refusal(node_id: int, refused: _Refused) -> Judgement:
    return Judgement(node_id=node_id, verdict=UpdateVerdict.REFUSED, code=refused.code, reason=refused.reason)


def _measure(judgement: Judgement, candidate: Candidate, *, sent: Sent) -> Judgement:
    if judgement.verdict != UpdateVerdict.ACCEPTED:
        return judgement
    try:
        learned, running = _squares(candidate, sent)
    except _Refused as refused:
        return _refusal(candidate.node_id, refused)
    except Corrupt as error:  # an encoded array is decoded when it is read
        return _refusal(candidate.node_id, _Refused(error.code, error.message))
    return replace(judgement, norm=math.sqrt(learned), running_norm=math.sqrt(running))


def _samples(candidate: Candidate, limits: Limits) -> int:
    """The sample count that may weigh: never more than the device enrolled with."""
    claimed = (candidate.metrics or {}).get(SAMPLES)
    if not finite(claimed) or not 1 <= claimed <= MOST_SAMPLES:
        raise _Refused("bad_sample_count", f"{SAMPLES} must be a number from 1 to {MOST_SAMPLES}, got {claimed!r:.60}")
    if not limits.enrolled:
        return int(claimed)
    # A device that was not there in round 0 weighs at most as much as the largest that was.
    enrolled = limits.enrolled.get(candidate.node_id, max(limits.enrolled.values()))
    if claimed > PLAUSIBLE_GROWTH * enrolled:
        raise _Refused("implausible_samples", f"claims {claimed:g} examples; it enrolled with {enrolled}")
    return min(int(claimed), enrolled)


def _checked_loss(metrics: Mapping[str, Any], required: Sequence[str]) -> float:
    """The loss, 0 for a reply that has none; refuses a missing metric and one that is not finite."""
    for name, value in metrics.items():
        values = value if isinstance(value, list) else [value]
        if not all(map(finite, values)):
            raise _Refused("not_finite", f"metric {name!r} is not finite")
    for name in required:
        if not isinstance(metrics.get(name), int | float):
            raise _Refused("missing_metric", f"the reply has no number {name!r}")
    return float(metrics.get(LOSS, 0.0))


def _squares(candidate: Candidate, sent: Sent) -> tuple[float, float]:
    """Squared lengths of the update, of what is learned and of running statistics; refuses what is not the model that was sent."""
    arrays = candidate.arrays
    if arrays is None:
        raise _Refused("no_arrays", "the reply has no parameters")
    _check_forms(arrays, sent)
    if sent.flat is not None and list(arrays) == list(sent.arrays) and (flat := candidate.flat()) is not None:
        squares = [0.0, 0.0]
        for part, running in sent.stretches:
            squares[running] += _squared_distance(flat[part], sent.flat[part])
        if all(map(math.isfinite, squares)):
            return squares[0], squares[1]
    return _squares_by_array(arrays, sent)


def _check_forms(arrays: Mapping[str, Tensor], sent: Sent) -> None:
    if set(arrays) != set(sent.forms):
        missing, foreign = sorted(set(sent.forms) - set(arrays)), sorted(set(arrays) - set(sent.forms))
        raise _Refused("wrong_keys", f"missing arrays {missing[:3]}, foreign arrays {foreign[:3]}")
    for name, (shape, dtype) in sent.forms.items():
        if tuple(arrays[name].shape) != shape:
            raise _Refused("wrong_shape", f"{name!r} has shape {tuple(arrays[name].shape)}, not {shape}")
        if arrays[name].dtype != dtype:
            raise _Refused("wrong_dtype", f"{name!r} has dtype {arrays[name].dtype}, not {dtype}")


def _squares_by_array(arrays: Mapping[str, Tensor], sent: Sent) -> tuple[float, float]:
    """The same with one array in memory at a time; names the one that is not finite."""
    squares = [0.0, 0.0]
    for name, old in sent.arrays.items():
        got = arrays[name].numpy()
        square = _squared_distance(got, old)
        # Finite squares are of finite values; the others may only have been too large to square.
        if not math.isfinite(square) and not np.isfinite(got).all():
            raise _Refused("not_finite", f"{name!r} has values that are not finite")
        squares[name in sent.running] += square
    return squares[0], squares[1]


def _squared_distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    """``sum((one - other) ** 2)`` in float64, block by block."""
    one, other = one.reshape(-1), other.reshape(-1)
    difference = np.empty(min(_BLOCK, one.size))
    total = 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, one.size, _BLOCK):
            part = one[start : start + _BLOCK]
            space = difference[: part.size]
            np.subtract(part, other[start : start + _BLOCK], out=space, dtype=np.float64)
            total += float(np.einsum("i,i->", space, space))
    return total


def _compare_norms(judgement: Judgement, norm: float, running_norm: float, ratio: float) -> Judgement:
    if judgement.verdict != UpdateVerdict.ACCEPTED:
        return judgement
    for what, own, usual in (
        ("parameters", judgement.norm, norm),
        ("running statistics", judgement.running_norm, running_norm),
    ):
        if usual > 0.0 and own > ratio * usual:
            reason = f"its {what} moved by {own:.3g}, more than {ratio:g} times the usual {usual:.3g}"
            return replace(judgement, verdict=UpdateVerdict.REFUSED, code="implausible_norm", reason=reason)
    return judgement
