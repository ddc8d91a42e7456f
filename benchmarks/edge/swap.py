"""What a change of the model costs those who ask, and how soon a poisoned one is gone.

The device's updater takes one release after the other, from a folder instead of a network, with everything that it does on disk, in its
rehearsing process and in its watchdog. Signatures are left out: they are checked before, in another process. A thread asks all the time.
Times with a swap and times without take turns, so that whatever else the machine does hits both alike.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from harness import Figure, Options, progress

from edge import models
from fogline_client import durable
from fogline_client.inference.predictor import Predictor
from fogline_client.journal import Journal
from fogline_client.measuring.rehearsal import Rehearsal
from fogline_client.slots import Slots
from fogline_client.telemetry.recorder import Recorder
from fogline_client.updater import Updater, UpdaterParts
from fogline_client.watchdog.limits import WatchdogLimits
from fogline_client.watchdog.watchdog import Watchdog
from fogline_shared.errors import FoglineError
from fogline_shared.protocol import DesiredState
from fogline_shared.states import AssignmentState

P99_TARGET = 1.5
FIRST_GOOD_MS = 100.0
# Beside the bound on a call: looks at what hangs are a quarter of it apart, half a second at most.
HANG_TARGET = 1.5
_PROBATION_S = 0.2
_MODEL = "sensor"


def measure(options: Options) -> list[Figure]:
    """Failed requests and p99 over swaps; the first good answer after two kinds of poison."""
    return asyncio.run(_measure(swaps=3 if options.quick else 100, poisons=2 if options.quick else 20))


async def _measure(*, swaps: int, poisons: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="fogline-bench-") as folder:
        device = _Device(Path(folder))
        await device.start()
        progress(f"{swaps} swaps under load")
        figures = await _swaps(device, swaps)
        progress(f"{poisons} poisoned releases")
        figures += await _poisoned(device, poisons)
        await device.stop()
    return figures


class _Device:
    """An updater in this process."""

    def __init__(self, folder: Path) -> None:
        self.limits = WatchdogLimits()
        self.predictor = Predictor(observe=Recorder(now=time.time()).observe)
        self.watchdog = Watchdog(self.predictor, self.limits)
        self._told: dict[int, asyncio.Future[str]] = {}
        self._loop = asyncio.get_running_loop()
        self._artifacts: dict[str, bytes] = {}
        self._generation = 0
        self._updater = Updater(
            UpdaterParts(
                slots=Slots(folder / "slots"),
                journal=Journal(folder / "journal.json"),
                runtime=self.predictor,
                fetch=self._fetch,
                trust=self,
                tell=self._tell,
                watchdog=self.watchdog,
                rehearse=Rehearsal(),
                incoming=folder / "incoming",
                waits=lambda: iter([0.1] * 10),
            )
        )

    async def start(self) -> None:
        """With a sound model that serves, unwatched."""
        self._updater.resume()
        self._running = asyncio.create_task(self._updater.run())
        await self.take(models.artifact(_MODEL, variant="first"))
        self.watchdog.end()

    async def stop(self) -> None:
        """End the updater."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await asyncio.to_thread(self._updater.stop)

    async def take(self, artifact: bytes, *, probation_s: float = _PROBATION_S) -> str:
        """Desire an artifact; how that ended, once it has."""
        self._generation += 1
        digest = hashlib.sha256(artifact).hexdigest()
        self._artifacts = {digest: artifact}
        ended: asyncio.Future[str] = self._loop.create_future()
        self._told[self._generation] = ended
        self._updater.want(
            DesiredState(
                generation=self._generation,
                artifact_digest=digest,
                artifact_size=len(artifact),
                probation_s=probation_s,
            )
        )
        return await ended

    async def check(self, desired: DesiredState) -> None:
        """See the module's description."""

    async def _fetch(self, digest: str, _size: int, target: Path) -> None:
        durable.make_folder(target.parent)
        durable.write(target, self._artifacts[digest])

    def _tell(self, desired: DesiredState, state: AssignmentState, code: str, _message: str) -> None:
        if state in {AssignmentState.SUCCEEDED, AssignmentState.REJECTED, AssignmentState.REVERTED}:
            self._loop.call_soon_threadsafe(self._end, desired.generation, code or str(state))

    def _end(self, generation: int, how: str) -> None:
        ended = self._told[generation]
        if not ended.done():
            ended.set_result(how)


