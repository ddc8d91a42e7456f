"""A pipeline: sources → windows → predictor → stages → sinks, a thread each, with bounded queues between them.

Whatever is lost is counted, by stage and cause. The predictor is asked for each window, so a model that is swapped
meanwhile is used from the next window on.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from fogline_client.inference.model import LoadedModel
from fogline_client.inference.predictor import Predictor
from fogline_client.sources.base import Sample, Source, paced
from fogline_client.streams.answers import Answer
from fogline_client.streams.checks import one_of
from fogline_client.streams.frames import Frames
from fogline_client.streams.queue import WHEN_FULL, Bounded
from fogline_client.streams.sinks.base import OpenSink, Sink
from fogline_client.streams.stages.base import Chain, Stage
from fogline_client.streams.summary import Summary, counted, latencies
from fogline_client.streams.windows import Frame, Fuser, Sensor, Windows
from fogline_shared.checks import number
from fogline_shared.errors import FoglineError, InvalidInput, Unavailable
from fogline_shared.sketch import Sketch

log = structlog.get_logger()

_LOOK_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Limits:
    """``queue``: how much may wait between two stages; ``when_full``: ``drop_oldest``, or ``reject``: sources wait for room.

    ``deadline_ms``: an older window is dropped before it is predicted on (0: none is), by the ``arrival`` of its newest
    sample or by the ``stamp`` of its last instant, if streams are stamped by this machine's Unix clock. ``pause_s``: after
    a longer pause stages forget what they remember. Raises InvalidInput ``invalid_pipeline``.
    """

    queue: int = 256
    when_full: str = "drop_oldest"
    deadline_ms: float = 0.0
    deadline_from: str = "arrival"
    pause_s: float = 10.0

    def __post_init__(self) -> None:
        number("queue", self.queue, low=1, high=1 << 20, whole=True, code="invalid_pipeline")
        number("deadline_ms", self.deadline_ms, low=0, high=1e9, code="invalid_pipeline")
        number("pause_s", self.pause_s, low=0, high=1e9, code="invalid_pipeline")
        one_of("when_full", self.when_full, WHEN_FULL)
        one_of("deadline_from", self.deadline_from, ("arrival", "stamp"))


class _Taken(NamedTuple):
    """A sample, whose it is, its time by the streams' clock, and when it arrived by the monotonic clock."""

    sample: Sample
    sensor: str
    time: float
    arrived: float


