"""Every route of the OpenAPI document succeeds once, and refuses what it must: a new route without a case here fails."""

from __future__ import annotations

import pytest
from api_cases import ALONE, CASES, PROBLEM, send


def test_every_route_succeeds(plant):
    with plant.client() as client:
        for method, route, given, expected in CASES:
            response = send(client, plant, method, route, given)
            assert response.status_code == expected, f"{method} {route}: {response.status_code} {response.text}"
    assert {(m, r) for m, r, _ in plant.operations()} == {(m, r) for m, r, _, _ in CASES} | ALONE


def test_a_draft_starts_once_nothing_is_in_its_way(plant):
    with plant.client() as client:
        in_the_way = client.post(f"/v1/rollouts/{plant.ids.draft}:start")
        assert (in_the_way.status_code, in_the_way.json()["code"]) == (409, "rollout_active")
        client.post(f"/v1/rollouts/{plant.ids.rollout}:rollback")
        with plant.db.transaction() as session:
            from fogline_server.rollouts.tables import Rollout

            session.get_one(Rollout, plant.ids.rollout).state = "ROLLED_BACK"
        started = client.post(f"/v1/rollouts/{plant.ids.draft}:start")
        assert (started.status_code, started.json()["state"]) == (200, "SCHEDULED")


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({}, "missing_api_key"),
        ({"Authorization": "Bearer nonsense"}, "invalid_api_key"),
        ({"Authorization": "Bearer fl_0123456789ab_0123456789abcdefghij"}, "invalid_api_key"),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, "missing_api_key"),
    ],
)
def test_a_bad_key_is_told_what_is_wrong_with_it(sqlite_plant, header, code):
    with sqlite_plant.client(role=None) as client:
        response = client.get("/v1/devices", headers=header)
    assert (response.status_code, response.json()["code"]) == (401, code)


def test_lower_roles_may_what_they_may(sqlite_plant):
    with sqlite_plant.client("viewer") as viewer, sqlite_plant.client("operator") as operator:
        assert viewer.get("/v1/devices").status_code == 200
        assert operator.post("/v1/enrollment-tokens", json={}).status_code == 201


