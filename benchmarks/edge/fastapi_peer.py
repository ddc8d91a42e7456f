"""The peer of the HTTP figures: the least that FastAPI and uvicorn can do with a model. ``fastapi_peer.py MODEL PORT``.

Raw float32 in, raw float32 out: no protocol, no checks, no telemetry; uvicorn with uvloop and httptools, one process.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI, Request, Response

MODEL, PORT = Path(sys.argv[1]), int(sys.argv[2])

settings = ort.SessionOptions()
settings.intra_op_num_threads = settings.inter_op_num_threads = 1
session = ort.InferenceSession(MODEL.read_bytes(), settings, providers=["CPUExecutionProvider"])
shape = [1, *session.get_inputs()[0].shape[1:]]
app = FastAPI()


@app.post("/infer")
async def infer(request: Request) -> Response:
    """One example."""
    x = np.frombuffer(await request.body(), dtype=np.float32).reshape(shape)
    (logits,) = session.run(None, {"input": x})
    return Response(logits.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", access_log=False)
