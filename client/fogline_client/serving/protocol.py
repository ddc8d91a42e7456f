"""Open Inference Protocol v2, REST: request bytes in, values out, and back. Pure; sockets are in ``server``.

Source: https://github.com/kserve/open-inference-protocol (REST) and Triton's binary tensor data extension, where JSON of
``Inference-Header-Content-Length`` bytes comes first and raw little-endian tensors follow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fogline_client.inference.values import Prediction
from fogline_client.serving import tensors
from fogline_client.serving.tensors import InferRequest, WantedOutput
from fogline_shared.errors import InvalidInput
from fogline_shared.manifest import Manifest

# Of a request's text that is kept because it may come again.
_KNOWN_BYTES = 4096
# An output's name, type and shape, and how many raw bytes it has; None: it is listed.
_Described = tuple[str, str, tuple[int, ...], int | None]


class _Header(NamedTuple):
    """What a request's text says. ``raw_size``: bytes that follow it, as it says; else ``data`` is there."""

    id: str | None
    shape: tuple[int, ...]
    raw_size: Any
    data: Any
    truths: Sequence[int | None]
    outputs: Sequence[WantedOutput]
    timeout_s: float | None


def parse_infer(body: bytes, header_length: str | None, manifest: Manifest) -> InferRequest:
    """Read an infer request; raise InvalidInput ``bad_request``, ``bad_input``, ``bad_truth`` or ``unknown_output``."""
    text, raw = _split(body, header_length)
    header = (_known_header if raw and len(text) <= _KNOWN_BYTES else _header)(text, manifest)
    values = _listed_values(header.data, raw) if header.raw_size is None else _raw_values(header.raw_size, raw)
    x = tensors.checked_values(values, header.shape)
    return InferRequest(header.id, x, header.truths, header.outputs, header.timeout_s)


def encode_infer(
    request: InferRequest, answers: Sequence[Prediction], manifest: Manifest
) -> tuple[bytes, dict[str, str]]:
    """The response's body and headers. ``answers`` is not empty."""
    described: list[_Described] = []
    buffers, listed = [], []
    for wanted in request.outputs:
        datatype, array = tensors.values_of(wanted.name, answers, manifest)
        if wanted.binary:
            buffers.append(tensors.raw(array))
        else:
            listed.append(array.ravel().tolist())
        described.append((wanted.name, datatype, array.shape, len(buffers[-1]) if wanted.binary else None))
    about = (manifest.recipe, answers[0].digest, request.id, tuple(described))
    text = _answer_header(*about, listed) if listed else _known_answer_header(*about)
    if not buffers:
        return text, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(text))}
    return text + b"".join(buffers), headers


def model_metadata(manifest: Manifest, digest: str) -> dict[str, Any]:
    """What ``GET /v2/models/{name}`` answers."""
    return {
        "name": manifest.recipe,
        "versions": [digest],
        "platform": tensors.PLATFORM,
        "inputs": [asdict(tensors.input_of(manifest))],
        "outputs": [asdict(output) for output in tensors.outputs_of(manifest)],
        "parameters": {"variant": manifest.variant, "classes": list(manifest.classes)},
    }


def dumps(message: Mapping[str, Any]) -> bytes:
    """Compact JSON."""
    return json.dumps(message, separators=(",", ":")).encode()


def _header(text: bytes, manifest: Manifest) -> _Header:
    """All of a request but raw values."""
    message = _json_object(text)
    parameters = _object(message, "parameters")
    inputs, request_id = message.get("inputs"), message.get("id")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise InvalidInput("bad_input", f"inputs is a list of one tensor, {manifest.input_name!r}")
    tensor = inputs[0]
    tensors.check_input(tensor.get("name"), tensor.get("datatype"), manifest)
    shape = tensors.checked_shape(tensor.get("shape"), manifest)
    binary = parameters.get("binary_data_output") is True
    return _Header(
        id=None if request_id is None else _text(request_id, "id"),
        shape=shape,
        raw_size=_object(tensor, "parameters").get("binary_data_size"),
        data=tensor.get("data"),
        truths=tensors.checked_truths(parameters.get("truth"), shape[0], manifest),
        outputs=_outputs(message.get("outputs"), default_binary=binary, m=manifest),
        timeout_s=tensors.checked_timeout(parameters.get("timeout")),
    )


# A client of raw tensors sends the same text with each of them, and is told the same: it is read and written once.
_known_header = lru_cache(maxsize=64)(_header)


def _answer_header(
    name: str, version: str, request_id: str | None, described: Sequence[_Described], listed: Sequence[Any] = ()
) -> bytes:
    """All of an answer but raw values; ``listed``: the values of those outputs that are not raw, in their order."""
    outputs, values = [], iter(listed)
    for output, datatype, shape, size in described:
        entry: dict[str, Any] = {"name": output, "shape": list(shape), "datatype": datatype}
        entry |= {"data": next(values)} if size is None else {"parameters": {"binary_data_size": size}}
        outputs.append(entry)
    message: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": outputs}
    return dumps(message if request_id is None else message | {"id": request_id})


_known_answer_header = lru_cache(maxsize=64)(_answer_header)


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


def _raw_values(size: Any, raw: memoryview) -> NDArray[np.float32]:
    if not tensors.is_int(size) or size != len(raw) or size % 4:
        raise InvalidInput("bad_input", f"binary_data_size is {str(size)[:20]}, {len(raw)} bytes follow the header")
    return tensors.from_raw(raw)


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


def _outputs(outputs: Any, *, default_binary: bool, m: Manifest) -> list[WantedOutput]:
    if outputs is None:
        return [WantedOutput(output.name, default_binary) for output in tensors.outputs_of(m)]
    if not isinstance(outputs, list) or not outputs or not all(isinstance(output, dict) for output in outputs):
        raise InvalidInput("bad_request", "outputs is a list of objects", field="outputs")
    wanted = []
    for output in outputs:
        name = output.get("name")
        tensors.check_output(name, m)
        binary = _object(output, "parameters").get("binary_data", default_binary)
        wanted.append(WantedOutput(name, binary is True))
    return wanted
