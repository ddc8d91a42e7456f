"""Stages and sinks by name, with options from a file or from code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fogline_shared.errors import InvalidInput
from fogline_shared.plugins import load_module


def load(package: str, attribute: str, name: str, options: Mapping[str, Any]) -> Any:
    """The plugin with these options; raise InvalidInput ``unknown_stage``, ``unknown_sink`` or ``invalid_pipeline``."""
    factory = getattr(load_module(f"fogline_client.streams.{package}", name), attribute)
    try:
        return factory(**options)
    except TypeError as error:
        raise InvalidInput("invalid_pipeline", f"{attribute.lower()} {name!r}: {error}", name=name) from error
