"""A model behind BentoML: ``bentoml serve bentoml_peer:Peer --port PORT``, the model's path in ``MODEL``. JSON, one worker."""

from __future__ import annotations

import os
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime as ort


@bentoml.service(workers=1)
class Peer:
    def __init__(self) -> None:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        self.session = ort.InferenceSession(Path(os.environ["MODEL"]).read_bytes(), settings)

    @bentoml.api
    def infer(self, input: np.ndarray) -> np.ndarray:  # noqa: A002 - the name in the request
        return self.session.run(None, {"input": np.asarray(input, dtype=np.float32)})[0]
