"""What an inference engine is. To add one, add a module here with an ``ENGINE``: a frozen, keyword-only dataclass.

Its fields are the engine's options, its :meth:`Engine.open` turns an artifact's bytes into a session. The name in an
agent's configuration is the module's name; ``tests/contract/inference`` runs over every module here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from fogline_shared.errors import InvalidInput
from fogline_shared.plugins import load_module

DEFAULT_ENGINE = "onnxruntime_cpu"


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output of a graph. A symbolic dimension (the batch) is None; ``dtype`` is numpy's name."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class BoundRun(Protocol):
    """One example's buffers, bound once: fill ``input``, call ``run``, read ``output``. One thread at a time."""

    input: NDArray[np.float32]
    output: NDArray[np.float32]

    def run(self) -> None:
        """Fill ``output`` from ``input``."""


class EngineSession(Protocol):
    """A loaded graph."""

    metadata: Mapping[str, str]
    inputs: Sequence[Port]
    outputs: Sequence[Port]

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output for a batch (n, *input_shape). Threads may call it at the same time."""

    def stop(self) -> None:
        """Make every ``run``, those under way too, end with an error; from any thread. For good."""

    def bind(self, input_shape: Sequence[int], width: int) -> BoundRun:
        """Preallocated buffers (1, *input_shape) and (1, width) for the first input and the first output."""


class Engine(Protocol):
    """Turns an artifact's bytes into a session."""

    def open(self, model: bytes) -> EngineSession:
        """Load; raise Corrupt ``not_a_model`` when the bytes are not a graph that this engine runs."""


def load_engine(name: str = DEFAULT_ENGINE, options: Mapping[str, Any] | None = None) -> Engine:
    """The engine of that name; raise InvalidInput ``unknown_engine`` or ``invalid_engine_option``."""
    factory = load_module("fogline_client.inference.engines", name).ENGINE
    try:
        return cast("Engine", factory(**(options or {})))
    except TypeError as error:
        raise InvalidInput("invalid_engine_option", f"engine {name!r}: {error}", name=name) from error


def check_threads(threads: int) -> None:
    """Raise InvalidInput ``invalid_engine_option`` unless it is a number of threads."""
    if not 1 <= threads <= 256:
        raise InvalidInput("invalid_engine_option", f"threads is 1 to 256, got {threads}", field="threads")


def first_line(error: Exception) -> str:
    """What a runtime says of a file, short enough for a report."""
    return str(error).strip().split("\n", 1)[0][:300]
