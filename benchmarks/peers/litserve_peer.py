"""A model behind LitServe: ``litserve_peer.py MODEL PORT``. JSON in and out, one worker, the defaults."""

from __future__ import annotations

import sys
from pathlib import Path

import litserve
import numpy as np
import onnxruntime as ort


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        self.session = ort.InferenceSession(Path(sys.argv[1]).read_bytes(), settings)

    def decode_request(self, request: dict) -> np.ndarray:
        return np.asarray(request["input"], dtype=np.float32)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"input": x})[0]

    def encode_response(self, output: np.ndarray) -> dict:
        return {"logits": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(api_path="/infer"), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
