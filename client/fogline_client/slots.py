"""Two model slots and a pointer to the active one.

::

    slots/active          {"slot": "A", "digest": "…"}: a plain file, replaced by rename
    slots/A/model.onnx
    slots/B/model.onnx

Hard rules (the idea of RAUC and Android's A/B updates): the active slot is never written; the pointer only ever moves to
a slot whose bytes hash to the digest it names; each change is one rename, so that a power cut shows the old or the new.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fogline_client import durable
from fogline_shared.errors import Corrupt

NAMES = ("A", "B")


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """Which slot is active, and what its bytes hash to."""

    slot: str
    digest: str


class Slots:
    """The slots below ``root``; one process writes, any number read."""

    def __init__(self, root: Path) -> None:
        self._root = root
        for name in NAMES:
            durable.make_folder(root / name)

    def path(self, slot: str) -> Path:
        """Where a slot's model lies, whether or not it is there."""
        return model_path(self._root, slot)

    def active(self) -> Pointer | None:
        """The pointer; None when no model is active. Raises Corrupt ``bad_pointer``."""
        return read_active(self._root)

    def spare(self) -> str:
        """The slot that may be written."""
        active = self.active()
        return NAMES[1] if active is not None and active.slot == NAMES[0] else NAMES[0]

    def holds(self, slot: str, digest: str) -> bool:
        """Whether the slot's bytes hash to ``digest``, read anew."""
        path = self.path(slot)
        return path.exists() and durable.digest_of(path) == digest

    def stage(self, downloaded: Path, digest: str) -> Pointer:
        """Move a verified download into the spare slot; the pointer does not move."""
        slot = self.spare()
        durable.move(downloaded, self.path(slot))
        return Pointer(slot=slot, digest=digest)

    def activate(self, pointer: Pointer) -> None:
        """Move the pointer; raises Corrupt ``slot_damaged`` when the slot does not hold what the pointer promises."""
        if not self.holds(pointer.slot, pointer.digest):
            raise Corrupt("slot_damaged", f"slot {pointer.slot} does not hold {pointer.digest}", slot=pointer.slot)
        durable.write_json(self._root / "active", {"slot": pointer.slot, "digest": pointer.digest})

    def empty_spare(self) -> None:
        """Forget what lies in the spare slot: a model that failed must not be found there by a later recovery."""
        self.path(self.spare()).unlink(missing_ok=True)

    def deactivate(self) -> None:
        """No model is active from now on."""
        (self._root / "active").unlink(missing_ok=True)
        durable.flush_path(self._root)


def model_path(root: Path, slot: str) -> Path:
    """Where a slot's model lies below ``root``, for readers in other processes."""
    return root / slot / "model.onnx"


def read_active(root: Path) -> Pointer | None:
    """The pointer of the slots below ``root``, for readers in other processes. Raises Corrupt ``bad_pointer``."""
    raw = durable.read_json(root / "active", code="bad_pointer")
    if raw is None:
        return None
    try:
        pointer = Pointer(slot=raw["slot"], digest=raw["digest"])
    except (TypeError, KeyError) as error:
        raise Corrupt("bad_pointer", f"{root / 'active'} lacks slot or digest") from error
    if pointer.slot not in NAMES:
        raise Corrupt("bad_pointer", f"{root / 'active'} names slot {pointer.slot!r}")
    return pointer
