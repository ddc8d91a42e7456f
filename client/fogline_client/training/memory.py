"""What a run's app keeps between tasks, on disk: the array records of its Flower context, a file each.

The child ends when it is idle, and a device loses its power; a codec's residual must outlive both. The coordinator does not
tell a device that a run has ended, so what has not been used for longest goes: two runs may be under way at a time (a teacher's
and a student's), and none waits for a month.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from pathlib import Path

from fogline_client import durable
from fogline_shared import flower, tensors
from fogline_shared.errors import Corrupt
from fogline_shared.flower import RecordDict

_RUNS = 2
_LONGEST_S = 30 * 86_400.0
_SUFFIX = ".safetensors"


class Memory:
    """One folder a run below ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def recall(self, run_id: str) -> RecordDict:
        """The state a run's app left; a record that cannot be read is forgotten, since training can do without."""
        state = RecordDict()
        for path in sorted(self._folder(run_id).glob(f"*{_SUFFIX}")):
            try:
                state[path.stem] = flower.read_arrays(path)
            except Corrupt as error:
                sys.stderr.write(f"forgetting {path}: {error}\n")
                path.unlink()
        return state

    def keep(self, run_id: str, state: RecordDict, known: RecordDict) -> None:
        """Write the records that are not in ``known``, remove those that are only there; other runs' make room.

        Each record is there as it was or as it is, whatever happens. Raises Exhausted ``disk_full``.
        """
        records = state.array_records
        changed = [name for name, record in records.items() if known.get(name) is not record]
        gone = [name for name in known if name not in records]
        if not changed and not gone:
            return
        folder = self._folder(run_id)
        folder.mkdir(parents=True, exist_ok=True)
        for name in changed:
            durable.write(folder / f"{name}{_SUFFIX}", b"".join(tensors.encode(flower.arrays_of(records[name]))))
        for name in gone:
            (folder / f"{name}{_SUFFIX}").unlink(missing_ok=True)
        self._make_room(folder)

    def _make_room(self, own: Path) -> None:
        others = [(path.stat().st_mtime, path) for path in self._root.iterdir() if path != own]
        kept = 1
        for used_at, path in sorted(others, reverse=True):
            if kept >= _RUNS or time.time() - used_at > _LONGEST_S:
                shutil.rmtree(path)
            kept += 1

    def _folder(self, run_id: str) -> Path:
        # A run's id is another machine's text; a digest of it is a safe file name.
        return self._root / hashlib.sha256(run_id.encode()).hexdigest()[:32]