@pytest.mark.parametrize(
    ("method", "route", "given", "status", "code"),
    [
        ("POST", "/v1/runs", {"json": {"recipe": "nope"}}, 422, "unknown_recipe"),
        ("POST", "/v1/runs", {"json": {"recipe": "tiny", "size": "huge"}}, 422, "unknown_size"),
        ("POST", "/v1/runs", {"json": {"recipe": "tiny", "rounds": 0}}, 422, "invalid_run"),
        ("POST", "/v1/runs", {"json": {"recipe": "tiny", "ensemble": {"fusion": "best"}}}, 422, "invalid_ensemble"),
        (
            "POST",
            "/v1/runs",
            {"json": {"recipe": "tiny", "ensemble": {"sizes": {"jetson": "teacher"}}}},
            422,
            "unknown_device_class",
        ),
        ("POST", "/v1/runs", {"json": {"recipe": "tiny", "strategy": "x"}}, 422, "unknown_strategy"),
        ("POST", "/v1/runs", {"json": {"recipe": "tiny", "codec": "x"}}, 422, "unknown_codec"),
        (
            "POST",
            "/v1/runs",
            {"json": {"recipe": "tiny", "eligibility": {"min_battery_percent": 101}}},
            422,
            "invalid_eligibility",
        ),
        ("POST", "/v1/runs", {"json": {"recipe": "tiny", "eligibility": {"moon": 1}}}, 422, "invalid_request"),
        ("GET", "/v1/devices/{device_id}/why-not", {}, 422, "invalid_request"),
        ("GET", "/v1/devices/{device_id}/why-not", {"params": {"run": "run_x"}}, 404, "run_not_found"),
        ("POST", "/v1/runs", {"json": {"recipe": "tiny", "distil_from": "run_x"}}, 404, "run_not_found"),
        ("POST", "/v1/runs", {"json": {"recipe": "tiny", "distil_from": "$run"}}, 409, "teacher_not_ready"),
        ("POST", "/v1/runs", {"json": {"recipe": "tiny", "init_from_release": "no"}}, 404, "release_not_found"),
        (
            "POST",
            "/v1/runs",
            {"json": {"recipe": "tiny", "size": "teacher", "init_from_release": "champion"}},
            409,
            "release_without_run",
        ),
        (
            "POST",
            "/v1/runs",
            {"json": {"recipe": "tiny", "init_from": "a" * 64, "init_from_release": "champion"}},
            422,
            "invalid_run",
        ),
        ("POST", "/v1/runs/{run_id}:extend", {"json": {"rounds": 0}}, 422, "invalid_run"),
        ("POST", "/v1/runs/{run_id}:cancel", {"path": {"run_id": "$finished_run"}}, 409, "illegal_transition"),
        (
            "POST",
            "/v1/releases",
            {"json": {"name": "t", "recipe": "tiny", "student_run": "$run"}},
            422,
            "run_of_other_size",
        ),
        ("POST", "/v1/releases:import", {"params": {"name": "tiny-1"}, "content": b"x"}, 409, "release_name_taken"),
        (
            "POST",
            "/v1/releases:import",
            {"params": {"name": "f", "like": "no"}, "content": b"x"},
            404,
            "release_not_found",
        ),
        ("POST", "/v1/rollouts", {"json": {"release": "tiny-1", "start": True}}, 409, "rollout_active"),
        ("POST", "/v1/rollouts", {"json": {"release": "tiny-1", "plan": {"stages": [50]}}}, 422, "invalid_plan"),
        (
            "POST",
            "/v1/rollouts",
            {"json": {"release": "tiny-1", "plan": {"gates": [{"gate": "x"}]}}},
            422,
            "unknown_gate",
        ),
        ("POST", "/v1/rollouts", {"json": {"release": "nope"}}, 404, "release_not_found"),
        ("POST", "/v1/rollouts/{rollout_id}:resume", {}, 409, "illegal_transition"),
        ("POST", "/v1/rollouts/{rollout_id}:pause", {"path": {"rollout_id": "$draft"}}, 409, "illegal_transition"),
        (
            "POST",
            "/v1/jobs",
            {"json": {"kind": "batch", "release": "no", "input": "a", "output": "b"}},
            404,
            "release_not_found",
        ),
        (
            "POST",
            "/v1/jobs",
            {"json": {"kind": "batch", "release": "tiny-1", "input": "a", "output": "a"}},
            422,
            "invalid_batch_spec",
        ),
        ("POST", "/v1/jobs", {"json": {"kind": "train"}}, 422, "invalid_request"),
        (
            "POST",
            "/v1/jobs",
            {"json": {"kind": "batch", "release": "tiny-1", "input": "/etc/passwd", "output": "b"}},
            422,
            "path_not_allowed",
        ),
        ("POST", "/v1/trust:import", {"json": {"documents": ["{}"]}}, 422, "bad_trust_metadata"),
        ("POST", "/v1/jobs/{job_id}:retry", {}, 409, "illegal_transition"),
        ("POST", "/v1/jobs/{job_id}:retry", {"path": {"job_id": "$failed_job"}}, 409, "retry_cannot_help"),
        ("POST", "/v1/jobs/{job_id}:cancel", {"path": {"job_id": "$failed_job"}}, 409, "illegal_transition"),
        (
            "POST",
            "/v1/schedules",
            {"json": {"name": "nightly", "action": "run", "cron": "* * * * *", "spec": {"recipe": "tiny"}}},
            409,
            "schedule_name_taken",
        ),
        ("POST", "/v1/schedules", {"json": {"name": "n", "action": "run", "cron": "bad"}}, 422, "invalid_schedule"),
        ("PATCH", "/v1/schedules/{schedule_id}", {"json": {"time_zone": "Mars/Base"}}, 422, "invalid_schedule"),
        ("PATCH", "/v1/schedules/{schedule_id}", {"json": {"spec": {"recipe": "none"}}}, 422, "unknown_recipe"),
        (
            "POST",
            "/v1/schedules",
            {"json": {"name": "n", "action": "rollout", "cron": "* * * * *", "spec": {"plan": {"stages": [5]}}}},
            422,
            "invalid_schedule",
        ),
        ("PUT", "/v1/devices/{device_id}/tags", {"json": {"tags": ["a b"]}}, 422, "invalid_request"),
        ("POST", "/v1/api-keys", {"json": {"name": "x\0y"}}, 422, "invalid_request"),
        (
            "POST",
            "/v1/api-keys",
            {"content": b'{"name": "\\ud800"}', "headers": {"Content-Type": "application/json"}},
            422,
            "invalid_request",
        ),
        ("GET", "/v1/devices", {"params": {"cursor": "%00"}}, 422, "invalid_request"),
        ("GET", "/v1/jobs", {"params": {"limit": "9" * 30}}, 422, "invalid_request"),
        ("GET", "/v1/events", {"params": {"cursor": 2**31}}, 422, "invalid_request"),
        ("GET", "/v1/events", {"headers": {"Last-Event-ID": str(2**31)}}, 422, "invalid_request"),
        *(
            (
                "POST",
                "/v1/schedules",
                {"json": {"name": "n", "action": "run", "at": at, "spec": {"recipe": "tiny"}}},
                422,
                "invalid_request",
            )
            for at in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2040-01-01T00:00:00", 1e300)
        ),
        (
            "POST",
            "/v1/rollouts",
            {"json": {"release": "champion", "start_at": "0001-01-01T00:00:00+14:00"}},
            422,
            "invalid_request",
        ),
        ("POST", "/v1/runs", {"content": b'{"recipe": "tiny"}'}, 422, "invalid_request"),
        ("GET", "/v1/nothing", {}, 404, "route_not_found"),
        ("DELETE", "/v1/runs", {}, 405, "method_not_allowed"),
        ("POST", "/v1/runs", {"content": b"x" * (1 << 20) + b"x"}, 413, "body_too_large"),
    ],
)
def test_each_mistake_has_its_code(sqlite_plant, method, route, given, status, code):
    with sqlite_plant.client() as client:
        response = send(client, sqlite_plant, method, route, given)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert response.headers["content-type"] == PROBLEM
    assert response.json()["status"] == status
