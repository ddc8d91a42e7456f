"""The edge: what ``Predictor`` adds to the engine's own call, and how much memory a real agent holds."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from fleet import fogline_up
from harness import Figure, Options, progress
from students import student_artifact

RESIDENT_LIMIT_MB = 100.0


def measure(options: Options) -> list[Figure]:
    """p50 of one prediction over ``session.run``; resident memory of an agent that serves."""
    artifact = student_artifact()
    return [
        _overhead(artifact, calls=500 if options.quick else 20_000),
        _memory(artifact, idle_s=2 if options.quick else 20),
    ]


def _overhead(artifact: bytes, *, calls: int) -> Figure:
    """Calls of both alternate, so that whatever else the machine does hits both alike."""
    import onnxruntime as ort

    from fogline_client import Predictor
    from fogline_client.telemetry.recorder import Recorder

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(artifact, settings, providers=["CPUExecutionProvider"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(artifact)
        # As the agent uses it: every prediction is counted for telemetry.
        predictor = Predictor.from_file(path, observe=Recorder(now=time.time()).observe)
        manifest = predictor.model.manifest
        x = np.random.default_rng(0).normal(size=manifest.input_shape).astype(np.float32)
        feed = {manifest.input_name: x[None]}
        raw, ours = [], []
        clock = time.perf_counter_ns
        for _ in range(calls):
            a = clock()
            session.run(None, feed)
            b = clock()
            predictor.predict(x)
            c = clock()
            raw.append(b - a)
            ours.append(c - b)
    return Figure(
        name="Predictor p50, smartwatch student",
        unit="µs",
        ours=statistics.median(ours) / 1e3,
        peer=statistics.median(raw) / 1e3,
        peer_name="session.run",
        target=1.5,
        detail={
            "calls": calls,
            "p99_ours": float(np.percentile(ours, 99)) / 1e3,
            "p99_raw": float(np.percentile(raw, 99)) / 1e3,
        },
    )


def _memory(artifact: bytes, *, idle_s: float) -> Figure:
    """An enrolled agent that syncs, has received a model by a rollout, predicts on a replayed source and reports."""
    with fogline_up() as cloud:
        recording = cloud.folder / "recording.npz"
        np.savez(recording, x=np.random.default_rng(0).normal(size=(50, 6, 128)).astype(np.float32))
        replay = ["--source", "replay", "--source-option", f"path={recording}", "--source-option", "rate_hz=10"]
        process, _ = cloud.agent("device", *replay)
        release = cloud.import_release("student", artifact)
        plan = {"stages": [100], "gates": [], "soak_s": 0, "probation_s": 1}
        rollout = cloud.post("/rollouts", release=release, plan=plan, start=True)
        cloud.until_ended(f"/rollouts/{rollout['id']}", "SUCCEEDED", timeout_s=120)
        agent = psutil.Process(process.pid)
        cpu = agent.cpu_times()
        time.sleep(idle_s)
        memory, used = agent.memory_full_info(), agent.cpu_times()
    percent = 100 * (used.user + used.system - cpu.user - cpu.system) / idle_s
    progress(f"agent: {memory.rss / 1e6:.0f} MB resident, {percent:.2f} % CPU at ten predictions a second")
    return Figure(
        name="agent resident memory, no training",
        unit="MB",
        ours=memory.rss / 1e6,
        peer=RESIDENT_LIMIT_MB,
        peer_name="limit",
        target=1.0,
        detail={"private_mb": memory.uss / 1e6, "cpu_percent": percent},
    )
