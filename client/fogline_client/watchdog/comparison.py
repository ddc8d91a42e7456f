"""The new model beside the one before, on the same inputs and at the same time.

What the device sees changes (somebody sleeps, the light goes out) and so does how busy it is; both then change for both models.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fogline_client.inference.model import LoadedModel
from fogline_client.inference.trial import Trial
from fogline_client.watchdog.alarm import Alarm
from fogline_client.watchdog.limits import WatchdogLimits
from fogline_shared.errors import FoglineError


@dataclass(kw_only=True)
class Answers:
    """What one model said to some inputs; times in microseconds."""

    labels: list[int] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    took_us: list[float] = field(default_factory=list)

    def ask(self, model: LoadedModel, x: NDArray[np.float32]) -> None:
        """Add the answer to one input; raises what the model raises. The buffers of those who wait are left to them."""
        started = time.perf_counter_ns()
        (answer,) = model.predict_many(x[None])
        self.took_us.append((time.perf_counter_ns() - started) / 1e3)
        self.labels.append(answer.label)
        self.confidences.append(answer.confidence)


def ask_both(
    trial: Trial, inputs: Sequence[NDArray[np.float32]], *, stop: Callable[[], bool]
) -> tuple[Answers, Answers] | None:
    """Both in turn, input by input; None when one of them is not there or has no answer, which others look after."""
    if trial.before is None:
        return None
    now, then = Answers(), Answers()
    try:
        for x in inputs:
            if stop():
                return None
            with trial.tracked():
                now.ask(trial.model, x)
            then.ask(trial.before, x)
    except FoglineError:
        return None
    return now, then


def worse(digest: str, now: Answers, then: Answers, classes: int, limits: WatchdogLimits) -> Alarm | None:
    """``model_slow``, ``model_unsure`` or ``model_one_class``."""
    return (
        slow(digest, now, then, limits)
        or unsure(digest, now, then, classes, limits)
        or one_class(digest, now, then, limits)
    )


def slow(digest: str, now: Answers, then: Answers, limits: WatchdogLimits) -> Alarm | None:
    """The median is many times what it was, and by more than anybody's noise."""
    new, old = float(np.median(now.took_us)), float(np.median(then.took_us))
    if new <= limits.slower * old or new - old <= limits.slower_ms * 1e3:
        return None
    return Alarm(digest, "model_slow", f"{new / 1e3:.3g} ms where the model before takes {old / 1e3:.3g} ms")


def unsure(digest: str, now: Answers, then: Answers, classes: int, limits: WatchdogLimits) -> Alarm | None:
    """The mean confidence fell to nearly what guessing has."""
    new, old, chance = float(np.mean(now.confidences)), float(np.mean(then.confidences)), 1 / classes
    if new - chance >= limits.confidence_share * (old - chance):
        return None
    return Alarm(
        digest, "model_unsure", f"mean confidence {new:.2f}; the model before has {old:.2f} on the same inputs"
    )


def one_class(digest: str, now: Answers, then: Answers, limits: WatchdogLimits) -> Alarm | None:
    """One answer to everything, where the model before tells classes apart."""
    most = max(Counter(then.labels).values())
    if len(set(now.labels)) > 1 or most > limits.class_share * len(then.labels):
        return None
    kinds = len(set(then.labels))
    message = f"class {now.labels[0]} for {len(now.labels)} inputs; the model before tells {kinds} classes apart"
    return Alarm(digest, "model_one_class", message)
