"""What an artifact says of itself, stored in the ONNX file's metadata under :data:`METADATA_KEY`.

One file, one digest: the manifest cannot be separated from the model it describes, and the artifact stays an ordinary
ONNX file that any runtime opens. Pre-processing (standardisation) is part of the graph, so the input is raw sensor units.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_shared.drift import Reference
from fogline_shared.errors import Corrupt

METADATA_KEY = "fogline.manifest"
FORMAT = 1
# A device runs each of them before it trusts an artifact.
MOST_ANSWERS = 64


@dataclass(frozen=True, kw_only=True)
class KnownAnswer:
    """A sample a device runs before it trusts an artifact. ``x``: base64 of little-endian float32; ``label``: index."""

    x: str
    label: int

    @classmethod
    def of(cls, x: NDArray[np.float32], label: int) -> KnownAnswer:
        """From one example (*input_shape)."""
        return cls(x=base64.b64encode(np.ascontiguousarray(x, dtype="<f4").tobytes()).decode(), label=label)

    def array(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """The example, (*shape)."""
        return np.frombuffer(base64.b64decode(self.x), dtype="<f4").reshape(tuple(shape)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """``input_shape`` is one example without the batch axis; ``variant`` is ``student_int8``, say."""

    recipe: str
    variant: str
    input_name: str
    input_shape: tuple[int, ...]
    output_name: str
    classes: tuple[str, ...]
    known_answers: tuple[KnownAnswer, ...] = ()
    # How inputs are distributed, for input drift; None: there were too few at the cloud, or the artifact is of before.
    reference: Reference | None = None
    format: int = FORMAT

    def to_json(self) -> str:
        """Canonical JSON: the same manifest gives the same bytes."""
        raw = asdict(self)
        if self.reference is None:
            del raw["reference"]
        return json.dumps(raw, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Parse; raise Corrupt ``bad_manifest`` when it is not a manifest of a format we know."""
        try:
            raw: dict[str, Any] = json.loads(text)
            if raw.get("format") != FORMAT:
                raise Corrupt("bad_manifest", f"manifest format {raw.get('format')!r} is not {FORMAT}")
            shape, reference = tuple(int(n) for n in raw["input_shape"]), raw.get("reference")
            return cls(
                recipe=str(raw["recipe"]),
                variant=str(raw["variant"]),
                input_name=str(raw["input_name"]),
                input_shape=shape,
                output_name=str(raw["output_name"]),
                classes=tuple(str(c) for c in raw["classes"]),
                known_answers=tuple(_known_answers(raw["known_answers"])),
                reference=None if reference is None else Reference.from_json(reference, shape),
            )
        # RecursionError: brackets nested without end; OverflowError: a dimension of 1e999.
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise Corrupt("bad_manifest", f"the artifact's manifest cannot be read: {error}") from error


def _known_answers(raw: list[dict[str, Any]]) -> Iterator[KnownAnswer]:
    if len(raw) > MOST_ANSWERS:
        raise ValueError(f"{len(raw)} known answers, {MOST_ANSWERS} are allowed")
    for each in raw:
        if not (isinstance(each["x"], str) and type(each["label"]) is int):
            raise TypeError("a known answer is text and a whole number")
        yield KnownAnswer(**each)
