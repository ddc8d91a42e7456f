"""Every strategy there is: trains, refuses a poisoned reply and goes on, and continues exactly from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import MetricRecord
from tiny_recipe import Tiny

from fogline_client.training.app import build_app
from fogline_recipes import parameters
from fogline_server.training import rounds
from fogline_server.training.in_process import InProcessGrid
from fogline_server.training.spec import RunSpec
from fogline_server.training.strategies import base
from fogline_shared import flower, tensors
from fogline_shared.errors import Conflict
from fogline_shared.states import UpdateVerdict

NODES = range(1, 8)


def poisoned(app: Callable) -> Callable:
    def answer(message, context):
        reply = app(message, context)
        if "arrays" in reply.content:
            arrays = flower.arrays_of(reply.content["arrays"])
            reply.content["arrays"] = flower.to_record({k: np.full_like(v, np.nan) for k, v in arrays.items()})
        return reply

    return answer


def grid_of(*, poison: bool = False) -> InProcessGrid:
    apps = {node: build_app(Tiny()) for node in NODES}
    return InProcessGrid(
        {node: (poisoned(app) if poison and node == 7 else app, {"seed": str(node)}) for node, app in apps.items()}
    )


class Bench:
    """A run without a database."""

    def __init__(self, strategy: str, *, poison: bool = False, seed: int = 0, **options: object) -> None:
        self.recipe = Tiny()
        spec = RunSpec(recipe="tiny", rounds=8, strategy=strategy, strategy_options=options, seed=seed)
        self.spec = spec.resolved(self.recipe)
        self.rule = self.spec.rule()
        self.strategy = self.rule.build(self.recipe)
        self.grid = grid_of(poison=poison)
        self.model = self.recipe.model("student", seed=0)
        self.arrays = flower.to_record(parameters.read(self.model))
        self.statistics, _ = rounds.gather_statistics(self.grid, self.recipe)

    def round(self, number: int) -> rounds.Trained:
        trained = rounds.train(
            self.grid,
            self.strategy,
            self.arrays,
            number,
            size="student",
            plan=self.spec.train_plan(self.recipe, number),
            statistics=self.statistics,
            max_norm_ratio=self.spec.max_norm_ratio,
            running=[name for name, _ in self.model.named_buffers() if name in self.arrays],
            adaptive=self.rule.adaptive,
        )
        self.arrays = trained.arrays
        return trained

    def blob(self) -> bytes:
        return b"".join(tensors.encode(flower.arrays_of(self.arrays)))


@pytest.mark.parametrize("name", base.names())
def test_poisoned_reply_is_refused_and_the_round_goes_on(name: str) -> None:
    bench = Bench(name, poison=True)
    before = flower.arrays_of(bench.arrays)
    trained = bench.round(1)
    verdicts = {j.node_id: j.verdict for j in trained.judgements}
    assert verdicts == {n: UpdateVerdict.REFUSED if n == 7 else UpdateVerdict.ACCEPTED for n in NODES}
    after = flower.arrays_of(trained.arrays)
    assert list(after) == list(before)
    assert all(np.isfinite(array).all() and array.dtype == np.float32 for array in after.values())
    assert any(not np.array_equal(after[k], before[k]) for k in after)


@pytest.mark.parametrize("name", base.names())
def test_run_continues_exactly_from_a_checkpoint(name: str) -> None:
    whole = Bench(name)
    for number in (1, 2, 3):
        whole.round(number)

    before = Bench(name)
    for number in (1, 2):
        before.round(number)
    params, state = before.blob(), base.read_state(before.rule, before.strategy)

    after = Bench(name)
    after.arrays = flower.to_record(dict(tensors.decode(params)))
    base.write_state(after.rule, after.strategy, state)
    after.round(3)
    assert after.blob() == whole.blob()


def test_running_variances_stay_positive_under_an_adaptive_strategy() -> None:
    bench = Bench("fedyogi", eta=1.0)
    for number in (1, 2, 3):
        bench.round(number)
    arrays = flower.arrays_of(bench.arrays)
    assert min(arrays[name].min() for name in arrays if name.endswith("running_var")) > 0


def test_same_data_gives_the_same_bits_in_another_fleet() -> None:
    """Node ids are drawn anew when devices enrol; another seed shows that the comparison can fail."""
    one, other, seeded = Bench("fedavg"), Bench("fedavg"), Bench("fedavg", seed=1)
    app = build_app(Tiny())
    other.grid = InProcessGrid({2**40 - 7 * node: (app, {"seed": str(node)}) for node in NODES})
    other.statistics, _ = rounds.gather_statistics(other.grid, other.recipe)
    for bench in (one, other, seeded):
        for number in (1, 2):
            bench.round(number)
    assert one.statistics.standardisation == other.statistics.standardisation
    assert one.blob() == other.blob()
    assert one.blob() != seeded.blob()


def test_fedavg_learns() -> None:
    bench = Bench("fedavg")
    for number in range(1, 9):
        bench.round(number)
    parameters.write(bench.model, flower.arrays_of(bench.arrays))
    accuracy = bench.recipe.evaluate(bench.model, bench.recipe.unseen(), bench.statistics.standardisation).accuracy
    assert accuracy > 0.6, "chance is a quarter"
    evaluated = rounds.evaluate(
        bench.grid, bench.strategy, bench.arrays, 8, size="student", statistics=bench.statistics
    )
    assert evaluated.accuracy == pytest.approx(accuracy, abs=0.15)


def test_rule_that_cannot_work_ends_the_run_with_its_reason() -> None:
    bench = Bench("fedavg")

    def broken(*_: object) -> None:
        raise ValueError("not enough neighbours")

    bench.strategy.aggregate_train = broken
    with pytest.raises(Conflict, match="not enough neighbours") as caught:
        bench.round(1)
    assert caught.value.code == "aggregation_failed"


def test_app_that_raises_is_an_error_reply_and_counts_for_nothing() -> None:
    bench = Bench("fedavg")

    def broken(*_: object) -> None:
        raise RuntimeError("the sensor fell off")

    apps = {node: (build_app(Tiny()), {"seed": str(node)}) for node in NODES}
    bench.grid = InProcessGrid({**apps, 3: (broken, {})})
    judged = bench.round(1).judgements
    failed = next(j for j in judged if j.node_id == 3)
    assert (failed.verdict, failed.code, failed.reason) == (
        UpdateVerdict.ERROR,
        "RuntimeError",
        "the sensor fell off",
    )
    assert sum(j.verdict == UpdateVerdict.ACCEPTED for j in judged) == 6


def test_teacher_of_the_messages_changes_what_devices_learn() -> None:
    plain, taught = Bench("fedavg"), Bench("fedavg")
    teacher = rounds.Teacher(
        size="teacher", arrays=flower.to_record(parameters.read(taught.recipe.model("teacher", seed=5)))
    )
    plain.round(1)
    trained = rounds.train(
        taught.grid,
        taught.strategy,
        taught.arrays,
        1,
        size="student",
        plan=taught.spec.train_plan(taught.recipe, 1),
        statistics=taught.statistics,
        max_norm_ratio=5.0,
        teacher=teacher,
    )
    assert all(j.verdict == UpdateVerdict.ACCEPTED for j in trained.judgements)
    taught.arrays = trained.arrays
    assert plain.blob() != taught.blob()


def test_metric_that_is_only_some_devices_does_not_break_a_strategy() -> None:
    bench = Bench("fedavg")
    app = build_app(Tiny())

    def chatty(message, context):
        reply = app(message, context)
        if "metrics" in reply.content and "arrays" in reply.content:
            reply.content["metrics"] = MetricRecord({**reply.content["metrics"], "temperature": 36.6})
        return reply

    apps = {node: (build_app(Tiny()), {"seed": str(node)}) for node in NODES}
    bench.grid = InProcessGrid({**apps, 3: (chatty, {"seed": "3"})})
    assert all(j.verdict == UpdateVerdict.ACCEPTED for j in bench.round(1).judgements)
