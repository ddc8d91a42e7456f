"""The spool: numbers that only grow, bounds that count, a disk that is full or damaged."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fogline_client.telemetry.spool import Spool
from fogline_shared.protocol import Report, TelemetryWindow
from fogline_shared.sketch import Sketch

REPORT = Report(assignment_id="asg_1", attempt=1, seq=0, boot_id="boot", state="STAGED", generation=3)


def window(predictions: int = 1) -> TelemetryWindow:
    latency = Sketch()
    latency.add(120.0)
    return TelemetryWindow(
        boot_id="boot",
        seq=0,
        artifact_digest="a" * 64,
        start=1.0,
        end=2.0,
        predictions=predictions,
        errors=0,
        latency_us=latency,
        confidence_pct=Sketch(),
        class_counts=(0, 1),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def test_frames_come_back_whole_in_order_until_acknowledged(path: Path) -> None:
    spool = Spool(path, now=1.0)
    first, second = spool.put(REPORT), spool.put(window())
    assert spool.pending(after=0) == [
        replace(REPORT, seq=first),
        replace(window(), seq=second, class_counts=[0, 1]),
    ]
    spool.ack(first)
    assert [frame.seq for frame in spool.pending(after=0)] == [second]
    assert spool.pending(after=second) == []


def test_restart_keeps_frames_and_numbers_go_on_growing(path: Path) -> None:
    spool = Spool(path, now=1.0)
    kept = spool.put(REPORT)
    spool.close()
    again = Spool(path, now=0.5)
    assert [frame.seq for frame in again.pending(after=0)] == [kept]
    assert again.put(REPORT) > kept
    again.ack(again.put(REPORT))
    last = again.put(REPORT)
    again.ack(last)
    again.close()
    assert Spool(path, now=0.0).put(REPORT) > last, "even when nothing is left and the clock went back"


def test_frames_of_an_earlier_and_of_a_later_agent_are_sent(path: Path) -> None:
    spool = Spool(path, now=1.0)
    told = replace(window(), drift={"mean_0": 0.5}, drift_inputs=200)
    for frame in (REPORT, told):
        spool.put(frame)
    spool.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE frames SET body = json_set(body, '$.of_tomorrow', 1)")
    later = Spool(path, now=1.0)
    assert [replace(frame, seq=0) for frame in later.pending(after=0)] == [REPORT, replace(told, class_counts=[0, 1])]
    later.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE frames SET body = json_remove(body, '$.of_tomorrow', '$.drift', '$.drift_inputs')")
    earlier = Spool(path, now=1.0).pending(after=0)
    assert [replace(frame, seq=0) for frame in earlier] == [REPORT, replace(window(), class_counts=[0, 1])]


def test_lost_file_does_not_reuse_numbers(path: Path) -> None:
    spool = Spool(path, now=time.time())
    last = spool.put(REPORT)
    spool.close()
    path.unlink()
    time.sleep(0.01)
    assert Spool(path, now=time.time()).put(REPORT) > last


def test_weeks_offline_drop_the_oldest_windows_and_count_them(path: Path) -> None:
    spool = Spool(path, now=1.0, capacity=5)
    report = spool.put(REPORT)
    seqs = [spool.put(window(i + 1)) for i in range(8)]
    pending = spool.pending(after=0)
    assert [frame.seq for frame in pending] == [report, *seqs[3:]], "reports are not pushed out by telemetry"
    assert spool.dropped == 3
    spool.close()
    spool = Spool(path, now=1.0, capacity=5)
    spool.put(window())
    assert spool.pending(after=0)[-1].dropped_windows == 3


def test_full_disk_keeps_frames_in_memory_and_a_later_one_on_disk(path: Path) -> None:
    spool = Spool(path, now=1.0)
    pages = spool._db.execute("PRAGMA page_count").fetchone()[0]
    spool._db.execute(f"PRAGMA max_page_count={pages}")
    seqs = [spool.put(window()) for _ in range(20)]
    assert [frame.seq for frame in spool.pending(after=0, limit=100)] == seqs
    assert spool.waiting() == 20
    spool._db.execute("PRAGMA max_page_count=100000")
    seqs.append(spool.put(REPORT))
    spool.ack(seqs[9])
    assert [frame.seq for frame in spool.pending(after=0, limit=100)] == seqs[10:]


def test_full_disk_memory_is_bounded(path: Path) -> None:
    spool = Spool(path, now=1.0, capacity=10)
    spool._db.execute(f"PRAGMA max_page_count={spool._db.execute('PRAGMA page_count').fetchone()[0]}")
    for _ in range(40):
        spool.put(window())
    assert spool.waiting() <= 20
    assert spool.dropped >= 20


def test_damaged_file_is_set_aside(path: Path) -> None:
    path.write_bytes(b"this is no database" * 500)
    spool = Spool(path, now=1.0)
    seq = spool.put(REPORT)
    assert [frame.seq for frame in spool.pending(after=0)] == [seq]
    assert path.with_name("spool.db.damaged").exists()


def test_damage_behind_a_sound_first_page_is_seen_at_the_start(path: Path) -> None:
    spool = Spool(path, now=1.0)
    for _ in range(500):
        spool.put(REPORT)
    spool.close()
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    spool = Spool(path, now=1.0)
    seq = spool.put(REPORT)
    assert [frame.seq for frame in spool.pending(after=0)] == [seq]
    assert path.with_name("spool.db.damaged").exists()


def test_acknowledgement_of_what_was_never_sent_silences_nothing(path: Path) -> None:
    spool = Spool(path, now=1.0)
    spool.ack(2**62)
    seq = spool.put(REPORT)
    assert [frame.seq for frame in spool.pending(after=0)] == [seq]


def test_unknown_place_serves_from_memory(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "no such folder" / "spool.db", now=1.0)
    seq = spool.put(REPORT)
    assert [frame.seq for frame in spool.pending(after=0)] == [seq]
    with pytest.raises(sqlite3.OperationalError):
        sqlite3.connect(tmp_path / "no such folder" / "spool.db")
