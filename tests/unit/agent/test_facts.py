"""What a device tells of itself, and when it tells it again."""

from __future__ import annotations

import pytest

from fogline_client import config as settings
from fogline_client.attributes import Facts, worth_telling
from fogline_client.config import AgentConfig
from fogline_shared.errors import InvalidInput

TOLD = {"arch": "arm64", "battery_percent": 50, "charging": False, "free_memory_mb": 1000}


def facts(**config: object) -> tuple[Facts, list[str]]:
    """Facts of a device, and a list that grows each time it speaks."""
    spoke: list[str] = []
    return Facts(AgentConfig(name="watch", **config), changed=lambda: spoke.append("!")), spoke


def test_device_tells_what_is_measured_and_what_its_owner_says() -> None:
    told = facts(metered=True, consent=False)[0].told
    assert {"arch", "cores", "memory_mb"} <= told.keys()
    assert 0 < told["free_memory_mb"] <= told["memory_mb"]
    assert (told["metered"], told["consent"]) == (True, False)
    silent = facts()[0].told
    assert silent["metered"] is False
    assert not {"consent", "samples"} & silent.keys(), "what nobody knows is not told"


def test_what_was_configured_wins_over_what_is_measured() -> None:
    told = facts(attributes={"battery_percent": 12, "charging": False, "floor": 2})[0].told
    assert (told["battery_percent"], told["charging"], told["floor"]) == (12, False, 2)


@pytest.mark.parametrize(
    ("changes", "worth"),
    [
        ({}, False),
        ({"battery_percent": 46}, False),
        ({"battery_percent": 45}, True),
        ({"battery_percent": 55}, True),
        ({"charging": True}, True),
        ({"free_memory_mb": 751}, False),
        ({"free_memory_mb": 750}, True),
        ({"free_memory_mb": 1250}, True),
        ({"samples": 7}, True),
        ({"consent": False}, True),
        ({"free_memory_mb": None}, True),
    ],
)
def test_only_a_change_that_matters_is_told(changes: dict, *, worth: bool) -> None:
    now = {name: value for name, value in {**TOLD, **changes}.items() if value is not None}
    assert worth_telling(TOLD, now) is worth


def test_news_are_told_once() -> None:
    device, spoke = facts(attributes={"free_memory_mb": 1000})
    device.look()
    assert spoke == []
    device.samples = 7
    device.look()
    device.look()
    assert (spoke, device.told["samples"]) == (["!"], 7)


@pytest.mark.parametrize("wrong", [{"consent": "no"}, {"consent": 0}, {"metered": "yes"}, {"metered": None}])
def test_settings_that_mean_nothing_are_refused_at_the_start(wrong: dict) -> None:
    with pytest.raises(InvalidInput, match="bad_option"):
        AgentConfig(name="watch", **wrong)


def test_attributes_of_the_command_line_have_types() -> None:
    texts = [
        "floor=2",
        "charging=false",
        "lit=true",
        "load=0.5",
        "site=north",
        "odd=[1]",
        "none=null",
        "nan=NaN",
        "t=1 2",
    ]
    assert settings.facts(texts) == {
        "floor": 2,
        "charging": False,
        "lit": True,
        "load": 0.5,
        "site": "north",
        "odd": "[1]",
        "none": "null",
        "nan": "NaN",
        "t": "1 2",
    }
