"""What one device does when it is asked for statistics, training or evaluation: a message's content in, its answer out.

A device in the field and a virtual one answer by the same functions; they differ in where :class:`Held` comes from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fogline_recipes import parameters
from fogline_shared import flower
from fogline_shared.errors import Corrupt
from fogline_shared.flower import ConfigRecord, MetricRecord, RecordDict
from fogline_shared.recipe import Dataset, Recipe, Standardisation, TrainPlan

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# As MetricRecord declares it.
Metrics = dict[str, int | float | list[int] | list[float]]


@dataclass(frozen=True, kw_only=True)
class Held:
    """A device's data. ``fingerprint`` tells its randomness from other devices'."""

    data: Dataset
    fingerprint: int


def query(recipe: Recipe, held: Held) -> RecordDict:
    """Sums for standardisation."""
    sums = recipe.channel_sums(held.data)
    metrics: Metrics = {
        "num-examples": len(held.data),
        "count": float(sums.count),
        "total": [float(v) for v in sums.total],
        "squares": [float(v) for v in sums.squares],
    }
    return RecordDict({"metrics": MetricRecord(metrics)})


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What local training came to. ``seed``: the round's randomness on this device."""

    model: Module
    metrics: MetricRecord
    seed: int

    def reply(self) -> RecordDict:
        """The parameters as they are."""
        return RecordDict({"arrays": flower.to_record(parameters.read(self.model)), "metrics": self.metrics})


def train(recipe: Recipe, held: Held, content: RecordDict) -> Trained:
    """Local epochs from the parameters that came; with a teacher's parameters, towards its soft labels too.

    With a record ``correction`` its arrays are added to the gradients of the parameters of those names, in every step, and the
    answer tells the number of ``steps``. Raises Corrupt ``params_mismatch`` for names or shapes that are not the model's.
    """
    config = config_of(content)
    model = _model(recipe, content, "arrays", str(config["size"]))
    teacher = None
    if "teacher" in content:
        teacher = _model(recipe, content, "teacher", str(config["teacher_size"]))
    plan = _plan(config, held.fingerprint)
    corrected = (
        Corrected(model, flower.arrays_of(content.array_records["correction"])) if "correction" in content else None
    )
    result = recipe.train(model, held.data, _standardisation(config), plan, teacher=teacher)
    metrics: Metrics = {"num-examples": result.examples, "loss": float(result.loss)}
    if corrected is not None:
        metrics["steps"] = corrected.steps
    return Trained(model=model, metrics=MetricRecord(metrics), seed=plan.seed)


class Corrected:
    """Adds ``correction`` to every gradient of a model, whoever trains it, and counts the steps."""

    def __init__(self, model: Module, correction: Mapping[str, NDArray[Any]]) -> None:
        self.steps = 0
        learned = dict(model.named_parameters())
        if set(learned) != set(correction):
            odd = min(set(learned) ^ set(correction))
            raise Corrupt("params_mismatch", f"the correction does not fit the model: {odd!r} is missing or foreign")
        for i, (name, parameter) in enumerate(learned.items()):
            if tuple(parameter.shape) != correction[name].shape:
                expected = tuple(parameter.shape)
                raise Corrupt(
                    "params_mismatch", f"{name!r} has shape {correction[name].shape}, the model's is {expected}"
                )
            add = partial(self._add, parameter.new_tensor(correction[name]), int(i == 0))
            parameter.register_hook(add)  # type: ignore[no-untyped-call]

    def _add(self, correction: Tensor, step: int, gradient: Tensor) -> Tensor:
        self.steps += step
        return gradient + correction


def evaluate(recipe: Recipe, held: Held, content: RecordDict) -> RecordDict:
    """How the parameters that came do on this device's data."""
    config = config_of(content)
    model = _model(recipe, content, "arrays", str(config["size"]))
    evaluation = recipe.evaluate(model, held.data, _standardisation(config))
    metrics: Metrics = {
        "num-examples": evaluation.examples,
        "accuracy": float(evaluation.accuracy),
        "loss": float(evaluation.loss),
    }
    return RecordDict({"metrics": MetricRecord(metrics)})


def fingerprint_of(data: Dataset) -> int:
    """A number of the data itself. Node ids differ between fleets; the same data is to be trained on in the same way."""
    digest = hashlib.sha256(np.ascontiguousarray(data.x).data)
    digest.update(np.ascontiguousarray(data.y).data)
    return int.from_bytes(digest.digest()[:7], "big")


def _model(recipe: Recipe, content: RecordDict, record: str, size: str) -> Module:
    model = recipe.model(size, seed=0)
    parameters.write(model, flower.arrays_of(content.array_records[record]))
    return model


def config_of(content: RecordDict) -> Mapping[str, Any]:
    """The message's settings; raises Corrupt ``bad_records``."""
    config = content.get("config")
    if not isinstance(config, ConfigRecord):
        raise Corrupt("bad_records", "the message has no record 'config'")
    return config


def _standardisation(config: Mapping[str, Any]) -> Standardisation:
    return Standardisation(mean=tuple(config["mean"]), scale=tuple(config["scale"]))


def _plan(config: Mapping[str, Any], fingerprint: int) -> TrainPlan:
    plan = {field.name: config[field.name] for field in fields(TrainPlan) if field.name in config}
    # One seed a device and round: the same for a repeated task, different between devices.
    plan["seed"] = (int(plan.get("seed", 0)) * 1_000_003 + fingerprint) % 2**63
    return TrainPlan(**plan)
