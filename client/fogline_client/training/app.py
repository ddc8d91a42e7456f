"""A recipe as a Flower ClientApp: what one device does when it is asked for statistics, training or evaluation.

Nothing here knows Fogline's coordinator: the same app runs under stock Flower (``flwr run``). The device's data is loaded
once, from its own node configuration (the recipe's ``device_options``), and never leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flwr.clientapp import ClientApp

from fogline_client.training import encoding
from fogline_client.training.local_privacy import Ledger
from fogline_recipes import device, parameters
from fogline_recipes.device import Held
from fogline_shared import flower
from fogline_shared.flower import ConfigRecord, Message, MetricRecord
from fogline_shared.privacy.local import MARK, UNTOLD, Local
from fogline_shared.recipe import Recipe, check_data

if TYPE_CHECKING:
    from flwr.app import Context


def build_app(recipe: Recipe, ledger: Ledger | None = None) -> ClientApp:
    """The app of one device; ``ledger``: its account of local privacy, by default one in memory."""
    app = ClientApp()
    handlers = _Handlers(recipe, ledger or Ledger())
    app.query()(handlers.query)
    app.train()(handlers.train)
    app.evaluate()(handlers.evaluate)
    return app


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    options: Mapping[str, str]
    held: Held


class _Handlers:
    """Over one recipe; the data is kept between messages."""

    def __init__(self, recipe: Recipe, ledger: Ledger) -> None:
        self._recipe, self._ledger = recipe, ledger
        self._loaded: _Loaded | None = None

    def query(self, message: Message, context: Context) -> Message:
        self._ledger.check(None, what="query")
        return Message(device.query(self._recipe, self._held(context)), reply_to=message)

    def train(self, message: Message, context: Context) -> Message:
        """The reply is made private and encoded as the task asks."""
        config = device.config_of(message.content)
        local = Local.asked(config)
        self._ledger.check(local, what="training")
        trained = device.train(self._recipe, self._held(context), message.content)
        sent = flower.arrays_of(message.content.array_records["arrays"])
        arrays: encoding.Arrays = parameters.read(trained.model)
        metrics, seed = trained.metrics, trained.seed
        if local is not None:
            protected = self._ledger.release(local, arrays, sent)
            # The plan's seed is made of the data too.
            arrays, metrics, seed = protected.arrays, MetricRecord(dict(UNTOLD)), protected.seed
        running = {name for name, _ in trained.model.named_buffers()}
        content = encoding.encode(arrays, sent, config, context, running=running, seed=seed)
        content["metrics"] = metrics
        if local is not None:
            content[MARK] = ConfigRecord(dict(local.config()))
        return Message(content, reply_to=message)

    def evaluate(self, message: Message, context: Context) -> Message:
        self._ledger.check(None, what="evaluation")
        return Message(device.evaluate(self._recipe, self._held(context), message.content), reply_to=message)

    def _held(self, context: Context) -> Held:
        options = {name: str(value) for name, value in context.node_config.items()}
        if self._loaded is None or self._loaded.options != options:
            data = check_data(self._recipe, self._recipe.device_data(options), what="this device's data")
            held = Held(data=data, fingerprint=device.fingerprint_of(data))
            self._loaded = _Loaded(options=options, held=held)
        return self._loaded.held
