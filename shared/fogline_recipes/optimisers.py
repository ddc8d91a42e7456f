"""AdamW, and SGD without momentum, to the bit as ``torch.optim`` has them on a CPU, in a fraction of the memory.

An optimiser of ``torch.optim`` imports torch's compiler in its first step, which nothing here uses: on a device, it takes
longer than many a round and stays in memory. Recipes may use either.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from fogline_shared.recipe import TrainPlan

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


class Optimiser(Protocol):
    """Changes parameters in place by the gradients they hold; one without a gradient stays as it is."""

    def zero_grad(self) -> None:
        """Forget all gradients."""

    def step(self) -> None:
        """One update of every parameter."""


def optimiser_of(plan: TrainPlan, parameters: Iterable[Parameter], *, weight_decay: float) -> Optimiser:
    """What the plan names, with its learning rate."""
    kind = Sgd if plan.optimiser == "sgd" else AdamW
    return kind(parameters, plan.learning_rate, weight_decay=weight_decay)


class Sgd:
    """Plain stochastic gradient descent; weight decay is part of the gradient."""

    def __init__(self, parameters: Iterable[Parameter], learning_rate: float, *, weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._learning_rate, self._weight_decay = learning_rate, weight_decay

    def zero_grad(self) -> None:
        _forget_gradients(self._parameters)

    def step(self) -> None:
        import torch

        with torch.no_grad():
            for parameter in self._parameters:
                gradient = parameter.grad
                if gradient is None:
                    continue
                if self._weight_decay:
                    gradient = gradient.add(parameter, alpha=self._weight_decay)
                parameter.add_(gradient, alpha=-self._learning_rate)


class AdamW:
    """Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019; betas 0.9 and 0.999, epsilon 1e-8."""

    def __init__(self, parameters: Iterable[Parameter], learning_rate: float, *, weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._learning_rate, self._weight_decay = learning_rate, weight_decay
        # Of each parameter that has had a gradient: its steps, and the means of gradients and of their squares.
        self._moments: dict[int, tuple[int, Tensor, Tensor]] = {}

    def zero_grad(self) -> None:
        _forget_gradients(self._parameters)

    def step(self) -> None:
        import torch

        with torch.no_grad():
            for index, parameter in enumerate(self._parameters):
                if parameter.grad is not None:
                    self._update(index, parameter, parameter.grad)

    def _update(self, index: int, parameter: Parameter, gradient: Tensor) -> None:
        import torch

        done, mean, square = self._moments.get(index) or (0, torch.zeros_like(parameter), torch.zeros_like(parameter))
        steps = done + 1
        parameter.mul_(1 - self._learning_rate * self._weight_decay)
        mean.lerp_(gradient, 1 - _BETA1)
        square.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        # The order of operations is torch's: another one rounds differently.
        denominator = (square.sqrt() / (1 - _BETA2**steps) ** 0.5).add_(_EPS)
        parameter.addcdiv_(mean, denominator, value=-(self._learning_rate / (1 - _BETA1**steps)))
        self._moments[index] = steps, mean, square


def _forget_gradients(parameters: list[Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
