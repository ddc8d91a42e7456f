"""Weights in 8 or 4 bits with a scale for each group, activations in float; no calibration.

Buys bytes on every device: the weights are unpacked to float when the file is loaded. Dettmers, Zettlemoyer, "The case for
4-bit precision", ICML 2023: groups of 64 or fewer hold language models' accuracy at 4 bits. ``matmul_nbits`` keeps dense
layers packed in memory too, through ONNX Runtime's own operator: worth it where they are large. Small convolutional networks
lose at 4 bits; the search measures how much.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fogline_server.compression import packing
from fogline_server.compression.examples import Needs
from fogline_server.compression.methods.base import Candidate, Stage, one_of, within


@dataclass(frozen=True, kw_only=True)
class WeightOnly:
    """``bits`` is 4 or 8; ``block``: neighbouring weights that share a scale."""

    buys: ClassVar[str] = "a quarter (8 bits) or an eighth (4) of the bytes, on every device; no latency"
    takes: ClassVar[Stage] = Stage.ONNX
    needs: ClassVar[Needs] = Needs.NOTHING
    leaves: ClassVar[Stage] = Stage.ONNX

    bits: int = 8
    block: int = 32
    matmul_nbits: bool = False

    def __post_init__(self) -> None:
        one_of("weight_only", "bits", self.bits, (4, 8))
        within("weight_only", "block", self.block, 16, 256)
        if self.matmul_nbits:
            one_of("weight_only", "block", self.block, (16, 32, 64, 128, 256))

    def apply(self, candidate: Candidate) -> Candidate:
        """Weights of fewer than 256 values stay float."""
        model = candidate.onnx()
        if self.matmul_nbits:
            model = self._dense(model)
        return candidate.with_model(packing.rewrite(model, self._encode))

    def _encode(self, name: str, weight: packing.Floats) -> packing.Encoded:
        groups = packing.grouped(weight, self.block)
        highest = 2 ** (self.bits - 1) - 1
        scales = np.abs(groups).max(axis=1, keepdims=True) / highest
        scales[scales == 0] = 1.0
        values = np.clip(np.rint(groups / scales), -highest, highest).astype(np.int8)
        return packing.codes(name, weight, values, scales, self.bits)

    def _dense(self, model: bytes) -> bytes:
        """Dense layers through ONNX Runtime's MatMulNBits."""
        import onnx

        # It tells of each node at level INFO.
        logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
        from onnxruntime.quantization.onnx_model import ONNXModel

        wrapped = ONNXModel(onnx.load_from_string(model))
        wrapped.replace_gemm_with_matmul()
        config = DefaultWeightOnlyQuantConfig(block_size=self.block, is_symmetric=True, bits=self.bits)
        quantizer = MatMulNBitsQuantizer(wrapped.model, algo_config=config)
        quantizer.process()
        return bytes(quantizer.model.model.SerializeToString(deterministic=True))


METHOD = WeightOnly
