"""What leaves the hot tier when it is full.

The file with the largest product of size and time since it was last used goes first: of the rules that need nothing but the
files themselves it misses fewest bytes (Smith, "Long term file migration", CACM 24(8), 1981; GreedyDual-Size does as well but
needs a counter that all processes of a coordinator share).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# What was used so recently may be about to be opened by whoever asked for its path: the bound waits for it.
SPARE_S = 60.0
# Evicted down to this share of the bound, so that not each write looks at every file.
_DOWN_TO = 0.9
# The files are counted again after so large a share of the bound was written here: other processes write as well.
_COUNT_AGAIN = 1 / 16
_REMEMBERED = 4096


@dataclass(frozen=True, kw_only=True)
class Held:
    """A blob of the hot tier: bytes, and when it was written or, where the tier is bounded, last used (Unix time)."""

    path: Path
    size: int
    used_at: float


def held(root: Path) -> Iterator[Held]:
    """Every blob below the folder."""
    for folder in root.iterdir():
        if len(folder.name) == 2:
            for path in folder.iterdir():
                with suppress(FileNotFoundError):  # evicted meanwhile
                    found = path.stat()
                    yield Held(path=path, size=found.st_size, used_at=found.st_mtime)


def flush_names(folder: Path) -> None:
    """Make what was renamed into a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class HotBound:
    """Keeps a folder of blobs below ``limit`` bytes. ``safe(path)`` says, or sees to it, that the cold tier has the blob."""

    def __init__(self, root: Path, limit: int, safe: Callable[[Path], bool], *, spare_s: float = SPARE_S) -> None:
        self._root, self._limit, self._safe, self._spare_s = root, limit, safe, spare_s
        self._written = limit  # counted at the first write
        self._noted: dict[str, float] = {}

    def touch(self, path: Path) -> bool:
        """Note that a blob is used; False if it is not here."""
        file, now = str(path), time.time()
        # Noted to a quarter of the time that it is spared for: most reads then write nothing. A file's time only rises, so
        # that what was read of it holds for as long; whether the file is here is asked each time, at half the price.
        if now - self._noted.get(file, 0.0) <= self._spare_s / 4:
            return os.access(file, os.F_OK)
        try:
            used_at = path.stat().st_mtime
            if now - used_at > self._spare_s / 4:
                os.utime(path)
                used_at = now
        except FileNotFoundError:
            return False
        if len(self._noted) >= _REMEMBERED:
            self._noted.clear()
        self._noted[file] = used_at
        return True

    def added(self, path: Path, size: int) -> None:
        """A blob of so many bytes was written: evict others, if that may have been too much."""
        self._written += size
        if self._written >= self._limit * _COUNT_AGAIN:
            self._written = 0
            self.evict(but=path)

    def evict(self, *, but: Path | None = None) -> int:
        """Remove what is used least for its size until the bound holds; return how many bytes went."""
        now, files = time.time(), list(held(self._root))
        over = sum(each.size for each in files) - self._limit
        if over <= 0:
            return 0
        goal, gone = over + (1 - _DOWN_TO) * self._limit, 0
        for each in sorted(files, key=lambda f: f.size * (now - f.used_at), reverse=True):
            if gone >= goal:
                break
            if each.path != but and now - each.used_at >= self._spare_s and self._safe(each.path):
                each.path.unlink(missing_ok=True)
                gone += each.size
        return gone
