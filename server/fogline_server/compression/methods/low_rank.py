"""Low rank: a layer becomes two thin ones, by the singular value decomposition of its weights.

Buys latency and bytes where layers are wide: a layer of rank r costs r (in + out) instead of in x out. A convolution becomes
one of r filters and a 1x1 convolution. Denton et al., "Exploiting Linear Structure Within Convolutional Networks", NeurIPS
2014: twice the speed for 1 % of accuracy; Zhang et al., "Accelerating Very Deep Convolutional Networks", 2015: VGG-16 four
times for 0.3 %. Follow it with ``finetune``.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fogline_server.compression.examples import Needs
from fogline_server.compression.layers import weighted
from fogline_server.compression.methods.base import Candidate, Stage, within

if TYPE_CHECKING:
    from torch import nn

    from fogline_server.compression.layers import Layer


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """``energy``: the share of each layer's squared singular values that stays. Layers that would not shrink are kept."""

    buys: ClassVar[str] = "latency and bytes where layers are wide; nothing where they are narrow"
    takes: ClassVar[Stage] = Stage.TORCH
    needs: ClassVar[Needs] = Needs.NOTHING
    leaves: ClassVar[Stage] = Stage.TORCH

    energy: float = 0.9

    def __post_init__(self) -> None:
        within("low_rank", "energy", self.energy, 0.1, 0.9999)

    def apply(self, candidate: Candidate) -> Candidate:
        """Raises InvalidInput ``no_torch_model``, ``nothing_to_compress``."""
        module = candidate.private_module()
        layers = weighted(module, candidate.parent.examples[:2])
        for parent in list(module.modules()):
            for name, child in list(parent.named_children()):
                if child in layers and (thin := self._factored(child)) is not None:
                    setattr(parent, name, thin)
        return candidate.with_module(module)

    def _factored(self, layer: Layer) -> nn.Module | None:
        """The two layers; None: they would not be smaller, or the layer is grouped."""
        import torch
        from torch import nn

        if getattr(layer, "groups", 1) != 1:
            return None
        weight = layer.weight.detach()
        u, s, v = torch.linalg.svd(weight.flatten(1).double(), full_matrices=False)
        kept = torch.cumsum(s**2, 0) / torch.sum(s**2)
        rank = int((kept < self.energy).sum()) + 1
        if rank * (u.shape[0] + v.shape[1]) >= weight.numel():
            return None
        root = s[:rank].sqrt()
        first = copy.deepcopy(layer)
        first.weight = nn.Parameter((root[:, None] * v[:rank]).reshape(rank, *weight.shape[1:]).float())
        first.bias = None
        # Read by torch-pruning and by print; the forward pass reads the weight's shape.
        setattr(first, "out_features" if isinstance(layer, nn.Linear) else "out_channels", rank)
        second = _pointwise(layer, rank)
        second.weight = nn.Parameter((u[:, :rank] * root).reshape(second.weight.shape).float())
        second.bias = layer.bias
        return nn.Sequential(first, second)


def _pointwise(layer: Layer, rank: int) -> Layer:
    from torch import nn

    if isinstance(layer, nn.Linear):
        return nn.Linear(rank, layer.out_features)
    return type(layer)(rank, layer.out_channels, 1)


METHOD = LowRank
