"""One round over any Flower grid: statistics, training, evaluation. Used by the trainer and by simulations alike.

Replies are put in an order of their own before anything adds them up, so that a round's result depends neither on who was
faster nor on the ids of a fleet; the strategy sees only what admission accepted, in the form admission has checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fogline_server.training.admission import (
    LOSS,
    SAMPLES,
    Candidate,
    Judgement,
    Limits,
    Sent,
    judge_metrics,
    judge_updates,
)
from fogline_server.training.aggregation.own_strategy import OwnStrategy
from fogline_server.training.decoding import sizes, unpack
from fogline_server.training.privacy import local as local_privacy
from fogline_server.training.privacy.central import Central, floored
from fogline_server.training.statistics import Statistics, gather, too_few_accepted
from fogline_shared import flower
from fogline_shared.codecs import base as codecs
from fogline_shared.codecs.base import Codec
from fogline_shared.errors import Conflict
from fogline_shared.flower import Address, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from fogline_shared.privacy.local import MARK, Local
from fogline_shared.recipe import Recipe, TrainPlan
from fogline_shared.states import UpdateVerdict

if TYPE_CHECKING:
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import Strategy

ARRAYS, TEACHER, CONFIG, METRICS = "arrays", "teacher", "config", "metrics"
ACCURACY = "accuracy"


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The model whose soft labels devices learn from."""

    size: str
    arrays: ArrayRecord


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the devices of one group are to train, and how their replies are judged and added up; see :func:`train`."""

    strategy: Strategy
    arrays: ArrayRecord
    number: int
    size: str
    plan: TrainPlan
    statistics: Statistics
    max_norm_ratio: float
    teacher: Teacher | None
    running: Collection[str]
    adaptive: bool
    codec: Codec
    private: Central | None = None
    local: Local | None = None


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """The replies to an order. ``accepted``: as strategies get them; the rest as in :class:`Trained`."""

    accepted: Sequence[Message]
    judgements: Sequence[Judgement]
    bytes_sent: int
    bytes_plain: int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """``loss``: the accepted devices' mean, weighted by examples.

    ``bytes_sent``: of all replies' arrays, as they came; ``bytes_plain``: as they would have been without a codec.
    ``further``: what else was measured at the coordinator.
    """

    arrays: ArrayRecord
    loss: float
    judgements: Sequence[Judgement]
    bytes_sent: int
    bytes_plain: int
    further: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Means over the devices' own data, weighted by examples; None when no reply was usable."""

    accuracy: float | None
    loss: float | None
    judgements: Sequence[Judgement]


def gather_statistics(grid: Grid, recipe: Recipe, *, needed: int = 1) -> tuple[Statistics, Sequence[Judgement]]:
    """Round 0. Raises Conflict ``no_update_accepted`` or ``quorum_not_reached``, as :func:`train` does."""
    content = RecordDict({CONFIG: ConfigRecord({"recipe": recipe.name})})
    messages = [
        flower.instruction(content, Address(message_id="", node_id=node, group_id="0", message_type="query"))
        for node in grid.get_node_ids()
    ]
    replies = in_order(grid, messages)
    return gather([_candidate(reply) for reply in replies], channels=recipe.input_shape[0], needed=needed)


def train(
    grid: Grid,
    strategy: Strategy,
    arrays: ArrayRecord,
    number: int,
    *,
    size: str,
    plan: TrainPlan,
    statistics: Statistics,
    max_norm_ratio: float,
    needed: int = 1,
    teacher: Teacher | None = None,
    running: Collection[str] = (),
    adaptive: bool = False,
    codec: Codec | None = None,
    private: Central | None = None,
    local: Local | None = None,
) -> Trained:
    """One training round. Raises Conflict ``no_update_accepted`` or ``quorum_not_reached``.

    ``needed``: how many replies must be accepted.
    ``running``: names of running statistics. With an ``adaptive`` strategy they take the plain mean: a server-side
    optimiser would step BatchNorm's variances below zero.
    ``codec``: how devices are asked to encode their replies; None: plain.
    ``private``: the mean the strategy gets is clipped and noised; no reply is compared with others, whose data that would tell.
    ``local``: how devices clip and noise their own replies; those are compared with what such a reply can be.
    """
    codec = codec or codecs.load(codecs.NONE, {})
    # A codec that carries over what it left out has no bound but its cohort.
    alone = private is not None or (local is not None and codec.name == codecs.NONE)
    order = Order(
        strategy=strategy,
        arrays=arrays,
        number=number,
        size=size,
        plan=plan,
        statistics=statistics,
        max_norm_ratio=math.inf if alone else max_norm_ratio,
        teacher=teacher,
        running=running,
        adaptive=adaptive,
        codec=codec,
        private=private,
        local=local,
    )
    admitted = admit(order, in_order(grid, ask(order, grid)))
    if len(admitted.accepted) < needed:
        raise too_few_accepted(number, admitted.judgements, needed)
    return aggregate(order, admitted)


