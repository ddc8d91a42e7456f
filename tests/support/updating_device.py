"""An updater over a folder that survives its process, with a coordinator that is a list."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from artifacts import example

from fogline_client import durable
from fogline_client.inference.predictor import Predictor
from fogline_client.journal import Journal
from fogline_client.slots import Slots
from fogline_client.updater import Updater, UpdaterParts
from fogline_client.watchdog.limits import WatchdogLimits
from fogline_client.watchdog.watchdog import Watchdog
from fogline_shared.errors import Corrupt, FoglineError
from fogline_shared.protocol import DesiredState
from fogline_shared.states import AssignmentState


async def loaded_at_once(_path: Path, _digest: str) -> None:
    """A process for each update would take the time of many tests; ``test_rehearsal`` has them."""


class Device:
    """What survives a power cut (a folder), and what the coordinator hears of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = root.parent / "cloud"
        for folder in (root, self.source):
            folder.mkdir(parents=True, exist_ok=True)
        self.told: list[tuple[int, str, str]] = []
        self.faults: list[Exception] = []
        self.finished: Callable[[], None] = lambda: None
        self.held: asyncio.Event | None = None
        self.limits: dict[str, float] = {}
        self.rehearse: Callable[[Path, str], Awaitable[None]] = loaded_at_once
        self.updater: Updater | None = None
        self.boot()

    def boot(self) -> None:
        """Start the process anew; the one before is dead."""
        if self.updater is not None:
            self.updater._p.watchdog.end()
        self.unsigned: set[str] = set()
        self.predictor = Predictor()
        self.updater = Updater(
            UpdaterParts(
                slots=Slots(self.root / "slots"),
                journal=Journal(self.root / "journal.json"),
                runtime=self.predictor,
                fetch=self.fetch,
                trust=self,
                tell=self.tell,
                rehearse=self.rehearse,
                watchdog=Watchdog(self.predictor, WatchdogLimits(**self.limits)),
                incoming=self.root / "incoming",
                waits=lambda: iter([0.0] * 100),
            )
        )

    def tell(self, desired: DesiredState, state: AssignmentState, code: str, _message: str) -> None:
        self.told.append((desired.generation, str(state), code))
        if state in {AssignmentState.SUCCEEDED, AssignmentState.REJECTED, AssignmentState.REVERTED}:
            self.finished()

    async def check(self, desired: DesiredState) -> None:
        """What is signed, and power cuts of the check itself, are tested beside the attacks."""
        if desired.artifact_digest in self.unsigned:
            raise Corrupt("target_not_listed", "nobody signed it")

    async def fetch(self, digest: str, size: int, target: Path) -> None:
        if self.held is not None:
            await self.held.wait()
        if self.faults:
            raise self.faults.pop(0)
        durable.make_folder(target.parent)
        durable.write(target, (self.source / digest).read_bytes())
        assert target.stat().st_size == size

    def offer(self, generation: int, content: bytes, *, probation_s: float = 0.02) -> DesiredState:
        path = self.source / "new"
        path.write_bytes(content)
        digest = durable.digest_of(path)
        path.rename(self.source / digest)
        return DesiredState(
            generation=generation, artifact_digest=digest, artifact_size=len(content), probation_s=probation_s
        )

    def hold_fetches(self) -> asyncio.Event:
        """Let downloads wait until it is set."""
        self.held = asyncio.Event()
        return self.held

    async def run(
        self, *desired: DesiredState, until: int | None = None, whatever=lambda: None, goal=lambda: True
    ) -> None:
        """One life of the process: resume, then converge until generation ``until`` is settled, and to the ``goal``."""
        self.updater.resume()
        task = asyncio.create_task(self.updater.run())
        for each in desired:
            self.updater.want(each)
            await asyncio.sleep(0)
        settled = desired[-1].generation if until is None else until
        async with asyncio.timeout(10):
            while self.updater.journal.ledger.settled < settled or not goal():
                whatever()
                if task.done():
                    await task
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self.updater._p.watchdog.end()

    def ask(self) -> None:
        """Somebody predicts."""
        with contextlib.suppress(FoglineError):
            self.predictor.predict(example(0))

    @property
    def last(self) -> tuple[int, str, str]:
        return self.told[-1]

    def serves(self) -> str:
        return self.predictor.active_digest
