"""Rules that look at each coordinate by itself: medians and trimmed means, in blocks.

They give what Flower's strategies of the same names give, bit by bit, without holding every device's arrays at once.
Importing this module loads flwr: a rule's file does so inside ``build``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_server.training.aggregation.blocks import blocks
from fogline_server.training.aggregation.geometric import Updates
from fogline_server.training.aggregation.gram import Matrix
from fogline_server.training.aggregation.own_strategy import OwnStrategy
from fogline_shared import flower

# From the devices' values (n, m) to one value each (m,).
Combine = Callable[[NDArray[Any]], NDArray[Any]]
# From the Gram matrix of what devices learned (n, n) to the devices that are looked at.
Choose = Callable[[Matrix], NDArray[np.intp]]


class Coordinatewise(OwnStrategy):
    """A Flower strategy whose parameters are ``combine`` of the devices' parameters, which it may sort in place.

    ``choose``: which devices' parameters these are; None: all.
    """

    def __init__(self, combine: Combine, *, choose: Choose | None = None) -> None:
        super().__init__()
        self._combine, self._choose = combine, choose

    def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> tuple[Any, Any]:
        """The combined parameters; raises what Flower raises for replies that do not fit together."""
        del server_round
        contents = self.contents(replies)
        if not contents:
            return None, None
        if self._choose is not None:
            gram = Updates(self.records(contents), self.reference, anchor=None).gram(self.learned)
            contents = [contents[i] for i in self._choose(gram)]
        records = self.records(contents)
        new = {}
        for name, array in records[0].items():
            combined = np.empty(array.shape, array.dtype)
            for part, values in blocks(records, name):
                combined.reshape(-1)[part] = self._combine(values)
            new[name] = combined
        return flower.to_record(new), self.metrics(contents)
