"""Clients that cost as little as a client can: requests are bytes made once, answers are read to their length."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fogline_shared.proto import open_inference_pb2 as pb

_HEAD_END = b"\r\n\r\n"


def binary_request(model: str, x: NDArray[np.float32], *, timeout_us: int = 0) -> bytes:
    """An infer request of the Open Inference Protocol with binary tensors, head and all; it asks for the logits."""
    tensor = {"name": "input", "shape": list(x.shape), "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    wanted = {"name": "logits", "parameters": {"binary_data": True}}
    message = {"inputs": [tensor], "outputs": [wanted], "parameters": {"timeout": timeout_us}}
    text = json.dumps(message, separators=(",", ":")).encode()
    headers = f"inference-header-content-length: {len(text)}\r\n"
    return http_request(f"/v2/models/{model}/infer", text + x.tobytes(), headers)


def http_request(path: str, body: bytes, headers: str = "") -> bytes:
    """A POST."""
    head = f"POST {path} HTTP/1.1\r\nhost: device\r\n{headers}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def grpc_request(model: str, x: NDArray[np.float32]) -> bytes:
    """A ModelInferRequest for the logits."""
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[x.tobytes()])
    request.inputs.add(name="input", datatype="FP32", shape=x.shape)
    request.outputs.add(name="logits")
    return request.SerializeToString()


class HttpClient:
    """One connection, one request at a time."""

    def __init__(self, address: int | str) -> None:
        """A port of this machine, or a unix socket's path."""
        self._usual = 0
        if isinstance(address, int):
            self._socket = socket.create_connection(("127.0.0.1", address))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(address)

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status, and the body (or all of an answer as long as the one before)."""
        self._socket.sendall(request)
        answer = self._socket.recv(65536)
        if len(answer) == self._usual:  # as long as the last one: it is whole, and need not be looked at
            return int(answer[9:12]), answer
        while (end := answer.find(_HEAD_END)) < 0:
            answer += self._socket.recv(65536)
        head = answer[:end].lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        body = answer[end + 4 :]
        while len(body) < length:
            body += self._socket.recv(65536)
        self._usual = end + 4 + length
        return int(head[9:12]), body

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def grpc_caller(target: str) -> Callable[[bytes], bytes]:
    """Call ``ModelInfer`` with bytes that are a message already."""
    import grpc

    call = grpc.insecure_channel(target).unary_unary("/inference.GRPCInferenceService/ModelInfer")
    return lambda request: bytes(call(request))
