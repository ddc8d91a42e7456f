"""A model behind MLServer, which speaks the Open Inference Protocol as we do: ``mlserver start FOLDER`` with this beside its settings."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Peer(MLModel):
    async def load(self) -> bool:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        self.session = ort.InferenceSession(Path(os.environ["MODEL"]).read_bytes(), settings)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        (logits,) = self.session.run(None, {"input": np.asarray(x, dtype=np.float32)})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("logits", logits)])
