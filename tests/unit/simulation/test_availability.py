"""Virtual devices come and go as their availability says, and each has a speed of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fogline_server.simulation.availability import DAY_S, Availability, speed_of
from fogline_shared.errors import InvalidInput


def test_a_diurnal_device_is_there_for_its_hours_each_day() -> None:
    diurnal = Availability.parse("diurnal:6", seed=3)
    minutes = np.arange(0, DAY_S, 60.0)
    days = [[diurnal.there(device, at) for at in minutes] for device in range(20)]
    assert all(sum(day) == pytest.approx(6 * 60, abs=1) for day in days)
    assert len({tuple(day) for day in days}) == 20, "they do not wake at one time"
    assert [diurnal.there(5, at + 3 * DAY_S) for at in minutes] == days[5]


def test_traces_repeat_and_devices_share_them(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("trace,start_s,end_s\nphone,0,10\nphone,50,60\ntablet,20,100\n")
    trace = Availability.parse(f"trace:{path}", seed=0)
    phone = [at for at in range(100) if trace.there(0, at)]
    assert phone == [*range(10), *range(50, 60)]
    assert [at for at in range(100) if trace.there(2, at)] == phone
    assert [at for at in range(100) if trace.there(1, at + 200)] == [*range(20, 100)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("trace,start_s,end_s\n", "has no rows"),
        ("start_s,end_s\n1,2\n", "line 2"),
        ("trace,start_s,end_s\na,0,5\na,9,3\n", "line 3"),
        ("trace,start_s,end_s\na,0,inf\n", "line 2"),
        ("trace,start_s,end_s\na,zero,5\n", "line 2"),
        ("trace,start_s,end_s\na,0\n", "line 2"),
    ],
)
def test_a_bad_trace_is_told_with_its_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(content)
    with pytest.raises(InvalidInput, match=said) as caught:
        Availability.parse(f"trace:{path}", seed=0)
    assert caught.value.code == "invalid_simulation"


def test_a_trace_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        Availability.parse(f"trace:{tmp_path / 'none.csv'}", seed=0)


def test_speeds_have_the_median_that_was_asked_for() -> None:
    speeds = [speed_of(device, median=200.0, spread=0.5, seed=1) for device in range(2000)]
    assert np.median(speeds) == pytest.approx(200.0, rel=0.1)
    assert np.std(np.log(speeds)) == pytest.approx(0.5, rel=0.1)
    assert speed_of(7, median=200.0, spread=0.5, seed=1) == speeds[7]
    assert speed_of(7, median=200.0, spread=0.0, seed=1) == pytest.approx(200.0)
