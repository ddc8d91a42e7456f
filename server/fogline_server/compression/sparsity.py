"""Set weights to zero, a few more each round, and let the rest learn from the float parent in between.

Zhu, Gupta, "To prune, or not to prune", 2017, for the cubic schedule: much at first, little at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fogline_server.compression.finetuning import Training, distil
from fogline_server.compression.layers import weighted
from fogline_server.compression.methods.base import Candidate

if TYPE_CHECKING:
    from torch import Tensor


def sparsify(
    candidate: Candidate, cut: Callable[[Tensor, float], Tensor], *, rounds: int, training: Training
) -> Candidate:
    """Every layer's weights masked by ``cut(weight, progress)`` → which to keep, of the weight's shape.

    ``progress`` rises to 1 with the rounds. Raises InvalidInput ``no_transfer_data``, ``no_torch_model``,
    ``nothing_to_compress``; Corrupt ``training_diverged``.
    """
    import torch

    module = candidate.private_module()
    layers = weighted(module, candidate.parent.examples[:2])
    for number in range(1, rounds + 1):
        progress = 1 - (1 - number / rounds) ** 3
        with torch.no_grad():
            for layer in layers:
                layer.weight.mul_(cut(layer.weight, progress))
        distil(module, candidate.parent, training, seed=candidate.parent.seed + number)
    return candidate.with_module(module)
