"""Where examples come from. To add a source, add a module here with a ``SOURCE``: a frozen, keyword-only dataclass.

Its fields are the source's options; the name in an agent's configuration is the module's name.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from fogline_client.inference.predictor import Predictor
from fogline_shared.errors import FoglineError, InvalidInput
from fogline_shared.plugins import load_module


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One example, or one sensor's values at an instant, in raw sensor units; its right label when the source knows it.

    ``time``: seconds, by whichever clock the source has; None: when it is taken. ``sensor``: whose values, if several.
    """

    x: NDArray[np.float32]
    truth: int | None = None
    time: float | None = None
    sensor: str = ""


class Source(Protocol):
    """A stream of examples. ``rate_hz``: how many a second; 0: as fast as they are taken, or the source waits by itself."""

    @property
    def rate_hz(self) -> float: ...

    @property
    def flaws(self) -> Counter[str]:
        """What could not be read, so far, by cause."""

    def samples(self, stop: threading.Event | None = None) -> Iterator[Sample]:
        """The examples, in order; may be endless. Whoever waits for one looks at ``stop`` meanwhile, and ends when it is set."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What sources have in common: an answer to :class:`Source`, but for ``samples``."""

    flaws: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    @property
    def rate_hz(self) -> float:
        """The source waits by itself."""
        return 0.0


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


def paced(source: Source, stop: threading.Event) -> Iterator[tuple[Sample, bool]]:
    """Examples at the source's rate, until it ends or ``stop`` is set; False: its time is over by a whole period."""
    period = 1.0 / source.rate_hz if source.rate_hz else 0.0
    due = time.monotonic()
    for sample in source.samples(stop):
        ahead = due - time.monotonic()
        if stop.wait(ahead) if ahead > 0 else stop.is_set():
            return
        due += period
        yield sample, not (period and -ahead > period)


def feed(source: Source, predictor: Predictor, stop: threading.Event) -> Fed:
    """Predict on every example at the source's rate, until it ends or ``stop`` is set. Blocks: give it a thread.

    An example whose time is over by a whole period is skipped: real time means the newest, not the oldest. A refused
    or failed prediction (no model yet, say) does not end the stream; the predictor has observed it.
    """
    answered = failed = late = 0
    for sample, punctual in paced(source, stop):
        if not punctual:
            late += 1
            continue
        try:
            predictor.predict(sample.x, truth=sample.truth)
            answered += 1
        except FoglineError:
            failed += 1
    return Fed(answered=answered, failed=failed, late=late)
