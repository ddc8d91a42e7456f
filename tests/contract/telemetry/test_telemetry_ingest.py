"""Windows are stored once, nonsense not at all, and evidence adds up what was stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fleet import START, Fleet, Model
from sqlalchemy import func, insert, select

from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.telemetry.evidence import Evidence, balanced, evidence, summary
from fogline_server.telemetry.ingest import ingest
from fogline_server.telemetry.tables import Window
from fogline_server.telemetry.tick import KEEP, tick
from fogline_shared.errors import InvalidInput
from fogline_shared.protocol import TelemetryWindow
from fogline_shared.sketch import Sketch

DIGEST = "ab" * 32


def window(**changes: Any) -> TelemetryWindow:
    confidence, latency = Sketch(), Sketch()
    for value in (50.0, 90.0):
        confidence.add(value)
        latency.add(10 * value)
    plain = TelemetryWindow(
        boot_id="b1", seq=1, artifact_digest=DIGEST, start=START.timestamp(), end=START.timestamp() + 10, predictions=3,
        errors=1, labelled=2, correct=1, latency_us=latency, confidence_pct=confidence, class_counts=(2, 0, 1),
        dropped_windows=4,
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.fixture
def fleet(database: Database, doorbell: Doorbell) -> Fleet:
    fleet = Fleet(database, doorbell)
    fleet.enrol(3)
    return fleet


def take(fleet: Fleet, device_id: str, value: TelemetryWindow, **late: float) -> bool:
    with fleet.db.transaction() as session:
        return ingest(session, device_id, value, now=START + timedelta(**late))


def test_a_window_sent_twice_counts_once(fleet: Fleet) -> None:
    assert take(fleet, "dev_00", window())
    assert not take(fleet, "dev_00", window())
    assert take(fleet, "dev_01", window())
    assert take(fleet, "dev_00", window(boot_id="b2"))
    with fleet.db.read() as session:
        assert session.scalar(select(func.count()).select_from(Window)) == 3


def test_evidence_adds_up_by_artifact_device_and_time(fleet: Fleet) -> None:
    take(fleet, "dev_00", window())
    take(fleet, "dev_00", window(seq=2), hours=2)
    take(fleet, "dev_01", window())
    take(fleet, "dev_02", window(artifact_digest="cd" * 32))
    with fleet.db.read() as session:
        all_of_it = evidence(session, digests=[DIGEST], devices=None, since=START)
        some = evidence(session, digests=[DIGEST], devices=["dev_00", "dev_02"], since=START + timedelta(hours=1))
        none = evidence(session, digests=[], devices=None, since=START)
        nobody = evidence(session, digests=[DIGEST], devices=[], since=START)
    assert (all_of_it.devices, all_of_it.predictions, all_of_it.errors) == (2, 9, 3)
    assert (all_of_it.labelled, all_of_it.correct, all_of_it.confidence_count) == (6, 3, 6)
    assert all_of_it.confidence_sum == pytest.approx(4.2)
    assert (some.devices, some.predictions) == (1, 3)
    assert none == nobody
    assert none.predictions == 0


def test_a_summary_merges_the_distributions(fleet: Fleet) -> None:
    take(fleet, "dev_00", window())
    take(fleet, "dev_01", window(class_counts=(1,)))
    with fleet.db.read() as session:
        seen = summary(session, digest=DIGEST, since=START)
    assert seen.latency_us.count == 4
    assert seen.confidence_pct.quantile(0.0) == pytest.approx(50, rel=0.06)
    assert list(seen.class_counts) == [3, 0, 1]
    assert seen.dropped_windows == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"artifact_digest": ""}, {"artifact_digest": "AB" * 32}, {"artifact_digest": "x\x00"}, {"boot_id": ""},
        {"boot_id": "b\x00"}, {"boot_id": "b" * 61}, {"seq": 2**64 - 1}, {"predictions": 2**63}, {"errors": 4},
        {"labelled": 4}, {"correct": 3}, {"end": 0.0}, {"start": 1e300, "end": 1e300}, {"class_counts": (2**60,)},
        {"class_counts": (0,) * 200_000}, {"confidence_pct": Sketch(counts=[1] * 192, sum=5.0)},
        {"confidence_pct": Sketch(counts=[1] + [0] * 191, sum=1e9)}, {"dropped_windows": -1},
        {"confidence_pct": Sketch(counts=[1] + [0] * 191, sum=float("nan"))},
        {"latency_us": Sketch(counts=[1] + [0] * 191, sum=float("nan"))},
        {"latency_us": Sketch(counts=[1] + [0] * 191, sum=float("inf"))},
        {"latency_us": Sketch(counts=[1] + [0] * 191, sum=1e308)},
        {"latency_us": Sketch(counts=[1] + [0] * 191, sum=-5.0)},
        {"latency_us": Sketch(counts=[9] + [0] * 191, sum=1.0)}, {"latency_us": Sketch(counts=[1] * 7, sum=1.0)},
        {"latency_us": Sketch(counts=[-1, 2] + [0] * 190, sum=1.0)}, {"drift": {"mean_0": 1.0}}, {"drift_inputs": 5},
        {"drift": {"mean_0": float("nan")}, "drift_inputs": 5}, {"drift": {"mean_0": float("inf")}, "drift_inputs": 5},
        {"drift": {"mean_0": -0.1}, "drift_inputs": 5}, {"drift": {"": 0.1}, "drift_inputs": 5},
        {"drift": {"m\x00": 0.1}, "drift_inputs": 5}, {"drift": {"m" * 61: 0.1}, "drift_inputs": 5},
        {"drift": {f"m{i}": 0.1 for i in range(65)}, "drift_inputs": 5}, {"drift": {"m": 0.1}, "drift_inputs": 2**60},
    ],
)  # fmt: skip
def test_a_window_no_honest_device_sends_is_refused(fleet: Fleet, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="invalid_window"):
        take(fleet, "dev_00", window(**changes))
    assert take(fleet, "dev_00", window())


def test_old_windows_are_dropped_and_young_ones_kept(fleet: Fleet) -> None:
    fleet.models[DIGEST] = Model()
    take(fleet, "dev_00", window())
    take(fleet, "dev_00", window(seq=2), days=20)
    assert tick(fleet.db, now=START + KEEP) == 0
    assert tick(fleet.db, now=START + KEEP + timedelta(seconds=1)) == 1
    with fleet.db.read() as session:
        assert session.scalars(select(Window.seq)).all() == [2]


def test_a_fleet_that_measures_faster_than_one_batch_a_tick_is_still_cleaned_up(fleet: Fleet) -> None:
    take(fleet, "dev_00", window())
    with fleet.db.transaction() as session:
        row = {c.name: getattr(session.get_one(Window, 1), c.name) for c in Window.__table__.columns if c.name != "id"}
        session.execute(insert(Window), [row | {"seq": seq} for seq in range(2, 4502)])
    take(fleet, "dev_01", window(), days=20)
    assert tick(fleet.db, now=START + KEEP + timedelta(days=1)) == 4501
    with fleet.db.read() as session:
        assert session.scalars(select(Window.device_id)).all() == ["dev_01"]


def part(predictions: int, errors: int = 0, correct: int = 0) -> Evidence:
    return Evidence(
        devices=1, predictions=predictions, errors=errors, labelled=predictions, correct=correct,
        confidence_sum=0.5 * predictions, confidence_count=predictions,
    )  # fmt: skip


def test_no_device_counts_for_more_than_all_others_together() -> None:
    seen = balanced([part(100, errors=30, correct=60), part(50, errors=15, correct=30), part(10**9, correct=10**9)])
    assert (seen.devices, seen.predictions, seen.errors) == (3, 300, 45)
    assert (seen.labelled, seen.correct, seen.confidence_count) == (300, 240, 300)
    assert seen.confidence_sum == pytest.approx(150)


@pytest.mark.parametrize(
    "parts", [[], [part(70, errors=7)], [part(70, errors=7), part(0)], [part(5), part(9), part(8)]]
)
def test_evidence_that_nobody_dominates_or_one_device_alone_has_stays_as_it_is(parts: list[Evidence]) -> None:
    assert balanced(parts) == sum(parts, Evidence())
