"""OpenVINO, for Intel's GPUs and NPUs; on a CPU too, where small models are as fast in ONNX Runtime. An extra of its own.

It takes the same artifacts but one kind: of int8 it knows the QDQ form (``int8_static:qdq=true``), not ONNX Runtime's own
operators, which ``int8_static`` writes by default. Such an artifact is refused as one that does not load.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_client.inference.engines.base import Port, check_threads
from fogline_shared.errors import Corrupt, InvalidInput, Unavailable


@dataclass(frozen=True, kw_only=True)
class OpenVino:
    """``threads`` of the CPU; ``device`` as OpenVINO names it: ``CPU``, ``GPU``, ``NPU``, ``GPU.1``.

    Raises InvalidInput ``invalid_engine_option``, Unavailable ``engine_not_installed``.
    """

    threads: int = 1
    device: str = "CPU"

    def __post_init__(self) -> None:
        check_threads(self.threads)
        if not isinstance(self.device, str) or not self.device:
            raise InvalidInput(
                "invalid_engine_option", f"device is a name like CPU, got {self.device!r}", field="device"
            )
        if importlib.util.find_spec("openvino") is None:
            message = "engine 'openvino' needs a package that is not here: pip install 'fogline[openvino]'"
            raise Unavailable("engine_not_installed", message)

    def open(self, model: bytes) -> OpenVinoSession:
        """Load a graph; raise Corrupt ``not_a_model``, Unavailable ``engine_device_missing``."""
        import openvino

        core = openvino.Core()
        # HETERO and AUTO would choose for themselves; one device is asked for, and that one runs the model or none does.
        if self.device not in core.available_devices:
            listed = ", ".join(core.available_devices)
            raise Unavailable(
                "engine_device_missing", f"OpenVINO finds no device {self.device!r} here; it finds: {listed}"
            )
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self.device == "CPU":
            # Where a CPU has bfloat16, OpenVINO would compute in it and answer otherwise than elsewhere.
            options |= {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1}
        try:
            graph = core.read_model(model)
            compiled = core.compile_model(graph, self.device, options)
        except Exception as error:  # the runtime has no common base for what a foreign file can raise
            raise Corrupt("not_a_model", f"the artifact does not load: {_reason(error)}") from error
        return OpenVinoSession(compiled, _metadata(graph))


class OpenVinoSession:
    """An EngineSession over ``openvino.CompiledModel``."""

    def __init__(self, compiled: Any, metadata: Mapping[str, str]) -> None:
        self._compiled = compiled
        self._of_thread = threading.local()
        self._requests: list[Any] = []
        self._stopped = False
        self.metadata = metadata
        self.inputs: Sequence[Port] = [_port(value) for value in compiled.inputs]
        self.outputs: Sequence[Port] = [_port(value) for value in compiled.outputs]

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output for a batch. A request of OpenVINO serves one thread, so each thread has its own."""
        request = getattr(self._of_thread, "request", None)
        if request is None:
            request = self._of_thread.request = self._compiled.create_infer_request()
            self._requests.append(request)
        if self._stopped:
            raise RuntimeError("this model was stopped")
        request.infer([x])
        result: NDArray[np.float32] = request.get_output_tensor(0).data.copy()
        return result

    def stop(self) -> None:
        """Cancel the requests; OpenVINO looks at it between operators, and a loop is one."""
        self._stopped = True
        for request in self._requests:
            request.cancel()

    def bind(self, input_shape: Sequence[int], width: int) -> OpenVinoBound:
        """Buffers for one example."""
        return OpenVinoBound(self._compiled, tuple(input_shape), width)


class OpenVinoBound:
    """A BoundRun whose buffers are the tensors of a request: the runtime reads and writes them in place."""

    def __init__(self, compiled: Any, shape: tuple[int, ...], width: int) -> None:
        import openvino

        self.input = np.zeros((1, *shape), dtype=np.float32)
        self.output = np.zeros((1, width), dtype=np.float32)
        request = compiled.create_infer_request()
        request.set_input_tensor(0, openvino.Tensor(self.input, shared_memory=True))
        request.set_output_tensor(0, openvino.Tensor(self.output, shared_memory=True))
        self._run = request.infer

    def run(self) -> None:
        """Fill ``output`` from ``input``."""
        self._run()


ENGINE = OpenVino


def _reason(error: Exception) -> str:
    """The gist of what OpenVINO tells of over many lines, the places in its own source among them."""
    text = str(error)
    if "No conversion rule found for operations: " in text:
        lacking = text.split("No conversion rule found for operations: ", 1)[1].split("\n", 1)[0]
        return f"OpenVINO has no {lacking}; of int8 it runs the form of int8_static:qdq=true"
    lines = [line for line in text.splitlines() if line and not line.startswith(("Exception from", "Check '"))]
    return lines[-1][:300] if lines else type(error).__name__


def _metadata(graph: Any) -> dict[str, str]:
    """The file's ``metadata_props``, which the reader keeps as facts about the framework."""
    if not graph.has_rt_info(["framework"]):
        return {}
    return {name: str(value) for name, value in graph.get_rt_info(["framework"]).value.items()}


def _port(value: Any) -> Port:
    shape = tuple(n.get_length() if n.is_static else None for n in value.partial_shape)
    return Port(name=value.any_name, dtype=np.dtype(value.element_type.to_dtype()).name, shape=shape)
