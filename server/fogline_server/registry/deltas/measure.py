"""What a delta between two artifacts saves, and what it costs a device to apply."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fogline_server.registry.deltas.build import build

_LEVEL = 19


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Sizes in bytes; seconds are medians on this machine, ``copy_s`` of copying the result and hashing it.

    ``peak_bytes``: memory that applying needed beyond what its process had before; None where the system does not tell.
    """

    full_bytes: int
    zstd_bytes: int
    delta_bytes: int
    apply_s: float
    copy_s: float
    peak_bytes: int | None

    def as_json(self) -> dict[str, Any]:
        """For the command line."""
        return asdict(self)


def measure(base: bytes, target: bytes) -> Measured:
    """Build the delta and apply it in a process of its own, which verifies the result by its digest."""
    import zstandard

    made = build(base, target)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("delta", "base", "target")]
        for path, data in zip(paths, (made, base), strict=False):
            path.write_bytes(data)
        command = [sys.executable, "-m", "fogline_server.registry.deltas.applying", *map(str, paths)]
        done = subprocess.run(command, capture_output=True, check=True)
        cost = json.loads(done.stdout)
    return Measured(
        full_bytes=len(target),
        zstd_bytes=len(zstandard.ZstdCompressor(level=_LEVEL).compress(target)),
        delta_bytes=len(made),
        **cost,
    )