def ask(order: Order, grid: Grid) -> list[Message]:
    """What the strategy sends to the grid's nodes."""
    config = _config(order.size, order.statistics, plan=order.plan, teacher=order.teacher)
    if order.codec.name != codecs.NONE:
        options = json.dumps(order.codec.options_json())
        config.update({"codec": order.codec.name, "codec_options": options, "round": order.number})
    if order.local is not None:
        config.update(order.local.config())
    if isinstance(order.strategy, OwnStrategy):
        order.strategy.running = order.running
    messages = list(order.strategy.configure_train(order.number, order.arrays, config, grid))
    if order.teacher is not None:
        for message in messages:
            message.content[TEACHER] = order.teacher.arrays
    return messages


def admit(order: Order, replies: Sequence[Message]) -> Admitted:
    """Judge the replies to an order, which are in an order of their own already."""
    reference = flower.arrays_of(order.arrays)
    bytes_sent, bytes_plain = sizes(replies, reference, arrays=ARRAYS)
    replies = [unpack(reply, order.codec, reference, arrays=ARRAYS, running=order.running) for reply in replies]
    limits = Limits(enrolled=order.statistics.samples, max_norm_ratio=order.max_norm_ratio)
    sent = Sent(reference, running=order.running, flat=flower.flat(order.arrays))
    judgements = judge_updates([_candidate(reply) for reply in replies], sent, limits)
    if order.local is not None:
        marked = {reply.metadata.src_node_id for reply in replies if not reply.has_error() and MARK in reply.content}
        values, plain = sum(sent.size for sent in reference.values()), order.codec.name == codecs.NONE
        judgements = local_privacy.judged(order.local, judgements, marked=marked, values=values, plain=plain)
    further = order.strategy.further_metrics if isinstance(order.strategy, OwnStrategy) else ()
    accepted = _admitted(replies, judgements, list(reference), further)
    return Admitted(accepted=accepted, judgements=judgements, bytes_sent=bytes_sent, bytes_plain=bytes_plain)


def aggregate(order: Order, admitted: Admitted) -> Trained:
    """The new parameters; there is at least one accepted reply. Raises Conflict ``aggregation_failed``."""
    judgements, reference = admitted.judgements, flower.arrays_of(order.arrays)
    loss = mean(judgements, [judgement.loss for judgement in judgements])
    accepted = admitted.accepted
    further: Mapping[str, float] = {}
    if order.private is not None:
        accepted, further = _released(order.private, admitted.accepted, reference)
    new = _aggregate(order.strategy, order.number, accepted, list(reference))
    for name in order.running if order.adaptive else ():
        new[name] = _mean_array(accepted, name)
    if order.local is not None:
        new = {name: floored(name, new[name], old) for name, old in reference.items()}
    arrays = flower.to_record({name: new[name].astype(old.dtype, copy=False) for name, old in reference.items()})
    return Trained(
        arrays=arrays,
        loss=loss,
        judgements=judgements,
        bytes_sent=admitted.bytes_sent,
        bytes_plain=admitted.bytes_plain,
        further=further,
    )


def evaluate(
    grid: Grid, strategy: Strategy, arrays: ArrayRecord, number: int, *, size: str, statistics: Statistics
) -> Evaluated:
    """Have the devices evaluate on their own data."""
    messages = strategy.configure_evaluate(number, arrays, _config(size, statistics), grid)
    replies = in_order(grid, messages)
    limits = Limits(enrolled=statistics.samples, max_norm_ratio=1.0)
    candidates = [_candidate(reply) for reply in replies]
    judgements = judge_metrics(candidates, limits, required=(ACCURACY, LOSS))
    if not any(judgement.verdict == UpdateVerdict.ACCEPTED for judgement in judgements):
        return Evaluated(accuracy=None, loss=None, judgements=judgements)
    accuracies = [float((candidate.metrics or {}).get(ACCURACY, 0.0)) for candidate in candidates]
    return Evaluated(
        accuracy=mean(judgements, accuracies),
        loss=mean(judgements, [judgement.loss for judgement in judgements]),
        judgements=judgements,
    )


def mean(judgements: Sequence[Judgement], values: Sequence[float]) -> float:
    """Mean over the accepted replies, weighted by examples."""
    accepted = [(j.samples, v) for j, v in zip(judgements, values, strict=True) if j.verdict == UpdateVerdict.ACCEPTED]
    return sum(n * v for n, v in accepted) / sum(n for n, _ in accepted)


