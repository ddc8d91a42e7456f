"""Python functions that a configuration names."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from fogline_shared.errors import InvalidInput


def resolve(function: Callable[..., Any] | str) -> Callable[..., Any]:
    """The function itself, or what ``package.module:name`` says; raise InvalidInput ``bad_function``."""
    if callable(function):
        return function
    module, colon, name = str(function).partition(":")
    try:
        if not colon:
            raise ImportError("it is written package.module:name")
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # third-party code at import: anything may happen
        raise InvalidInput("bad_function", f"no function {function!r}: {error}", name=function) from error
    if not callable(found):
        raise InvalidInput("bad_function", f"{function} is a {type(found).__name__}, no function", name=function)
    return found  # type: ignore[no-any-return]
