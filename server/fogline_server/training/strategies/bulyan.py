"""MultiKrum's choice, then by coordinate the mean of the values nearest to its median (El Mhamdi et al., ICML 2018).

Needs 4 · ``num_malicious_nodes`` + 3 accepted updates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fogline_server.training.strategies.base import EVERY_NODE
from fogline_shared.checks import number

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Options:
    num_malicious_nodes: int = 0

    def __post_init__(self) -> None:
        number("num_malicious_nodes", self.num_malicious_nodes, low=0, high=1000, code="invalid_option", whole=True)


def build(options: Options) -> Strategy:
    from flwr.serverapp.strategy import Bulyan

    return Bulyan(**EVERY_NODE, num_malicious_nodes=options.num_malicious_nodes)
