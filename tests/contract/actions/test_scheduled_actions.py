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
from fogline_shared.errors import FoglineError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ACTIONS = actions(Places.of(Path("/data")))


def test_every_action_a_schedule_may_name_exists() -> None:
    assert set(ACTIONS) == set(NAMES)


def test_a_scheduled_run_is_a_run(database: Database) -> None:
    with database.transaction() as session:
        run_id = ACTIONS["run"](session, {"recipe": "tiny", "rounds": 2}, NOW, "schedule:nightly")
        assert get_run(session, run_id).recipe == "tiny"


@pytest.mark.parametrize(
    ("action", "spec", "code"),
    [
        ("run", {"recipe": "tiny", "colour": "red"}, "invalid_run"),
        ("rollout", {}, "invalid_schedule"),
        ("rollout", {"release_id": "champion", "plan": 7}, "release_not_found"),
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
        ACTIONS[action](session, spec, NOW, "schedule:x")
    assert caught.value.code == code
