"""Coordinate-wise mean without the ``beta`` largest and smallest shares (Yin et al., ICML 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fogline_shared.checks import number

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Options:
    beta: float = 0.2

    def __post_init__(self) -> None:
        number("beta", self.beta, low=0.0, high=0.49, code="invalid_option")


def combine(options: Options, values: NDArray[Any]) -> NDArray[Any]:
    """Trimmed means of the columns of (n, m); at each end ``beta`` times n values, rounded down, are left out."""
    count = len(values)
    cut = int(options.beta * count)
    values.partition((cut, count - cut - 1), axis=0)
    means: NDArray[Any] = values[cut : count - cut].mean(axis=0)
    return means


def build(options: Options) -> Strategy:
    from fogline_server.training.aggregation.coordinatewise import Coordinatewise

    return Coordinatewise(partial(combine, options))
