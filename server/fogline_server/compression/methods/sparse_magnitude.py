"""Unstructured sparsity: the smallest weights of each layer become zero.

Buys bytes as sent and stored, since zstd packs the zeros; the file itself and its speed stay as they are, for ONNX
Runtime's kernels are dense. Han et al., "Deep Compression", ICLR 2016: AlexNet with 11 % of its weights at no loss of
accuracy; Zhu, Gupta, 2017: MobileNet at 50 % from 70.6 to 69.5 %. A quantizer after it keeps zeros zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fogline_server.compression.examples import Needs
from fogline_server.compression.finetuning import Training
from fogline_server.compression.methods.base import Candidate, Stage, within
from fogline_server.compression.sparsity import sparsify

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SparseMagnitude:
    """``sparsity``: share of zeros in every layer, reached in ``rounds``, with ``steps`` of training after each."""

    buys: ClassVar[str] = "bytes as sent (zstd), on every device; no latency"
    takes: ClassVar[Stage] = Stage.TORCH
    leaves: ClassVar[Stage] = Stage.TORCH

    sparsity: float = 0.6
    rounds: int = 4
    steps: int = 300
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        within("sparse_magnitude", "sparsity", self.sparsity, 0.01, 0.99)
        within("sparse_magnitude", "rounds", self.rounds, 1, 50)
        self._training.check("sparse_magnitude")

    @property
    def _training(self) -> Training:
        return Training(steps=self.steps, learning_rate=self.learning_rate)

    @property
    def needs(self) -> Needs:
        """As it trains."""
        return self._training.needs

    def apply(self, candidate: Candidate) -> Candidate:
        """Raises InvalidInput ``no_transfer_data``, ``no_torch_model``, ``nothing_to_compress``."""
        return sparsify(candidate, self._largest, rounds=self.rounds, training=self._training)

    def _largest(self, weight: Tensor, progress: float) -> Tensor:
        cut = int(self.sparsity * progress * weight.numel())
        if not cut:
            return weight.abs() >= 0
        return weight.abs() > weight.abs().flatten().kthvalue(cut).values


METHOD = SparseMagnitude
