"""Fine-tuning without labels: a compressed model learns from its float parent's soft answers.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015. A weight that is exactly zero stays zero, so
what sparsity has cut stays cut through every later step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fogline_server.compression.examples import Needs
from fogline_server.compression.methods.base import Parent, within
from fogline_shared.errors import Corrupt

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

MOST_STEPS = 100_000
TEMPERATURE = 2.0


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long and how fast: ``steps`` batches of Adam, the learning rate falling to zero as a half cosine."""

    steps: int
    learning_rate: float
    batch_size: int = 64

    @property
    def needs(self) -> Needs:
        """A transfer set, unless nothing is trained."""
        return Needs.TRANSFER if self.steps else Needs.NOTHING

    def check(self, method: str) -> None:
        """Raises InvalidInput ``invalid_method_options`` in the method's name."""
        within(method, "steps", self.steps, 0, MOST_STEPS)
        within(method, "learning_rate", self.learning_rate, 1e-6, 1.0)
        within(method, "batch_size", self.batch_size, 2, 4096)


def distil(module: Module, parent: Parent, training: Training, *, seed: int) -> None:
    """Train ``module`` in place on the transfer set; it is in evaluation mode afterwards.

    Nothing happens for no steps. Raises InvalidInput ``no_transfer_data``; Corrupt ``training_diverged``.
    """
    if not training.steps:
        return
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # dropout
        _train(module, parent, training, seed)
    module.eval()


def _train(module: Module, parent: Parent, training: Training, seed: int) -> None:
    import torch

    data = torch.from_numpy(np.ascontiguousarray(parent.training()))
    teacher = parent.module
    assert teacher is not None  # a candidate with a module has a parent with one
    zeros = [(p, p != 0) for p in module.parameters() if p.ndim > 1]
    optimiser = torch.optim.Adam(module.parameters(), training.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training.steps)
    generator = torch.Generator().manual_seed(seed)
    size = min(training.batch_size, len(data))
    module.train()
    for _ in range(training.steps):
        x = data[torch.randint(len(data), (size,), generator=generator)]
        if parent.augment is not None:
            x = parent.augment(x, generator)
        with torch.no_grad():
            wanted = teacher(x)
        loss = divergence(module(x), wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for weight, kept in zeros:
                weight.mul_(kept)
    if not loss.isfinite():
        raise Corrupt("training_diverged", "the loss is not finite: a lower learning_rate may help")


def divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the teacher's softened answers; both (n, classes)."""
    from torch.nn import functional

    ours = functional.log_softmax(logits / TEMPERATURE, 1)
    theirs = functional.log_softmax(wanted / TEMPERATURE, 1)
    return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * TEMPERATURE**2
