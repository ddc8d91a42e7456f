"""Whether several examples at once cost this device less than one after the other. It measures; it never assumes.

On a CPU with one thread a batch often gains nothing, and it always lets the first example wait for the last one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import structlog
from numpy.typing import NDArray

from fogline_client.inference.model import LoadedModel
from fogline_shared.errors import FoglineError

log = structlog.get_logger()

SIZES = (4, 8, 16)
# A batch must take less than so much of the time that its examples take alone.
_PAYS = 0.8
_REPEATS = 3
# What measuring may cost: a model that takes longer is not batched.
_BUDGET_S = 0.5
# Answers of a batch are those of its examples, but for the last bits of a float32 sum. Dynamic quantization, whose scale
# depends on all that is in the batch, is further off.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-5


class BatchSizes:
    """The largest batch that pays, by model; 1 until it has been measured, which happens beside the serving."""

    def __init__(self) -> None:
        self._digest = ""
        self._size = 1

    def of(self, model: LoadedModel) -> int:
        """How many examples to answer at once, at most."""
        if model.digest != self._digest:
            self._digest, self._size = model.digest, 1
            threading.Thread(target=self._measure, args=(model,), name="batch-sizes", daemon=True).start()
        return self._size

    def _measure(self, model: LoadedModel) -> None:
        try:
            size = measure(model)
        except FoglineError as error:  # it goes on serving one at a time
            log.warning("batches not measured", code=error.code, reason=error.message)
            return
        if self._digest == model.digest:
            self._size = size


def measure(model: LoadedModel, *, clock: Callable[[], float] = time.perf_counter) -> int:
    """The size whose examples take least each, if that is clearly less than alone and gives the same answers; else 1."""
    examples = _examples(model)
    singles = [model.predict(x) for x in examples]
    started = clock()
    alone = min(_time(lambda: model.predict(examples[0]), clock) for _ in range(_REPEATS))
    best, least = 1, _PAYS * alone
    for size in SIZES:
        if clock() - started + _REPEATS * size * alone > _BUDGET_S:
            break
        batch = examples[:size]
        each = min(_time(lambda: model.predict_many(batch), clock) for _ in range(_REPEATS)) / size  # noqa: B023 - called here
        if each < least and _same(model, batch, np.stack([answer.logits for answer in singles[:size]])):
            best, least = size, each
    log.info("batches measured", digest=model.digest[:12], size=best, alone_us=round(alone * 1e6, 1))
    return best


def _time(call: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    call()
    return clock() - started


def _examples(model: LoadedModel) -> NDArray[np.float32]:
    """The manifest's own examples first: noise alone may look alike to a model."""
    shape = tuple(model.manifest.input_shape)
    noise = np.random.default_rng(0).normal(size=(SIZES[-1], *shape)).astype(np.float32)
    for place, known in zip(noise, model.manifest.known_answers, strict=False):
        place[...] = known.array(shape)
    return noise


def _same(model: LoadedModel, batch: NDArray[np.float32], singles: NDArray[np.float32]) -> bool:
    together = np.stack([answer.logits for answer in model.predict_many(batch)])
    return np.allclose(together, singles, rtol=_RELATIVE, atol=_ABSOLUTE) and bool(
        (together.argmax(1) == singles.argmax(1)).all()
    )
