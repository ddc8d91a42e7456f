"""What a prediction is, and what is observed of it. Named tuples: a frozen dataclass costs a microsecond each to build."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fogline_shared.manifest import Manifest


class Prediction(NamedTuple):
    """The answer for one example. ``confidence``: softmax probability of ``label``; ``logits``: (classes,) float32."""

    label: int
    name: str
    confidence: float
    logits: NDArray[np.float32]
    digest: str

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Softmax of the logits, (classes,)."""
        exponents = np.exp(self.logits - self.logits.max())
        return np.asarray(exponents / exponents.sum(), dtype=np.float32)


class Observation(NamedTuple):
    """One example through one artifact: what telemetry counts.

    A failed prediction has an ``error`` code, ``label`` -1 and ``confidence`` 0. ``truth`` is the right label when
    the caller knows it. A caller's own mistake (a wrong shape, NaN in the input) is not observed: it says nothing of
    the model. ``manifest`` and ``x``, the input as the caller gave it, are there for input drift; not to be changed or kept.
    """

    digest: str
    latency_us: float
    confidence: float
    label: int
    error: str = ""
    truth: int | None = None
    manifest: Manifest | None = None
    x: ArrayLike | None = None


Observer = Callable[[Observation], None]
