"""Which requests are answered, when, and together with which: a bounded queue before the model, for HTTP and gRPC alike.

A request that could not be answered before its deadline is refused at once: whoever waits in vain loads the device and
learns late what it could know now. What a model needs is what it took lately; after a quiet time, what it took when it was
loaded, so that one bad moment does not refuse requests for ever.

Calls of :class:`Predictor` in the same process do not come through here.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import structlog

from fogline_client.inference.model import LoadedModel
from fogline_client.inference.predictor import Predictor
from fogline_client.inference.values import Prediction
from fogline_client.serving.batching import BatchSizes
from fogline_client.serving.counts import Counts
from fogline_client.serving.options import ServingOptions
from fogline_client.serving.pace import Pace
from fogline_client.serving.tensors import InferRequest
from fogline_shared.errors import Exhausted, FoglineError, Unavailable

log = structlog.get_logger()

Answers = list[Prediction]

# What takes less is answered where it was read: a thread hop costs about 60 µs.
_INLINE_S = 0.000_2
# While nothing else waits the loop may stand still for so long; the agent's sync stream shares it.
_INLINE_IDLE_S = 0.002
# A loop that is this late with its reading has better to do than to answer.
_LOOP_LATE_S = 0.001
# Who waits may wait longer than expected: filled to the deadline, a queue answers half of it too late.
_CAUTION = 1.5
# Of the largest request, all that wait together.
_LARGEST_WAITING = 4
_CLOSE_S = 2.0


class _Job(NamedTuple):
    model: LoadedModel
    request: InferRequest
    cost_s: float
    # What it may take beyond that.
    margin_s: float
    # By the scheduler's clock; None: the caller has time.
    deadline: float | None
    future: asyncio.Future[Answers]


class Scheduler:
    """Belongs to one event loop, which calls everything but the workers."""

    def __init__(
        self, predictor: Predictor, options: ServingOptions, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._predictor = predictor
        self._options = options
        self._clock = clock
        self._pace = Pace(clock)
        self._sizes = BatchSizes() if options.batch else None
        self._loop = asyncio.get_running_loop()
        # Guards what follows; workers wait on it for jobs.
        self._more = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._waiting_bytes = 0
        self._waiting_s = 0.0
        # Until when each busy worker is thought to be so.
        self._busy: dict[int, float] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False
        self.counts = Counts()
        if predictor.model is not None:
            self._batch_size(predictor.model)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def submit(
        self, model: LoadedModel, request: InferRequest, *, age_s: float = 0.0
    ) -> Answers | asyncio.Future[Answers]:
        """The answers, at once where that is quick, else as a future. ``age_s``: how long ago the request may have come.

        Raises Exhausted ``queue_full`` and Unavailable ``deadline_unmeetable``, each with ``retry_after_s``; and, as the
        future does, whatever :class:`Predictor` raises. Cancel the future of a caller that has gone.
        """
        now = self._clock()
        cost, margin = self._pace.expect(model, len(request.x))
        idle = not self._busy and age_s < _LOOP_LATE_S
        inline = not self._waiting and (cost < _INLINE_S or (idle and cost < _INLINE_IDLE_S))
        timeout = request.timeout_s or self._options.deadline_ms / 1e3 or None
        deadline = None if timeout is None else now - age_s + timeout
        wait = 0.0 if inline else self._wait_s(now)
        if deadline is not None and now + _CAUTION * wait + cost + margin > deadline:
            raise _unmeetable(wait)
        if inline:
            answers = self._predict(request)
            self._pace.saw(model.digest, len(answers), self._clock() - now)
            return answers
        self._check_bytes(request, wait)
        return self._enqueue(model, request, cost, margin, deadline)

    def check_room(self) -> None:
        """Raise Exhausted ``queue_full`` when a further request would have to be refused: before it is read and understood."""
        if len(self._waiting) >= self._options.queue:
            self._forget_who_has_gone()
        if len(self._waiting) >= self._options.queue:
            raise _full("the queue is full", self._wait_s(self._clock()))

    async def close(self) -> None:
        """Answer nothing more; returns when the workers have ended, or after a moment: a model may never return."""
        with self._more:
            self._closed = True
            for job in self._waiting:
                job.future.cancel()
            self._waiting.clear()
            self._more.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, _CLOSE_S)

    def _wait_s(self, now: float) -> float:
        """How long a further job would wait for a worker."""
        threads = self._options.threads
        busy = list(self._busy.values())
        until_free = max(0.0, min(busy) - now) if len(busy) >= threads else 0.0
        return until_free + self._waiting_s / threads

    def _forget_who_has_gone(self) -> None:
        """Workers skip them in their turn, but behind a model that hangs no turn comes."""
        with self._more:
            for _ in range(len(self._waiting)):
                job = self._pop()
                if not job.future.cancelled():
                    self._append(job)

    def _append(self, job: _Job) -> None:
        self._waiting.append(job)
        self._waiting_bytes += job.request.x.nbytes
        self._waiting_s += job.cost_s

    def _check_bytes(self, request: InferRequest, wait: float) -> None:
        if self._waiting and self._waiting_bytes + request.x.nbytes > _LARGEST_WAITING * self._options.max_body:
            raise _full("what waits holds as many bytes as may wait", wait)

    def _enqueue(
        self, model: LoadedModel, request: InferRequest, cost: float, margin: float, deadline: float | None
    ) -> asyncio.Future[Answers]:
        if len(self._threads) < self._options.threads:
            self._threads.append(threading.Thread(target=self._work, name="serving", daemon=True))
            self._threads[-1].start()
        future: asyncio.Future[Answers] = self._loop.create_future()
        with self._more:
            self._append(_Job(model, request, cost, margin, deadline, future))
            self._more.notify()
        return future

    def _work(self) -> None:
        """A worker's life: it takes its next job itself, so that it need not wait for a busy loop."""
        me = threading.get_ident()
        while jobs := self._next(me):
            started = self._clock()
            result: Answers | Exception
            try:
                result = self._together(jobs)
            except Exception as error:  # whatever it is, whoever asked must hear of it
                result = error
            if not self._tell(self._deliver, jobs, result, self._clock() - started):
                return

    def _next(self, me: int) -> Sequence[_Job]:
        """The jobs to answer now, with one call of the model; none when there is nothing more to do."""
        with self._more:
            self._busy.pop(me, None)
            while not self._closed:
                if not self._waiting:
                    self._more.wait()
                    continue
                job, now = self._pop(), self._clock()
                if job.future.cancelled():
                    continue
                if job.deadline is not None and now + job.cost_s + job.margin_s > job.deadline:
                    self._tell(_fail, job.future, _unmeetable(self._wait_s(now)))
                    continue
                jobs = [job, *self._companions(job, now)]
                self._busy[me] = now + sum(each.cost_s for each in jobs)
                return jobs
            return ()

    def _pop(self) -> _Job:
        job = self._waiting.popleft()
        self._waiting_bytes -= job.request.x.nbytes
        self._waiting_s = max(0.0, self._waiting_s - job.cost_s) if self._waiting else 0.0
        return job

    def _companions(self, first: _Job, now: float) -> Sequence[_Job]:
        """What waits behind ``first`` and goes into the same batch, in order, as far as all keep their deadlines."""
        size = self._batch_size(first.model)
        companions: list[_Job] = []
        examples, cost, deadline = len(first.request.x), first.cost_s, first.deadline
        while self._waiting and examples < size and _batchable(first):
            job = self._waiting[0]
            examples, cost = examples + len(job.request.x), cost + job.cost_s
            deadline = min((d for d in (deadline, job.deadline) if d is not None), default=None)
            late = deadline is not None and now + cost > deadline
            if late or examples > size or job.model is not first.model or not _batchable(job):
                break
            companions.append(self._pop())
        return companions

    def _batch_size(self, model: LoadedModel) -> int:
        return self._sizes.of(model) if self._sizes is not None else 1

    def _together(self, jobs: Sequence[_Job]) -> Answers:
        if len(jobs) == 1:
            return self._predict(jobs[0].request)
        truths = [truth for job in jobs for truth in job.request.truths]
        return self._predictor.predict_many(np.concatenate([job.request.x for job in jobs]), truths=truths)

    def _predict(self, request: InferRequest) -> Answers:
        if len(request.x) == 1:  # through the buffers that are bound already
            return [self._predictor.predict(request.x, truth=request.truths[0])]
        return self._predictor.predict_many(request.x, truths=request.truths)

    def _deliver(self, jobs: Sequence[_Job], result: Answers | Exception, seconds: float) -> None:
        if len(jobs) > 1:
            self.counts.batches += 1
            self.counts.batched += len(jobs)
        if isinstance(result, Exception):
            for job in jobs:
                _fail(job.future, result)
            return
        self._pace.saw(jobs[0].model.digest, len(result), seconds)
        start = 0
        for job in jobs:
            end = start + len(job.request.x)
            if not job.future.done():
                job.future.set_result(result[start:end])
            start = end

    def _tell(self, callback: Callable[..., object], *arguments: object) -> bool:
        """Call it in the loop; False when that has ended."""
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            return False
        return True


def _batchable(job: _Job) -> bool:
    """NaN in one request must not be the fault of another."""
    return not job.future.cancelled() and bool(np.isfinite(job.request.x).all())


def _fail(future: asyncio.Future[Answers], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _full(reason: str, wait: float) -> FoglineError:
    return Exhausted("queue_full", f"{reason}: ask again later", retry_after_s=wait)


def _unmeetable(wait: float) -> FoglineError:
    return Unavailable(
        "deadline_unmeetable", "the request would not be answered before its deadline", retry_after_s=wait
    )
