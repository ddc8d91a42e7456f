"""ONNX Runtime on the CPU: the default engine, with wheels for every common device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_client.inference.engines.base import Port, check_threads, first_line
from fogline_shared.errors import Corrupt

_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}
CPU = "CPUExecutionProvider"
_LOG_FATAL = 4  # a refused artifact is reported by us, once, with its code


@dataclass(frozen=True, kw_only=True)
class OnnxRuntimeCpu:
    """``threads`` within one operator. Idle threads sleep: a spinning one costs a battery more than it gains.

    ``arena``: keep freed tensors for reuse. It speeds up big graphs and holds memory; small ones do not need it.
    """

    threads: int = 1
    arena: bool = False

    def __post_init__(self) -> None:
        check_threads(self.threads)

    def open(self, model: bytes) -> OnnxRuntimeSession:
        """Load a graph; raise Corrupt ``not_a_model``."""
        import onnxruntime as ort

        options = session_options(threads=self.threads, arena=self.arena)
        try:
            session = ort.InferenceSession(model, options, providers=[CPU])
        except Exception as error:  # the runtime has no common base for what a foreign file can raise
            raise Corrupt("not_a_model", f"the artifact does not load: {first_line(error)}") from error
        return OnnxRuntimeSession(session)


def session_options(*, threads: int, arena: bool = False) -> Any:
    """``onnxruntime.SessionOptions`` as devices run it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = arena
    options.log_severity_level = _LOG_FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class OnnxRuntimeSession:
    """An EngineSession over ``onnxruntime.InferenceSession``."""

    def __init__(self, session: Any) -> None:
        import onnxruntime as ort

        self._session = session
        self._options = ort.RunOptions()
        # A run that was told to end is no news.
        self._options.log_severity_level = _LOG_FATAL
        self.metadata: Mapping[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        self.inputs: Sequence[Port] = [_port(value) for value in session.get_inputs()]
        self.outputs: Sequence[Port] = [_port(value) for value in session.get_outputs()]
        self._output_names = [port.name for port in self.outputs[:1]]

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output for a batch."""
        result: NDArray[np.float32] = self._session.run(self._output_names, {self.inputs[0].name: x}, self._options)[0]
        return result

    def stop(self) -> None:
        """The runtime looks at this between any two operators, also within a loop."""
        self._options.terminate = True

    def bind(self, input_shape: Sequence[int], width: int) -> OnnxRuntimeBound:
        """Buffers for one example."""
        return OnnxRuntimeBound(self._session, self.inputs[0].name, self.outputs[0].name, tuple(input_shape), width)


class OnnxRuntimeBound:
    """A BoundRun through IO binding: the runtime reads and writes our buffers in place."""

    def __init__(self, session: Any, input_name: str, output_name: str, shape: tuple[int, ...], width: int) -> None:
        self.input = np.zeros((1, *shape), dtype=np.float32)
        self.output = np.zeros((1, width), dtype=np.float32)
        self._binding = session.io_binding()
        self._binding.bind_input(input_name, "cpu", 0, np.float32, self.input.shape, self.input.ctypes.data)
        self._binding.bind_output(output_name, "cpu", 0, np.float32, self.output.shape, self.output.ctypes.data)
        self._run = session.run_with_iobinding

    def run(self) -> None:
        """Fill ``output`` from ``input``."""
        self._run(self._binding)


ENGINE = OnnxRuntimeCpu


def _port(value: Any) -> Port:
    shape = tuple(n if isinstance(n, int) and n > 0 else None for n in value.shape)
    return Port(name=value.name, dtype=_DTYPES.get(value.type, value.type), shape=shape)
