"""A torch model's parameters ↔ named arrays, in the form that is aggregated, stored and exported.

What is kept: every floating-point entry of the state dict, BatchNorm's running statistics included. Integer entries
(BatchNorm's batch counter) mean nothing when averaged and stay as the model was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fogline_shared.errors import Corrupt

if TYPE_CHECKING:
    import torch


def names(model: torch.nn.Module) -> list[str]:
    """Names of the parameters, in the order of the state dict."""
    return list(_floating(model))


def read(model: torch.nn.Module) -> dict[str, NDArray[np.float32]]:
    """Copies of the parameters, float32, in the order of the state dict."""
    return {name: tensor.cpu().numpy().astype(np.float32) for name, tensor in _floating(model).items()}


def write(model: torch.nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Overwrite the parameters; raise Corrupt ``params_mismatch`` when names or shapes are not the model's."""
    import torch

    own = _floating(model)
    if set(own) != set(arrays):
        odd = min(set(own) ^ set(arrays))
        raise Corrupt("params_mismatch", f"the parameters do not fit the model: {odd!r} is missing or foreign")
    with torch.no_grad():
        for name, tensor in own.items():
            if tuple(tensor.shape) != arrays[name].shape:
                expected = tuple(tensor.shape)
                raise Corrupt("params_mismatch", f"{name!r} has shape {arrays[name].shape}, the model's is {expected}")
            if tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64):
                np.copyto(tensor.numpy(), arrays[name], casting="same_kind")
                continue
            # torch warns of arrays it could not write to.
            tensor.copy_(torch.from_numpy(np.require(arrays[name], requirements=("C", "W"))))


def _floating(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state dict's floating-point tensors; they share memory with the model."""
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
