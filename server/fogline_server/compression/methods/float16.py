"""Weights stored as fp16 and widened to float when the device loads the file.

Buys half the bytes on every device and costs neither latency nor, for trained networks, accuracy: Micikevicius et al.,
"Mixed Precision Training", ICLR 2018, found the same accuracy with fp16 weights on every network tried. ONNX Runtime's x86
kernels do not compute in fp16, so the arithmetic stays in float.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fogline_server.compression import packing
from fogline_server.compression.examples import Needs
from fogline_server.compression.methods.base import Candidate, Stage


@dataclass(frozen=True, kw_only=True)
class Float16:
    """No options."""

    buys: ClassVar[str] = "half the bytes on every device; no latency"
    takes: ClassVar[Stage] = Stage.ONNX
    needs: ClassVar[Needs] = Needs.NOTHING
    leaves: ClassVar[Stage] = Stage.ONNX

    def apply(self, candidate: Candidate) -> Candidate:
        """Biases and other small values stay float."""
        return candidate.with_model(packing.rewrite(candidate.onnx(), packing.half))


METHOD = Float16
