"""Where examples come from. To add a source, add a module here with a ``SOURCE``: a frozen, keyword-only dataclass.

Its fields are the source's options; the name in an agent's configuration is the module's name.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from fogline_client.inference.predictor import Predictor
from fogline_shared.errors import FoglineError, InvalidInput
from fogline_shared.plugins import load_module


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One example in raw sensor units, and its right label when the source knows it."""

    x: NDArray[np.float32]
    truth: int | None = None


class Source(Protocol):
    """A stream of examples. ``rate_hz``: how many a second; 0: as fast as they are taken."""

    @property
    def rate_hz(self) -> float: ...

    def samples(self) -> Iterator[Sample]:
        """The examples, in order; may be endless."""


@dataclass(frozen=True, kw_only=True)
class Fed:
    """What became of a source's examples. ``late``: skipped because the device could not keep up."""

    answered: int
    failed: int
    late: int


def load_source(name: str, options: Mapping[str, Any]) -> Source:
    """The source of that name; raise InvalidInput ``unknown_source`` or ``invalid_source_option``."""
    factory = load_module("fogline_client.sources", name).SOURCE
    try:
        return cast("Source", factory(**options))
    except TypeError as error:
        raise InvalidInput("invalid_source_option", f"source {name!r}: {error}", name=name) from error


def feed(source: Source, predictor: Predictor, stop: threading.Event) -> Fed:
    """Predict on every example at the source's rate, until it ends or ``stop`` is set. Blocks: give it a thread.

    An example whose time is over by a whole period is skipped: real time means the newest, not the oldest. A refused
    or failed prediction (no model yet, say) does not end the stream; the predictor has observed it.
    """
    answered = failed = late = 0
    period = 1.0 / source.rate_hz if source.rate_hz else 0.0
    due = time.monotonic()
    for sample in source.samples():
        ahead = due - time.monotonic()
        if stop.wait(ahead) if ahead > 0 else stop.is_set():
            break
        due += period
        if period and -ahead > period:
            late += 1
            continue
        try:
            predictor.predict(sample.x, truth=sample.truth)
            answered += 1
        except FoglineError:
            failed += 1
    return Fed(answered=answered, failed=failed, late=late)
