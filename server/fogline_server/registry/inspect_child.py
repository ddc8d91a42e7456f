"""Look at a foreign ONNX file in a process that may die of it: ``python -m fogline_server.registry.inspect_child``.

Reads the file from its standard input, so that no path of it is ever followed. Prints one JSON object: what the model is, or
``{"code": …, "message": …}``. Limits its own memory and CPU time before it looks, so that a crafted file ends this process
and nothing else.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

from fogline_server.compression.engine import manifest_of, open_session, run
from fogline_server.registry.foreign import check_foreign, check_metadata
from fogline_shared.errors import Corrupt, FoglineError

# Values in one example: 64 MB, more than any sensor gives at once.
MOST_VALUES = 1 << 24
# How the allocators of ONNX Runtime and NumPy say that the limit is reached.
_NO_MEMORY = ("bad_alloc", "allocate", "MemoryError", "Invalid buffer size")


def inspect(data: bytes) -> dict[str, Any]:
    """Facts of a model with one float32 input (batch, …) and one output (batch, classes).

    Raises what :func:`check_foreign` and :func:`check_metadata` raise, and Corrupt ``wrong_signature``, ``fixed_batch``,
    ``model_too_large``, ``model_does_not_load``, ``model_does_not_run``, ``logits_not_finite``, ``bad_manifest``.
    """
    import numpy as np

    check_foreign(data)
    session = open_session(data)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(outputs) != 1:
        found = f"inputs {_ports(inputs)} and outputs {_ports(outputs)}"
        raise Corrupt("wrong_signature", f"a model has one float32 input and one output, not {found}")
    shape = _example_shape(inputs[0].shape)
    logits = run(session, np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32))
    if logits.ndim != 2 or len(logits) != 2:
        raise Corrupt("wrong_signature", f"two examples give an output of shape {logits.shape}, not (2, classes)")
    if isinstance(outputs[0].shape[0], int):
        raise _fixed(f"the output's first axis is {outputs[0].shape[0]}")
    if not np.isfinite(logits).all():
        raise Corrupt("logits_not_finite", "the model answers noise with NaN or infinity")
    check_metadata(session.get_modelmeta().custom_metadata_map, 4 * math.prod(shape))
    manifest = manifest_of(session)
    return {
        "input_name": inputs[0].name,
        "input_shape": shape,
        "output_name": outputs[0].name,
        "classes": logits.shape[1],
        "manifest": None if manifest is None else manifest.to_json(),
    }


def _example_shape(declared: list[Any]) -> list[int]:
    """The shape of one example; raises as :func:`inspect`."""
    shape = declared[1:]
    if not shape or not all(isinstance(n, int) and n > 0 for n in shape):
        raise Corrupt("wrong_signature", f"all but the first axis of the input are fixed, not {declared}")
    if math.prod(shape) > MOST_VALUES:
        raise Corrupt("model_too_large", f"one example has {math.prod(shape):.3g} values, {MOST_VALUES:,} are allowed")
    if isinstance(declared[0], int):
        raise _fixed(f"the input is {declared}")
    return shape


def _fixed(found: str) -> Corrupt:
    message = f"{found}: the first axis is the batch and is left free (dynamic_axes when it is exported from torch)"
    return Corrupt("fixed_batch", message)


def _ports(values: list[Any]) -> str:
    return "[" + ", ".join(f"{value.name}: {value.type}"[:80] for value in values[:4]) + "]"


def limit(*, memory_bytes: int, cpu_s: int) -> None:
    """From now on this process gets so much more memory and so much more time, and writes no file."""
    import numpy as np  # noqa: F401 - what is loaded already does not count
    import onnx  # noqa: F401
    import onnxruntime as ort  # noqa: F401

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    cpu = math.ceil(time.process_time()) + cpu_s
    # Past the first the kernel says why it ends the process, past the second it just does.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 2))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def answer(data: bytes) -> dict[str, Any]:
    """The facts, or the error's code and message."""
    try:
        return inspect(data)
    except FoglineError as error:
        code, message = error.code, error.message
    except UnicodeDecodeError as error:
        code, message = "not_onnx", f"a name in the file is not UTF-8: {error}"
    except Exception as error:  # whatever a crafted file makes a library raise
        code, message = "inspection_died", f"{type(error).__name__}: {error}"[:400]
    if any(sign in message for sign in _NO_MEMORY):
        code = "model_too_large"
    return {"code": code, "message": message}


def main(memory_bytes: int, cpu_s: int) -> None:
    """Print the answer to what stands in the standard input."""
    data = sys.stdin.buffer.read()
    limit(memory_bytes=memory_bytes, cpu_s=cpu_s)
    print(json.dumps(answer(data)))  # noqa: T201 - the answer is this program's output


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
