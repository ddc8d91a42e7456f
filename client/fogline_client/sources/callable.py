"""Samples from a Python function or iterable: for programs that embed the pipeline."""

from __future__ import annotations

import threading
from collections.abc import Callable as Function
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fogline_client.named import resolve
from fogline_client.sources.base import Options, Sample
from fogline_shared.errors import Unavailable


@dataclass(frozen=True, kw_only=True)
class Callable(Options):
    """``function``: called once, returns an iterable; or an iterable itself; or where it is: ``package.module:name``.

    Items are samples, or arrays, which then are samples of the moment. Whatever it raises ends the source (Unavailable
    ``function_failed``); an item that is neither is a flaw, ``bad_sample``.
    """

    function: Function[[], Iterable[Any]] | Iterable[Any] | str

    def samples(self, stop: threading.Event | None = None) -> Iterator[Sample]:
        """What it gives, until it ends or ``stop`` is set; raises InvalidInput ``bad_function``."""
        given = resolve(self.function) if isinstance(self.function, str) else self.function
        try:
            for item in given() if callable(given) else given:
                if stop is not None and stop.is_set():
                    return
                if (sample := self._sample(item)) is not None:
                    yield sample
        except Exception as error:  # somebody else's code
            raise Unavailable("function_failed", f"{type(error).__name__}: {error}") from error

    def _sample(self, item: Any) -> Sample | None:
        if isinstance(item, Sample):
            return item
        try:
            return Sample(x=np.asarray(item, dtype=np.float32))
        except (TypeError, ValueError):
            self.flaws["bad_sample"] += 1
            return None


SOURCE = Callable
