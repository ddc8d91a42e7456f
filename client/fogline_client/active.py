"""The model that serves: what the pointer names, and what is loaded. Going back needs no disk while the model before is warm."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Protocol

import structlog

from fogline_client import durable
from fogline_client.slots import NAMES, Pointer, Slots
from fogline_client.watchdog.watchdog import Watchdog
from fogline_shared.errors import Corrupt, FoglineError

log = structlog.get_logger()


class Runtime(Protocol):
    """What serves predictions (``fogline_client.inference.predictor.Predictor``)."""

    def load(self, path: Path) -> Any:
        """Open and check a model without serving it; raises Corrupt."""

    def swap(self, model: Any | None) -> Any | None:
        """Serve it from the next request on; None: serve nothing."""


class Active:
    """One caller at a time. Errors: Corrupt ``slot_damaged``, what loading raises, Exhausted ``disk_full``, OSError."""

    def __init__(self, slots: Slots, runtime: Runtime, watchdog: Watchdog) -> None:
        self._slots = slots
        self._runtime = runtime
        self._watchdog = watchdog
        # By digest: the active one, a candidate, the one before.
        self._models: dict[str, Any] = {}

    def pointer(self) -> Pointer | None:
        """What is active; None also when the pointer cannot be read."""
        try:
            return self._slots.active()
        except Corrupt as error:
            log.warning("slot pointer unreadable", code=error.code, reason=error.message)
            return None

    def load(self, path: Path, digest: str) -> None:
        """Open a candidate beside the model that serves, and keep it warm."""
        self._models[digest] = self._runtime.load(path)

    def serve(self, pointer: Pointer) -> None:
        """Serve a slot's model, with nobody watching."""
        model = self._warm(pointer)
        self._watchdog.end()
        self._runtime.swap(model)

    def serve_watched(self, pointer: Pointer, before: Pointer | None, *, compare: bool) -> None:
        """Serve a slot's model and watch it. ``before`` is kept warm; one that does not load any more is done without."""
        model, previous = self._warm(pointer), None
        if before is not None:
            try:
                previous = self._warm(before)
            except (FoglineError, OSError) as error:
                log.warning("the model before does not load", reason=str(error))
        self._watchdog.begin(model, previous, compare=compare)
        self._runtime.swap(model)

    def serve_nothing(self) -> None:
        """No model is active from now on."""
        self._watchdog.end()
        self._runtime.swap(None)
        self._slots.deactivate()

    def go_back(self, digest: str, before: Pointer | None) -> bool:
        """Serve what served before ``digest``; False: its slot is damaged, so that the right model must be asked for anew.

        In memory first: a full disk must not keep a bad model serving.
        """
        self._models.pop(digest, None)
        try:
            if before is None:
                self.serve_nothing()
            else:
                self.serve(before)
        except (FoglineError, OSError) as error:
            log.warning("the model before does not load", reason=str(error))
            self.fall_back()
            return False
        try:
            if before is not None and self.pointer() != before:
                self._slots.activate(before)
            self._slots.empty_spare()
        except Corrupt as error:
            log.warning("going back was not complete", code=error.code, reason=error.message)
            self._slots.deactivate()
            return False
        except (FoglineError, OSError) as error:
            log.warning("going back was not complete", reason=str(error))
        return True

    def fall_back(self) -> None:
        """What should be active is damaged on disk: serve a slot that is sound, if there is one."""
        self.serve_nothing()
        for slot in NAMES:
            with contextlib.suppress(FoglineError, OSError):
                pointer = Pointer(slot=slot, digest=durable.digest_of(self._slots.path(slot)))
                self.serve(pointer)
                self._slots.activate(pointer)
                return

    def keep_warm(self, *digests: str) -> None:
        """Let go of every other model."""
        self._models = {digest: model for digest, model in self._models.items() if digest in digests}

    def _warm(self, pointer: Pointer) -> Any:
        model = self._models.get(pointer.digest)
        if model is None:
            if not self._slots.holds(pointer.slot, pointer.digest):
                raise Corrupt("slot_damaged", f"slot {pointer.slot} does not hold {pointer.digest}")
            model = self._models[pointer.digest] = self._runtime.load(self._slots.path(pointer.slot))
        return model
