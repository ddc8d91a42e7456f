"""What a prediction costs from outside, beside the engine's own call and other servers; and what overload does.

Every way is asked in turn, in an order that changes: whatever else the machine does hits all alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from harness import PEERS, Figure, Options, peer_python, progress
from processes import Processes, free_ports, processes, wait_for

from edge import clients, load, models

HERE = Path(__file__).resolve().parent
# Ratios to ``session.run``: sensor, vision.
RAW, OURS = "session.run", "in process"
IN_PROCESS = (1.3, 1.08)
TARGETS = {"unix socket": (4.0, 1.3), "HTTP binary": (9.0, 2.0), "gRPC": (18.0, 2.6)}
ADDED_US = 10.0
PEERS_TARGETS = {"MLServer": 1 / 3, "LitServe": 1 / 5, "BentoML": 1 / 5}
DEADLINE_S = 0.1
OVERLOAD = 10

Ways = dict[str, Callable[[], object]]
Times = Mapping[str, list[int]]


def measure(options: Options) -> list[Figure]:
    """Ratios of medians for two models, JSON beside three servers, and ten times more requests than can be answered."""
    calls = 200 if options.quick else 5000
    figures = []
    for index, model in enumerate(("sensor", "vision")):
        with _served(model) as (group, folder, addresses):
            within, outside = _within(model, folder), _outside(model, group, folder, addresses)
            progress(f"{model}: {calls} calls each of {', '.join({**within, **outside})}")
            figures += list(_in_process(model, index, _times(within, calls)))
            figures += list(_ratios(model, index, _times({RAW: within[RAW], **outside}, calls)))
    with _served("sensor") as (group, folder, addresses):
        ways = _servers(group, folder, addresses)
        progress(f"servers: {calls} calls each of {', '.join(ways)}")
        figures += list(_beside(_times(ways, calls)))
    with _served("heavy") as (_, _, addresses):
        figures += _overload(addresses, seconds=2 if options.quick else 30)
    return figures


@contextlib.contextmanager
def _served(model: str) -> Iterator[tuple[Processes, Path, dict[str, Any]]]:
    """Our endpoint with a model, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="fogline-bench-") as name, processes(Path(name)) as group:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(models.artifact(model))
        ours = group.start("endpoint", [sys.executable, HERE / "endpoint.py", folder / "model.onnx", folder])
        wait_for("our endpoint", (folder / "addresses.json").exists, timeout_s=60)
        yield group, folder, json.loads((folder / "addresses.json").read_text()) | {"pid": ours.pid}


def _within(model: str, folder: Path) -> Ways:
    """The engine's own call, and the predictor's."""
    import onnxruntime as ort

    from fogline_client import Predictor
    from fogline_client.telemetry.recorder import Recorder

    artifact = folder / "model.onnx"
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(artifact.read_bytes(), settings, providers=["CPUExecutionProvider"])
    predictor = Predictor.from_file(artifact, observe=Recorder(now=time.time()).observe)
    x = _example(model)
    return {RAW: lambda: session.run(None, {"input": x}), OURS: lambda: predictor.predict(x)}


def _outside(model: str, group: Processes, folder: Path, addresses: Mapping[str, Any]) -> Ways:
    """How another process can ask. FastAPI's peer carries no protocol: raw floats in and out."""
    (port,) = free_ports(1)
    group.start("fastapi", [sys.executable, HERE / "fastapi_peer.py", folder / "model.onnx", port])
    fastapi = _connected("FastAPI", port)
    x = _example(model)
    binary, message = clients.binary_request(model, x), clients.grpc_request(model, x)
    plain = clients.http_request("/infer", x.tobytes())
    unix, tcp = clients.HttpClient(addresses["unix"]), clients.HttpClient(addresses["tcp"])
    call = clients.grpc_caller(addresses["grpc"])
    return {
        "unix socket": lambda: _checked(unix, binary),
        "HTTP binary": lambda: _checked(tcp, binary),
        "gRPC": lambda: call(message),
        "FastAPI": lambda: _checked(fastapi, plain),
    }


