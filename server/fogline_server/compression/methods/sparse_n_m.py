"""N:M sparsity: of every M neighbouring weights of an output channel, the N largest stay.

Buys bytes as sent (zstd); latency only on hardware with such kernels (2:4 on Nvidia's tensor cores), which no ONNX Runtime
CPU build has. Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021: ResNet-50 at 2:4 keeps its 76.1 % after
fine-tuning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fogline_server.compression.examples import Needs
from fogline_server.compression.finetuning import Training
from fogline_server.compression.methods.base import Candidate, Stage, refusal, within
from fogline_server.compression.sparsity import sparsify

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SparseNM:
    """``n`` of ``m`` stay, at once; ``steps`` of training follow. A last group of fewer than m weights is left alone."""

    buys: ClassVar[str] = "bytes as sent (zstd), on every device; latency only where the hardware has such kernels"
    takes: ClassVar[Stage] = Stage.TORCH
    leaves: ClassVar[Stage] = Stage.TORCH

    n: int = 2
    m: int = 4
    steps: int = 500
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        within("sparse_n_m", "m", self.m, 2, 64)
        if not 1 <= self.n < self.m:
            raise refusal("sparse_n_m", f"option 'n' is between 1 and m - 1 = {self.m - 1}, not {self.n}")
        self._training.check("sparse_n_m")

    @property
    def _training(self) -> Training:
        return Training(steps=self.steps, learning_rate=self.learning_rate)

    @property
    def needs(self) -> Needs:
        """As it trains."""
        return self._training.needs

    def apply(self, candidate: Candidate) -> Candidate:
        """Raises InvalidInput ``no_transfer_data``, ``no_torch_model``, ``nothing_to_compress``."""
        return sparsify(candidate, self._largest, rounds=1, training=self._training)

    def _largest(self, weight: Tensor, _: float) -> Tensor:
        import torch

        rows = weight.detach().abs().flatten(1)
        whole = rows.shape[1] // self.m * self.m
        groups = rows[:, :whole].reshape(-1, self.m)
        kept = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, groups.topk(self.n, dim=1).indices, value=True)
        mask = torch.ones_like(rows, dtype=torch.bool)
        mask[:, :whole] = kept.reshape(len(rows), whole)
        return mask.reshape(weight.shape)


METHOD = SparseNM
