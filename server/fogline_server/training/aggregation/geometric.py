"""Rules that see a round's updates as geometry: lengths and angles decide how much each counts.

Let the rows of U be the n updates (what a device sent back minus what it was sent). Clipping, trust and medians in space all
give ``reference + c @ U`` with coefficients c that depend on U only through its Gram matrix ``U @ U.T``. So such a rule is a
pure function from an (n, n) matrix to n coefficients, and the arrays are read twice, block by block: memory does not grow with
the number of devices.

Running statistics (BatchNorm's) follow each device's data rather than its learning rate, so they have a Gram matrix, and
coefficients, of their own. Importing this module loads flwr: a rule's file does so inside ``build``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_server.training.aggregation.blocks import blocks
from fogline_server.training.aggregation.gram import Matrix, Vector
from fogline_server.training.aggregation.own_strategy import OwnStrategy
from fogline_shared import flower

# From the Gram matrix (n, n) and the devices' shares of the examples (n,), which sum to 1, to coefficients (n,).
# For an anchored rule both have a last entry for the anchor, whose share is 0.
Weigh = Callable[[Matrix, Vector], Vector]


class Geometric(OwnStrategy):
    """A Flower strategy that combines updates by ``weigh``.

    ``anchored``: the Gram matrix has a last row for :attr:`anchor`, an update that is not a device's (zero when None).
    ``remembers``: the anchor is the previous round's combined update; a checkpoint keeps it. A rule that ``chooses`` devices
    gives running statistics the coefficients of what is learned.
    """

    def __init__(self, weigh: Weigh, *, anchored: bool = False, remembers: bool = False, chooses: bool = False) -> None:
        super().__init__()
        self.anchor: Mapping[str, NDArray[Any]] | None = None
        self._weigh = weigh
        self._anchored, self._remembers, self._chooses = anchored, remembers, chooses

    def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> tuple[Any, Any]:
        """The combined parameters; raises what Flower raises for replies that do not fit together."""
        del server_round
        contents = self.contents(replies)
        if not contents:
            return None, None
        anchor = (self.anchor or {}) if self._anchored else None
        updates = Updates(self.records(contents), self.reference, anchor=anchor)
        shares = np.append(self.shares(contents), [0.0] * self._anchored)
        coefficients = self._weigh(updates.gram(self.learned), shares)
        combined = {name: updates.combine(name, coefficients) for name in self.learned}
        if self.running:
            own = coefficients if self._chooses else self._weigh(updates.gram(self.running), shares)
            combined |= {name: updates.combine(name, own) for name in self.running}
        if self._remembers:
            self.anchor = combined
        new = {name: reference + combined[name] for name, reference in self.reference.items()}
        return flower.to_record(new), self.metrics(contents)


class Updates:
    """A round's updates, as differences from ``reference``, read when asked for.

    ``anchor``: one more update by name, arrays it lacks being zero; None: there is no such row.
    """

    def __init__(
        self,
        records: Sequence[Mapping[str, Any]],
        reference: Mapping[str, NDArray[Any]],
        *,
        anchor: Mapping[str, NDArray[Any]] | None,
    ) -> None:
        self._records, self._reference, self._anchor = records, reference, anchor

    def gram(self, names: Iterable[str]) -> Matrix:
        """Scalar products of the rows over the arrays of those names, (rows, rows)."""
        rows = len(self._records) + (self._anchor is not None)
        gram = np.zeros((rows, rows))
        for name in names:
            for _, block in self._blocks(name):
                gram += block @ block.T
        return gram

    def squares(self) -> Vector:
        """Squared lengths of the rows over all arrays, (rows,)."""
        squares = np.zeros(len(self._records) + (self._anchor is not None))
        for name in self._reference:
            for _, block in self._blocks(name):
                squares += np.einsum("ij,ij->i", block, block)
        return squares

    def combine(self, name: str, coefficients: Vector) -> NDArray[Any]:
        """``coefficients @ rows`` of one array, in its own shape and type."""
        reference = self._reference[name]
        combined = np.empty(reference.size, reference.dtype)
        for part, block in self._blocks(name):
            combined[part] = coefficients @ block
        return combined.reshape(reference.shape)

    def _blocks(self, name: str) -> Iterator[tuple[slice, Matrix]]:
        """Where a block lies in the flattened array, and the rows' values there, (rows, m) float64."""
        reference = self._reference[name].reshape(-1)
        anchor = None if self._anchor is None else self._anchor.get(name)
        for part, values in blocks(self._records, name, np.float64):
            rows = np.subtract(values, reference[part], out=values)
            if self._anchor is not None:
                last = np.zeros((1, values.shape[1])) if anchor is None else anchor.reshape(1, -1)[:, part]
                rows = np.vstack([rows, last])
            yield part, rows
