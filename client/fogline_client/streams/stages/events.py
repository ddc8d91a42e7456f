"""When something begins and when it ends: debounced, with hysteresis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fogline_client.streams.answers import ABSTAINED, Answer
from fogline_client.streams.checks import flag
from fogline_client.streams.stages.base import Step
from fogline_shared.checks import number
from fogline_shared.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Events:
    """A class begins when ``after`` answers in a row name it with a confidence of ``on`` or more.

    It ends when its score has been below ``off`` for as many. One is on at a time; classes in ``ignore`` (a resting state)
    never begin. Only these answers reach the sinks, with their ``event``; with ``all`` every answer does.
    """

    on: float = 0.7
    off: float = 0.4
    after: int = 2
    ignore: Sequence[str] = ()
    all: bool = False

    def __post_init__(self) -> None:
        number("on", self.on, low=0, high=1, code="invalid_pipeline")
        number("off", self.off, low=0, high=1, code="invalid_pipeline")
        number("after", self.after, low=1, high=10_000, whole=True, code="invalid_pipeline")
        if self.off > self.on:
            raise InvalidInput("invalid_pipeline", f"off ({self.off:g}) is not above on ({self.on:g})", field="off")
        flag("all", self.all)
        if isinstance(self.ignore, str) or not all(isinstance(name, str) for name in self.ignore):
            raise InvalidInput("invalid_pipeline", f"ignore is a list of classes, got {self.ignore!r}", field="ignore")
        object.__setattr__(self, "ignore", tuple(self.ignore))

    def start(self) -> Step:
        """Nothing is on."""
        return _Watch(self).see


class _Watch:
    def __init__(self, options: Events) -> None:
        self._options = options
        self._on = self._candidate = ABSTAINED
        self._count = 0

    def see(self, answer: Answer) -> Answer | None:
        event, label = self._event(answer)
        if event:
            return replace(answer, label=label, confidence=float(answer.scores[label]), event=event)
        return answer if self._options.all else None

    def _event(self, answer: Answer) -> tuple[str, int]:
        if self._on != ABSTAINED:
            ended = self._on
            self._count = self._count + 1 if answer.scores[ended] < self._options.off else 0
            if self._count < self._options.after:
                return "", ABSTAINED
            self._on = self._candidate = ABSTAINED
            self._count = 0
            return "end", ended
        sure = answer.confidence >= self._options.on and answer.name not in self._options.ignore
        label = answer.label if sure else ABSTAINED
        self._count = self._count + 1 if label == self._candidate else 1
        self._candidate = label
        if label == ABSTAINED or self._count < self._options.after:
            return "", ABSTAINED
        self._on, self._count = label, 0
        return "start", label


STAGE = Events