def _mean_array(accepted: Sequence[Message], name: str) -> NDArray[Any]:
    contents = [reply.content for reply in accepted]
    weights = [content.metric_records[METRICS][SAMPLES] for content in contents]
    arrays = [content.array_records[ARRAYS][name].numpy().astype(np.float64) for content in contents]
    mean: NDArray[Any] = np.average(np.stack(arrays), axis=0, weights=weights)
    return mean


def _config(
    size: str, statistics: Statistics, *, plan: TrainPlan | None = None, teacher: Teacher | None = None
) -> ConfigRecord:
    values: dict[str, Any] = {"size": size, **statistics.standardisation.as_json()}
    if plan is not None:
        values |= asdict(plan)
    if teacher is not None:
        values["teacher_size"] = teacher.size
    return ConfigRecord(values)


def in_order(grid: Grid, messages: Iterable[Message]) -> list[Message]:
    """The replies by what they say, then by their nodes' place in the grid.

    Sums depend on the order of their terms, and node ids are drawn anew for each fleet.
    """
    place = {node: i for i, node in enumerate(grid.get_node_ids())}
    replies = grid.send_and_receive(messages)
    return sorted(replies, key=lambda reply: (_said(reply), place.get(reply.metadata.src_node_id, len(place))))


def _said(reply: Message) -> str:
    metrics = None if reply.has_error() else reply.content.get(METRICS)
    return repr(sorted(metrics.items())) if isinstance(metrics, MetricRecord) else ""


def _candidate(reply: Message) -> Candidate:
    node_id = reply.metadata.src_node_id
    if reply.has_error():
        fault = reply.error.code != flower.UNREADABLE_REPLY
        return Candidate(node_id=node_id, error=flower.reason_of(reply.error), fault=fault)
    arrays, metrics = reply.content.get(ARRAYS), reply.content.get(METRICS)
    told = metrics if isinstance(metrics, MetricRecord) else None
    if not isinstance(arrays, ArrayRecord):
        return Candidate(node_id=node_id, metrics=told)
    return Candidate(node_id=node_id, metrics=told, arrays=arrays, flat=partial(flower.flat, arrays))


def _admitted(
    replies: Sequence[Message], judgements: Sequence[Judgement], order: Sequence[str], further: Sequence[str]
) -> list[Message]:
    """The accepted replies as the strategy gets them: arrays in the model's order, the two metrics that count, ``further`` ones."""
    admitted = []
    for reply, judgement in zip(replies, judgements, strict=True):
        if judgement.verdict != UpdateVerdict.ACCEPTED:
            continue
        arrays, told = reply.content.array_records[ARRAYS], reply.content.metric_records[METRICS]
        metrics: dict[str, Any] = {SAMPLES: judgement.samples, LOSS: judgement.loss}
        for name in further:
            value = told.get(name)
            metrics[name] = value if isinstance(value, int) else 0
        if list(arrays) != list(order):
            arrays = flower.assemble({name: arrays[name] for name in order})
        reply.content = RecordDict({ARRAYS: arrays, METRICS: MetricRecord(metrics)})
        admitted.append(reply)
    return admitted


def _released(
    private: Central, accepted: Sequence[Message], reference: Mapping[str, NDArray[Any]]
) -> tuple[list[Message], Mapping[str, float]]:
    """What a strategy gets in place of the devices' replies: one, whose parameters are their private mean; and its metrics."""
    release = private.release((reply.content.array_records[ARRAYS] for reply in accepted), reference)
    content = RecordDict({ARRAYS: flower.to_record(release.arrays), METRICS: MetricRecord({SAMPLES: 1, LOSS: 0.0})})
    about = Address(message_id="", node_id=1, group_id=str(private.number), message_type="train")
    return [flower.reply(content, about)], release.metrics()


def _aggregate(
    strategy: Strategy, number: int, accepted: Sequence[Message], order: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """The strategy's result by name (some strategies drop names and keep the order).

    Raises Conflict ``aggregation_failed``: a rule that cannot work with so few replies, say; asking again will not help.
    """
    try:
        aggregated, _ = strategy.aggregate_train(number, accepted)
    except Exception as error:  # strategies are Flower's or a third party's
        message = f"{type(strategy).__name__} failed on {len(accepted)} updates in round {number}: {error}"
        raise Conflict("aggregation_failed", message[:400]) from error
    if aggregated is None:
        raise Conflict("aggregation_failed", f"{type(strategy).__name__} gave no parameters in round {number}")
    arrays = flower.arrays_of(aggregated)
    return arrays if set(arrays) == set(order) else dict(zip(order, arrays.values(), strict=True))
