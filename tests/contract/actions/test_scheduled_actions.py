"""What a schedule may start: each action's own honest spec, and the ones it refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fogline_server.actions import actions
from fogline_server.batch.places import Places
from fogline_server.db.database import Database
from fogline_server.schedules.service import ACTIONS as NAMES
from fogline_server.training.service import get_run
from fogline_shared.errors import FoglineError, InvalidInput

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ACTIONS = actions(Places.of(Path("/data")))


def test_every_action_a_schedule_may_name_exists() -> None:
    assert set(ACTIONS) == set(NAMES)


def test_a_scheduled_run_is_a_run(database: Database) -> None:
    with database.transaction() as session:
        run_id = ACTIONS["run"].start(session, {"recipe": "tiny", "rounds": 2}, NOW, "schedule:nightly")
        assert get_run(session, run_id).recipe == "tiny"


@pytest.mark.parametrize(
    ("action", "spec", "code"),
    [
        ("run", {"recipe": "tiny", "colour": "red"}, "invalid_schedule"),
        ("rollout", {}, "invalid_schedule"),
        ("rollout", {"release_id": "champion", "plan": 7}, "invalid_schedule"),
        ("rollout", {"release_id": "champion"}, "release_not_found"),
        ("rollout", {"release_id": "champion", "when": "now"}, "invalid_schedule"),
        ("job", {"kind": "train"}, "invalid_schedule"),
        ("job", {"release_id": "champion", "input": "a.parquet"}, "invalid_schedule"),
        ("job", {"release_id": "champion", "input": "a.parquet", "output": "b.parquet"}, "release_not_found"),
        ("job", {"release_id": "champion", "input": "/etc/a.parquet", "output": "b"}, "path_not_allowed"),
    ],
)
def test_a_spec_that_cannot_be_right_starts_nothing(
    sqlite_database: Database, action: str, spec: dict, code: str
) -> None:
    with sqlite_database.transaction() as session, pytest.raises(FoglineError) as caught:
        ACTIONS[action].start(session, spec, NOW, "schedule:x")
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("action", "spec", "code", "field"),
    [
        ("run", {}, "invalid_schedule", "recipe"),
        ("run", {"recipe": "tiny", "rounds": "ten"}, "invalid_schedule", "rounds"),
        ("run", {"recipe": "tiny", "rounds": -1}, "invalid_run", "rounds"),
        ("run", {"recipe": "tiny", "tags": "north"}, "invalid_schedule", "tags"),
        ("run", {"recipe": "tiny", "plan": [1]}, "invalid_schedule", "plan"),
        ("run", {"recipe": "tiny", "init_from": 7}, "invalid_schedule", "init_from"),
        ("run", {"recipe": "tiny", "strategy": "hope"}, "unknown_strategy", None),
        ("run", {"recipe": "tiny", "eligibility": {"charging": "yes"}}, "invalid_schedule", "eligibility.charging"),
        (
            "run",
            {"recipe": "tiny", "eligibility": {"min_samples": -1}},
            "invalid_eligibility",
            "eligibility.min_samples",
        ),
        ("run", {"recipe": "tiny", "eligibility": {"moon": 1}}, "invalid_eligibility", "eligibility.moon"),
        ("run", {"recipe": "tiny", "size": "colossal"}, "unknown_size", None),
        ("run", {"recipe": "nobody-has-it"}, "unknown_recipe", None),
        ("rollout", {}, "invalid_schedule", "release_id"),
        ("rollout", {"release_id": "champion", "plan": 7}, "invalid_schedule", "plan"),
        ("rollout", {"release_id": "champion", "plan": {"stages": [50]}}, "invalid_plan", "stages"),
        ("rollout", {"release_id": "champion", "plan": {"gates": [{"gate": "vibes"}]}}, "unknown_gate", None),
        ("job", {"release_id": "champion", "input": "a.parquet"}, "invalid_schedule", "output"),
        ("job", {"release_id": "r", "input": "a", "output": "b", "batch_size": "x"}, "invalid_schedule", "batch_size"),
        ("job", {"release_id": "r", "input": "a", "output": "a"}, "invalid_batch_spec", None),
        ("job", {"release_id": "r", "input": "/etc/passwd", "output": "b"}, "path_not_allowed", None),
    ],
)
def test_a_spec_that_can_never_be_right_is_refused_before_it_is_due(
    action: str, spec: dict, code: str, field: str | None
) -> None:
    with pytest.raises(InvalidInput) as caught:
        ACTIONS[action].check(spec)
    assert (caught.value.code, field is None or caught.value.detail["field"] == field) == (code, True)


@pytest.mark.parametrize(
    ("action", "spec"),
    [
        ("run", {"recipe": "tiny", "rounds": 2, "tags": ["north"], "quorum": 1, "plan": {"learning_rate": 0.1}}),
        ("rollout", {"release_id": "not-there-yet", "plan": {"stages": [10, 100]}}),
        ("job", {"kind": "batch", "release_id": "champion", "input": "a.parquet", "output": "b.parquet"}),
    ],
)
def test_what_is_named_may_come_into_being_later(action: str, spec: dict) -> None:
    ACTIONS[action].check(spec)
