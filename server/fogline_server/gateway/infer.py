"""Cascade: a hard example goes from a device to its release's teacher, within a budget."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from fogline_server.compression.engine import manifest_of, open_session, run
from fogline_server.devices.service import require_admitted
from fogline_server.gateway.parts import Parts
from fogline_server.registry.service import teacher_artifact
from fogline_shared.errors import Exhausted, InvalidInput
from fogline_shared.proto import edge_pb2 as pb

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FloatArray = NDArray[np.float32]

_SESSIONS = 4
_MAX_DIMENSIONS = 8


class Budget:
    """A token bucket a device: ``per_minute`` requests, all of which may come at once."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def spend(self, device_id: str) -> None:
        """Take one request; raises Exhausted ``infer_budget_spent`` with the seconds until there is another."""
        now = self._clock()
        left, since = self._buckets.get(device_id, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - since) * self._per_minute / 60)
        if left < 1:
            wait_s = (1 - left) * 60 / self._per_minute if self._per_minute else 60.0
            raise Exhausted(
                "infer_budget_spent",
                f"a device may ask the teacher {self._per_minute} times a minute; again in {wait_s:.1f} s",
                retry_after_s=wait_s,
            )
        self._buckets[device_id] = (left - 1, now)


class Teacher:
    """Serves Infer. Sessions of the last few teachers stay loaded; one thread computes, so training keeps its cores."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._budget = Budget(parts.options.infer_per_minute)
        self._sessions: OrderedDict[str, InferenceSession] = OrderedDict()
        self._engine = ThreadPoolExecutor(1, thread_name_prefix="infer")

    async def infer(self, device_id: str, request: pb.InferRequest) -> pb.InferReply:
        """Class probabilities of one example (raw units, the recipe's input shape).

        Raises Exhausted ``infer_budget_spent``, InvalidInput ``bad_input``, NotFound ``release_not_found``, and what
        the registry says of a release that is not READY or has no teacher.
        """
        x = _example(request)
        digest = await self._parts.read(partial(_teacher_digest, device_id, request.release_id))
        self._budget.spend(device_id)
        loop = asyncio.get_running_loop()
        scores = await loop.run_in_executor(self._engine, self._compute, digest, x)
        return pb.InferReply(scores=scores.tolist(), variant="teacher_fp32")

    def close(self) -> None:
        """Let no more computations begin."""
        self._engine.shutdown(wait=True, cancel_futures=True)

    def _compute(self, digest: str, x: FloatArray) -> FloatArray:
        session = self._session(digest)
        manifest = manifest_of(session)
        if manifest is not None and x.shape[1:] != tuple(manifest.input_shape):
            raise InvalidInput(
                "bad_input", f"an example has shape {list(manifest.input_shape)}, not {list(x.shape[1:])}"
            )
        return _softmax(run(session, x)[0])

    def _session(self, digest: str) -> InferenceSession:
        session = self._sessions.pop(digest, None) or open_session(self._parts.blobs.read(digest))
        self._sessions[digest] = session
        while len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        return session


def _example(request: pb.InferRequest) -> FloatArray:
    """The request's example as a batch of one, (1, *input_shape)."""
    shape = tuple(request.shape)
    if not 0 < len(shape) <= _MAX_DIMENSIONS or any(n <= 0 for n in shape):
        raise InvalidInput("bad_input", f"a shape has 1 to {_MAX_DIMENSIONS} positive dimensions")
    if math.prod(shape) * 4 != len(request.input):
        raise InvalidInput("bad_input", f"{len(request.input)} bytes are no float32 array of shape {list(shape)}")
    x = np.frombuffer(request.input, dtype="<f4").astype(np.float32).reshape((1, *shape))
    if not np.isfinite(x).all():
        raise InvalidInput("bad_input", "the example holds a value that is not finite")
    return x


def _teacher_digest(device_id: str, release_id: str, session: Session) -> str:
    require_admitted(session, device_id)
    return teacher_artifact(session, release_id)


def _softmax(logits: FloatArray) -> FloatArray:
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum(), dtype=np.float32)
