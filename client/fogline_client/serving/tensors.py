"""What a request and an answer of the Open Inference Protocol are, whichever way they travel: JSON or protobuf.

Parameters of a request: ``truth`` is the right label of the example (a list of labels for a batch); it feeds telemetry
and changes no answer. ``timeout`` is how many microseconds the caller waits, as Triton's clients send it; 0: for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fogline_client.inference.model import LoadedModel
from fogline_client.inference.predictor import Predictor
from fogline_client.inference.values import Prediction
from fogline_shared import __version__
from fogline_shared.errors import InvalidInput, NotFound, Unavailable
from fogline_shared.manifest import Manifest

MAX_BATCH = 4096
SERVER = "fogline-agent"
VERSION = __version__
EXTENSIONS = ("binary_tensor_data",)
PLATFORM = "onnx_onnxv1"
# What is told beside the model's own output.
_DERIVED = {"label": "INT64", "confidence": "FP32", "class": "BYTES"}


# Named tuples, since a frozen dataclass costs a microsecond to build, and these are built for each request.
class WantedOutput(NamedTuple):
    """One requested output, and whether it travels raw."""

    name: str
    binary: bool


class InferRequest(NamedTuple):
    """``x``: (n, *input_shape) float32; ``truths``: one each, or all None; ``timeout_s``: None if the caller has time."""

    id: str | None
    x: NDArray[np.float32]
    truths: Sequence[int | None]
    outputs: Sequence[WantedOutput]
    timeout_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """What is told of an input or output; -1 is the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def served_model(predictor: Predictor, name: str, version: str | None) -> LoadedModel:
    """The active model, if that is the one meant; raise Unavailable ``no_model`` or NotFound ``model_not_found``."""
    model = predictor.model
    if model is None:
        raise Unavailable("no_model", "no model is active on this device yet")
    if name != model.manifest.recipe or version not in {None, "", model.digest}:
        raise NotFound("model_not_found", f"this device serves {model.manifest.recipe!r}, version {model.digest}")
    return model


def input_of(manifest: Manifest) -> Tensor:
    """The one input."""
    return Tensor(name=manifest.input_name, datatype="FP32", shape=(-1, *manifest.input_shape))


def outputs_of(manifest: Manifest) -> tuple[Tensor, ...]:
    """Every output that can be asked for."""
    return (
        Tensor(name=manifest.output_name, datatype="FP32", shape=(-1, len(manifest.classes))),
        *(Tensor(name=name, datatype=datatype, shape=(-1,)) for name, datatype in _DERIVED.items()),
    )


def check_input(name: Any, datatype: Any, manifest: Manifest) -> None:
    """Raise InvalidInput ``bad_input`` for another name or type than the model's."""
    if name != manifest.input_name:
        raise InvalidInput("bad_input", f"the input is named {manifest.input_name!r}")
    if datatype != "FP32":
        raise InvalidInput("bad_input", f"the input's datatype is FP32, got {str(datatype)[:20]!r}")


def checked_shape(shape: Any, manifest: Manifest) -> tuple[int, ...]:
    """(n, *input_shape); raise InvalidInput ``bad_input``. A batch of one may leave its axis away."""
    example = tuple(manifest.input_shape)
    if not isinstance(shape, list) or len(shape) > 16 or not all(is_int(n) for n in shape):
        raise _wrong_shape(example, shape)
    if tuple(shape) == example:
        return (1, *example)
    if tuple(shape[1:]) != example or not 1 <= shape[0] <= MAX_BATCH:
        raise _wrong_shape(example, shape)
    return tuple(shape)


def _wrong_shape(example: tuple[int, ...], shape: Any) -> InvalidInput:
    wanted = f"(n, {', '.join(map(str, example))}) with n from 1 to {MAX_BATCH}"
    return InvalidInput("bad_input", f"the input's shape is {wanted}, got {str(shape)[:100]}")


def checked_values(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """``values`` in that shape; raise InvalidInput ``bad_input`` when there are more or fewer."""
    try:
        return values.reshape(shape)
    except ValueError as error:
        raise InvalidInput(
            "bad_input", f"the input has {values.size} values, its shape {list(shape)} has another number"
        ) from error


def checked_truths(value: Any, batch: int, manifest: Manifest) -> list[int | None]:
    """One label each, or all None; raise InvalidInput ``bad_truth``."""
    if value is None:
        return [None] * batch
    classes = len(manifest.classes)
    truths = value if isinstance(value, list) else [value]
    if len(truths) != batch or not all(is_int(truth) and 0 <= truth < classes for truth in truths):
        raise InvalidInput("bad_truth", f"truth is a label from 0 to {classes - 1} for each of {batch} examples")
    return list(truths)


def checked_timeout(value: Any) -> float | None:
    """Microseconds as seconds; raise InvalidInput ``bad_request``."""
    if value is None or value == 0:
        return None
    if not is_int(value) or value < 0:
        raise InvalidInput("bad_request", f"timeout is a whole number of microseconds, got {str(value)[:30]!r}")
    return float(value / 1e6)


def check_output(name: Any, manifest: Manifest) -> None:
    """Raise InvalidInput ``unknown_output``."""
    known = (manifest.output_name, *_DERIVED)
    if name not in known:
        raise InvalidInput("unknown_output", f"no output {str(name)[:50]!r}; known: {', '.join(known)}")


def values_of(name: str, answers: Sequence[Prediction], manifest: Manifest) -> tuple[str, NDArray[Any]]:
    """An output's type and values."""
    if name == manifest.output_name:
        return "FP32", answers[0].logits[None] if len(answers) == 1 else np.stack([each.logits for each in answers])
    if name == "label":
        return "INT64", np.array([answer.label for answer in answers], dtype="<i8")
    if name == "confidence":
        return "FP32", np.array([answer.confidence for answer in answers], dtype="<f4")
    return "BYTES", np.array([answer.name for answer in answers], dtype=object)


def raw(array: NDArray[Any]) -> bytes:
    """Little-endian rows; strings each with their length first, as the binary tensor extension says."""
    if array.dtype != object:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    texts = [str(text).encode() for text in array]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def from_raw(content: bytes | memoryview) -> NDArray[np.float32]:
    """Little-endian float32, not copied where that is the machine's own order; their number of bytes divides by four."""
    return np.frombuffer(content, dtype="<f4").astype(np.float32, copy=False)


def is_int(value: Any) -> bool:
    """Whether it is a whole number; JSON's true is none."""
    return isinstance(value, int) and not isinstance(value, bool)
