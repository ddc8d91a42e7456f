"""Distil a candidate from its float parent on the unlabelled transfer set, between or after other methods.

Buys nothing by itself: it wins back accuracy that pruning or low rank has cost. What sparsity has set to zero stays zero.
Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015: pruning AlexNet 9-fold
costs no accuracy with retraining and several points without; Hinton, Vinyals, Dean, 2015, for the soft labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fogline_server.compression.examples import Needs
from fogline_server.compression.finetuning import Training, distil
from fogline_server.compression.methods.base import Candidate, Stage


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """``steps`` batches of ``batch_size`` transfer examples."""

    buys: ClassVar[str] = "accuracy, after a method that cost some"
    takes: ClassVar[Stage] = Stage.TORCH
    leaves: ClassVar[Stage] = Stage.TORCH

    steps: int = 500
    learning_rate: float = 1e-3
    batch_size: int = 64

    def __post_init__(self) -> None:
        self._training.check("finetune")

    @property
    def _training(self) -> Training:
        return Training(steps=self.steps, learning_rate=self.learning_rate, batch_size=self.batch_size)

    @property
    def needs(self) -> Needs:
        """As it trains."""
        return self._training.needs

    def apply(self, candidate: Candidate) -> Candidate:
        """Raises InvalidInput ``no_transfer_data``, ``no_torch_model``; Corrupt ``training_diverged``."""
        module = candidate.private_module()
        distil(module, candidate.parent, self._training, seed=candidate.parent.seed)
        return candidate.with_module(module)


METHOD = Finetune
