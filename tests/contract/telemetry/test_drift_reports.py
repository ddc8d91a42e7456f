"""A device whose inputs stay away from its release's is told of once, and once when they are back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import count

import pytest
from fleet import START, Fleet
from sqlalchemy import select

from fogline_server.db.database import Database
from fogline_server.db.events import Event
from fogline_server.devices.tables import Device
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.telemetry.drift import DriftLimit, FleetDrift
from fogline_server.telemetry.evidence import summary
from fogline_server.telemetry.ingest import ingest
from fogline_shared.protocol import TelemetryWindow
from fogline_shared.sketch import Sketch

DIGEST = "ab" * 32
SEQ = count(1)


@pytest.fixture
def fleet(database: Database, doorbell: Doorbell) -> Fleet:
    fleet = Fleet(database, doorbell)
    fleet.enrol(3)
    return fleet


def window(psi: float | None, *, inputs: int = 200, digest: str = DIGEST) -> TelemetryWindow:
    """What a device says that has this index for one feature, less for the other; None: that says nothing of drift."""
    seq = next(SEQ)
    start = START.timestamp() + seq
    return TelemetryWindow(
        boot_id="b1", seq=seq, artifact_digest=digest, start=start, end=start + 1, predictions=1, errors=0,
        latency_us=Sketch(), confidence_pct=Sketch(), drift={} if psi is None else {"mean_0": psi / 2, "spread_0": psi},
        drift_inputs=0 if psi is None else inputs,
    )  # fmt: skip


def take(fleet: Fleet, *windows: TelemetryWindow, device: str = "dev_00", limit: DriftLimit | None = None) -> None:
    for one in windows:
        with fleet.db.transaction() as session:
            now = START + timedelta(seconds=one.seq)
            assert ingest(session, device, one, now=now, drift_limit=limit)


def told(fleet: Fleet) -> Sequence[tuple[str, str, float]]:
    with fleet.db.read() as session:
        found = session.scalars(select(Event).where(Event.kind.like("device.drift%")).order_by(Event.seq)).all()
        return [(event.kind, event.subject_id, event.data["psi"]) for event in found]


def test_it_is_told_once_until_it_ends(fleet: Fleet) -> None:
    take(fleet, window(0.9), window(0.9), window(0.25), window(0.9), window(0.9))
    assert told(fleet) == [], "a report at the limit begins the row anew"
    take(fleet, window(None), window(0.8))
    assert told(fleet) == [("device.drifting", "dev_00", 0.8)], "windows that say nothing interrupt nothing"
    with fleet.db.read() as session:
        device = session.get_one(Device, "dev_00")
        assert device.drifting_since is not None
        assert device.drift is not None
        assert (device.drift["psi"], device.drift["above"]) == ({"mean_0": 0.4, "spread_0": 0.8}, 3)
        assert session.get_one(Device, "dev_01").drift is None
    take(fleet, *(window(0.9) for _ in range(5)))
    assert len(told(fleet)) == 1
    take(fleet, window(0.1), window(0.1))
    assert told(fleet)[1:] == [("device.drift_ended", "dev_00", 0.1)]
    take(fleet, *(window(0.7) for _ in range(3)))
    assert told(fleet)[2:] == [("device.drifting", "dev_00", 0.7)]


def test_a_window_sent_twice_counts_once(fleet: Fleet) -> None:
    twice = window(0.9)
    take(fleet, twice)
    with fleet.db.transaction() as session:
        for _ in range(3):
            assert not ingest(session, "dev_00", twice, now=START)
    assert told(fleet) == []


def test_the_limit_is_the_operators(fleet: Fleet) -> None:
    take(fleet, window(0.2), window(0.2), limit=DriftLimit(psi=0.15, reports=2))
    take(fleet, *(window(0.9) for _ in range(4)), device="dev_01", limit=DriftLimit(psi=1.0))
    assert told(fleet) == [("device.drifting", "dev_00", 0.2)]


def test_a_summary_says_how_the_fleet_drifts_and_who_most(fleet: Fleet) -> None:
    take(fleet, window(0.8), window(0.2, inputs=600))
    take(fleet, window(0.4), window(None), device="dev_01")
    take(fleet, window(None), window(9.0, digest="cd" * 32), device="dev_02")
    with fleet.db.read() as session:
        seen = summary(session, digest=DIGEST, since=START)
        nothing = summary(session, digest=DIGEST, since=START + timedelta(days=1))
    assert seen.drift == FleetDrift(
        devices=2,
        inputs=1000,
        psi=pytest.approx({"mean_0": 0.18, "spread_0": 0.36}),  # type: ignore[arg-type]
        worst_device_id="dev_01",
        worst_psi=0.4,
    )
    assert nothing.drift is None
