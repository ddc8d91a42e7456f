"""Reports and telemetry windows, kept until the coordinator has acknowledged them. Bounded; a full disk stops nothing.

Sequence numbers grow over the life of the device, not only of a boot: an acknowledgement of ``n`` covers everything up to
``n``, whichever boot it came from. They start at the clock's milliseconds, so that they also grow when the file is lost.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import structlog

from fogline_shared.protocol import Report, TelemetryWindow
from fogline_shared.sketch import Sketch

log = structlog.get_logger()

Frame = Report | TelemetryWindow

# How many windows (and, apart from them, reports) are kept.
CAPACITY = 20_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS frames (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


class Spool:
    """Thread-safe. ``capacity``: how many windows (and, apart from them, reports) are kept; the oldest go first.

    ``on_put`` is called after each frame, from the thread that put it.
    """

    def __init__(self, path: Path, *, now: float, capacity: int = CAPACITY) -> None:
        self._path = path
        self._capacity = capacity
        self._lock = threading.Lock()
        self._db = _open(path)
        self._acked = 0
        # What the disk had no room for.
        self._unwritten: dict[int, Frame] = {}
        newest = self._db.execute("SELECT max(seq) FROM frames").fetchone()[0] or 0
        self._seq: int = max(newest, self._counter("last_seq"), int(now * 1000))
        self.dropped = self._counter("dropped")
        self.on_put: Callable[[], None] = lambda: None

    def put(self, frame: Frame) -> int:
        """Keep a frame and return its sequence number. Never raises for want of space: memory takes over, bounded too."""
        with self._lock:
            self._seq += 1
            if isinstance(frame, TelemetryWindow):
                frame = replace(frame, seq=self._seq, dropped_windows=self.dropped)
            else:
                frame = replace(frame, seq=self._seq)
            try:
                self._insert(frame)
            except sqlite3.DatabaseError as error:
                log.warning("spool not written", reason=str(error), kept_in_memory=len(self._unwritten) + 1)
                self._unwritten[frame.seq] = frame
                if len(self._unwritten) > self._capacity:
                    self.dropped += 1
                    del self._unwritten[min(self._unwritten)]
        self.on_put()
        return frame.seq

    def pending(self, *, after: int, limit: int = 64) -> Sequence[Frame]:
        """Frames that are not acknowledged, above ``after``, oldest first."""
        with self._lock:
            after = max(after, self._acked)
            rows = self._db.execute(
                "SELECT seq, kind, body FROM frames WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
            ).fetchall()
            frames = {seq: _frame_from(kind, body) for seq, kind, body in rows}
            frames |= {seq: frame for seq, frame in self._unwritten.items() if seq > after}
        return [frames[seq] for seq in sorted(frames)[:limit]]

    def ack(self, seq: int) -> None:
        """Everything up to ``seq`` is safe at the coordinator."""
        with self._lock:
            # A coordinator cannot acknowledge what was never sent; a wrong number must not silence the device.
            seq = min(seq, self._seq)
            if seq <= self._acked:
                return
            self._acked = seq
            self._unwritten = {n: frame for n, frame in self._unwritten.items() if n > seq}
            try:
                with self._db:
                    self._db.execute("DELETE FROM frames WHERE seq <= ?", (seq,))
                    self._set_counter("last_seq", seq)
            except sqlite3.OperationalError as error:
                log.warning("spool not trimmed", reason=str(error))

    def waiting(self) -> int:
        """How many frames are not acknowledged."""
        with self._lock:
            (stored,) = self._db.execute("SELECT count(*) FROM frames WHERE seq > ?", (self._acked,)).fetchone()
            return int(stored) + len(self._unwritten)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _insert(self, frame: Frame) -> None:
        """A report is flushed: what it tells of is settled in the journal next, and would never be told again."""
        if isinstance(frame, TelemetryWindow):
            return self._write(frame)
        self._db.execute("PRAGMA synchronous=FULL")
        try:
            return self._write(frame)
        finally:
            self._db.execute("PRAGMA synchronous=NORMAL")

    def _write(self, frame: Frame) -> None:
        kind = type(frame).__name__
        with self._db:
            self._db.execute("INSERT INTO frames VALUES (?, ?, ?)", (frame.seq, kind, json.dumps(asdict(frame))))
            excess = self._db.execute(
                "DELETE FROM frames WHERE kind = ? AND seq <= (SELECT seq FROM frames WHERE kind = ? ORDER BY seq DESC"
                " LIMIT 1 OFFSET ?)",
                (kind, kind, self._capacity),
            ).rowcount
            if excess and kind == TelemetryWindow.__name__:
                self._set_counter("dropped", self.dropped + excess)
                self.dropped += excess

    def _counter(self, name: str) -> int:
        row = self._db.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def _set_counter(self, name: str, value: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", (name, value))


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            # No room even for an empty file: memory only until the next start.
            log.warning("spool not opened", path=str(path), reason=str(error))
            return _connect(Path(":memory:"))
        log.warning("spool damaged, started anew", path=str(path), reason=str(error))
        path.replace(path.with_name(path.name + ".damaged"))
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        # Damage behind a sound first page would show only at the first look, when nobody can start anew.
        if (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)
        db.executescript(_SCHEMA)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _frame_from(kind: str, body: str) -> Frame:
    form = Report if kind == Report.__name__ else TelemetryWindow
    known = {each.name for each in fields(form)}
    # What an agent of a later version has added is left out: the rest must not be lost with it.
    raw: dict[str, Any] = {name: value for name, value in json.loads(body).items() if name in known}
    if form is Report:
        return Report(**raw)
    for name in ("latency_us", "confidence_pct"):
        raw[name] = Sketch(**raw[name])
    return TelemetryWindow(**raw)