def _servers(group: Processes, folder: Path, addresses: Mapping[str, Any]) -> Ways:
    """The sensor's example, as JSON to servers that take no other, and to ours both ways."""
    artifact, x = folder / "model.onnx", _example("sensor")
    mlserver, unused, metrics, litserve, bentoml = free_ports(5)
    told = {"host": "127.0.0.1", "http_port": mlserver, "grpc_port": unused, "metrics_port": metrics}
    # No worker processes: a hop less for it.
    (folder / "settings.json").write_text(json.dumps(told | {"parallel_workers": 0, "debug": False}))
    (folder / "model-settings.json").write_text(json.dumps({"name": "sensor", "implementation": "mlserver_peer.Peer"}))
    env = {"MODEL": str(artifact), "PYTHONPATH": str(PEERS), "BENTOML_DO_NOT_TRACK": "True"}
    group.start("mlserver", [peer_python("mlserver").parent / "mlserver", "start", folder], env=env)
    group.start("litserve", [peer_python("litserve"), PEERS / "litserve_peer.py", artifact, litserve])
    serve = ["serve", "bentoml_peer:Peer", "--working-dir", PEERS, "--host", "127.0.0.1", "--port", bentoml]
    group.start("bentoml", [peer_python("bentoml").parent / "bentoml", *serve], env=env)
    tensor = {"name": "input", "shape": x.shape, "datatype": "FP32", "data": x.ravel().tolist()}
    protocol = json.dumps({"inputs": [tensor], "outputs": [{"name": "logits"}]}).encode()
    own = json.dumps({"input": x.tolist()}).encode()
    tcp, binary = clients.HttpClient(addresses["tcp"]), clients.binary_request("sensor", x)
    return {
        "HTTP binary": lambda: _checked(tcp, binary),
        "HTTP JSON": _asking("ours", addresses["tcp"], "/v2/models/sensor/infer", protocol),
        "MLServer": _asking("MLServer", mlserver, "/v2/models/sensor/infer", protocol),
        "LitServe": _asking("LitServe", litserve, "/infer", own),
        "BentoML": _asking("BentoML", bentoml, "/infer", own),
    }


def _asking(name: str, port: int, path: str, body: bytes) -> Callable[[], object]:
    client = _connected(name, port)
    request = clients.http_request(path, body, "content-type: application/json\r\n")
    wait_for(f"{name}'s model", lambda: client.ask(request)[0] == 200, timeout_s=60)
    return lambda: _checked(client, request)


def _connected(name: str, port: int) -> clients.HttpClient:
    connected: list[clients.HttpClient] = []

    def tried() -> bool:
        with contextlib.suppress(OSError):
            connected.append(clients.HttpClient(port))
        return bool(connected)

    wait_for(name, tried, timeout_s=120)
    return connected[0]


def _checked(client: clients.HttpClient, request: bytes) -> None:
    status, body = client.ask(request)
    assert status == 200, body


def _example(model: str) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, *models.SHAPES[model])).astype(np.float32)


