"""What a run may ask of devices, as a table: every reason beside the nearest device that has none."""

from __future__ import annotations

import json

import pytest

from fogline_shared.eligibility import RANGES, Eligibility
from fogline_shared.errors import InvalidInput

CASES = [
    ("battery_low", {"min_battery_percent": 30}, {"battery_percent": 29}, {"battery_percent": 30}),
    ("battery_low", {"min_battery_percent": 0.5}, {"battery_percent": 0}, {"battery_percent": 1}),
    ("battery_low", {"min_battery_percent": 30}, {"battery_percent": 7, "charging": True}, {}),
    ("not_charging", {"charging": True}, {"battery_percent": 99, "charging": False}, {"charging": True}),
    ("not_charging", {"charging": True}, {"battery_percent": 99}, {}),
    ("not_charging", {"charging": True}, {"charging": "yes"}, {"battery_percent": 1, "charging": True}),
    ("network_metered", {"unmetered": True}, {"metered": True}, {"metered": False}),
    ("network_metered", {"unmetered": True}, {}, {"metered": False}),
    ("memory_low", {"min_free_memory_mb": 512}, {"free_memory_mb": 511}, {"free_memory_mb": 512}),
    ("memory_low", {"min_free_memory_mb": 1}, {}, {"free_memory_mb": 1}),
    ("memory_low", {"min_free_memory_mb": 1}, {"free_memory_mb": "much"}, {"free_memory_mb": 1.5}),
    ("too_few_samples", {"min_samples": 100}, {"samples": 99}, {"samples": 100}),
    ("too_few_samples", {"min_samples": 1}, {"samples": 0}, {}),
    ("consent_missing", {"consent": True}, {}, {"consent": True}),
    ("consent_missing", {"consent": True}, {"consent": 1}, {"consent": True}),
    ("consent_refused", {"consent": True}, {"consent": False}, {"consent": True}),
    ("consent_refused", {}, {"consent": False}, {}),
]


@pytest.mark.parametrize(("code", "asked", "fails", "passes"), CASES)
def test_condition_excludes_who_does_not_meet_it_and_nobody_else(code, asked, fails, passes) -> None:
    conditions = Eligibility(**asked)
    (reason,) = conditions.unmet(fails)
    assert reason.code == code
    assert conditions.unmet(passes) == []


@pytest.mark.parametrize("attributes", [{}, {"battery_percent": 0, "charging": False, "metered": True, "samples": 0}])
def test_by_default_nothing_is_asked(attributes) -> None:
    assert Eligibility().unmet(attributes, since_training_s=0.0) == []


@pytest.mark.parametrize(("since_s", "codes"), [(None, []), (59.9, ["trained_recently"]), (60.0, []), (-5.0, [])])
def test_trainings_keep_their_distance_unless_a_clock_went_back(since_s, codes) -> None:
    reasons = Eligibility(min_separation_s=60).unmet({}, since_training_s=since_s)
    assert [reason.code for reason in reasons] == codes


def test_all_reasons_are_told_in_words() -> None:
    asked = Eligibility(
        min_battery_percent=50,
        charging=True,
        unmetered=True,
        min_free_memory_mb=512,
        min_samples=100,
        consent=True,
        min_separation_s=3600,
    )
    told = {"battery_percent": 12, "charging": False, "metered": True, "free_memory_mb": 200, "samples": 7}
    assert [reason.text for reason in asked.unmet(told, since_training_s=60.4)] == [
        "has a battery at 12 %, asked are 50 %",
        "is not charging",
        "is on a metered network",
        "has 200 MB of free memory, asked are 512 MB",
        "has 7 samples, asked are 100",
        "has no consent of its owner",
        "trained 60 s ago, asked are 3600 s in between",
    ]
    assert [reason.text for reason in asked.unmet({"consent": False, "battery_percent": 50, "charging": True})] == [
        "does not tell whether its network is metered",
        "does not tell its free memory, asked are 512 MB",
        "must not train: its owner does not consent",
    ]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        *(
            ({name: low - 1}, f"eligibility.{name} must be .* from {low} to {high}")
            for name, (low, high) in RANGES.items()
        ),
        *(({name: high + 1}, f"from {low} to {high}, got {high + 1}") for name, (low, high) in RANGES.items()),
        ({"min_battery_percent": float("nan")}, "got nan"),
        ({"min_battery_percent": True}, "must be a number"),
        ({"min_samples": 10**400}, "min_samples must be an integer"),
        ({"min_samples": 1.5}, "must be an integer"),
        ({"min_samples": "7"}, "got '7'"),
        ({"charging": 1}, "charging must be true or false"),
        ({"consent": "no"}, "consent must be true or false"),
        ({"colour": "red"}, "eligibility.colour is no condition; conditions: min_battery_percent"),
    ],
)
def test_impossible_condition_is_named_with_its_range(asked, says) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        Eligibility.from_json(asked)
    assert caught.value.code == "invalid_eligibility"


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"min_samples": -1}', "[" * 100_000])
def test_text_that_is_no_conditions_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid_eligibility"):
        Eligibility.parse(text)


def test_conditions_survive_their_way_to_the_device() -> None:
    asked = Eligibility(min_battery_percent=12.5, charging=True, min_samples=3)
    assert Eligibility.parse(json.dumps(asked.as_json())) == asked
    assert Eligibility.parse("") == Eligibility.parse("{}") == Eligibility()
