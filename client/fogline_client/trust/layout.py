"""Where trust lies on the device, and what is asked of it. Imports nothing heavy: the agent uses it too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TrustDir:
    """The folder of trust. ``cache`` may be lost at any time; ``pinned`` and ``floor`` may not."""

    path: Path

    @property
    def pinned(self) -> Path:
        """The root this device began with: at enrolment, or given by its owner."""
        return self.path / "root.json"

    @property
    def floor(self) -> Path:
        """The time and the versions below which nothing is believed any more."""
        return self.path / "floor.json"

    @property
    def cache(self) -> Path:
        """Metadata as last verified."""
        return self.path / "cache"

    @property
    def stage(self) -> Path:
        """Where python-tuf works; nothing there is believed later."""
        return self.path / "stage"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The artifact that the coordinator desires. ``size`` in bytes."""

    release_id: str
    variant: str
    digest: str
    size: int

    @property
    def path(self) -> str:
        """Its name among the targets."""
        return f"{self.release_id}/{self.variant}.onnx"