class Pipeline:
    """Runs once. ``sources``: pairs of the sensor's name, or "" if the samples tell it, and the source.

    Without ``windows`` each sample is a frame of its own. Raises InvalidInput ``invalid_pipeline``, and
    ``stream_shape_mismatch`` if the predictor has a model that takes another shape.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        sources: Sequence[tuple[str, Source]],
        windows: Windows | None = None,
        sensors: Sequence[Sensor] = (),
        stages: Sequence[Stage] = (),
        sinks: Sequence[Sink] = (),
        limits: Limits | None = None,
    ) -> None:
        if not sources:
            raise InvalidInput("invalid_pipeline", "a pipeline needs a source")
        if windows is None and sensors:
            raise InvalidInput("invalid_pipeline", "sensors are fused into windows: say which")
        self._predictor = predictor
        self._sources = sources
        self._only = sensors[0].name if len(sensors) == 1 else ""
        self._fuser = Frames() if windows is None else Fuser(windows, sensors)
        self._limits = limits or Limits()
        self._sinks = sinks
        self._chain = Chain([(_plugin(stage), stage) for stage in stages], pause_s=self._limits.pause_s)
        self._samples: Bounded[_Taken] = Bounded(self._limits.queue, self._limits.when_full)
        self._frames: Bounded[Frame] = Bounded(self._limits.queue, self._limits.when_full)
        self._answers: Bounded[Answer] = Bounded(self._limits.queue, self._limits.when_full)
        self._stop = threading.Event()
        self._counting = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._unsent: Counter[str] = Counter()
        self._alive = len(sources)
        self._failed: dict[str, FoglineError] = {}
        self._broken: BaseException | None = None
        self._latency_us = Sketch()
        if isinstance(self._fuser, Fuser) and predictor.model is not None:
            check_shape(predictor.model, self._fuser.shape)

    def run(self, stop: threading.Event | None = None) -> Summary:
        """Work until all sources have ended, or ``stop`` is set; what is on its way then is still answered.

        Raises what a sink says that cannot be opened. A source that fails is told in the summary: the others go on.
        """
        with ExitStack() as closing:
            self._work(self._open(closing), stop)
        if self._broken is not None:
            raise self._broken
        return self.summary()

    def stop(self) -> None:
        """Take no more samples; :meth:`run` returns once what is on its way is answered."""
        self._stop.set()
        self._samples.close()

    def summary(self) -> Summary:
        """What was done so far; any thread may ask."""
        with self._counting:
            counts, latency = dict(self._counts), latencies(self._latency_us)
        dropped = counted(
            {
                "source": sum((Counter(dict(source.flaws)) for _, source in self._sources), Counter()),
                "sample": {
                    **self._fuser.dropped,
                    "queue_full": self._samples.dropped,
                    "stopped": self._samples.refused,
                },
                "window": {**self._lost, "queue_full": self._frames.dropped},
                "window.missing": self._fuser.skipped,
                "answer": {"queue_full": self._answers.dropped},
                "sink": self._unsent,
            }
        )
        noted = counted({"sample": self._fuser.noted, "held_back_by": self._chain.held_back})
        names = ("samples", "windows", "predictions", "delivered")
        return Summary(
            **{name: counts.get(name, 0) for name in names},
            dropped=dropped,
            noted=noted | {name: n for name, n in sorted(counts.items()) if name not in names},
            failed={name: error.code for name, error in self._failed.items()},
            latency_p50_ms=latency[0],
            latency_p99_ms=latency[1],
        )

    @property
    def failed(self) -> FoglineError | None:
        """Why the first source failed that did."""
        return next(iter(self._failed.values()), None)

    def _work(self, sinks: Sequence[OpenSink], stop: threading.Event | None) -> None:
        reading = [
            threading.Thread(target=self._read, args=(i,), name=f"source-{i}", daemon=True)
            for i in range(len(self._sources))
        ]
        ended = threading.Event()
        parts: list[tuple[str, Callable[[], None]]] = [
            ("fuse", self._fuse),
            ("predict", self._predict),
            ("deliver", lambda: self._deliver(sinks, ended)),
        ]
        working = [
            threading.Thread(target=self._guarded, args=(part, ended), name=name, daemon=True) for name, part in parts
        ]
        for thread in [*working, *reading]:
            thread.start()
        while not ended.wait(_LOOK_S):
            if stop is not None and stop.is_set():
                self.stop()
        for thread in working:
            thread.join()

    def _open(self, closing: ExitStack) -> list[OpenSink]:
        opened = []
        for sink in self._sinks:
            open_sink = sink.open()
            closing.callback(open_sink.close)
            opened.append(open_sink)
        return opened

    def _guarded(self, part: Callable[[], None], ended: threading.Event) -> None:
        """A fault of ours in one stage must not leave the others waiting for ever."""
        try:
            part()
        except BaseException as error:  # handed on to whoever runs the pipeline
            self._broken = error
            for queue in (self._samples, self._frames, self._answers):
                queue.close()
            ended.set()

    def _read(self, index: int) -> None:
        name, source = self._sources[index]
        try:
            for sample, punctual in paced(source, self._stop):
                self._count("samples")
                if not punctual:
                    self._count("source_behind")
                arrived = time.monotonic()
                stamp = time.time() if sample.time is None else sample.time
                self._samples.put(_Taken(sample, sample.sensor or name or self._only, stamp, arrived))
        except FoglineError as error:
            log.error("source failed", source=_plugin(source), code=error.code, reason=error.message)  # noqa: TRY400
            self._failed[f"{index}.{_plugin(source)}"] = error
        except Exception as error:  # a source of somebody else's making
            log.exception("source failed", source=_plugin(source))
            self._failed[f"{index}.{_plugin(source)}"] = Unavailable("source_failed", str(error))
        finally:
            with self._counting:
                self._alive -= 1
                last = not self._alive
            if last:
                self._samples.close()

    def _fuse(self) -> None:
        while (taken := self._samples.get()) is not None:
            sample = taken.sample
            frames = self._fuser.add(taken.sensor, sample.x, time=taken.time, arrived=taken.arrived, truth=sample.truth)
            self._pass_on(frames)
        self._pass_on(self._fuser.flush())
        self._frames.close()

    def _pass_on(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._count("windows")
            self._frames.put(frame)

    def _predict(self) -> None:
        while (frame := self._frames.get()) is not None:
            if self._limits.deadline_ms and self._age_ms(frame) > self._limits.deadline_ms:
                self._lost["deadline"] += 1
                continue
            try:
                answer = self._answer(frame)
            except FoglineError as error:
                self._lost[error.code] += 1
                continue
            self._answers.put(answer)
        self._answers.close()

    def _answer(self, frame: Frame) -> Answer:
        before = self._predictor.model
        said = self._predictor.predict(frame.x, truth=frame.truth)
        model = before
        if model is None or model.digest != said.digest:
            model = self._predictor.model
        if model is None or model.digest != said.digest:
            raise Unavailable("swapped_twice", "the model was replaced twice during one prediction")
        age = self._age_ms(frame)
        with self._counting:
            self._counts["predictions"] += 1
            if self._limits.deadline_ms and age > self._limits.deadline_ms:
                self._counts["answered_late"] += 1
            self._latency_us.add(max(age, 0.0) * 1e3)
        return Answer(
            time=frame.time,
            label=said.label,
            confidence=said.confidence,
            scores=said.probabilities,
            classes=model.manifest.classes,
            digest=said.digest,
            latency_ms=age,
        )

    def _deliver(self, sinks: Sequence[OpenSink], ended: threading.Event) -> None:
        while (answer := self._answers.get()) is not None:
            said = self._chain.apply(answer)
            if said is None:
                continue
            self._count("delivered")
            for sink, options in zip(sinks, self._sinks, strict=True):
                try:
                    sink.deliver(said)
                except (FoglineError, OSError) as error:
                    self._unsent[_plugin(options)] += 1
                    log.warning("answer not delivered", sink=_plugin(options), reason=str(error))
        ended.set()

    def _age_ms(self, frame: Frame) -> float:
        if self._limits.deadline_from == "stamp":
            return (time.time() - frame.time) * 1e3
        return (time.monotonic() - frame.arrived) * 1e3

    def _count(self, what: str) -> None:
        with self._counting:
            self._counts[what] += 1


def check_shape(model: LoadedModel, shape: tuple[int, ...]) -> None:
    """Raise InvalidInput ``stream_shape_mismatch`` unless the model takes windows of this shape."""
    takes = tuple(model.manifest.input_shape)
    if takes != shape:
        raise InvalidInput(
            "stream_shape_mismatch", f"windows are {shape}, the model takes {takes}", windows=list(shape)
        )


def _plugin(options: object) -> str:
    """The name of a plugin, by its module."""
    return type(options).__module__.rpartition(".")[2]
