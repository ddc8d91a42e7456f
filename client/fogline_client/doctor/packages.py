"""Whether what the settings ask for is installed, and for this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from fogline_client.doctor.findings import Finding
from fogline_client.doctor.patient import Patient
from fogline_client.inference.engines.base import load_engine
from fogline_shared.errors import FoglineError
from fogline_shared.plugins import require_entry_point
from fogline_shared.recipe import GROUP

_MACHINES = {"x86_64", "aarch64"}


def machine(patient: Patient) -> Iterator[Finding]:
    """Processor and Python."""
    host = patient.machine
    if host.arch not in _MACHINES or host.bits != 64:
        found = f"this is a {host.bits}-bit Python on {host.arch}"
        means = "wheels of the inference engine exist for 64-bit x86_64 and aarch64 only"
        yield Finding("machine_not_supported", found, means, "use a 64-bit system and Python")


def engine(patient: Patient) -> Iterator[Finding]:
    """What runs the models."""
    if patient.config is None:
        return
    if not patient.config.engine:
        if importlib.util.find_spec("onnxruntime") is None:
            found, means = "onnxruntime is not installed", "the agent does not predict"
            yield Finding("package_missing", found, means, "pip install 'fogline[edge]'")
        return
    try:
        load_engine(patient.config.engine, patient.config.engine_options)
    except FoglineError as error:
        means = "the agent does not start, so the device does not predict"
        yield Finding(error.code, error.message, means, "install it, or `fogline-agent run --engine onnxruntime_cpu`")


def training(patient: Patient) -> Iterator[Finding]:
    """What trains, if the device is to."""
    if patient.config is None or not patient.config.recipe:
        return
    means = "the device predicts; every training that it is asked for fails"
    try:
        require_entry_point(GROUP, patient.config.recipe)
    except FoglineError as error:
        yield Finding(error.code, error.message, means, "install the recipe's package in this Python")
    missing = [name for name in ("torch", "flwr") if importlib.util.find_spec(name) is None]
    if missing:
        found = f"the recipe {patient.config.recipe!r} is set, but {', '.join(missing)} cannot be imported"
        do = "pip install 'fogline[edge,train]', or set no recipe"
        yield Finding("training_not_installed", found, means, do)


CHECKS = (machine, engine, training)
