"""A model that serves on trial: its calls can be stopped, and what it fails to answer the model before answers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fogline_client.inference.model import LoadedModel
from fogline_shared.errors import FoglineError, InvalidInput

T = TypeVar("T")

# Of the inputs that are kept for a comparison.
_MOST_BYTES = 4 << 20
# Counts are halved when there are more calls, so that what happened long ago does not excuse what happens now.
_REMEMBERED = 1000
# Times what a call took when the model was loaded.
_PATIENCE = 20


class Call(NamedTuple):
    """A call under way: whose, since when, and how many seconds it may well take."""

    thread: int
    began_ns: int
    fair_s: float


class Trial:
    """Thread-safe. ``before``: the model that served until now, warm, if it takes the same inputs and knows the same classes.

    ``noticed`` is set when a call fails, for who must not wait for the next look.
    """

    def __init__(self, model: LoadedModel, before: LoadedModel | None, *, sample: int = 32) -> None:
        self.model = model
        self.before = before if before is not None and _alike(model, before) else None
        self.noticed = threading.Event()
        shape = tuple(model.manifest.input_shape)
        self._shape = shape
        self._sample = min(sample, max(8, _MOST_BYTES // (4 * max(1, int(np.prod(shape))))))
        self._inputs: list[NDArray[np.float32]] = []
        self._lock = threading.Lock()
        self._calls, self._failed = 0, Counter[str]()
        self._running: dict[int, tuple[int, float]] = {}
        model.stoppable = True

    def answer(self, x: NDArray[Any], ask: Callable[[LoadedModel], T]) -> T:
        """What ``ask`` gets from the model for ``x``, or from the one before when the model fails.

        A failure counts against the model only if the one before has an answer, or there is none.
        """
        try:
            with self.tracked(len(x) if x.ndim > len(self._shape) else 1):
                answers = ask(self.model)
        except InvalidInput:  # the caller's fault
            raise
        except FoglineError as error:
            if self.before is None:
                self._failure(error.code)
                raise
            try:
                answers = ask(self.before)
            except FoglineError:
                raise error from None
            self._failure(error.code)
            return answers
        with self._lock:
            self._calls += 1
            if len(self._inputs) < self._sample:
                self._inputs.append(np.array(x, dtype=np.float32).reshape(-1, *self._shape)[0])
        return answers

    @contextmanager
    def tracked(self, examples: int = 1) -> Iterator[None]:
        """While a call of the model for so many examples is under way."""
        me = threading.get_ident()
        self._running[me] = time.perf_counter_ns(), _PATIENCE * examples * self.model.warm_us / 1e6
        try:
            yield
        finally:
            del self._running[me]

    def counts(self) -> tuple[int, Mapping[str, int]]:
        """Calls lately, and how many of them failed, by code."""
        with self._lock:
            if self._calls > _REMEMBERED:
                self._calls //= 2
                self._failed = Counter({code: n // 2 for code, n in self._failed.items()})
            return self._calls, dict(self._failed)

    def running(self) -> Sequence[Call]:
        """The calls under way."""
        return [Call(thread, *rest) for thread, rest in self._running.copy().items()]

    def take_inputs(self) -> Sequence[NDArray[np.float32]]:
        """Inputs that the model answered, once there are enough of them; then others are kept. Until then none."""
        with self._lock:
            if len(self._inputs) < self._sample:
                return ()
            taken, self._inputs = self._inputs, []
        return taken

    def end(self) -> None:
        """The model is on trial no longer."""
        self.model.stoppable = False

    def _failure(self, code: str) -> None:
        with self._lock:
            self._calls += 1
            self._failed[code] += 1
        self.noticed.set()


def _alike(model: LoadedModel, before: LoadedModel) -> bool:
    ours, theirs = model.manifest, before.manifest
    return tuple(ours.input_shape) == tuple(theirs.input_shape) and ours.classes == theirs.classes
