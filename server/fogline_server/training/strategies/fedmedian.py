"""Coordinate-wise median of the updates (Yin et al., ICML 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fogline_server.training.strategies.base import EVERY_NODE

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Options:
    """None."""


def build(_options: Options) -> Strategy:
    from flwr.serverapp.strategy import FedMedian

    return FedMedian(**EVERY_NODE)
