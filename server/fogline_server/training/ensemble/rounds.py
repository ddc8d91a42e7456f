"""One round over several sizes: one exchange with all devices, an aggregation a size, then the ensemble teaches the student.

FedDF (Lin, Kong, Stich, Jaggi, "Ensemble distillation for robust model fusion in federated learning", NeurIPS 2020, algorithm
3): each size is averaged over the devices that train it; the teacher is the ensemble of all devices' models, whatever their size,
which are loaded one after another; the student starts from its own size's average. As there, that average is the control.
Unlike there, the other sizes are not taught: they are there for the student.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fogline_recipes import parameters
from fogline_server.training import rounds
from fogline_server.training.cohort_grid import CohortGrid
from fogline_server.training.ensemble import distil, fusion
from fogline_server.training.rounds import ARRAYS, Admitted, Order, Trained
from fogline_server.training.spec import RunSpec
from fogline_server.training.statistics import Statistics, too_few_accepted
from fogline_server.training.strategies import base as strategies
from fogline_shared import flower, tensors
from fogline_shared.flower import ArrayRecord, Message
from fogline_shared.recipe import Dataset, FloatArray, Recipe

if TYPE_CHECKING:
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import Strategy
    from torch.nn import Module

_PREFIX = "sizes"
_SEED = 1_000_003


class Sizes:
    """What a run with an ensemble keeps beside its student: parameters and strategy of each other size."""

    def __init__(self, recipe: Recipe, spec: RunSpec) -> None:
        transfer = recipe.transfer()
        assert transfer is not None, "checked when the run was submitted"
        self._recipe, self._spec, self._transfer = recipe, spec, transfer
        self._holdout: Dataset | None = recipe.holdout()
        self._sizes = spec.ensemble.all_sizes(recipe, spec.size)
        self._rule = spec.rule()
        self._models = {size: self._initial(size) for size in self._sizes}
        self._strategies: dict[str, Strategy] = {size: self._rule.build(recipe) for size in self._sizes[1:]}
        self._arrays = {size: flower.to_record(parameters.read(self._models[size])) for size in self._sizes[1:]}

    def largest(self) -> int:
        """Bytes of the largest of the other sizes' parameters; 0 without another size."""
        encoded = (tensors.encode(flower.arrays_of(arrays)) for arrays in self._arrays.values())
        return max((sum(map(len, buffers)) for buffers in encoded), default=0)

    def state(self) -> dict[str, NDArray[Any]]:
        """For the checkpoint: parameters and strategies of the other sizes, by names that no strategy's state has."""
        state: dict[str, NDArray[Any]] = {}
        for size, strategy in self._strategies.items():
            state |= {f"{_PREFIX}/{size}/params/{k}": v for k, v in flower.arrays_of(self._arrays[size]).items()}
            kept = strategies.read_state(self._rule, strategy)
            state |= {f"{_PREFIX}/{size}/state/{name}": array for name, array in kept.items()}
        return state

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Inverse of :meth:`state`; other names are somebody else's. Without names of ours: as the run began."""
        for size, strategy in self._strategies.items():
            own = _below(state, f"{_PREFIX}/{size}/params/") or parameters.read(self._initial(size))
            self._arrays[size] = flower.to_record(own)
            strategies.write_state(self._rule, strategy, _below(state, f"{_PREFIX}/{size}/state/"))

    def _initial(self, size: str) -> Module:
        return self._recipe.model(size, seed=self._spec.seed)

    def train(
        self,
        grid: Grid,
        strategy: Strategy,
        arrays: ArrayRecord,
        number: int,
        *,
        statistics: Statistics,
        classes: Mapping[int, str],
        on_step: Callable[[], None] = lambda: None,
    ) -> Trained:
        """One round. ``further`` of what comes back are the control's and the ensemble's metrics.

        ``strategy`` and ``arrays``: the student's; ``classes``: device class by node.
        Raises Conflict as :func:`~fogline_server.training.rounds.train` does, ``no_ensemble`` and ``distillation_diverged``.
        A size of which no reply is accepted keeps its parameters; how many must be accepted counts over all sizes.
        """
        spec = self._spec
        orders = {
            size: self._order(size, number, statistics, strategy=strategy, student=arrays) for size in self._sizes
        }
        admitted = self._exchange(grid, orders, classes)
        judgements = [judgement for each in admitted.values() for judgement in each.judgements]
        if sum(len(each.accepted) for each in admitted.values()) < spec.fewest_updates:
            raise too_few_accepted(number, judgements, spec.fewest_updates)
        seed = (spec.seed * _SEED + number) % 2**63
        x = distil.draw(self._transfer, spec.ensemble, seed)
        # Before the strategies read the replies: some take the arrays out as they go.
        teacher, members = fusion.fuse(spec.ensemble, self._members(admitted, x, statistics))
        new = {size: rounds.aggregate(orders[size], each).arrays for size, each in admitted.items() if each.accepted}
        control = new.pop(spec.size, arrays)
        metrics = self._scored(spec.size, control, statistics, prefix="control_")
        student = self._models[spec.size]
        parameters.write(student, flower.arrays_of(control))
        divergence = distil.teach(
            student, x, teacher, statistics.standardisation, spec.ensemble, seed=seed, on_step=on_step
        )
        taught = flower.to_record(parameters.read(student))
        self._arrays |= new
        for size, own in self._arrays.items():
            metrics |= self._scored(size, own, statistics, prefix=f"{size}_")
        metrics |= {"ensemble_members": members, "divergence": divergence}
        return Trained(
            arrays=taught,
            loss=rounds.mean(judgements, [judgement.loss for judgement in judgements]),
            judgements=judgements,
            bytes_sent=sum(each.bytes_sent for each in admitted.values()),
            bytes_plain=sum(each.bytes_plain for each in admitted.values()),
            further=metrics,
        )

    def _order(
        self, size: str, number: int, statistics: Statistics, *, strategy: Strategy, student: ArrayRecord
    ) -> Order:
        own = student if size == self._spec.size else self._arrays[size]
        return Order(
            strategy=self._strategies.get(size, strategy),
            arrays=own,
            number=number,
            size=size,
            plan=replace(self._spec, size=size).train_plan(self._recipe, number),
            statistics=statistics,
            max_norm_ratio=self._spec.max_norm_ratio,
            teacher=None,
            running=[name for name, _ in self._models[size].named_buffers() if name in own],
            adaptive=self._rule.adaptive,
            codec=self._spec.update_codec(),
        )

    def _exchange(self, grid: Grid, orders: Mapping[str, Order], classes: Mapping[int, str]) -> dict[str, Admitted]:
        """Everybody is asked at once: small models do not wait for large ones. Replies are judged among their own size."""
        spec = self._spec
        size_of = {node: spec.ensemble.size_of(classes.get(node, ""), spec.size) for node in grid.get_node_ids()}
        parts = {size: _Part([node for node, its in size_of.items() if its == size]) for size in orders}
        messages: list[Message] = []
        for size, part in parts.items():
            if part.get_node_ids():
                messages += rounds.ask(orders[size], part)
        replies = rounds.in_order(grid, messages)
        return {
            size: rounds.admit(order, [r for r in replies if size_of[r.metadata.src_node_id] == size])
            for size, order in orders.items()
        }

    def _members(
        self, admitted: Mapping[str, Admitted], x: FloatArray, statistics: Statistics
    ) -> Iterator[fusion.Logits]:
        """The devices' logits, one model in memory at a time."""
        for size, each in admitted.items():
            model = self._models[size]
            for reply in each.accepted:
                parameters.write(model, flower.arrays_of(reply.content.array_records[ARRAYS]))
                yield distil.logits_of(model, x, statistics.standardisation)

    def _scored(self, size: str, arrays: ArrayRecord, statistics: Statistics, *, prefix: str) -> dict[str, float]:
        if self._holdout is None:
            return {}
        model = self._models[size]
        parameters.write(model, flower.arrays_of(arrays))
        told = self._recipe.evaluate(model, self._holdout, statistics.standardisation)
        return {f"{prefix}holdout_accuracy": told.accuracy, f"{prefix}holdout_loss": told.loss}


class _Part(CohortGrid):
    """The nodes of one size, as a strategy sees them when it says what is sent."""

    def get_node_ids(self) -> Sequence[int]:
        return self._nodes

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        raise NotImplementedError("all sizes are sent in one exchange")

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        raise NotImplementedError("all sizes are sent in one exchange")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        raise NotImplementedError("all sizes are sent in one exchange")


def _below(state: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
