"""Updates trusted as far as they point where the server's own does (Cao, Fang, Liu, Gong, NDSS 2021, arXiv:2012.13995).

The server trains on the recipe's root data as a device would. A device's update counts by the cosine of its angle with the
server's, nothing at all beyond a right angle, and is made as long as the server's. Where nobody is trusted, nothing moves.
``power``: of the cosine; 1 is the paper's, more of it is harder on those who only half agree, as a backdoor's teachers do.
Needs a recipe with ``root()``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fogline_server.training.aggregation.gram import Matrix, Vector, lengths
from fogline_shared.checks import number
from fogline_shared.recipe import Recipe, root_data

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

ROOT = True


@dataclass(frozen=True, kw_only=True)
class Options:
    power: float = 2.0

    def __post_init__(self) -> None:
        number("power", self.power, low=0.1, high=100, code="invalid_option")


def weigh(options: Options, gram: Matrix, _shares: Vector) -> Vector:
    """Trust, times what brings each length to the anchor's; the last row, the anchor, counts for nothing itself."""
    own = np.maximum(lengths(gram), np.finfo(np.float64).tiny)
    trust: Vector = (gram[-1] / own / own[-1]).clip(min=0.0) ** options.power
    trust[-1] = 0.0
    total = trust.sum()
    return trust * own[-1] / own / total if total > 0.0 else trust


def build(options: Options, recipe: Recipe) -> Strategy:
    import torch

    from fogline_recipes import device, parameters
    from fogline_server.training.aggregation.geometric import Geometric
    from fogline_shared.flower import RecordDict

    root = root_data(recipe)
    held = device.Held(data=root, fingerprint=device.fingerprint_of(root))

    class FLTrust(Geometric):
        def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
            messages = super().configure_train(server_round, arrays, config, grid)
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # as devices train: how threads share a sum would show in it
            try:
                trained = device.train(recipe, held, RecordDict({"arrays": arrays, "config": config}))
            finally:
                torch.set_num_threads(threads)
            own = parameters.read(trained.model)
            self.anchor = {name: own[name] - old for name, old in self.reference.items()}
            return messages

    return FLTrust(partial(weigh, options), anchored=True)
