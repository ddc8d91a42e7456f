"""What a sink is. To add one, add a module here with a ``SINK``: a frozen, keyword-only dataclass of its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from fogline_client.streams.answers import Answer
from fogline_client.streams.plugins import load


class OpenSink(Protocol):
    """One thread at a time."""

    def deliver(self, answer: Answer) -> None:
        """Raise FoglineError or OSError when this answer is lost; the pipeline counts it and goes on."""

    def close(self) -> None:
        """Let go of files and connections."""


class Sink(Protocol):
    """Validated options."""

    def open(self) -> OpenSink:
        """Raise FoglineError when it cannot be used at all."""


def load_sink(name: str, options: Mapping[str, Any]) -> Sink:
    """The sink of that name; raise InvalidInput ``unknown_sink`` or ``invalid_pipeline``."""
    return cast("Sink", load("sinks", "SINK", name, options))
