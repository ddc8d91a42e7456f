from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fogline_recipes.light import InvertedResidual, ShuffleUnit, convolution, depthwise_separable
from fogline_shared.errors import InvalidInput

BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "convolution": lambda i, o, **k: convolution(i, o, 3, **k),
    "depthwise_separable": depthwise_separable,
    "inverted_residual": InvertedResidual,
    "shuffle_unit": ShuffleUnit,
}


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_give_the_promised_shapes(block: str, stride: int, dimensions: int) -> None:
    outputs = 8 if stride == 1 else 12
    y = BLOCKS[block](8, outputs, stride=stride, dimensions=dimensions)(torch.randn(3, 8, *[16] * dimensions))
    assert y.shape == (3, outputs, *[16 // stride] * dimensions)


def test_light_blocks_have_fewer_parameters_than_the_convolution_they_stand_for() -> None:
    def count(block: nn.Module) -> int:
        return sum(p.numel() for p in block.parameters())

    plain = count(convolution(64, 64, 3))
    assert count(depthwise_separable(64, 64)) < plain / 7
    assert count(ShuffleUnit(64, 64)) < plain / 14


def test_a_shuffle_unit_passes_half_of_its_inputs_and_mixes_the_halves() -> None:
    x = torch.randn(2, 4, 10)
    y = ShuffleUnit(4, 4, dimensions=1).eval()(x)
    torch.testing.assert_close(y[:, 0::2], x[:, :2])


def test_an_inverted_residual_adds_its_input() -> None:
    block = InvertedResidual(4, 4, dimensions=1).eval()
    x = torch.randn(2, 4, 10)
    torch.testing.assert_close(block(x), x + block.body(x))


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 6, 1), (3, 3, 1), (4, 7, 2)])
def test_a_shuffle_unit_says_what_it_cannot_be(inputs: int, outputs: int, stride: int) -> None:
    with pytest.raises(InvalidInput, match=f"turn {inputs} into {outputs}") as caught:
        ShuffleUnit(inputs, outputs, stride=stride)
    assert caught.value.code == "invalid_block"
