"""No compression: what the others are measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fogline_server.compression.examples import Needs
from fogline_server.compression.methods.base import Candidate, Stage


@dataclass(frozen=True, kw_only=True)
class Float32:
    """Returns the candidate as the ONNX file it is."""

    buys: ClassVar[str] = "neither bytes nor latency"
    takes: ClassVar[Stage] = Stage.ONNX
    needs: ClassVar[Needs] = Needs.NOTHING
    leaves: ClassVar[Stage] = Stage.ONNX

    def apply(self, candidate: Candidate) -> Candidate:
        """The same model, exported."""
        return candidate.with_model(candidate.onnx())


METHOD = Float32
