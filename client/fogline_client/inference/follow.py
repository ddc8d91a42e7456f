"""Follow an agent's active slot from another process: read its pointer file, load, swap.

Layout (written by the agent's ``slots``): ``<state_dir>/slots/active`` is JSON ``{"digest", "slot"}``, replaced
atomically; the artifact is ``<state_dir>/slots/<slot>/model.onnx``.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from fogline_client.inference.model import LoadedModel
from fogline_shared.errors import Corrupt, FoglineError

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class ActivePointer:
    """What ``slots/active`` says. An empty digest: nothing is active."""

    digest: str
    slot: str

    @classmethod
    def read(cls, state_dir: Path) -> ActivePointer:
        """Read it; a missing file means that nothing is active. Raises Corrupt ``bad_pointer``."""
        try:
            raw = json.loads((state_dir / "slots" / "active").read_bytes())
            pointer = cls(digest=str(raw["digest"]), slot=str(raw["slot"]))
        except FileNotFoundError:
            return cls(digest="", slot="")
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt("bad_pointer", f"slots/active cannot be read: {error}") from error
        if pointer.digest and not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", pointer.slot):
            raise Corrupt("bad_pointer", f"slots/active names the slot {pointer.slot!r}")
        return pointer

    def path(self, state_dir: Path) -> Path:
        """The artifact it points at."""
        return state_dir / "slots" / self.slot / "model.onnx"


class Follower:
    """A daemon thread that polls the pointer. Whatever goes wrong, the model that serves goes on serving."""

    def __init__(
        self,
        *,
        state_dir: Path,
        load: Callable[[Path, str], LoadedModel],
        swap: Callable[[LoadedModel | None], object],
        poll_s: float,
    ) -> None:
        self._state_dir = state_dir
        self._load = load
        self._swap = swap
        self._poll_s = poll_s
        self._seen: ActivePointer | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fogline-follow", daemon=True)

    def start(self) -> None:
        """Look once, here and now, then keep looking."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; returns when the thread has ended."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._poll_s):
            self._look()

    def _look(self) -> None:
        try:
            pointer = ActivePointer.read(self._state_dir)
            if pointer == self._seen:
                return
            self._swap(self._load(pointer.path(self._state_dir), pointer.digest) if pointer.digest else None)
            self._seen = pointer
        except (FoglineError, OSError) as error:
            # The agent may be between two writes: the next look sees the end of it.
            log.warning("follow_failed", error=str(error))
