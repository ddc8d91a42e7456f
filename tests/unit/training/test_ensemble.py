"""Ensemble distillation: the fusion of logits, the lesson, and a round over devices of two sizes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from tiny_recipe import Tiny

from fogline_client.training.app import build_app
from fogline_recipes import parameters
from fogline_server.training import rounds
from fogline_server.training.ensemble import distil, fusion, report
from fogline_server.training.ensemble.rounds import Sizes
from fogline_server.training.ensemble.spec import Ensemble
from fogline_server.training.in_process import InProcessGrid
from fogline_server.training.spec import RunSpec
from fogline_shared import flower
from fogline_shared.errors import Conflict, InvalidInput
from fogline_shared.recipe import Standardisation

LOGITS = [np.array([[0.0, 3.0], [1.0, 1.0]]), np.array([[2.0, 0.0], [4.0, -4.0]]), np.array([[1.0, 90.0], [0.0, 0.0]])]
ON = Ensemble(sizes={"large": "teacher"}, steps=20, batch_size=32)
CLASSES = {0: "large", 1: "large", 2: "generic", 3: "generic"}


def test_rules_of_fusion() -> None:
    def fused(rule: str, **options: float) -> np.ndarray:
        return fusion.fuse(Ensemble(fusion=rule, **options), iter(LOGITS))[0]

    assert np.allclose(fused("mean"), [[1.0, 31.0], [5 / 3, -1.0]])
    assert np.allclose(fused("median"), [[1.0, 3.0], [1.0, 0.0]])
    assert np.allclose(fused("trimmed_mean", trim=0.34), fused("median"))
    assert np.allclose(fused("trimmed_mean", trim=0.0), fused("mean"))
    # The sure one counts more than the two that are at a loss.
    assert fused("entropy")[1, 0] > fused("mean")[1, 0]
    weights = np.exp([-np.log(2), -fusion.entropy(LOGITS[1])[1], -np.log(2)])
    assert np.allclose(fused("entropy")[1], weights @ [row[1] for row in LOGITS] / weights.sum())


def test_member_that_is_not_finite_is_left_out() -> None:
    broken = np.full((2, 2), np.inf)
    fused, count = fusion.fuse(Ensemble(), iter([*LOGITS, broken]))
    assert count == 3
    assert np.array_equal(fused, fusion.fuse(Ensemble(), iter(LOGITS))[0])
    with pytest.raises(Conflict, match="finite logits"):
        fusion.fuse(Ensemble(fusion="median"), iter([broken]))


def test_student_learns_what_the_ensemble_says_and_a_seed_repeats_it() -> None:
    recipe = Tiny()
    x = recipe.transfer()
    standardisation = Standardisation(mean=(5.0,) * 6, scale=(3.0,) * 6)
    teacher = distil.logits_of(recipe.model("teacher", seed=5), x, standardisation) * 20

    def taught(seed: int) -> tuple[dict[str, np.ndarray], float]:
        student = recipe.model("student", seed=1)
        ensemble = Ensemble(steps=100, batch_size=32, learning_rate=1e-2)
        distil.teach(student, x, teacher, standardisation, ensemble, seed=seed)
        agreed = distil.logits_of(student, x, standardisation).argmax(1) == teacher.argmax(1)
        return parameters.read(student), float(agreed.mean())

    first, agreement = taught(3)
    again, other = taught(3)[0], taught(4)[0]
    assert agreement > 0.9
    assert all(np.array_equal(array, again[name]) for name, array in first.items())
    assert any(not np.array_equal(array, other[name]) for name, array in first.items())


def test_lesson_that_diverges_ends_with_a_code() -> None:
    x = Tiny().transfer()
    standardisation = Standardisation(mean=(0.0,) * 6, scale=(1.0,) * 6)
    student = Tiny().model("student", seed=1)
    with torch.no_grad():
        next(student.parameters()).fill_(float("nan"))
    with pytest.raises(Conflict, match="learning_rate") as caught:
        distil.teach(student, x, np.zeros((len(x), 4)), standardisation, ON, seed=0)
    assert caught.value.code == "distillation_diverged"


class Round:
    """A run over four devices in this process, a round at a time."""

    def __init__(
        self, *, classes: Mapping[int, str] = CLASSES, apps: Mapping[int, object] | None = None, **fields: object
    ):
        self.recipe = Tiny()
        self.spec = RunSpec(**{"recipe": "tiny", "ensemble": ON, "rounds": 3, **fields}).resolved(self.recipe)
        app = build_app(self.recipe)
        self.grid = InProcessGrid({node: ((apps or {}).get(node, app), {"seed": str(node)}) for node in classes})
        self.classes = classes
        self.sizes = Sizes(self.recipe, self.spec)
        self.strategy = self.spec.rule().build(self.recipe)
        self.arrays = flower.to_record(parameters.read(self.recipe.model("student", seed=self.spec.seed)))
        self.statistics, _ = rounds.gather_statistics(self.grid, self.recipe)

    def train(self, number: int) -> rounds.Trained:
        outcome = self.sizes.train(
            self.grid, self.strategy, self.arrays, number, statistics=self.statistics, classes=self.classes
        )
        self.arrays = outcome.arrays
        return outcome

    def bytes(self) -> list[bytes]:
        arrays = {**self.sizes.state(), **flower.arrays_of(self.arrays)}
        return [array.tobytes() for array in arrays.values()]


def test_round_trains_each_size_and_teaches_the_student() -> None:
    run = Round()
    before = run.sizes.state()
    outcome = run.train(1)
    assert [j.verdict for j in outcome.judgements] == ["ACCEPTED"] * 4
    assert outcome.further["ensemble_members"] == 4
    assert outcome.further["divergence"] > 0
    after = run.sizes.state()
    assert set(before) == set(after)
    assert any(not np.array_equal(before[name], after[name]) for name in before)
    # The control is what the two devices of the student's size come to without any ensemble.
    alone = Round(classes={2: "generic", 3: "generic"}, ensemble=Ensemble())
    alone.statistics = run.statistics
    plain = rounds.train(
        alone.grid,
        alone.strategy,
        alone.arrays,
        1,
        size="student",
        plan=run.spec.train_plan(run.recipe, 1),
        statistics=run.statistics,
        max_norm_ratio=5.0,
        running=["1.running_mean", "1.running_var"],
    )
    model = run.recipe.model("student", seed=0)
    parameters.write(model, flower.arrays_of(plain.arrays))
    told = run.recipe.evaluate(model, run.recipe.holdout(), run.statistics.standardisation)
    assert outcome.further["control_holdout_accuracy"] == told.accuracy
    assert outcome.further["control_holdout_loss"] == told.loss


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_run_goes_on_from_its_checkpoint_to_the_same_bytes(strategy: str) -> None:
    whole = Round(strategy=strategy)
    whole.train(1)
    state, arrays = whole.sizes.state(), whole.arrays
    moments = {name: getattr(whole.strategy, name, None) for name in ("m_t", "v_t")}
    kept = {name: array.copy() for name, array in state.items()}
    again = Round(strategy=strategy)
    again.sizes.restore(kept)
    again.arrays = flower.to_record({name: array.copy() for name, array in flower.arrays_of(arrays).items()})
    for name, value in moments.items():
        setattr(again.strategy, name, value and {key: array.copy() for key, array in value.items()})
    whole.train(2)
    again.train(2)
    assert whole.bytes() == again.bytes()


def test_size_without_a_usable_update_keeps_its_parameters_and_the_round_goes_on() -> None:
    def broken(message: object, context: object) -> None:
        raise RuntimeError("no")

    def silent_in_training(message, context):
        if "arrays" in message.content:
            return broken(message, context)
        return build_app(Tiny())(message, context)

    run = Round(apps={0: silent_in_training, 1: silent_in_training}, quorum=0.5)
    before = run.sizes.state()
    outcome = run.train(1)
    assert outcome.further["ensemble_members"] == 2
    after = run.sizes.state()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    strict = Round(apps={0: silent_in_training, 1: silent_in_training}, min_devices=4, quorum=1.0)
    with pytest.raises(Conflict) as caught:
        strict.train(1)
    assert caught.value.code == "quorum_not_reached"


class NoTransfer(Tiny):
    def transfer(self) -> None:
        return None


def test_what_cannot_be_is_refused_with_what_there_is() -> None:
    for fields, words in (
        ({"fusion": "best"}, "mean, entropy, median, trimmed_mean"),
        ({"steps": 0}, "from 1 to 100000"),
        ({"temperature": 0.0}, "from 0.1 to 100"),
        ({"trim": 0.5}, "from 0 to 0.45"),
    ):
        with pytest.raises(InvalidInput, match=words) as caught:
            Ensemble(**fields)
        assert caught.value.code == "invalid_ensemble"
    with pytest.raises(InvalidInput, match="sizes: teacher, student") as caught:
        RunSpec(recipe="tiny", ensemble=Ensemble(sizes={"large": "huge"})).resolved(Tiny())
    assert caught.value.code == "unknown_size"
    with pytest.raises(InvalidInput, match="transfer") as caught:
        RunSpec(recipe="tiny", ensemble=ON).resolved(NoTransfer())
    assert caught.value.code == "no_transfer_set"
    RunSpec(recipe="tiny").resolved(NoTransfer())
    with pytest.raises(InvalidInput, match="classes: generic, jetson") as caught:
        ON.check_classes({"jetson", "generic"})
    assert caught.value.code == "unknown_device_class"
    with pytest.raises(InvalidInput, match="either"):
        RunSpec(recipe="tiny", ensemble=ON, distil_from="run_1")


def test_spec_survives_its_row_and_one_stored_before_has_no_ensemble() -> None:
    spec = RunSpec(recipe="tiny", ensemble=ON)
    assert RunSpec.from_json(spec.as_json()).ensemble == ON
    old = spec.as_json()
    del old["ensemble"]
    assert not RunSpec.from_json(old).ensemble


def test_report_says_so_when_the_control_is_better() -> None:
    told = report.comparison({"holdout_accuracy": 0.8, "control_holdout_accuracy": 0.9})
    assert told["better"] == "control"
    assert told["sentence"].startswith("The control is better")
    assert report.comparison({"holdout_accuracy": 0.9, "control_holdout_accuracy": 0.8})["better"] == "distilled"
    assert report.comparison({"holdout_accuracy": 0.9, "control_holdout_accuracy": 0.9})["better"] == "neither"
    assert report.comparison({})["better"] is None
