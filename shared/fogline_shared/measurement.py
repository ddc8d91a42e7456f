"""What is measured of an artifact on a device: the task of kind ``measure``, and its answer.

It travels as any task does, and asks for no recipe and no training. Its offer reads one blob, the record :data:`ARTIFACT`;
the offer's ``records_json`` is a :class:`Subject`, the answer's are :class:`Figures`. A device that cannot or will not measure
answers with an error code. To an agent from before this module it is a task for a recipe it does not have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from fogline_shared.checks import finite
from fogline_shared.errors import InvalidInput

MEASURE = "measure"
ARTIFACT = "artifact"
_LONGEST = 200


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Which variant of which release: signed metadata lists artifacts by these names."""

    release_id: str
    variant: str

    def to_json(self) -> str:
        """As it travels."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Subject:
        """Inverse of :meth:`to_json`; raises InvalidInput ``malformed_frame``."""
        try:
            raw = json.loads(text)
            subject = cls(release_id=raw["release_id"], variant=raw["variant"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InvalidInput("malformed_frame", "a measurement names a release and a variant") from error
        if not all(isinstance(value, str) and value for value in (subject.release_id, subject.variant)):
            raise InvalidInput("malformed_frame", "a measurement names a release and a variant")
        return subject


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a device measured: microseconds an example at batch 1, in-process, over ``runs`` of them.

    ``load_ms``: to open, check and warm it. ``memory_bytes``: the most that the measuring process, the engine included, had
    resident. ``size``: bytes of the artifact. ``engine``: its name and options; ``machine``: processor and versions.
    ``cached``: measured before, and not again.
    """

    p50_us: float
    p99_us: float
    load_ms: float
    memory_bytes: int
    size: int
    runs: int
    engine: str
    machine: str
    cached: bool = False

    def as_json(self) -> dict[str, Any]:
        """For the answer, the device's cache and the coordinator's row."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: object) -> Figures:
        """Inverse of :meth:`as_json`, of something another machine or a disk says; raises InvalidInput ``malformed_reply``."""
        if not isinstance(raw, Mapping):
            raise InvalidInput("malformed_reply", "figures are a JSON object")
        values: dict[str, Any] = {}
        for each in fields(cls):
            value = raw.get(each.name, False if each.name == "cached" else None)
            if not _sound(value, str(each.type)):
                raise InvalidInput("malformed_reply", f"{each.name} is no figure: {value!r}"[:_LONGEST])
            values[each.name] = value[:_LONGEST] if isinstance(value, str) else value
        if values["p50_us"] > values["p99_us"]:
            raise InvalidInput("malformed_reply", "p50_us is above p99_us")
        return cls(**values)


def _sound(value: object, kind: str) -> bool:
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "str":
        return isinstance(value, str)
    return finite(value) and 0 <= value <= 2**53 and (kind == "float" or isinstance(value, int))
