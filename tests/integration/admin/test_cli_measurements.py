"""``fogline release measure``: who is asked, what is told of the answers, and a pick by what devices measured."""

from __future__ import annotations

import threading

import pytest
from parts import eventually

from fogline_server.cli.exits import Exit
from fogline_server.db.base import utc_now
from fogline_server.devices.tables import Device
from fogline_server.registry.tables import Measurement


@pytest.fixture
def answer(sqlite_plant):
    """Have a measurement of a variant answered: with a median, or with a code."""

    def answer_(measurement_id: str, p50_us: float | None = None, code: str = "battery_low") -> None:
        figures = {"p50_us": p50_us, "p99_us": 900.0, "memory_bytes": 60 << 20, "load_ms": 3.0, "engine": "e"}
        with sqlite_plant.db.transaction() as session:
            row = session.get_one(Measurement, measurement_id)
            row.answered_at = utc_now()
            row.state = "DONE" if p50_us else "FAILED"
            row.metrics = figures if p50_us else None
            row.error = None if p50_us else {"code": code, "message": "at 3 %"}

    return answer_


@pytest.fixture
def pi4(sqlite_plant) -> list[str]:
    """Three devices of the class, online."""
    with sqlite_plant.db.transaction() as session:
        rows = session.query(Device).filter(Device.lease_until > utc_now()).order_by(Device.id).limit(3).all()
        for row in rows:
            row.device_class = "pi4"
        return [row.name for row in rows]


def test_online_devices_of_a_class_are_asked_once_summarised_and_picked_by(fogline, pi4, answer) -> None:
    ask = ("release", "measure", "champion", "--class", "pi4", "--variant", "student_int8", "--json")
    asked = fogline(*ask).json
    assert sorted(each["device_name"] for each in asked) == sorted(pi4)
    assert {(each["variant"], each["state"], each["device_class"]) for each in asked} == {
        ("student_int8", "ASKED", "pi4")
    }
    assert [each["id"] for each in fogline(*ask).json] == [each["id"] for each in asked]
    for each, p50_us in zip(asked, (300.0, 100.0, None), strict=True):
        answer(each["id"], p50_us)
    shown = fogline("release", "show", "champion").out.splitlines()
    heading, row = (next(line for line in shown if line.startswith(start)) for start in ("device class", "pi4"))
    assert "no answer" in heading
    assert row.split() == ["pi4", "student_int8", "2", "200", "900", "60", "MiB", "battery_low", "(1)"]
    listed = fogline("release", "measurements", "champion").out
    assert ("battery_low: at 3 %" in listed, listed.count("DONE")) == (True, 2)
    # One that has measured and cannot today has still measured.
    again = fogline(*ask).json
    answer(next(each["id"] for each in again if each["device_id"] == asked[0]["device_id"]), code="update_under_way")
    assert fogline("release", "show", "champion").out.count("battery_low (1)") == 1

    # A pick by what the class has measured takes nothing it has not.
    pick = ("release", "pick", "champion", "--class", "pi4", "--max-p50-us")
    chosen = fogline(*pick, 500, "--json").json
    assert (chosen["taken"], {each["name"]: (each["p50_us"], each["refused"]) for each in chosen["variants"]}) == (
        "student_int8",
        {
            "student_int8": (200.0, []),
            "student_fp32": (None, ["latency not measured, 500 allowed"]),
            "teacher_fp32": (None, ["latency not measured, 500 allowed"]),
        },
    )
    nothing = fogline(*pick, 199)
    assert (nothing.code, "200 µs, 199 allowed" in nothing.out) == (Exit.FAILED, True)
    assert "no device of class pi4 has measured teacher_fp32" in nothing.err


def test_wait_ends_with_the_answers_and_fails_where_nothing_was_measured(fogline, sqlite_plant, pi4, answer) -> None:
    def answers(p50_us: float | None) -> None:
        asked: list[str] = []

        def look() -> list[str]:
            with sqlite_plant.db.read() as session:
                asked[:] = [row.id for row in session.query(Measurement).filter(Measurement.state == "ASKED")]
            return asked

        eventually(look)
        for measurement_id in asked:
            answer(measurement_id, p50_us)

    ask = ("release", "measure", "champion", "--class", "pi4", "--variant", "student_int8", "--wait", "--expires-s", 15)
    for p50_us, code, told in (
        (None, Exit.FAILED, "no device has measured anything: battery_low"),
        (300.0, Exit.OK, "300"),
    ):
        answering = threading.Thread(target=answers, args=(p50_us,))
        answering.start()
        said = fogline(*ask)
        answering.join()
        assert (said.code, told in said.out + said.err) == (code, True), said.err


def test_a_named_device_need_not_be_online_and_what_cannot_be_asked_is_told_by_its_code(fogline, sqlite_plant) -> None:
    asked = fogline("release", "measure", "champion", "--device", sqlite_plant.ids.offline_device, "--json").json
    assert [each["variant"] for each in asked] == ["student_fp32", "student_int8"]
    for wrong, code, exit_code in (
        (("--device", "nobody"), "device_not_found", Exit.NOT_FOUND),
        (("--class", "toaster"), "no_devices_online", Exit.CONFLICT),
        (("--class", "pi4", "--device", "watch-01"), "invalid_measurement", Exit.INVALID),
        (("--expires-s", 1), "invalid_measurement", Exit.INVALID),
        (("--devices", 100_000), "invalid_measurement", Exit.INVALID),
        (("--variant", "huge"), "variant_not_found", Exit.NOT_FOUND),
    ):
        said = fogline("release", "measure", "champion", *wrong)
        assert (said.code, code in said.err) == (exit_code, True), said.err