def _times(ways: Ways, calls: int) -> Times:
    """Nanoseconds of each call; the first tenth warms up."""
    order, chance, clock = list(ways), random.Random(0), time.perf_counter_ns
    times: dict[str, list[int]] = {name: [] for name in ways}
    for _ in range(calls + calls // 10):
        chance.shuffle(order)
        for name in order:
            started = clock()
            ways[name]()
            times[name].append(clock() - started)
    return {name: taken[calls // 10 :] for name, taken in times.items()}


def _in_process(model: str, index: int, times: Times) -> Iterator[Figure]:
    ours, raw = (statistics.median(times[name]) / 1e3 for name in (OURS, RAW))
    for quantile, target in ((50, IN_PROCESS[index]), (99, 2.0)):
        yield Figure(
            name=f"{model}, in process, p{quantile}",
            unit="µs",
            ours=float(np.percentile(times[OURS], quantile)) / 1e3,
            peer=float(np.percentile(times[RAW], quantile)) / 1e3,
            peer_name=RAW,
            target=target,
            detail={"calls": len(times[OURS])},
        )
    yield Figure(
        name=f"{model}, in process, added to p50",
        unit="µs",
        ours=ours - raw,
        peer=ADDED_US,
        peer_name="limit",
        target=1.0,
    )


def _ratios(model: str, index: int, times: Times) -> Iterator[Figure]:
    median = {name: statistics.median(taken) / 1e3 for name, taken in times.items()}
    p99 = {name: float(np.percentile(taken, 99)) / 1e3 for name, taken in times.items()}
    for name, targets in TARGETS.items():
        yield Figure(
            name=f"{model}, {name}, p50",
            unit="µs",
            ours=median[name],
            peer=median[RAW],
            peer_name=RAW,
            target=targets[index],
            detail={"p99": p99[name], "p99_raw": p99[RAW], "calls": len(times[name])},
        )
    yield Figure(
        name=f"{model}, HTTP binary, p50",
        unit="µs",
        ours=median["HTTP binary"],
        peer=median["FastAPI"],
        peer_name="bare FastAPI, no protocol",
        target=1.0,
        detail={"p99": p99["HTTP binary"], "p99_fastapi": p99["FastAPI"]},
    )


def _beside(times: Times) -> Iterator[Figure]:
    median = {name: statistics.median(taken) / 1e3 for name, taken in times.items()}
    for peer, target in PEERS_TARGETS.items():
        yield Figure(
            name="sensor, HTTP binary, p50",
            unit="µs",
            ours=median["HTTP binary"],
            peer=median[peer],
            peer_name=f"{peer}, JSON",
            target=target,
        )
    # The same bytes to both: the only one of these that speaks the same protocol.
    yield Figure(
        name="sensor, HTTP JSON, p50",
        unit="µs",
        ours=median["HTTP JSON"],
        peer=median["MLServer"],
        peer_name="MLServer, JSON",
        target=1.0,
    )


def _overload(addresses: Mapping[str, Any], *, seconds: float) -> list[Figure]:
    """As much as it answers, before and after ten times as many requests a second, each with a deadline."""
    x, port = _example("heavy"), addresses["tcp"]
    request = clients.binary_request("heavy", x)
    urgent = clients.binary_request("heavy", x, timeout_us=round(DEADLINE_S * 1e6))

    def answered(connections: int) -> float:
        closed = load.closed_loop(port, request, connections=connections, seconds=max(1.0, seconds / 6))
        return asyncio.run(closed).goodput(DEADLINE_S)

    before = {connections: answered(connections) for connections in (1, 2, 4, 8)}
    most = max(before, key=lambda connections: before[connections])
    process = psutil.Process(addresses["pid"])
    overload = partial(load.open_loop, port, urgent, rate=OVERLOAD * before[most], connections=128)
    asyncio.run(overload(seconds=seconds / 10))
    resident = process.memory_info().rss / 1e6
    outcome = asyncio.run(overload(seconds=seconds))
    after = process.memory_info().rss / 1e6
    # The best of several on a machine with other work is luck: once more, afterwards.
    peak = statistics.mean([before[most], answered(most)])
    offered = outcome.offered / outcome.seconds
    progress(f"overload: peak {peak:.0f}/s, offered {offered:.0f}/s, answers {dict(outcome.statuses)}")
    told = {"offered_per_s": offered, "statuses": dict(outcome.statuses), "seconds": outcome.seconds}
    return [
        Figure(
            name="10 × overload, goodput",
            unit="/s",
            ours=outcome.goodput(DEADLINE_S),
            peer=peak,
            peer_name="peak",
            target=0.9,
            higher_is_better=True,
            detail=told,
        ),
        Figure(
            name="10 × overload, p99 of admitted requests",
            unit="ms",
            ours=float(np.percentile(outcome.latencies, 99)) * 1e3,
            peer=DEADLINE_S * 1e3,
            peer_name="deadline",
            target=1.0,
        ),
        Figure(
            name="10 × overload, resident memory after it",
            unit="MB",
            ours=after,
            peer=resident,
            peer_name="before",
            target=1.05,
        ),
    ]
