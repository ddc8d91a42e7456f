"""ONNX Runtime on whatever its build brings along (CUDA, TensorRT, CoreML, OpenVINO, XNNPACK …), and never elsewhere by silence.

Its own way is to fall back on the CPU where a provider is missing, does not start or lacks an operator: the device would be
slow, and nobody would know why. Here that is refused, unless ``CPUExecutionProvider`` stands in the list.
"""

from __future__ import annotations

from dataclasses import dataclass

from fogline_client.inference.engines.base import check_threads, first_line
from fogline_client.inference.engines.onnxruntime_cpu import CPU, OnnxRuntimeSession, session_options
from fogline_shared.errors import Corrupt, InvalidInput, Unavailable


@dataclass(frozen=True, kw_only=True)
class OnnxRuntimeProviders:
    """``providers`` in order of preference, with commas between them; ``threads`` of the CPU's part.

    Raises InvalidInput ``invalid_engine_option``, Unavailable ``provider_unavailable`` for one that this build lacks.
    """

    providers: str = CPU
    threads: int = 1

    def __post_init__(self) -> None:
        import onnxruntime as ort

        check_threads(self.threads)
        if "" in self.names or len(set(self.names)) < len(self.names):
            message = f"providers is names with commas between them, each once, got {self.providers!r}"
            raise InvalidInput("invalid_engine_option", message, field="providers")
        there = ort.get_available_providers()
        missing = [name for name in self.names if name not in there]
        if missing:
            message = f"this build of ONNX Runtime has no {', '.join(missing)}; it has: {', '.join(there)}"
            raise Unavailable("provider_unavailable", message, known=there)

    @property
    def names(self) -> list[str]:
        """The providers, in order."""
        return [name.strip() for name in self.providers.split(",")]

    def open(self, model: bytes) -> OnnxRuntimeSession:
        """Load a graph; raise Corrupt ``not_a_model``, Unavailable ``provider_unavailable`` when another would have to run it."""
        import onnxruntime as ort

        options = session_options(threads=self.threads)
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "0" if CPU in self.names else "1")
        try:
            session = ort.InferenceSession(model, options, providers=self.names)
        except Exception as error:  # the runtime has no common base for what a foreign file can raise
            if "fallback to CPU EP has been explicitly disabled" in str(error):
                message = (
                    f"{', '.join(self.names)} does not run all of this artifact; add {CPU} to let the CPU do the rest"
                )
                raise Unavailable("provider_unavailable", message) from error
            raise Corrupt("not_a_model", f"the artifact does not load: {first_line(error)}") from error
        idle = [name for name in self.names if name not in session.get_providers()]
        if idle:
            message = f"{', '.join(idle)} does not start here; ONNX Runtime would go on with {session.get_providers()}"
            raise Unavailable("provider_unavailable", message)
        return OnnxRuntimeSession(session)


ENGINE = OnnxRuntimeProviders
