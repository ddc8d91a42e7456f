"""Open Inference Protocol v2, gRPC: protobuf messages in, values out, and back. Pure; the server is in ``rpc``.

Source: https://github.com/kserve/open-inference-protocol (gRPC). Answers are always raw (``raw_output_contents``), which the
protocol leaves to the server and costs it least.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from fogline_client.inference.values import Prediction
from fogline_client.serving import tensors
from fogline_client.serving.tensors import InferRequest, Tensor, WantedOutput
from fogline_shared.errors import InvalidInput
from fogline_shared.manifest import Manifest
from fogline_shared.proto import open_inference_pb2 as pb


def parse(content: bytes, into: Any) -> Any:
    """The message that ``content`` is; raise InvalidInput ``bad_request``."""
    try:
        into.ParseFromString(content)
    except DecodeError as error:
        raise InvalidInput("bad_request", "the request is not the protobuf message that it should be") from error
    return into


def read_infer(message: pb.ModelInferRequest, manifest: Manifest) -> InferRequest:
    """The request; raise InvalidInput ``bad_request``, ``bad_input``, ``bad_truth`` or ``unknown_output``."""
    if len(message.id) > 256:
        raise InvalidInput("bad_request", "id is not a text of at most 256 characters", field="id")
    x = _input(message, manifest)
    for output in message.outputs:
        tensors.check_output(output.name, manifest)
    names = [output.name for output in message.outputs or tensors.outputs_of(manifest)]
    return InferRequest(
        id=message.id or None,
        x=x,
        truths=tensors.checked_truths(_truth(message.parameters), len(x), manifest),
        outputs=[WantedOutput(name, binary=True) for name in names],
        timeout_s=tensors.checked_timeout(_parameter(message.parameters, "timeout")),
    )


def infer_response(request: InferRequest, answers: Sequence[Prediction], manifest: Manifest) -> pb.ModelInferResponse:
    """The answer. ``answers`` is not empty."""
    response = pb.ModelInferResponse(model_name=manifest.recipe, model_version=answers[0].digest, id=request.id or "")
    for wanted in request.outputs:
        datatype, array = tensors.values_of(wanted.name, answers, manifest)
        response.outputs.add(name=wanted.name, datatype=datatype, shape=array.shape)
        response.raw_output_contents.append(tensors.raw(array))
    return response


def model_metadata(manifest: Manifest, digest: str) -> pb.ModelMetadataResponse:
    """What is told of a model."""
    return pb.ModelMetadataResponse(
        name=manifest.recipe,
        versions=[digest],
        platform=tensors.PLATFORM,
        inputs=[_described(tensors.input_of(manifest))],
        outputs=[_described(output) for output in tensors.outputs_of(manifest)],
    )


def _described(tensor: Tensor) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)


def _input(message: pb.ModelInferRequest, manifest: Manifest) -> NDArray[np.float32]:
    if len(message.inputs) != 1:
        raise InvalidInput("bad_input", f"inputs is a list of one tensor, {manifest.input_name!r}")
    tensor = message.inputs[0]
    tensors.check_input(tensor.name, tensor.datatype, manifest)
    shape = tensors.checked_shape(list(tensor.shape), manifest)
    listed = tensor.contents.fp32_contents
    if not message.raw_input_contents:
        return tensors.checked_values(np.array(listed, dtype=np.float32), shape)
    if listed or len(message.raw_input_contents) != 1:
        raise InvalidInput("bad_input", "an input comes either as fp32_contents or as one of raw_input_contents")
    raw = message.raw_input_contents[0]
    if len(raw) % 4:
        raise InvalidInput("bad_input", f"the input has {len(raw)} bytes, which are not whole float32 values")
    return tensors.checked_values(tensors.from_raw(raw), shape)


def _parameter(parameters: Mapping[str, pb.InferParameter], name: str) -> Any:
    """Its value, whichever kind it is; None when it is not there. Looking it up in the map would add it."""
    if name not in parameters:
        return None
    choice = parameters[name].WhichOneof("parameter_choice")
    return getattr(parameters[name], choice) if choice else None


def _truth(parameters: Mapping[str, pb.InferParameter]) -> Any:
    """A label, or for a batch a JSON list of labels: a parameter of a message has no list."""
    value = _parameter(parameters, "truth")
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("bad_truth", "truth is a label, or a JSON list of labels") from error
