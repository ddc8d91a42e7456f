"""What may be stored of a device: tags, class, attributes. Checked where they enter, whoever sends them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from fogline_shared.errors import InvalidInput
from fogline_shared.protocol import Hello, Scalar

MAX_TAGS = 32
MAX_ATTRIBUTES = 64
MAX_RECIPES = 64

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:=-]{0,62}")
_CLASS = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_DIGEST = re.compile(r"(?:[0-9a-f]{64})?")
_INT64 = 2**63


def check_tags(tags: Iterable[str]) -> list[str]:
    """Sorted, without repetition; raises InvalidInput ``bad_tag``."""
    unique = sorted(set(tags))
    if len(unique) > MAX_TAGS:
        raise InvalidInput("bad_tag", f"a device has at most {MAX_TAGS} tags", limit=MAX_TAGS)
    for tag in unique:
        if _TAG.fullmatch(tag) is None:
            raise InvalidInput("bad_tag", f"{tag[:80]!r} is no tag: 1 to 63 letters, digits and _ . : = -")
    return unique


def check_device_class(name: str) -> str:
    """``name``, or ``generic`` for nothing; raises InvalidInput ``bad_device_class``."""
    if name and _CLASS.fullmatch(name) is None:
        raise InvalidInput(
            "bad_device_class", f"{name[:80]!r} is no device class: 1 to 40 lower-case letters, digits and _ . -"
        )
    return name or "generic"


def check_attributes(attributes: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """A copy both databases can store; raises InvalidInput ``bad_attributes``."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidInput("bad_attributes", f"a device has at most {MAX_ATTRIBUTES} attributes", limit=MAX_ATTRIBUTES)
    for key, value in attributes.items():
        if _KEY.fullmatch(key) is None:
            raise InvalidInput("bad_attributes", f"{key[:80]!r} is no attribute name")
        if not _storable(value):
            raise InvalidInput("bad_attributes", f"the value of attribute {key!r} cannot be stored", attribute=key)
    return dict(attributes)


def check_hello(hello: Hello) -> Hello:
    """``hello``; raises InvalidInput ``bad_hello`` when a field is too long or no text, ``bad_attributes``."""
    texts = (hello.boot_id, hello.agent_version, *hello.recipes)
    if (
        len(hello.boot_id) > 60
        or len(hello.agent_version) > 40
        or len(hello.recipes) > MAX_RECIPES
        or any(len(recipe) > 80 for recipe in hello.recipes)
        or not all(_storable(text) for text in texts)
        or _DIGEST.fullmatch(hello.active_digest) is None
        or not 0 <= hello.generation < _INT64
    ):
        raise InvalidInput("bad_hello", "a field of the hello is too long or malformed")
    check_attributes(hello.attributes)
    return hello


def _storable(value: Scalar) -> bool:
    """JSON in PostgreSQL knows neither NUL characters, lone surrogates, infinities nor NaN."""
    match value:
        case str():
            return len(value) <= 1000 and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
        case float():
            return math.isfinite(value)
        case _:
            return -_INT64 <= value < _INT64
