"""ONNX Runtime with the options a device runs it with, so that what is measured here is what happens there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fogline_shared.errors import Corrupt
from fogline_shared.manifest import METADATA_KEY, Manifest

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FloatArray = NDArray[np.float32]
CHUNK = 256


def open_session(model: bytes) -> InferenceSession:
    """One thread, no spinning; raises Corrupt ``model_does_not_load``."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions share no base class
        raise Corrupt("model_does_not_load", f"ONNX Runtime refuses the model: {error}") from error


def manifest_of(session: InferenceSession) -> Manifest | None:
    """The manifest in the file's metadata; None: the file has none. Raises Corrupt ``bad_manifest``."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    return None if text is None else Manifest.from_json(text)


def run(session: InferenceSession, x: FloatArray) -> FloatArray:
    """Logits (n, classes) of raw examples (n, *input_shape); raises Corrupt ``model_does_not_run``."""
    name = session.get_inputs()[0].name
    output = [session.get_outputs()[0].name]
    starts = range(0, len(x), CHUNK)
    try:
        parts: list[Any] = [session.run(output, {name: x[start : start + CHUNK]})[0] for start in starts]
    except Exception as error:  # as above
        raise Corrupt("model_does_not_run", f"the model fails on an input of shape {x.shape[1:]}: {error}") from error
    return np.concatenate(parts).astype(np.float32, copy=False)