class _Load:
    """One thread that asks without a pause; seconds of each call, by whether there was a swap."""

    def __init__(self, predictor: Predictor) -> None:
        self.took: dict[bool, list[float]] = {True: [], False: []}
        self.failed = 0
        self.swapping = False
        self._predictor = predictor
        self._stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """While it asks."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        x, clock = _example(), time.perf_counter
        while not self._stop.is_set():
            swapping, started = self.swapping, clock()
            try:
                self._predictor.predict(x)
            except FoglineError:
                self.failed += 1
            self.took[swapping].append(clock() - started)


async def _swaps(device: _Device, swaps: int) -> list[Figure]:
    load, slowest = _Load(device.predictor), 0.0
    with load.running():
        for number in range(swaps):
            artifact = models.artifact(_MODEL, variant=f"v{number}")
            load.swapping, started = True, time.monotonic()
            how = await device.take(artifact)
            assert how == AssignmentState.SUCCEEDED, how
            seconds = time.monotonic() - started
            slowest = max(slowest, seconds)
            device.watchdog.end()
            load.swapping = False
            await asyncio.sleep(seconds)
    asked = sum(map(len, load.took.values()))
    during, quiet = (float(np.percentile(load.took[swapping], 99)) * 1e6 for swapping in (True, False))
    detail: dict[str, object] = {"swaps": swaps, "requests": asked, "slowest_update_s": round(slowest, 2)}
    return [
        Figure(
            name="swaps under load, failed requests",
            unit="",
            ours=load.failed,
            peer=asked,
            peer_name="requests",
            target=0.0,
            detail=detail,
        ),
        Figure(
            name="swaps under load, p99",
            unit="µs",
            ours=during,
            peer=quiet,
            peer_name="no swap",
            target=P99_TARGET,
            detail={
                name: max(took) * 1e6 for name, took in (("max", load.took[True]), ("max_quiet", load.took[False]))
            },
        ),
    ]


async def _poisoned(device: _Device, times: int) -> list[Figure]:
    x = _example()
    loop = asyncio.get_running_loop()
    good: dict[str, list[float]] = {"nan": [], "hang": []}
    gone: list[float] = []
    for number in range(times):
        for poison, found in good.items():
            if poison == "hang" and number >= max(2, times // 10):
                continue
            before = device.predictor.active_digest
            ended = asyncio.create_task(
                device.take(models.artifact(_MODEL, variant=f"{poison}{number}", poison=poison), probation_s=600)
            )
            await loop.run_in_executor(None, _changed, device.predictor, before)
            found.append(await loop.run_in_executor(None, _first_good, device.predictor, x))
            if poison == "nan":
                gone.append(await loop.run_in_executor(None, _until_gone, device.predictor, x, before))
            how = await ended
            assert how == {"nan": "model_not_finite", "hang": "model_hangs"}[poison], how
    return [
        Figure(
            name="poisoned release (NaN), first good answer, slowest",
            unit="ms",
            ours=max(good["nan"]),
            peer=FIRST_GOOD_MS,
            peer_name="limit",
            target=1.0,
            detail={"times": times},
        ),
        Figure(
            name="poisoned release (NaN), the model before serves again, slowest",
            unit="ms",
            ours=max(map(sum, zip(good["nan"], gone, strict=True))),
            peer=FIRST_GOOD_MS,
            peer_name="limit",
            target=1.0,
        ),
        Figure(
            name="poisoned release (hangs), the call that hangs is answered, slowest",
            unit="ms",
            ours=max(good["hang"]),
            peer=device.limits.hang_s * 1e3,
            peer_name="bound on a call",
            target=HANG_TARGET,
            detail={"times": len(good["hang"])},
        ),
    ]


def _changed(predictor: Predictor, before: str) -> None:
    while predictor.active_digest == before:
        time.sleep(0.001)


def _first_good(predictor: Predictor, x: np.ndarray) -> float:
    """Milliseconds from the first call on the poisoned model to an answer."""
    started = time.perf_counter()
    while True:
        try:
            confidence = predictor.predict(x).confidence
        except FoglineError:
            continue
        if math.isfinite(confidence):
            return (time.perf_counter() - started) * 1e3


def _until_gone(predictor: Predictor, x: np.ndarray, before: str) -> float:
    """Milliseconds until the model before serves, while somebody asks."""
    started = time.perf_counter()
    while predictor.active_digest != before:
        predictor.predict(x)
    return (time.perf_counter() - started) * 1e3


def _example() -> np.ndarray:
    return np.random.default_rng(0).normal(size=models.SHAPES[_MODEL]).astype(np.float32)
