"""The model that should serve: there, as the pointer names it, and with the answers it should give."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from fogline_client import durable
from fogline_client.doctor.findings import Finding
from fogline_client.doctor.patient import Patient
from fogline_client.inference.engines.base import DEFAULT_ENGINE
from fogline_client.measuring.child import Order
from fogline_client.slots import NAMES, Pointer, model_path, read_active
from fogline_shared.errors import Corrupt

_MEMORY_BYTES = 512 << 20


def pointer(patient: Patient) -> Iterator[Finding]:
    """Whether the active slot holds what the pointer names."""
    slots = patient.state.slots
    do = "restart the agent: it serves the other slot if that is sound, and asks the coordinator for the right model"
    means = "the agent will not serve it at its next start; what runs now goes on with the model in memory"
    try:
        active = read_active(slots)
    except Corrupt as error:
        yield Finding(error.code, error.message, means, do)
        return
    if active is None:
        if patient.identity is not None:
            yield Finding(
                "no_model",
                "no model is active",
                "predictions are refused until there is one",
                "roll a release out to this device (`fogline rollout create`); if one is, see the agent's log",
                serious=False,
            )
        return
    path = model_path(slots, active.slot)
    if not path.exists():
        yield Finding("slot_missing", f"{path} is gone, the pointer names it", means, do)
    elif durable.digest_of(path) != active.digest:
        other = next(name for name in NAMES if name != active.slot)
        there = "holds a model" if model_path(slots, other).exists() else "is empty"
        found = (
            f"{path} does not hold {active.digest[:12]}…: the file changed, or the disk lost it; slot {other} {there}"
        )
        yield Finding("slot_damaged", found, means, do)


def answers(patient: Patient) -> Iterator[Finding]:
    """Whether the active model loads and knows its known answers, in a process of its own and within limits."""
    active = sound_active(patient)
    if active is None or importlib.util.find_spec("onnxruntime") is None:
        return
    means = "the agent refuses it at its next start and goes back to the model before, if there is one"
    do = "restart the agent, and tell whoever builds the releases: this one should be rolled back"
    said = load_apart(patient, active)
    if "code" in said:
        yield Finding(str(said["code"]), f"the active model {active.digest[:12]}…: {said['message']}", means, do)


def sound_active(patient: Patient) -> Pointer | None:
    """The active slot, if its bytes are what they should be."""
    try:
        active = read_active(patient.state.slots)
    except Corrupt:
        return None
    if active is None:
        return None
    path = model_path(patient.state.slots, active.slot)
    return active if path.exists() and durable.digest_of(path) == active.digest else None


def load_apart(patient: Patient, active: Pointer) -> Mapping[str, Any]:
    """What :mod:`fogline_client.measuring.child` says of the model, or ``model_hangs``, ``model_kills``."""
    path = model_path(patient.state.slots, active.slot)
    config = patient.config
    order = Order(
        path=str(path.absolute()),
        digest=active.digest,
        engine=(config.engine if config else "") or DEFAULT_ENGINE,
        options=dict(config.engine_options) if config else {},
        memory_bytes=_MEMORY_BYTES + 6 * path.stat().st_size,
        cpu_s=patient.model_cpu_s,
    )
    command = [sys.executable, "-m", "fogline_client.measuring.child"]
    # A busy machine gives the child less than all of a core.
    wait_s = 30.0 + 10.0 * patient.model_cpu_s
    line = json.dumps(asdict(order)) + "\n"
    try:
        done = subprocess.run(command, input=line, text=True, capture_output=True, timeout=wait_s, check=False)
    except subprocess.TimeoutExpired:
        return {"code": "model_hangs", "message": f"has not loaded and answered within {wait_s:.0f} s"}
    if done.returncode == -signal.SIGXCPU:
        return {"code": "model_hangs", "message": f"computes longer than {patient.model_cpu_s} s"}
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
        return {"code": "model_kills", "message": f"ended the process that loaded it ({how})"}
    return said


CHECKS = (pointer, answers)
