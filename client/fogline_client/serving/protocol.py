"""Open Inference Protocol v2, REST: request bytes in, values out, and back. Pure; sockets are in ``server``.

Source: https://github.com/kserve/open-inference-protocol (REST) and Triton's binary tensor data extension, where JSON of
``Inference-Header-Content-Length`` bytes comes first and raw little-endian tensors follow. Parameters of a request:
``truth`` is the right label of the example (a list of labels for a batch); it feeds telemetry and changes no answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_client.inference.values import Prediction
from fogline_shared.errors import InvalidInput
from fogline_shared.manifest import Manifest

MAX_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class WantedOutput:
    """One requested output, and whether it travels raw."""

    name: str
    binary: bool


@dataclass(frozen=True, kw_only=True)
class InferRequest:
    """``x``: (n, *input_shape) float32; ``truths``: one each, or all None."""

    id: str | None
    x: NDArray[np.float32]
    truths: Sequence[int | None]
    outputs: Sequence[WantedOutput]


def parse_infer(body: bytes, header_length: str | None, manifest: Manifest) -> InferRequest:
    """Read an infer request; raise InvalidInput ``bad_request``, ``bad_input``, ``bad_truth`` or ``unknown_output``."""
    text, raw = _split(body, header_length)
    message = _json_object(text)
    parameters = _object(message, "parameters")
    x = _input(message.get("inputs"), raw, manifest)
    request_id = message.get("id")
    return InferRequest(
        id=None if request_id is None else _text(request_id, "id"),
        x=x,
        truths=_truths(parameters.get("truth"), len(x), len(manifest.classes)),
        outputs=_outputs(
            message.get("outputs"), default_binary=parameters.get("binary_data_output") is True, m=manifest
        ),
    )


def encode_infer(
    request: InferRequest, answers: Sequence[Prediction], manifest: Manifest
) -> tuple[bytes, dict[str, str]]:
    """The response's body and headers. ``answers`` is not empty."""
    arrays = _arrays(answers, manifest)
    described, buffers = [], []
    for wanted in request.outputs:
        datatype, array = arrays[wanted.name]
        entry: dict[str, Any] = {"name": wanted.name, "shape": list(array.shape), "datatype": datatype}
        if wanted.binary:
            raw = _raw(array)
            buffers.append(raw)
            entry["parameters"] = {"binary_data_size": len(raw)}
        else:
            entry["data"] = array.ravel().tolist()
        described.append(entry)
    message: dict[str, Any] = {"model_name": manifest.recipe, "model_version": answers[0].digest, "outputs": described}
    if request.id is not None:
        message["id"] = request.id
    text = dumps(message)
    if not buffers:
        return text, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(text))}
    return text + b"".join(buffers), headers


def model_metadata(manifest: Manifest, digest: str) -> dict[str, Any]:
    """What ``GET /v2/models/{name}`` answers; -1 is the batch."""
    return {
        "name": manifest.recipe,
        "versions": [digest],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": manifest.input_name, "datatype": "FP32", "shape": [-1, *manifest.input_shape]}],
        "outputs": [
            {"name": manifest.output_name, "datatype": "FP32", "shape": [-1, len(manifest.classes)]},
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "confidence", "datatype": "FP32", "shape": [-1]},
            {"name": "class", "datatype": "BYTES", "shape": [-1]},
        ],
        "parameters": {"variant": manifest.variant, "classes": list(manifest.classes)},
    }


def dumps(message: Mapping[str, Any]) -> bytes:
    """Compact JSON."""
    return json.dumps(message, separators=(",", ":")).encode()


def _arrays(answers: Sequence[Prediction], manifest: Manifest) -> dict[str, tuple[str, NDArray[Any]]]:
    return {
        manifest.output_name: ("FP32", np.stack([answer.logits for answer in answers])),
        "label": ("INT64", np.array([answer.label for answer in answers], dtype="<i8")),
        "confidence": ("FP32", np.array([answer.confidence for answer in answers], dtype="<f4")),
        "class": ("BYTES", np.array([answer.name for answer in answers], dtype=object)),
    }


def _raw(array: NDArray[Any]) -> bytes:
    """Little-endian rows; strings each with their length first, as the extension says."""
    if array.dtype != object:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    texts = [str(text).encode() for text in array]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    # isdecimal alone takes other scripts' digits, which a header cannot mean
    if not (header_length.isascii() and header_length.isdecimal()) or int(header_length[:12]) > len(body):
        raise InvalidInput(
            "bad_request", f"inference-header-content-length {header_length[:20]!r} of {len(body)} bytes"
        )
    length = int(header_length[:12])
    return body[:length], memoryview(body)[length:]


