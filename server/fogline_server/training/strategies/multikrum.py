"""Mean of the updates closest to their neighbours (Blanchard et al., NeurIPS 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fogline_server.training.checks import number
from fogline_server.training.strategies.base import EVERY_NODE

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Options:
    num_malicious_nodes: int = 1
    num_nodes_to_select: int = 4

    def __post_init__(self) -> None:
        number("num_malicious_nodes", self.num_malicious_nodes, low=0, high=1000, code="invalid_option", whole=True)
        number("num_nodes_to_select", self.num_nodes_to_select, low=1, high=1000, code="invalid_option", whole=True)


def build(options: Options) -> Strategy:
    from flwr.serverapp.strategy import MultiKrum

    return MultiKrum(
        **EVERY_NODE, num_malicious_nodes=options.num_malicious_nodes, num_nodes_to_select=options.num_nodes_to_select
    )
