"""When a schedule is due: through the hours that clocks skip and repeat, and only for times that exist."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fogline_server.schedules.service import ScheduleSpec
from fogline_shared.errors import InvalidInput

BERLIN = ZoneInfo("Europe/Berlin")


def cron(text: str, time_zone: str = "Europe/Berlin") -> ScheduleSpec:
    return ScheduleSpec(name="x", action="run", cron=text, time_zone=time_zone)


def local_times(text: str, start: datetime, hours: float) -> list[str]:
    spec, moment, found = cron(text), start, []
    while (following := spec.next_after(moment)) is not None and following <= start + timedelta(hours=hours):
        found.append(following.astimezone(BERLIN).strftime("%d %H:%M %z"))
        moment = following
    return found


def test_a_time_that_the_clock_shows_twice_fires_once() -> None:
    start = datetime(2026, 10, 24, 22, 0, tzinfo=UTC)
    assert local_times("30 2 * * *", start, 30) == ["25 02:30 +0200", "26 02:30 +0100"]


def test_a_time_that_the_clock_skips_fires_when_it_goes_on() -> None:
    start = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)
    assert local_times("30 2 * * *", start, 40) == ["29 03:00 +0200", "30 02:30 +0200"]


def test_every_hour_is_every_hour_through_the_change() -> None:
    assert len(local_times("0 * * * *", datetime(2026, 10, 24, 21, 30, tzinfo=UTC), 8)) == 8
    assert len(local_times("0 * * * *", datetime(2026, 3, 28, 21, 30, tzinfo=UTC), 8)) == 8


@given(
    minutes=st.integers(0, 6 * 60),
    text=st.sampled_from(["30 2 * * *", "*/20 * * * *", "0 2,3 * * *", "15 2 25 10 *", "59 1 * * 0", "*/7 2 * * *"]),
    day=st.sampled_from([datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 3, 28, 22, tzinfo=UTC)]),
)
def test_the_next_time_is_later_than_now(minutes: int, text: str, day: datetime) -> None:
    moment = day + timedelta(minutes=minutes)
    following = cron(text).next_after(moment)
    assert following is not None
    assert following > moment


@pytest.mark.parametrize(
    "text", ["", "61 * * * *", "0 0 30 2 *", "* * *", "a b c d e", "0 0 1 1 8", "@daily", "x" * 81]
)
def test_a_cron_that_can_never_fire_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        cron(text)
    assert (refused.value.code, refused.value.detail["field"]) == ("invalid_schedule", "cron")


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../etc/passwd", "Europe", "x\x00"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        cron("* * * * *", zone)
    assert refused.value.detail["field"] == "time_zone"
