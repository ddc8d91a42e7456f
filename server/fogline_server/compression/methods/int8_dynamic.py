"""Dynamic quantization to int8: weights beforehand, activations with the range of each input as it comes.

Needs no calibration. Buys bytes; latency only for large dense layers: convolutions took 4 to 9 times as long as in float on
an AVX2 CPU without VNNI with ONNX Runtime 1.32. ONNX Runtime's documentation recommends it for transformers and recurrent
networks, and static quantization for convolutional ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fogline_server.compression.examples import Needs
from fogline_server.compression.methods.base import Candidate, Stage
from fogline_server.compression.quantizing import quantizer_target


@dataclass(frozen=True, kw_only=True)
class Int8Dynamic:
    """``convolutions``: whether these too, and not only dense layers, become int8. ``reduce_range`` as in ``int8_static``."""

    buys: ClassVar[str] = "bytes on every device, without calibration; latency only for large dense layers"
    takes: ClassVar[Stage] = Stage.ONNX
    needs: ClassVar[Needs] = Needs.NOTHING
    leaves: ClassVar[Stage] = Stage.ONNX

    convolutions: bool = True
    per_channel: bool = True
    reduce_range: bool = True

    def apply(self, candidate: Candidate) -> Candidate:
        """Raises Corrupt ``not_quantizable``."""
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        operators = ["MatMul", "Gemm", "Conv"] if self.convolutions else ["MatMul", "Gemm"]
        with quantizer_target() as target:
            quantize_dynamic(
                onnx.load_from_string(candidate.onnx()),
                target,
                op_types_to_quantize=operators,
                per_channel=self.per_channel,
                reduce_range=self.reduce_range,
                weight_type=QuantType.QInt8,
            )
            return candidate.with_model(target.read_bytes())


METHOD = Int8Dynamic
