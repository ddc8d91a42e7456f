"""What a compression method is. To add one: a module here whose ``METHOD`` is a frozen dataclass of its options.

The module's name is the method's name in configurations; a contract test runs over every module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

from fogline_server.compression.engine import FloatArray
from fogline_shared.errors import InvalidInput
from fogline_shared.plugins import load_module

PACKAGE = "fogline_server.compression.methods"


@dataclass(frozen=True, kw_only=True)
class Float:
    """What a method starts from: a float32 ONNX file and raw examples (n, *input_shape), or None without data."""

    model: bytes
    calibration: FloatArray | None


class Method(Protocol):
    """Turns a float32 ONNX file into a smaller or faster one with the same input and output."""

    # Honestly: bytes, latency or neither, and on which devices.
    buys: ClassVar[str]

    def compress(self, parent: Float) -> bytes:
        """The compressed ONNX file; its manifest is written afterwards. Raises InvalidInput or Corrupt."""


def load_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """A method by name; raises InvalidInput ``unknown_method`` or ``invalid_method_options``."""
    factory = load_module(PACKAGE, name).METHOD
    try:
        return cast("Method", factory(**(options or {})))
    except TypeError as error:
        raise InvalidInput("invalid_method_options", f"method {name!r}: {error}", method=name) from error
