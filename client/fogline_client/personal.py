"""Serves a personal head in place of the released one, when the device's owner wants it and it has won on the device's own data.

::

    personal/record.json   which release it was made of, what came of it
    personal/model.onnx    the personal artifact, when one was kept

The slots hold released artifacts only, and what is wrong with a personal one, or with making it, leaves the released model
serving. A new release, or going back to an old one, serves the released model at once; a head is then fitted anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from fogline_client import decisions, durable
from fogline_client.inference.predictor import Predictor
from fogline_client.slots import Slots
from fogline_client.telemetry.recorder import Health
from fogline_client.training.personal import Work
from fogline_shared.errors import Corrupt, FoglineError, Unavailable
from fogline_shared.protocol import Scalar

log = structlog.get_logger()

_LOOK_EVERY_S = 1.0
_LONGEST_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Record:
    """What came of one release. ``digest``: of the personal artifact; empty: the released model serves, ``why`` says why.

    ``loading``: it is being opened for the first time; found so at a start, it has killed the process.
    """

    released: str
    digest: str = ""
    gain: float = 0.0
    why: str = ""
    loading: bool = False


@dataclass(frozen=True, kw_only=True)
class PersonalParts:
    """What it works on. ``settled``: whether no update is under way; ``after_s``: how long a release serves as it is first."""

    folder: Path
    recipe: str
    options: Mapping[str, str]
    slots: Slots
    predictor: Predictor
    settled: Callable[[], bool]
    health: Callable[[str], Health]
    tell: Callable[[Mapping[str, Scalar]], None]
    after_s: float
    look_every_s: float = field(default=_LOOK_EVERY_S)


class Personal:
    """One release at a time."""

    def __init__(self, parts: PersonalParts) -> None:
        self._p = parts
        self.record: Record | None = None
        # Which release serves, and since when.
        self._since = "", 0.0

    @property
    def _file(self) -> Path:
        return self._p.folder / "model.onnx"

    def released_digest(self) -> str:
        """The release that serves, whoever's head it wears; empty when there is none."""
        serving, record = self._p.predictor.active_digest, self.record
        return record.released if record is not None and record.digest and serving == record.digest else serving

    def facts(self) -> dict[str, Scalar]:
        """For the device's attributes."""
        record = self.record
        if record is not None and record.digest and self._p.predictor.active_digest == record.digest:
            return {"personal": True, "personal_gain": round(record.gain, 4)}
        if record is not None and record.why and record.released == self.released_digest():
            return {"personal": False, "personal_why": record.why}
        return {"personal": False}

    async def run(self) -> None:
        """Follow what is released to this device, for ever."""
        await asyncio.to_thread(self._p.folder.mkdir, parents=True, exist_ok=True)
        self.record = await asyncio.to_thread(self._recall)
        while True:
            await self._look()
            self._p.tell(self.facts())
            await asyncio.sleep(self._p.look_every_s)

    async def _look(self) -> None:
        released = self.released_digest()
        if not released or not self._p.settled():
            return
        if self.record is None or self.record.released != released:
            if self._since[0] != released:
                self._since = released, time.monotonic()
            if time.monotonic() - self._since[1] < self._p.after_s:
                return
            self.record = await self._made(released)
        if not self.record.digest:
            return
        if self._p.predictor.active_digest == released:
            await asyncio.to_thread(self._wear, self.record)
        elif reason := decisions.unfit(Health(), self._p.health(self.record.digest)):
            await asyncio.to_thread(self._drop, self.record, reason)

    async def _made(self, released: str) -> Record:
        """Fit a head to this release. What fails is not remembered on disk: the agent's next start tries again."""
        try:
            self._file.unlink(missing_ok=True)
            answer = await self._ask(released)
            if "error_code" in answer:
                log.warning("not personalised", code=answer["error_code"], reason=answer["error_message"])
                return Record(released=released, why=str(answer["error_code"]))
            record = Record(released=released, why="not_better")
            if answer["kept"]:
                gain = float(answer["personal"]) - float(answer["released"])
                digest = await asyncio.to_thread(durable.digest_of, self._file)
                record = Record(released=released, digest=digest, gain=gain)
            await asyncio.to_thread(self._keep, record)
        except FoglineError as error:
            log.warning("not personalised", code=error.code, reason=error.message)
            return Record(released=released, why=error.code)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("not personalised", reason=repr(error))
            return Record(released=released, why="personalising_failed")
        log.info("personalised", released=released, kept=bool(record.digest), gain=record.gain)
        return record

    async def _ask(self, released: str) -> dict[str, Any]:
        """Raises Corrupt ``slot_damaged``, Unavailable ``personalising_died``."""
        pointer = await asyncio.to_thread(self._p.slots.active)
        if pointer is None or not await asyncio.to_thread(self._p.slots.holds, pointer.slot, released):
            raise Corrupt("slot_damaged", f"no slot holds {released}")
        work = Work(
            recipe=self._p.recipe,
            options=dict(self._p.options),
            released=str(self._p.slots.path(pointer.slot).absolute()),
            target=str(self._file.absolute()),
        )
        command = [sys.executable, "-m", "fogline_client.training.personal"]
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        assert child.stdin is not None, "both pipes were asked for"
        assert child.stdout is not None, "both pipes were asked for"
        try:
            child.stdin.write(json.dumps(asdict(work)).encode() + b"\n")
            line = await asyncio.wait_for(child.stdout.readline(), _LONGEST_S)
        except (TimeoutError, ConnectionError) as error:
            raise Unavailable("personalising_died", "the process that fits the head gave no answer") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        if not line:
            raise Unavailable("personalising_died", "the process that fits the head died")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _wear(self, record: Record) -> None:
        """Load, check and serve it, unless something else than its release serves by now."""
        try:
            self._keep(replace(record, loading=True))
            model = self._p.predictor.load(self._file, digest=record.digest)
            self._keep(record)
            if self._p.predictor.swap_if(record.released, model):
                log.info("personal model serves", released=record.released, gain=record.gain)
        except FoglineError as error:
            self._drop(record, error.code)
        except OSError as error:
            self._drop(record, f"io_failed: {error}")

    def _drop(self, record: Record, why: str) -> None:
        """The released model serves again, in memory first; what cannot be written is made again at the next start."""
        log.warning("personal model dropped", reason=why)
        self.record = Record(released=record.released, why=why)
        with contextlib.suppress(FoglineError, OSError):
            pointer = self._p.slots.active()
            if pointer is not None and pointer.digest == record.released:
                self._p.predictor.swap_if(record.digest, self._p.predictor.load(self._p.slots.path(pointer.slot)))
            self._file.unlink(missing_ok=True)
            self._keep(self.record)

    def _recall(self) -> Record | None:
        try:
            raw = durable.read_json(self._p.folder / "record.json", code="bad_record")
            record = None if raw is None else Record(**raw)
        except (Corrupt, TypeError) as error:
            log.warning("personal record discarded", reason=str(error))
            return None
        if record is not None and record.loading:
            return Record(released=record.released, why="crashed_while_loading")
        return record

    def _keep(self, record: Record) -> None:
        durable.write_json(self._p.folder / "record.json", asdict(record))
