"""Post-training static quantization to int8: weights per output channel, activations from calibration data.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018;
Krishnamoorthi, "Quantizing deep convolutional networks", 2018 (per channel).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fogline_server.compression.engine import FloatArray
from fogline_server.compression.methods.base import Float
from fogline_shared.errors import Corrupt, InvalidInput

BATCH = 64
# Everything else, the fused standardisation above all, stays in float.
OPERATORS = (
    "Conv",
    "Gemm",
    "MatMul",
    "Relu",
    "Add",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Flatten",
    "Reshape",
)


class _Batches:
    """What the quantizer calls a calibration data reader."""

    def __init__(self, name: str, x: FloatArray) -> None:
        self._batches = iter([{name: x[start : start + BATCH]} for start in range(0, len(x), BATCH)])

    def get_next(self) -> Mapping[str, FloatArray] | None:
        """The next feed; None: no more."""
        return next(self._batches, None)


@dataclass(frozen=True, kw_only=True)
class Int8Static:
    """``reduce_range`` keeps weights to 7 bits: CPUs without VNNI add pairs of products in 16 bits and saturate.

    ``qdq`` writes the float operators between quantize/dequantize pairs: 25 % larger, and read by any runtime.
    """

    buys: ClassVar[str] = "bytes on every device; latency where the CPU or the net's shape allows, to be measured there"

    reduce_range: bool = True
    per_channel: bool = True
    qdq: bool = False

    def compress(self, parent: Float) -> bytes:
        """Raises InvalidInput ``no_calibration_data``, Corrupt ``not_quantizable``."""
        if parent.calibration is None:
            raise InvalidInput(
                "no_calibration_data", "int8 needs examples: the recipe has neither holdout() nor transfer()"
            )
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        proto = onnx.load_from_string(parent.model)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "int8.onnx"
            try:
                quantize_static(
                    proto,
                    target,
                    _Batches(proto.graph.input[0].name, parent.calibration),
                    quant_format=QuantFormat.QDQ if self.qdq else QuantFormat.QOperator,
                    op_types_to_quantize=list(OPERATORS),
                    per_channel=self.per_channel,
                    reduce_range=self.reduce_range,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                )
            except Exception as error:  # the quantizer's errors share no base class
                raise Corrupt("not_quantizable", f"the model cannot be quantized: {error}") from error
            return target.read_bytes()


METHOD = Int8Static
