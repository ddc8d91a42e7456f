"""Mean of the updates, weighted by examples (McMahan et al., AISTATS 2017)."""

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
    from fogline_server.training.aggregation.flat_mean import FlatMean

    return FlatMean(**EVERY_NODE)
