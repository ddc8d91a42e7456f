"""A recipe as a Flower ClientApp: what one device does when it is asked for statistics, training or evaluation.

Nothing here knows Fogline's coordinator: the same app runs under stock Flower (``flwr run``). The device's data is loaded
once, from its own node configuration (the recipe's ``device_options``), and never leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.clientapp import ClientApp

from fogline_client.training import encoding
from fogline_recipes import parameters
from fogline_shared import flower
from fogline_shared.errors import Corrupt
from fogline_shared.flower import ConfigRecord, Message, MetricRecord, RecordDict
from fogline_shared.recipe import Dataset, Recipe, Standardisation, TrainPlan, check_data

if TYPE_CHECKING:
    from flwr.app import Context
    from torch.nn import Module

# As MetricRecord declares it.
Metrics = dict[str, int | float | list[int] | list[float]]


def build_app(recipe: Recipe) -> ClientApp:
    """The app of one device."""
    app = ClientApp()
    device = _Device(recipe)
    app.query()(device.query)
    app.train()(device.train)
    app.evaluate()(device.evaluate)
    return app


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    options: Mapping[str, str]
    data: Dataset
    fingerprint: int


class _Device:
    """Handlers over one recipe; the data is kept between messages."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._loaded: _Loaded | None = None

    def query(self, message: Message, context: Context) -> Message:
        """Sums for standardisation."""
        data = self._load(context).data
        sums = self._recipe.channel_sums(data)
        metrics: Metrics = {
            "num-examples": len(data),
            "count": float(sums.count),
            "total": [float(v) for v in sums.total],
            "squares": [float(v) for v in sums.squares],
        }
        return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)

    def train(self, message: Message, context: Context) -> Message:
        """Local epochs from the parameters that came; with a teacher's parameters, towards its soft labels too."""
        config = _config(message)
        model = self._model(message, "arrays", str(config["size"]))
        teacher = None
        if "teacher" in message.content:
            teacher = self._model(message, "teacher", str(config["teacher_size"]))
        loaded = self._load(context)
        plan = _plan(config, loaded.fingerprint)
        result = self._recipe.train(model, loaded.data, _standardisation(config), plan, teacher=teacher)
        content = encoding.encode(
            parameters.read(model),
            flower.arrays_of(message.content.array_records["arrays"]),
            config,
            context,
            running={name for name, _ in model.named_buffers()},
            seed=plan.seed,
        )
        content["metrics"] = MetricRecord({"num-examples": result.examples, "loss": float(result.loss)})
        return Message(content, reply_to=message)

    def evaluate(self, message: Message, context: Context) -> Message:
        """How the parameters that came do on this device's data."""
        config = _config(message)
        model = self._model(message, "arrays", str(config["size"]))
        evaluation = self._recipe.evaluate(model, self._load(context).data, _standardisation(config))
        metrics: Metrics = {
            "num-examples": evaluation.examples,
            "accuracy": float(evaluation.accuracy),
            "loss": float(evaluation.loss),
        }
        return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)

    def _load(self, context: Context) -> _Loaded:
        options = {name: str(value) for name, value in context.node_config.items()}
        if self._loaded is None or self._loaded.options != options:
            data = check_data(self._recipe, self._recipe.device_data(options), what="this device's data")
            self._loaded = _Loaded(options=options, data=data, fingerprint=fingerprint_of(data))
        return self._loaded

    def _model(self, message: Message, record: str, size: str) -> Module:
        model = self._recipe.model(size, seed=0)
        parameters.write(model, flower.arrays_of(message.content.array_records[record]))
        return model


def _config(message: Message) -> Mapping[str, Any]:
    config = message.content.get("config")
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


def fingerprint_of(data: Dataset) -> int:
    """A number of the data itself. Node ids differ between fleets; the same data is to be trained on in the same way."""
    digest = hashlib.sha256(np.ascontiguousarray(data.x).data)
    digest.update(np.ascontiguousarray(data.y).data)
    return int.from_bytes(digest.digest()[:7], "big")
