"""An artifact that has been checked and can predict: manifest, graph, known answers, warm buffers.

Everything that can be wrong with an artifact is found here, before it serves anything.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fogline_client.inference.engines.base import Engine, EngineSession
from fogline_client.inference.values import Prediction
from fogline_shared.errors import Corrupt, FoglineError, InvalidInput
from fogline_shared.manifest import METADATA_KEY, Manifest

# How often a model is timed when it is loaded, and when that is enough.
_WARM_CALLS = 5
_WARM_BUDGET_S = 0.05


class LoadedModel:
    """A model ready to serve. Threads may share it; ``warm_us`` is what one example took just after loading."""

    def __init__(self, *, digest: str, size: int, manifest: Manifest, session: EngineSession) -> None:
        self.digest = digest
        self.size = size
        self.manifest = manifest
        self._classes = manifest.classes
        self._shape = tuple(manifest.input_shape)
        self._accepted = (self._shape, (1, *self._shape))
        self._session = session
        self._bound = session.bind(self._shape, len(manifest.classes))
        self._bound_lock = threading.Lock()
        # Bound runs cannot be told to end, at no price that every call should pay.
        self.stoppable = False
        self.warm_us = self._warm_up()

    def predict(self, x: ArrayLike) -> Prediction:
        """One example (*input_shape), or (1, *input_shape).

        Raises InvalidInput ``bad_input`` (shape, dtype, NaN in it) and Corrupt ``output_not_finite``,
        ``inference_failed``.
        """
        x = np.asarray(x)
        if x.shape not in self._accepted:
            raise InvalidInput("bad_input", f"the input has shape {x.shape}, the model takes {self._shape}")
        # The bound buffers belong to whoever holds the lock; anyone else pays for a batch of one instead of waiting.
        if self.stoppable or not self._bound_lock.acquire(blocking=False):
            return self.predict_many(x.reshape(1, *self._shape))[0]
        try:
            try:
                self._bound.input[0] = x if x.shape == self._shape else x[0]
            except (TypeError, ValueError) as error:
                raise InvalidInput("bad_input", f"the input is not numeric: {error}") from error
            try:
                self._bound.run()
            except Exception as error:  # whatever an engine raises, the caller gets one code
                raise Corrupt("inference_failed", f"the engine failed: {error}") from error
            logits = self._bound.output[0].copy()
        finally:
            self._bound_lock.release()
        return self._answer(logits, x)

    def predict_many(self, x: ArrayLike) -> list[Prediction]:
        """A batch (n, *input_shape), one answer each, in order; errors as :meth:`predict`."""
        try:
            batch = np.ascontiguousarray(x, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidInput("bad_input", f"the input is not numeric: {error}") from error
        if batch.shape[1:] != self._shape or not len(batch):
            raise InvalidInput("bad_input", f"the input has shape {batch.shape}, the model takes (n, *{self._shape})")
        try:
            logits = self._session.run(batch)
        except Exception as error:  # as above
            raise Corrupt("inference_failed", f"the engine failed: {error}") from error
        if logits.shape != (len(batch), len(self._classes)):
            raise Corrupt("inference_failed", f"the output has shape {logits.shape} for {len(batch)} examples")
        return [self._answer(row, example) for row, example in zip(logits, batch, strict=True)]

    def stop(self) -> None:
        """Never answer again; calls under way end with ``inference_failed`` where they are ``stoppable`` and the engine can."""
        self._session.stop()

    def _answer(self, logits: NDArray[np.float32], x: NDArray[np.generic]) -> Prediction:
        label = int(logits.argmax())
        top = logits[label]
        if not math.isfinite(top):  # argmax finds NaN before any number
            if not np.isfinite(x.astype(np.float32)).all():
                raise InvalidInput("bad_input", "the input holds NaN or infinity")
            raise Corrupt("output_not_finite", "the model answered NaN or infinity", digest=self.digest)
        confidence = 1.0 / float(np.exp(logits - top).sum())
        return Prediction(label, self._classes[label], confidence, logits, self.digest)

    def _warm_up(self) -> float:
        """Run zeros: the first call allocates, the best of the next is the time. Also finds graphs that load but do not run.

        Admission reckons with it until requests have been seen: one call that was interrupted must not stand for all.
        """
        zeros = np.zeros(self._shape, dtype=np.float32)
        self.predict(zeros)
        took: list[float] = []
        while len(took) < _WARM_CALLS and sum(took) < _WARM_BUDGET_S:
            started = time.perf_counter()
            self.predict(zeros)
            took.append(time.perf_counter() - started)
        return min(took) * 1e6


def load_model(path: Path, engine: Engine, *, digest: str | None = None) -> LoadedModel:
    """Load and check an artifact; the same bytes are hashed and loaded, so a file that changes meanwhile cannot slip in.

    Raises Corrupt: ``digest_mismatch``, ``not_a_model``, ``manifest_missing``, ``bad_manifest``, ``manifest_mismatch``,
    ``known_answer_failed``, ``output_not_finite``, ``inference_failed``; OSError when the file cannot be read.
    """
    content = path.read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    if digest is not None and actual != digest:
        raise Corrupt("digest_mismatch", f"the artifact is {actual}, not {digest}", expected=digest, got=actual)
    session = engine.open(content)
    text = session.metadata.get(METADATA_KEY)
    if text is None:
        raise Corrupt("manifest_missing", f"the artifact has no {METADATA_KEY} in its metadata")
    manifest = Manifest.from_json(text)
    check_ports(manifest, session)
    model = LoadedModel(digest=actual, size=len(content), manifest=manifest, session=session)
    check_known_answers(model)
    return model


def check_ports(manifest: Manifest, session: EngineSession) -> None:
    """Raise Corrupt ``manifest_mismatch`` unless the graph has the one input and output that its manifest promises."""
    if not manifest.classes:
        raise Corrupt("bad_manifest", "the manifest names no classes")
    promised = (
        ("input", session.inputs, manifest.input_name, tuple(manifest.input_shape)),
        ("output", session.outputs, manifest.output_name, (len(manifest.classes),)),
    )
    for side, ports, name, shape in promised:
        if len(ports) != 1 or ports[0].name != name or ports[0].dtype != "float32" or not _fits(ports[0].shape, shape):
            got = ", ".join(f"{port.name} {port.dtype} {port.shape}" for port in ports)
            raise Corrupt("manifest_mismatch", f"the {side} is [{got}], the manifest says {name} float32 (n, *{shape})")


def check_known_answers(model: LoadedModel) -> None:
    """Raise Corrupt ``known_answer_failed`` unless the model labels its manifest's examples as its exporter did."""
    for index, known in enumerate(model.manifest.known_answers):
        try:
            x = known.array(model.manifest.input_shape)
        except ValueError as error:
            raise Corrupt("bad_manifest", f"known answer {index} is not an example: {error}") from error
        try:
            label = model.predict(x).label
        except FoglineError as error:
            raise Corrupt("known_answer_failed", f"known answer {index}: {error.message}") from error
        if label != known.label:
            raise Corrupt("known_answer_failed", f"known answer {index} gives {label}, not {known.label}")


def _fits(actual: Sequence[int | None], promised: Sequence[int]) -> bool:
    """Whether a graph's shape is (batch, *promised), with a batch of any size; unnamed dimensions may be anything."""
    if len(actual) != 1 + len(promised) or actual[0] is not None:
        return False
    return all(a is None or a == p for a, p in zip(actual[1:], promised, strict=True))
