"""The layers of a torch module that hold most of its weights, in the order they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fogline_server.compression.engine import FloatArray
from fogline_shared.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor, nn

    Layer = nn.Conv1d | nn.Conv2d | nn.Linear


def weighted(module: nn.Module, example: FloatArray) -> list[Layer]:
    """Convolutions and dense layers as they run for ``example`` (n, *input_shape): the last one gives the logits.

    Raises InvalidInput ``nothing_to_compress``.
    """
    import torch
    from torch import nn

    found: list[Layer] = []

    def note(layer: nn.Module, _: object, __: object) -> None:
        assert isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear))
        if layer not in found:
            found.append(layer)

    kinds = (nn.Conv1d, nn.Conv2d, nn.Linear)
    hooks = [m.register_forward_hook(note) for m in module.modules() if isinstance(m, kinds)]
    try:
        with torch.no_grad():
            module(torch.from_numpy(example))
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise InvalidInput("nothing_to_compress", "the model has neither convolutions nor dense layers")
    return found


def per_output(weight: Tensor) -> Tensor:
    """The largest absolute weight of each output channel, shaped to broadcast: (out, 1, …)."""
    return weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)


def without_batchnorm(module: nn.Module) -> nn.Module:
    """A copy whose batch normalisations are folded into the convolutions before them, as the exporter does.

    Raises InvalidInput ``not_traceable`` for a model whose ``forward`` torch.fx cannot follow.
    """
    from torch.fx.experimental.optimization import fuse

    try:
        return fuse(module).eval()
    except Exception as error:  # the tracer's errors share no base class
        raise InvalidInput("not_traceable", f"torch.fx cannot follow the model: {error}") from error
