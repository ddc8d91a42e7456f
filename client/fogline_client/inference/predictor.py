"""The predictor: one reference to the model that serves, swapped without a pause.

A request takes the reference once, so each one is answered by exactly one model; the model it replaced lives until its
last request is done, or as long as somebody (the agent, during probation) keeps it warm.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import structlog
from numpy.typing import ArrayLike, NDArray

from fogline_client.inference.engines.base import Engine, load_engine
from fogline_client.inference.follow import Follower
from fogline_client.inference.model import LoadedModel, load_model
from fogline_client.inference.trial import Trial
from fogline_client.inference.values import Observation, Observer, Prediction
from fogline_shared.errors import FoglineError, InvalidInput, Unavailable

log = structlog.get_logger()


class Predictor:
    """Thread-safe. ``observe`` is called after every prediction, on the caller's thread: it must be quick."""

    def __init__(self, *, engine: Engine | None = None, observe: Observer | None = None) -> None:
        self._engine = engine or load_engine()
        self._model: LoadedModel | None = None
        self._swapping = threading.Lock()
        self._trial: Trial | None = None
        self._follower: Follower | None = None
        self.observe = observe

    @classmethod
    def from_file(cls, path: str | Path, *, engine: Engine | None = None, observe: Observer | None = None) -> Predictor:
        """Serve one artifact file; raises as :func:`load_model`."""
        predictor = cls(engine=engine, observe=observe)
        predictor.swap(predictor.load(path))
        return predictor

    @classmethod
    def open(
        cls,
        state_dir: str | Path,
        *,
        engine: Engine | None = None,
        observe: Observer | None = None,
        poll_s: float = 0.5,
    ) -> Predictor:
        """Serve what the agent of ``state_dir`` has activated, and follow it: a swap there is a swap here.

        Without an active model ``predict`` raises Unavailable ``no_model`` until there is one. Call :meth:`close`.
        """
        predictor = cls(engine=engine, observe=observe)
        predictor._follower = Follower(
            state_dir=Path(state_dir),
            load=lambda path, digest: predictor.load(path, digest=digest),
            swap=predictor.swap,
            poll_s=poll_s,
        )
        predictor._follower.start()
        return predictor

    @property
    def model(self) -> LoadedModel | None:
        """The model that serves."""
        return self._model

    @property
    def active_digest(self) -> str:
        """SHA-256 of the artifact that serves; empty when there is none."""
        model = self._model
        return model.digest if model else ""

    def load(self, path: str | Path, *, digest: str | None = None) -> LoadedModel:
        """Load, check and warm an artifact beside the one that serves; raises as :func:`load_model`."""
        return load_model(Path(path), self._engine, digest=digest)

    def swap(self, model: LoadedModel | None) -> LoadedModel | None:
        """Serve ``model`` from the next request on (None: nothing); returns the one that served until now, still warm."""
        with self._swapping:
            previous, self._model = self._model, model
        return previous

    def swap_if(self, digest: str, model: LoadedModel | None) -> bool:
        """Serve ``model`` (None: nothing) if the artifact ``digest`` serves at this moment; returns whether it did."""
        with self._swapping:
            serves = self.active_digest == digest
            if serves:
                self._model = model
        return serves

    def try_out(self, trial: Trial | None) -> None:
        """Let a trial take part in the calls of its model: what that fails to answer, the model before answers; None: no more."""
        self._trial = trial

    def predict(self, x: ArrayLike, *, truth: int | None = None) -> Prediction:
        """One example (*input_shape) in raw sensor units; ``truth``: its right label, for telemetry, when known.

        Raises Unavailable ``no_model``, InvalidInput ``bad_input`` or ``bad_truth``, Corrupt ``output_not_finite`` or
        ``inference_failed``.
        """
        model = self._serving([truth])
        trial = self._trial
        if trial is not None and trial.model.digest == model.digest:
            x = np.asarray(x)
            return trial.answer(x, lambda model: self._one(model, x, truth))
        return self._one(model, x, truth)

    def _one(self, model: LoadedModel, x: ArrayLike, truth: int | None) -> Prediction:
        started = time.perf_counter_ns()
        try:
            answer = model.predict(x)
        except FoglineError as error:
            self._failed(model, error, started, [truth])
            raise
        if self.observe is not None:
            latency = (time.perf_counter_ns() - started) / 1e3
            self._tell(
                Observation(model.digest, latency, answer.confidence, answer.label, "", truth, model.manifest, x)
            )
        return answer

    def predict_many(self, x: ArrayLike, *, truths: Sequence[int | None] | None = None) -> list[Prediction]:
        """A batch (n, *input_shape); each example is observed with its share of the time. Errors as :meth:`predict`."""
        batch = np.asarray(x)
        truths = truths or [None] * (len(batch) if batch.ndim else 1)
        if batch.ndim and len(truths) != len(batch):
            raise InvalidInput("bad_truth", f"{len(truths)} truths for {len(batch)} examples")
        model = self._serving(truths)
        trial = self._trial
        if trial is not None and trial.model.digest == model.digest:
            return trial.answer(batch, lambda model: self._many(model, batch, truths))
        return self._many(model, batch, truths)

    def _many(self, model: LoadedModel, batch: NDArray[Any], truths: Sequence[int | None]) -> list[Prediction]:
        started = time.perf_counter_ns()
        try:
            answers = model.predict_many(batch)
        except FoglineError as error:
            self._failed(model, error, started, truths)
            raise
        if self.observe is not None:
            latency = (time.perf_counter_ns() - started) / 1e3 / len(answers)
            for answer, truth, example in zip(answers, truths, batch, strict=True):
                self._tell(
                    Observation(
                        model.digest, latency, answer.confidence, answer.label, "", truth, model.manifest, example
                    )
                )
        return answers

    def close(self) -> None:
        """Stop following and serve nothing."""
        if self._follower is not None:
            self._follower.stop()
        self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _serving(self, truths: Sequence[int | None]) -> LoadedModel:
        model = self._model
        if model is None:
            raise Unavailable("no_model", "no model is active on this device yet")
        for truth in truths:
            if truth is not None and not 0 <= truth < len(model.manifest.classes):
                raise InvalidInput("bad_truth", f"truth {truth} is not one of {len(model.manifest.classes)} classes")
        return model

    def _failed(self, model: LoadedModel, error: FoglineError, started: int, truths: Sequence[int | None]) -> None:
        """Observe a failure of the model; a caller's mistake is not one."""
        if self.observe is None or isinstance(error, InvalidInput):
            return
        latency = (time.perf_counter_ns() - started) / 1e3 / len(truths)
        for truth in truths:
            self._tell(Observation(model.digest, latency, 0.0, -1, error.code, truth))

    def _tell(self, observation: Observation) -> None:
        """Hand on an observation; a broken observer must not cost an answer."""
        assert self.observe is not None
        try:
            self.observe(observation)
        except Exception:  # somebody else's code, in the path of every answer
            log.exception("observer_failed")
