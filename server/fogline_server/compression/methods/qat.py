"""Quantization-aware training: fine-tune with int8 rounding simulated, so that the quantizer after it costs less.

Buys accuracy for an int8 that lost some; put ``int8_static`` after it. Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018: MobileNets, which lose several points to quantization
after training, stay within 2 % of float. Batch normalisation is folded first, as the exporter will. Gradients pass straight
through the rounding, which torch's own fake-quantize operators do. Of torchao 0.18's pt2e, whose x86 quantizer leaves
one-dimensional convolutions in float and whose export keeps batch normalisation apart, nothing is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fogline_server.compression.examples import Needs
from fogline_server.compression.finetuning import Training, distil
from fogline_server.compression.layers import per_output, weighted, without_batchnorm
from fogline_server.compression.methods.base import Candidate, Stage

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fogline_server.compression.layers import Layer

# How fast the observed range of an activation follows the batches.
_MOMENTUM = 0.05


@dataclass(frozen=True, kw_only=True)
class Qat:
    """``reduce_range`` as in the ``int8_static`` that follows."""

    buys: ClassVar[str] = "accuracy of the int8 that follows"
    takes: ClassVar[Stage] = Stage.TORCH
    leaves: ClassVar[Stage] = Stage.TORCH

    steps: int = 500
    learning_rate: float = 3e-4
    reduce_range: bool = True

    def __post_init__(self) -> None:
        self._training.check("qat")

    @property
    def _training(self) -> Training:
        return Training(steps=self.steps, learning_rate=self.learning_rate)

    @property
    def needs(self) -> Needs:
        """As it trains."""
        return self._training.needs

    def apply(self, candidate: Candidate) -> Candidate:
        """The weights left lie on int8's grid. Raises InvalidInput ``no_transfer_data``, ``no_torch_model``, ``not_traceable``."""
        from torch.nn.utils import parametrize

        module = without_batchnorm(candidate.private_module())
        layers = weighted(module, candidate.parent.examples[:2])
        hooks = []
        for layer in layers:
            parametrize.register_parametrization(layer, "weight", _rounded(layer, 64 if self.reduce_range else 127))
            hooks.append(layer.register_forward_pre_hook(_Observed()))
        distil(module, candidate.parent, self._training, seed=candidate.parent.seed)
        for layer, hook in zip(layers, hooks, strict=True):
            hook.remove()
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        return candidate.with_module(module)


def _rounded(layer: Layer, highest: int) -> nn.Module:
    import torch
    from torch import nn

    zeros = torch.zeros(len(layer.weight), dtype=torch.int32)

    class Rounded(nn.Module):
        """Weights on the grid of their output channel."""

        def forward(self, weight: Tensor) -> Tensor:
            scale = per_output(weight).flatten().clamp(min=1e-12) / highest
            return torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -highest, highest)

    return Rounded()


class _Observed:
    """Rounds what a layer reads to 256 levels of the range seen while training."""

    def __init__(self) -> None:
        self._low = self._high = 0.0
        self._seen = False

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        import torch

        x = inputs[0]
        if layer.training:
            low, high = min(0.0, float(x.detach().min())), max(0.0, float(x.detach().max()))
            follow = _MOMENTUM if self._seen else 1.0
            self._low += follow * (low - self._low)
            self._high += follow * (high - self._high)
            self._seen = True
        if not self._seen:
            return inputs
        scale = max(self._high - self._low, 1e-12) / 255
        return (torch.fake_quantize_per_tensor_affine(x, scale, round(-self._low / scale), 0, 255), *inputs[1:])


METHOD = Qat
