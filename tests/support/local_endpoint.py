"""The agent's local endpoint over real sockets, in the loop of a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from artifacts import SHAPE, example

from fogline_client import Observation, Predictor
from fogline_client.serving.options import ServingOptions
from fogline_client.serving.rpc import GrpcEndpoint
from fogline_client.serving.server import serve_sockets
from fogline_client.serving.sockets import open_sockets


class Held(Predictor):
    """One whose answers wait until they are let go: a model that takes as long as the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()
        self.asked: list[int] = []

    def predict(self, x: Any, *, truth: int | None = None) -> Any:
        """As the predictor's."""
        self._wait(1)
        return super().predict(x, truth=truth)

    def predict_many(self, x: Any, *, truths: Any = None) -> Any:
        """As the predictor's."""
        self._wait(len(x))
        return super().predict_many(x, truths=truths)

    def _wait(self, examples: int) -> None:
        self.asked.append(examples)
        self.begun.set()
        assert self.go.wait(20)


@dataclass
class Served:
    """Where, and what it told telemetry."""

    predictor: Predictor
    client: httpx.AsyncClient
    port: int
    uds: Path
    observed: list[Observation]
    grpc: str = ""

    async def infer(self, **changes: Any) -> httpx.Response:
        """Ask for one example, or what ``changes`` make of it."""
        return await self.client.post("/v2/models/toy/infer", content=json.dumps(request(**changes)))


def request(label: int = 2, **changes: Any) -> dict[str, Any]:
    """An infer request in JSON."""
    tensor = {"name": "input", "shape": [1, *SHAPE], "datatype": "FP32", "data": example(label).ravel().tolist()}
    message = {"id": "a", "inputs": [tensor]}
    for name in ("name", "shape", "datatype", "data"):
        if name in changes:
            tensor[name] = changes.pop(name)
    return message | changes


@contextlib.asynccontextmanager
async def serving(
    predictor: Predictor, observed: list[Observation], tmp_path: Path, **options: Any
) -> AsyncIterator[Served]:
    """Serve until the block ends; ``options``: of :class:`ServingOptions`."""
    uds = tmp_path / "fogline.sock"
    sockets = open_sockets(host="127.0.0.1", port=0, uds_path=uds)
    port, ready = sockets[0].getsockname()[1], asyncio.Event()
    chosen = ServingOptions(**options)
    grpc = GrpcEndpoint("127.0.0.1", chosen) if chosen.serves_grpc else None
    serving = serve_sockets(predictor, sockets, uds_path=uds, ready=ready, options=chosen, grpc=grpc)
    task = asyncio.create_task(serving)
    await asyncio.wait_for(ready.wait(), 5)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield Served(predictor, client, port, uds, observed, grpc.targets[0] if grpc else "")
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert not uds.exists()
