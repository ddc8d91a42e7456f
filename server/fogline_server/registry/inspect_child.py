"""Look at a foreign ONNX file in a process that may die of it: ``python -m fogline_server.registry.inspect_child FILE``.

Prints one JSON object: what the model is, or ``{"code": …, "message": …}``. Limits its own memory and CPU time before
the file is opened, so that a crafted one ends this process and nothing else.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fogline_server.compression.engine import manifest_of, open_session, run
from fogline_shared.errors import Corrupt, FoglineError

MEMORY_BYTES = 4 << 30
CPU_S = 60
# The standard operators and those of quantized models; any other needs code that devices do not have.
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


def inspect(path: Path) -> dict[str, Any]:
    """Facts of a model with one float32 input (batch, …) and one output (batch, classes).

    Raises Corrupt ``not_onnx``, ``external_data``, ``foreign_operators``, ``wrong_signature``, ``model_does_not_load``,
    ``model_does_not_run``, ``logits_not_finite``, ``bad_manifest``.
    """
    import numpy as np

    data = path.read_bytes()
    _check_file(data)
    session = open_session(data)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(outputs) != 1:
        raise Corrupt("wrong_signature", "a model has one float32 input and one output")
    shape = inputs[0].shape[1:]
    if not shape or not all(isinstance(n, int) and n > 0 for n in shape):
        raise Corrupt("wrong_signature", f"all but the first axis of the input are fixed, not {inputs[0].shape}")
    logits = run(session, np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32))
    if logits.ndim != 2 or len(logits) != 2:
        raise Corrupt("wrong_signature", f"two examples give an output of shape {logits.shape}, not (2, classes)")
    if not np.isfinite(logits).all():
        raise Corrupt("logits_not_finite", "the model answers noise with NaN or infinity")
    manifest = manifest_of(session)
    return {
        "input_name": inputs[0].name,
        "input_shape": shape,
        "output_name": outputs[0].name,
        "classes": logits.shape[1],
        "manifest": None if manifest is None else manifest.to_json(),
    }


def _check_file(data: bytes) -> None:
    import onnx

    try:
        proto = onnx.load_from_string(data)
        nodes = [*_nodes(proto.graph), *(node for function in proto.functions for node in function.node)]
    except Exception as error:  # protobuf's decoder has several errors
        raise Corrupt("not_onnx", f"not an ONNX file: {error}"[:400]) from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        raise Corrupt("external_data", "the model keeps its weights in another file")
    foreign = sorted({node.domain for node in nodes} - DOMAINS)
    if foreign:
        raise Corrupt("foreign_operators", f"operators of {', '.join(foreign)} are not on devices")
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # the checker and shape inference: no common base
        raise Corrupt("not_onnx", f"not a valid ONNX model: {error}"[:400]) from error


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def main(path: str) -> None:
    """Print the facts or the error."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    try:
        answer = inspect(Path(path))
    except FoglineError as error:
        answer = {"code": error.code, "message": error.message}
    print(json.dumps(answer))  # noqa: T201 - the answer is this program's output


if __name__ == "__main__":
    main(sys.argv[1])
