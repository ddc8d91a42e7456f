"""Binary weights: each one is plus or minus its channel's scale, trained so, and stored as a bit.

The weights of Rastegari et al., "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks", ECCV 2016:
the best scale of a channel is the mean of its absolute weights; ResNet-18 falls from 69.3 to 60.8 % (to 51.2 with binary
activations). Gradients pass straight through the sign (Bengio et al., 2013). Buys bytes on every device, a 32nd of the float
weights; no latency, for ONNX Runtime has no XNOR kernels, which is why activations stay float. The first and the last layer
stay float too, as in the paper. How much a network loses has to be measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fogline_server.compression import packing
from fogline_server.compression.examples import Needs
from fogline_server.compression.finetuning import Training, distil
from fogline_server.compression.layers import weighted
from fogline_server.compression.methods.base import Candidate, Stage
from fogline_shared.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Binarize:
    """``steps`` of training with binary weights."""

    buys: ClassVar[str] = "a 32nd of the weights' bytes, on every device; no latency"
    takes: ClassVar[Stage] = Stage.TORCH
    leaves: ClassVar[Stage] = Stage.ONNX

    steps: int = 1000
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        self._training.check("binarize")

    @property
    def _training(self) -> Training:
        return Training(steps=self.steps, learning_rate=self.learning_rate)

    @property
    def needs(self) -> Needs:
        """As it trains."""
        return self._training.needs

    def apply(self, candidate: Candidate) -> Candidate:
        """Raises InvalidInput ``no_transfer_data``, ``no_torch_model``, ``nothing_to_compress``."""
        from torch.nn.utils import parametrize

        module = candidate.private_module()
        inner = weighted(module, candidate.parent.examples[:2])[1:-1]
        if not inner:
            raise InvalidInput("nothing_to_compress", "a model of two layers has none between the first and the last")
        for layer in inner:
            parametrize.register_parametrization(layer, "weight", _binary())
        distil(module, candidate.parent, self._training, seed=candidate.parent.seed)
        for layer in inner:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        return candidate.with_model(packing.rewrite(candidate.with_module(module).onnx(), _bits))


def _binary() -> nn.Module:
    from torch import nn

    class Binary(nn.Module):
        """The sign times the mean absolute weight of the output channel; gradients pass as if it were not there."""

        def forward(self, weight: Tensor) -> Tensor:
            scale = weight.abs().mean(dim=tuple(range(1, weight.ndim)), keepdim=True)
            binary = weight.sign().where(weight != 0, 1.0) * scale
            return weight + (binary - weight).detach()

    return Binary()


def _bits(name: str, weight: packing.Floats) -> packing.Encoded | None:
    """A bit for each weight whose output channel has one absolute value; None: it is not binary."""
    rows = weight.reshape(len(weight), -1)
    scales = np.abs(rows).max(axis=1, keepdims=True)
    # Adding and taking away the straight-through term has rounded a little.
    if not np.allclose(np.abs(rows), scales, rtol=1e-4, atol=0):
        return None
    return packing.codes(name, weight, np.where(rows < 0, -1, 1), scales, bits=1)


METHOD = Binarize
