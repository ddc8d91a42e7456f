"""The time and the versions below which nothing is believed, kept outside python-tuf's cache. Pure, but for its file.

python-tuf knows what it has seen only by its cache, and the time only by the clock. A device whose cache was wiped, or whose
clock was set back, would take old metadata for new. The floor only rises, and only by metadata that was valid: a clock that
ran ahead cannot lift it past the end of what was signed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fogline_client import durable
from fogline_shared.errors import Corrupt


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A role's newest version, and the keys it was signed under."""

    version: int
    keyids: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Floor:
    """``time``: the latest at which valid metadata was seen, Unix seconds."""

    time: float = 0.0
    root: int = 0
    roles: Mapping[str, Seen] = field(default_factory=dict)

    def reference(self, now: datetime) -> datetime:
        """The time to judge by: the clock's, unless it was later already."""
        return max(now, datetime.fromtimestamp(self.time, UTC))

    def check_root(self, version: int) -> None:
        """Raises Corrupt ``trust_rolled_back``."""
        if version < self.root:
            raise Corrupt("trust_rolled_back", f"root {version} is offered where root {self.root} was seen")

    def check(self, role: str, offered: Seen) -> None:
        """Raises Corrupt ``trust_rolled_back``.

        Versions count for the keys they were signed under: after a rotation of a role's keys they may begin anew, which
        is how a fleet recovers from a thief who signed the largest version there is (TUF specification, 5.3.11).
        """
        seen = self.roles.get(role)
        if seen is not None and sorted(seen.keyids) == sorted(offered.keyids) and offered.version < seen.version:
            raise Corrupt("trust_rolled_back", f"{role} {offered.version} is offered where {seen.version} was seen")


def load(path: Path) -> Floor:
    """The floor; the lowest when there is no file. Raises Corrupt ``bad_trust_floor``."""
    raw: Any = durable.read_json(path, code="bad_trust_floor")
    if raw is None:
        return Floor()
    try:
        roles = {
            str(name): Seen(version=int(s["version"]), keyids=tuple(s["keyids"])) for name, s in raw["roles"].items()
        }
        return Floor(time=float(raw["time"]), root=int(raw["root"]), roles=roles)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise Corrupt("bad_trust_floor", f"{path} is not a floor: {error!r}") from error


def save(floor: Floor, path: Path) -> None:
    """Replace the file; raises Exhausted ``disk_full``."""
    durable.write_json(path, asdict(floor))
