"""A plan is right or refused, field by field, and survives its JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fogline_server.rollouts.admission import quota
from fogline_server.rollouts.plan import RolloutPlan
from fogline_shared.errors import InvalidInput


def test_a_plan_survives_json() -> None:
    plan = RolloutPlan.from_json(
        {"stages": [1, 10.5, 100], "tags": ["north"], "gates": [{"gate": "accuracy", "options": {"minimum": 0.7}}]}
    )
    assert RolloutPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert RolloutPlan.from_json({}) == RolloutPlan()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stages", []), ("stages", [50]), ("stages", [50, 20, 100]), ("stages", [50, 50, 100]), ("stages", [0, 100]),
        ("stages", [100, 200]), ("stages", "100"), ("stages", [float("nan"), 100]), ("stages", ["a", 100]),
        ("stages", [True, 100]), ("stages", [None]), ("stages", {"a": 1}), ("stages", [*range(1, 100), 100]),
        ("gates", [3]), ("gates", [{"gate": 3}]), ("gates", [{"gate": "accuracy", "options": 3}]), ("gates", "x"),
        ("gates", [{"gate": "error_rate"}, {"gate": "error_rate"}]), ("gates", [{"gate": "error_rate", "extra": 1}]),
        ("tags", [1]), ("tags", [""]), ("tags", "north"), ("variant", 3), ("variant", "x" * 41),
        ("soak_s", -1), ("soak_s", float("inf")), ("soak_s", 1e12), ("admit_timeout_s", 0), ("probation_s", "5"),
        ("success_percent", 0), ("success_percent", 101), ("max_failures", -1), ("max_failures", 1.5),
        ("max_failures", True), ("supersede", "yes"), ("nonsense", 1),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        RolloutPlan.from_json({field: value})
    assert (refused.value.code, refused.value.detail["field"]) == ("invalid_plan", field)


@given(percent=st.floats(0.001, 100), reachable=st.integers(0, 10**6))
def test_a_stage_is_never_empty_and_never_more_than_the_fleet(percent: float, reachable: int) -> None:
    assert min(1, reachable) <= quota(percent, reachable) <= reachable
    assert quota(100.0, reachable) == reachable
