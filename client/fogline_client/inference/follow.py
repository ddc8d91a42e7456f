"""Follow an agent's active slot from another process: read its pointer file, load, swap."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from fogline_client.inference.model import LoadedModel
from fogline_client.slots import Pointer, model_path, read_active
from fogline_shared.errors import FoglineError

log = structlog.get_logger()


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
        self._slots = state_dir / "slots"
        self._load = load
        self._swap = swap
        self._poll_s = poll_s
        self._seen: Pointer | None = None
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
            pointer = read_active(self._slots)
            if pointer == self._seen:
                return
            self._swap(None if pointer is None else self._load(model_path(self._slots, pointer.slot), pointer.digest))
            self._seen = pointer
        except (FoglineError, OSError) as error:
            # The agent may be between two writes: the next look sees the end of it.
            log.warning("follow_failed", error=str(error))
