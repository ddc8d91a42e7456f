"""A Python function is called with each answer: for programs that embed the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from fogline_client.named import resolve
from fogline_client.streams.answers import Answer
from fogline_shared.errors import Unavailable

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Callback:
    """``function``: called with an :class:`~fogline_client.streams.answers.Answer`; or where it is: ``package.module:name``."""

    function: Callable[[Answer], Any] | str

    def open(self) -> OpenCallback:
        """Raise InvalidInput ``bad_function`` when there is no such function."""
        return OpenCallback(resolve(self.function))


class OpenCallback:
    """An OpenSink. Whatever the function raises costs this answer only."""

    def __init__(self, function: Callable[[Answer], Any]) -> None:
        self._function = function

    def deliver(self, answer: Answer) -> None:
        """Call it; raise Unavailable ``callback_failed``."""
        try:
            self._function(answer)
        except Exception as error:  # somebody else's code, at the end of every answer
            log.exception("callback failed")
            raise Unavailable("callback_failed", f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Nothing to let go of."""


SINK = Callback
