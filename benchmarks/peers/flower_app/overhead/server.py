"""Unmodified FedAvg, training only; writes how long each round took, in seconds, as JSON."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):
    """FedAvg that notes when each round begins and when it has been aggregated."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.seconds: list[float] = []
        self._started = 0.0

    def configure_train(self, *arguments, **keywords):
        self._started = time.perf_counter()
        return super().configure_train(*arguments, **keywords)

    def aggregate_train(self, *arguments, **keywords):
        result = super().aggregate_train(*arguments, **keywords)
        self.seconds.append(time.perf_counter() - self._started)
        return result


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    nodes = int(config["nodes"])
    strategy = Timed(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    tensors = int(config["tensors"])
    zeros = np.zeros(int(config["floats"]) // tensors, dtype=np.float32)
    arrays = ArrayRecord({f"w{i}": Array(zeros) for i in range(tensors)})
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(config["rounds"]))
    out = Path(str(config["out"]))
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(strategy.seconds))
    partial.replace(out)
