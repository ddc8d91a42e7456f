"""What this device has measured, kept: the same artifact on the same engine and machine is not measured twice."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path

import structlog

from fogline_client import durable
from fogline_client.limits import Limits
from fogline_shared.errors import Corrupt, FoglineError, InvalidInput
from fogline_shared.measurement import Figures
from fogline_shared.protocol import Scalar

log = structlog.get_logger()

_MOST = 100
_PACKAGES = ("onnxruntime", "openvino", "numpy")


@cache
def machine() -> str:
    """Processor, cores and versions: what, beside the artifact and the engine, decides how fast it is."""
    versions = [platform.python_version()]
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return f"{_processor()}, {Limits().cpus()} cores, {platform.machine()}, Python {', '.join(versions)}"


def engine_text(name: str, options: Mapping[str, Scalar]) -> str:
    """An engine and its options, as figures name them."""
    return name + "".join(f" {key}={value}" for key, value in sorted(options.items()))


class Results:
    """A file of figures, the latest at the end. One that cannot be read is forgotten: they can be measured again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, digest: str, engine: str) -> Figures | None:
        """What was measured of an artifact here; None: nothing."""
        raw = self._read().get(_key(digest, engine))
        try:
            return None if raw is None else replace(Figures.from_json(raw), cached=True)
        except InvalidInput:
            return None

    def keep(self, digest: str, figures: Figures) -> None:
        """Remember what was just measured; a full disk forgets it."""
        key = _key(digest, figures.engine)
        entries = [item for item in self._read().items() if item[0] != key]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(dict([*entries, (key, figures.as_json())][-_MOST:]))
            durable.write(self._path, text.encode())
        except (FoglineError, OSError) as error:
            log.warning("figures not kept", reason=str(error))

    def _read(self) -> dict[str, object]:
        try:
            raw = durable.read_json(self._path, code="bad_results")
        except (Corrupt, OSError) as error:
            log.warning("figures forgotten", reason=str(error))
            return {}
        return raw if isinstance(raw, dict) else {}


def _key(digest: str, engine: str) -> str:
    return hashlib.sha256(json.dumps([digest, engine, machine()]).encode()).hexdigest()


def _processor() -> str:
    """The processor's name, as Linux tells it: x86 names models, ARM boards name themselves."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return "unknown processor"
    told = dict(reversed([line.split(":", 1) for line in reversed(lines) if ":" in line]))
    names = {key.strip(): value.strip() for key, value in told.items()}
    return names.get("model name") or names.get("Model") or names.get("CPU part") or "unknown processor"
