"""A run over stock Flower: the ServerApp of ``deploy/flower``, for SuperLink and SuperNodes instead of our gateway.

It has the rounds, admission and strategies of a run, and nothing that lives in our database: no cohorts by condition, no
checkpoints, no releases. With the same seed and the same devices it ends with the bytes of a run over the gateway.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fogline_server.training import whole_run
from fogline_server.training.cohort_grid import CohortGrid
from fogline_server.training.spec import RunSpec
from fogline_shared import flower, tensors
from fogline_shared.flower import Message
from fogline_shared.recipe import load_recipe

_LOOK_EVERY_S = 0.5

app = ServerApp()


class StockGrid(CohortGrid):
    """Our interface over Flower's own grid: messages are addressed and written as its SuperLink expects them."""

    def __init__(self, grid: Grid, nodes: Iterable[int]) -> None:
        super().__init__(sorted(nodes))
        self._grid = grid

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send; Flower numbers the messages itself."""
        return self._grid.push_messages([self._own(message) for message in messages])

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """What has come so far."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """All replies, or those that came within ``timeout`` seconds."""
        return self._grid.send_and_receive([self._own(message) for message in messages], timeout=timeout)

    @staticmethod
    def _own(message: Message) -> Message:
        about = message.metadata
        return Message(
            flower.plain(message.content), about.dst_node_id, about.message_type, group_id=about.group_id or "0"
        )


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train as the app's configuration says; write the parameters (safetensors) to ``out``, if there is one."""
    config = dict(context.run_config)
    recipe = load_recipe(str(config["recipe"]))
    spec = _spec(config).resolved(recipe)
    stock = StockGrid(grid, _nodes(grid, spec.min_devices))
    arrays = whole_run.train(stock, recipe, spec).arrays
    if config.get("out"):
        _write(Path(str(config["out"])), tensors.encode(flower.arrays_of(arrays)))


def _spec(config: dict[str, Any]) -> RunSpec:
    return RunSpec(
        recipe=str(config["recipe"]),
        size=str(config["size"]),
        rounds=int(config["rounds"]),
        strategy=str(config["strategy"]),
        seed=int(config["seed"]),
        min_devices=int(config["min-devices"]),
    )


def _nodes(grid: Grid, needed: int) -> list[int]:
    """The nodes that are there, once there are enough."""
    while len(nodes := list(grid.get_node_ids())) < needed:
        time.sleep(_LOOK_EVERY_S)
    return nodes


def _write(path: Path, buffers: Iterable[bytes | memoryview]) -> None:
    """Whole or not at all."""
    draft = path.with_suffix(".part")
    with draft.open("wb") as file:
        file.writelines(buffers)
    draft.replace(path)
