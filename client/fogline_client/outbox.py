"""Replies to tasks, on disk until the coordinator has them. A reply costs minutes of a device's energy: it is not lost.

A reply that is kept outlives the agent at once, and a power cut once it is flushed. Flushing costs the disk as much as writing;
a reply that the coordinator takes first is never flushed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import structlog

from fogline_client import durable
from fogline_shared.errors import Corrupt
from fogline_shared.protocol import TaskReply

log = structlog.get_logger()


class Outbox:
    """One folder; a reply is ``<name>.json`` and, when it has arrays, ``<name>.blob``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def keep(self, reply: TaskReply, blob: Path | None) -> None:
        """Take over a reply; ``blob``, on the same file system, is moved. Raises Exhausted ``disk_full``."""
        if blob is not None:
            blob.replace(self._place(reply.task_id, ".blob"))
        # The header comes last: without it there is no reply.
        durable.write_json(self._place(reply.task_id, ".json"), asdict(reply), flush=False)

    def flush(self, reply: TaskReply) -> None:
        """Make it survive a power cut; do nothing when it is done already."""
        try:
            for suffix in (".blob", ".json") if reply.digest else (".json",):
                durable.flush_path(self._place(reply.task_id, suffix))
        except FileNotFoundError:
            return
        durable.flush_path(self._root)

    def replies(self) -> Sequence[TaskReply]:
        """All that wait, oldest first; one that a power cut has damaged is discarded: its task is offered again."""
        found = []
        for path in sorted(self._root.glob("*.json"), key=lambda path: path.stat().st_mtime):
            try:
                reply = TaskReply(**durable.read_json(path, code="bad_reply"))
                blob = self._place(reply.task_id, ".blob")
                if reply.digest and not (blob.exists() and durable.digest_of(blob) == reply.digest):
                    raise Corrupt("bad_reply", f"{path} has lost its arrays")
                found.append(reply)
            except (Corrupt, TypeError) as error:
                log.warning("reply discarded", path=str(path), reason=str(error))
                path.unlink()
        return found

    def blob(self, reply: TaskReply) -> Path | None:
        """Where the reply's arrays lie; None when it has none."""
        return self._place(reply.task_id, ".blob") if reply.digest else None

    def done(self, task_id: str) -> None:
        """The coordinator has the reply, or will never take it."""
        for suffix in (".json", ".blob"):
            self._place(task_id, suffix).unlink(missing_ok=True)

    def _place(self, task_id: str, suffix: str) -> Path:
        # A task id is another machine's text; a digest of it is a safe file name.
        return self._root / (hashlib.sha256(task_id.encode()).hexdigest()[:32] + suffix)
