"""What a power cut leaves of the spool: every report that was put, windows from the oldest on, numbers that go on growing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from fogline_client.telemetry.spool import Spool
from fogline_shared.protocol import Report, TelemetryWindow
from fogline_shared.sketch import Sketch

REPORT = Report(assignment_id="asg_1", attempt=1, seq=0, boot_id="boot", state="STAGED", generation=3)
WINDOW = TelemetryWindow(
    boot_id="boot",
    seq=0,
    artifact_digest="a" * 64,
    start=1.0,
    end=2.0,
    predictions=1,
    errors=0,
    latency_us=Sketch(),
    confidence_pct=Sketch(),
    class_counts=(0, 1),
)
STEP = 512


@dataclass(kw_only=True)
class Moment:
    """The files after something was done. ``flushed``: so much of the log is sure to be on the disk."""

    main: bytes
    log: bytes
    flushed: int
    # What was put, what of it must be there, and what must not.
    put: list[int]
    reports: set[int]
    acked: int


def moments(path: Path) -> list[Moment]:
    """A life of a spool, and how it flushed."""
    spool = Spool(path, now=1.0)
    statements: list[str] = []
    spool._db.set_trace_callback(statements.append)
    done: list[Moment] = []
    put: list[int] = []
    reports: set[int] = set()
    acked = flushed = 0
    log = path.with_name(path.name + "-wal")
    for kind in "wrwwrawrwwwarw":
        statements.clear()
        if kind == "a":
            acked = put[-2]
            spool.ack(acked)
            reports = {seq for seq in reports if seq > acked}
        else:
            put.append(spool.put(REPORT if kind == "r" else WINDOW))
        if kind == "r":
            reports.add(put[-1])
            # With FULL the log is flushed at each commit, with NORMAL only now and then.
            full, commit = statements.index("PRAGMA synchronous=FULL"), statements.index("COMMIT")
            assert full < commit < statements.index("PRAGMA synchronous=NORMAL")
            flushed = log.stat().st_size
        done.append(
            Moment(
                main=path.read_bytes(),
                log=log.read_bytes(),
                flushed=flushed,
                put=list(put),
                reports=set(reports),
                acked=acked,
            )
        )
    assert spool._db.execute("PRAGMA synchronous").fetchone() == (1,)
    spool.close()
    return done


@pytest.mark.parametrize("zeros", [False, True], ids=["cut off", "zeros behind"])
def test_power_cut_at_each_write_of_the_spool(tmp_path: Path, *, zeros: bool) -> None:
    folder = tmp_path / "left"
    folder.mkdir()
    path, log, states = folder / "spool.db", folder / "spool.db-wal", 0
    for moment in moments(tmp_path / "spool.db"):
        # What was flushed before may be cut off nowhere, what came after at any place.
        for length in range(moment.flushed, len(moment.log) + STEP, STEP):
            path.write_bytes(moment.main)
            left = moment.log[:length]
            log.write_bytes(left + bytes(len(moment.log) - len(left)) if zeros else left)
            spool = Spool(path, now=time.time())
            waiting = [frame.seq for frame in spool.pending(after=0)]
            assert moment.reports <= set(waiting) <= set(moment.put), (moment.put, length)
            later = [seq for seq in waiting if seq > moment.acked]
            assert later == [seq for seq in moment.put if seq > moment.acked][: len(later)], "none is left out"
            assert spool.put(WINDOW) > max(moment.put)
            spool.close()
            assert sorted(each.name for each in folder.iterdir()) == ["spool.db"], "nothing was set aside"
            states += 1
    assert states > 350