def _json_object(text: bytes) -> Mapping[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("bad_request", f"the body is not JSON: {str(error)[:200]}") from error
    if not isinstance(message, dict):
        raise InvalidInput("bad_request", "the body is not a JSON object")
    return message


def _object(message: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = message.get(field, {})
    if not isinstance(value, dict):
        raise InvalidInput("bad_request", f"{field} is not an object", field=field)
    return value


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or len(value) > 256:
        raise InvalidInput("bad_request", f"{field} is not a text of at most 256 characters", field=field)
    return value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _input(inputs: Any, raw: memoryview, manifest: Manifest) -> NDArray[np.float32]:
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise InvalidInput("bad_input", f"inputs is a list of one tensor, {manifest.input_name!r}")
    tensor = inputs[0]
    if tensor.get("name") != manifest.input_name:
        raise InvalidInput("bad_input", f"the input is named {manifest.input_name!r}")
    if tensor.get("datatype") != "FP32":
        raise InvalidInput("bad_input", f"the input's datatype is FP32, got {str(tensor.get('datatype'))[:20]!r}")
    shape = _shape(tensor.get("shape"), manifest.input_shape)
    size = _object(tensor, "parameters").get("binary_data_size")
    values = _raw_values(size, raw) if size is not None else _listed_values(tensor.get("data"), raw)
    if values.size != math.prod(shape):
        raise InvalidInput(
            "bad_input", f"the input has {values.size} values, its shape {list(shape)} has another number"
        )
    return values.reshape(shape)


def _shape(shape: Any, example: Sequence[int]) -> tuple[int, ...]:
    wanted = f"(n, {', '.join(map(str, example))}) with n from 1 to {MAX_BATCH}"
    if not isinstance(shape, list) or len(shape) > 16 or not all(_is_int(n) for n in shape):
        raise InvalidInput("bad_input", f"the input's shape is {wanted}")
    if tuple(shape) == tuple(example):  # a batch of one may leave its axis away
        return (1, *example)
    if tuple(shape[1:]) != tuple(example) or not 1 <= shape[0] <= MAX_BATCH:
        raise InvalidInput("bad_input", f"the input's shape is {wanted}, got {str(shape)[:100]}")
    return tuple(shape)


def _raw_values(size: Any, raw: memoryview) -> NDArray[np.float32]:
    if not _is_int(size) or size != len(raw) or size % 4:
        raise InvalidInput("bad_input", f"binary_data_size is {str(size)[:20]}, {len(raw)} bytes follow the header")
    return np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False)


def _listed_values(data: Any, raw: memoryview) -> NDArray[np.float32]:
    if len(raw):
        raise InvalidInput("bad_input", f"{len(raw)} raw bytes follow the header, no input claims them")
    if not isinstance(data, list):
        raise InvalidInput("bad_input", "the input has no list of data")
    try:
        values = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise InvalidInput("bad_input", f"the input's data is not an array: {str(error)[:200]}") from error
    if values.dtype.kind not in "iuf":
        raise InvalidInput("bad_input", "the input's data is not made of numbers")
    with np.errstate(over="ignore"):  # beyond float32 it becomes infinity, which the predictor names
        return values.astype(np.float32).ravel()


def _truths(value: Any, batch: int, classes: int) -> list[int | None]:
    if value is None:
        return [None] * batch
    truths = value if isinstance(value, list) else [value]
    if len(truths) != batch or not all(_is_int(truth) and 0 <= truth < classes for truth in truths):
        raise InvalidInput("bad_truth", f"truth is a label from 0 to {classes - 1} for each of {batch} examples")
    return list(truths)


def _outputs(outputs: Any, *, default_binary: bool, m: Manifest) -> list[WantedOutput]:
    known = (m.output_name, "label", "confidence", "class")
    if outputs is None:
        return [WantedOutput(name=name, binary=default_binary) for name in known]
    if not isinstance(outputs, list) or not outputs or not all(isinstance(output, dict) for output in outputs):
        raise InvalidInput("bad_request", "outputs is a list of objects", field="outputs")
    wanted = []
    for output in outputs:
        name = output.get("name")
        if name not in known:
            raise InvalidInput("unknown_output", f"no output {str(name)[:50]!r}; known: {', '.join(known)}")
        binary = _object(output, "parameters").get("binary_data", default_binary)
        wanted.append(WantedOutput(name=name, binary=binary is True))
    return wanted
