"""Post-training static quantization to int8: weights per output channel, activations from calibration data.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018;
Krishnamoorthi, "Quantizing deep convolutional networks", 2018: per channel, ResNet and Inception lose under 1 point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fogline_server.compression.examples import Needs
from fogline_server.compression.methods.base import Candidate, Stage, one_of
from fogline_server.compression.quantizing import OPERATORS, Batches, quantizer_target

CALIBRATORS = ("minmax", "entropy", "percentile")


@dataclass(frozen=True, kw_only=True)
class Int8Static:
    """``reduce_range`` keeps weights to 7 bits: CPUs without VNNI add pairs of products in 16 bits and saturate.

    ``qdq`` writes the float operators between quantize/dequantize pairs: 25 % larger, and read by any runtime. ``calibrator``:
    an activation's range is what was seen (``minmax``), what loses least information (``entropy``, Migacz 2017), or all but
    the rarest values (``percentile``): the latter two help against outliers.
    """

    buys: ClassVar[str] = "bytes on every device; latency where the CPU or the net's shape allows, to be measured there"
    takes: ClassVar[Stage] = Stage.ONNX
    needs: ClassVar[Needs] = Needs.CALIBRATION
    leaves: ClassVar[Stage] = Stage.ONNX

    reduce_range: bool = True
    per_channel: bool = True
    qdq: bool = False
    calibrator: str = "minmax"

    def __post_init__(self) -> None:
        one_of("int8_static", "calibrator", self.calibrator, CALIBRATORS)

    def apply(self, candidate: Candidate) -> Candidate:
        """Raises InvalidInput ``no_calibration_data``, ``one_class_calibration``; Corrupt ``not_quantizable``."""
        examples = candidate.parent.calibrating()
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        proto = onnx.load_from_string(candidate.onnx())
        calibrator = {
            "minmax": CalibrationMethod.MinMax,
            "entropy": CalibrationMethod.Entropy,
            "percentile": CalibrationMethod.Percentile,
        }[self.calibrator]
        with quantizer_target() as target:
            quantize_static(
                proto,
                target,
                Batches(proto.graph.input[0].name, examples, even=self.calibrator != "minmax"),
                quant_format=QuantFormat.QDQ if self.qdq else QuantFormat.QOperator,
                op_types_to_quantize=list(OPERATORS),
                per_channel=self.per_channel,
                reduce_range=self.reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=calibrator,
            )
            return candidate.with_model(target.read_bytes())


METHOD = Int8Static
