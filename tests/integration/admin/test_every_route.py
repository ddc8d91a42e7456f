"""Every route of the OpenAPI document succeeds once, and refuses what it must: a new route without a case here fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

PROBLEM = "application/problem+json"
OPEN = {"/healthz", "/readyz"}
IDS = {
    "device_id": "device",
    "token_id": "token",
    "run_id": "run",
    "rollout_id": "rollout",
    "job_id": "job",
    "schedule_id": "schedule",
    "key_id": "key",
    "release": "release",
}

# In this order: method, route, what to send, the expected status.
Case = tuple[str, str, dict[str, Any], int]
CASES: list[Case] = [
    ("GET", "/healthz", {}, 200),
    ("GET", "/readyz", {}, 200),
    ("GET", "/metrics", {}, 200),
    ("GET", "/v1/devices", {"params": {"online": True, "tag": "lab", "state": "ACTIVE"}}, 200),
    ("GET", "/v1/devices/{device_id}", {}, 200),
    ("GET", "/v1/devices/{device_id}/why-not", {"params": {"recipe": "tiny"}}, 200),
    ("PUT", "/v1/devices/{device_id}/tags", {"json": {"tags": ["lab", "floor:2"]}}, 200),
    ("POST", "/v1/devices/{device_id}:revoke", {"json": {"reason": "lost"}}, 200),
    ("GET", "/v1/enrollment-tokens", {}, 200),
    ("POST", "/v1/enrollment-tokens", {"json": {"device_name": "watch-11", "tags": ["lab"]}}, 201),
    ("DELETE", "/v1/enrollment-tokens/{token_id}", {}, 204),
    ("GET", "/v1/recipes", {}, 200),
    ("GET", "/v1/recipes/{name}", {"path": {"name": "tiny"}}, 200),
    ("GET", "/v1/runs", {"params": {"recipe": "tiny", "state": "RUNNING"}}, 200),
    ("POST", "/v1/runs", {"json": {"recipe": "tiny", "rounds": 3, "plan": {"epochs": 1}}}, 201),
    ("GET", "/v1/runs/{run_id}", {}, 200),
    ("GET", "/v1/runs/{run_id}/rounds", {}, 200),
    ("GET", "/v1/runs/{run_id}/updates", {"params": {"round": 1}}, 200),
    ("POST", "/v1/runs/{run_id}:cancel", {}, 200),
    ("GET", "/v1/releases", {"params": {"state": "READY"}}, 200),
    ("POST", "/v1/releases", {"json": {"name": "tiny-2", "recipe": "tiny", "student_run": "$finished_run"}}, 201),
    ("POST", "/v1/releases:import", {"params": {"name": "foreign", "like": "tiny-1"}, "content": b"onnx"}, 201),
    ("GET", "/v1/releases/{release}", {"path": {"release": "champion"}}, 200),
    ("GET", "/v1/releases/{release}/variants", {}, 200),
    ("GET", "/v1/releases/{release}/variants/{variant}", {"path": {"variant": "student_int8"}}, 200),
    ("GET", "/v1/releases/{release}/variants/{variant}/artifact", {"path": {"variant": "student_int8"}}, 200),
    ("POST", "/v1/releases/{release}:verify", {}, 200),
    ("GET", "/v1/aliases", {}, 200),
    ("PUT", "/v1/aliases/{alias}", {"path": {"alias": "candidate"}, "json": {"release": "tiny-1"}}, 200),
    ("GET", "/v1/telemetry", {"params": {"artifact_digest": "$digest"}}, 200),
    ("GET", "/v1/rollouts", {"params": {"state": "RUNNING"}}, 200),
    ("GET", "/v1/rollouts/{rollout_id}", {}, 200),
    ("GET", "/v1/rollouts/{rollout_id}/stages", {}, 200),
    ("GET", "/v1/rollouts/{rollout_id}/assignments", {}, 200),
    ("POST", "/v1/rollouts/{rollout_id}:pause", {"json": {"reason": "lunch"}}, 200),
    ("POST", "/v1/rollouts/{rollout_id}:resume", {}, 200),
    ("POST", "/v1/rollouts/{rollout_id}:rollback", {}, 200),
    ("POST", "/v1/rollouts", {"json": {"release": "champion", "plan": {"stages": [50, 100]}}}, 201),
    ("POST", "/v1/rollouts/{rollout_id}:cancel", {"path": {"rollout_id": "$draft"}}, 200),
    ("GET", "/v1/jobs", {"params": {"kind": "batch", "state": "RUNNING"}}, 200),
    ("POST", "/v1/jobs", {"json": {"kind": "batch", "release": "tiny-1", "input": "in", "output": "out"}}, 201),
    ("GET", "/v1/jobs/{job_id}", {}, 200),
    ("GET", "/v1/jobs/{job_id}/shards", {"path": {"job_id": "$batch"}}, 200),
    ("POST", "/v1/jobs/{job_id}:cancel", {}, 200),
    ("POST", "/v1/jobs/{job_id}:retry", {"path": {"job_id": "$failed_batch"}}, 200),
    ("GET", "/v1/schedules", {}, 200),
    (
        "POST",
        "/v1/schedules",
        {"json": {"name": "soon", "action": "run", "at": "2040-01-01T00:00:00Z", "spec": {"recipe": "tiny"}}},
        201,
    ),
    ("GET", "/v1/schedules/{schedule_id}", {}, 200),
    ("PATCH", "/v1/schedules/{schedule_id}", {"json": {"at": "2040-01-01T00:00:00Z", "enabled": False}}, 200),
    ("DELETE", "/v1/schedules/{schedule_id}", {}, 204),
    ("GET", "/v1/events", {"params": {"subject_type": "run"}}, 200),
    ("GET", "/v1/api-keys", {}, 200),
    ("POST", "/v1/api-keys", {"json": {"name": "ci", "role": "operator"}}, 201),
    ("GET", "/v1/api-keys/{key_id}", {}, 200),
    ("POST", "/v1/api-keys/{key_id}:revoke", {}, 200),
]
# Needs a fleet in which nothing else runs; tested below.
ALONE = {("POST", "/v1/rollouts/{rollout_id}:start")}


def routes(plant) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in plant.app.openapi()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def send(client: httpx.Client, plant, method: str, route: str, given: dict[str, Any]) -> httpx.Response:
    """Fill in ids: of the population by default, ``$name`` for others of it."""
    known = {name: getattr(plant.ids, of) for name, of in IDS.items()}

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        return getattr(plant.ids, value[1:]) if isinstance(value, str) and value.startswith("$") else value

    given = {key: fill(value) for key, value in given.items()}
    path = route.format_map({**known, **given.pop("path", {})})
    return client.request(method, path, **given)


def test_every_route_succeeds(plant):
    with plant.client() as client:
        for method, route, given, expected in CASES:
            response = send(client, plant, method, route, given)
            assert response.status_code == expected, f"{method} {route}: {response.status_code} {response.text}"
    assert {(m, r) for m, r, _ in routes(plant)} == {(m, r) for m, r, _, _ in CASES} | ALONE


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
def test_every_route_is_denied_without_a_good_key(sqlite_plant, header, code):
    with sqlite_plant.client(role=None) as client:
        for method, route, _ in routes(sqlite_plant):
            if route in OPEN:
                continue
            response = send(
                client,
                sqlite_plant,
                method,
                route,
                {"headers": header, "path": {"variant": "x", "name": "x", "alias": "x"}},
            )
            assert (response.status_code, response.json()["code"]) == (401, code), f"{method} {route}"
            assert response.headers["content-type"] == PROBLEM


def test_a_viewer_changes_nothing_and_an_operator_makes_no_keys(sqlite_plant):
    with sqlite_plant.client("viewer") as viewer, sqlite_plant.client("operator") as operator:
        for method, route, _ in routes(sqlite_plant):
            path = {"variant": "x", "name": "x", "alias": "x"}
            if method != "GET":
                response = send(viewer, sqlite_plant, method, route, {"path": path})
                assert (response.status_code, response.json()["code"]) == (403, "role_too_low"), f"{method} {route}"
            if route.startswith("/v1/api-keys"):
                response = send(operator, sqlite_plant, method, route, {"path": path})
                assert response.status_code == 403, f"{method} {route}"
        assert viewer.get("/v1/devices").status_code == 200
        assert operator.post("/v1/enrollment-tokens", json={}).status_code == 201


def test_unknown_ids_are_not_found(plant):
    bodies = {
        ("PUT", "/v1/devices/{device_id}/tags"): {"tags": []},
        ("PUT", "/v1/aliases/{alias}"): {"release": "nope"},
    }
    bodies[("PATCH", "/v1/schedules/{schedule_id}")] = {}
    names = [*IDS, "variant", "name", "alias"]
    with plant.client() as client:
        for method, route, _ in routes(plant):
            if "{" not in route:
                continue
            body = bodies.get((method, route))
            params = {"recipe": "tiny"} if route.endswith("why-not") else None
            path = route.format_map(dict.fromkeys(names, "nope"))
            response = client.request(method, path, json=body, params=params)
            assert response.status_code == 404, f"{method} {route}: {response.text}"
            assert response.json()["code"].endswith("_not_found"), f"{method} {route}"


def test_malformed_bodies_are_refused_by_every_route_that_takes_one(sqlite_plant):
    json_type = {"Content-Type": "application/json"}
    with sqlite_plant.client() as client:
        for method, route, operation in routes(sqlite_plant):
            if "application/json" not in operation.get("requestBody", {}).get("content", {}):
                continue
            path = {"alias": "x"}
            broken = send(
                client, sqlite_plant, method, route, {"content": b'{"a": ', "headers": json_type, "path": path}
            )
            assert (broken.status_code, broken.json()["code"]) == (400, "malformed_json"), f"{method} {route}"
            unknown = send(client, sqlite_plant, method, route, {"json": {"no_such_field": 1}, "path": path})
            assert (unknown.status_code, unknown.json()["code"]) == (422, "invalid_request"), f"{method} {route}"
            assert any("no_such_field" in e["location"] for e in unknown.json()["errors"]), f"{method} {route}"


@pytest.mark.parametrize(
    ("method", "route", "given", "status", "code"),
    [
        ("POST", "/v1/runs", {"json": {"recipe": "nope"}}, 422, "unknown_recipe"),
        ("POST", "/v1/runs", {"json": {"recipe": "tiny", "size": "huge"}}, 422, "unknown_size"),
        ("POST", "/v1/runs", {"json": {"recipe": "tiny", "rounds": 0}}, 422, "invalid_run"),
        ("POST", "/v1/runs", {"json": {"recipe": "tiny", "strategy": "x"}}, 422, "unknown_strategy"),
        ("POST", "/v1/runs", {"json": {"recipe": "tiny", "distil_from": "run_x"}}, 404, "run_not_found"),
        ("POST", "/v1/runs", {"json": {"recipe": "tiny", "distil_from": "$run"}}, 409, "teacher_not_ready"),
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
        ("POST", "/v1/jobs/{job_id}:retry", {}, 409, "illegal_transition"),
        ("POST", "/v1/jobs/{job_id}:retry", {"path": {"job_id": "$failed_job"}}, 409, "retry_cannot_help"),
        ("POST", "/v1/jobs/{job_id}:cancel", {"path": {"job_id": "$failed_job"}}, 409, "illegal_transition"),
        (
            "POST",
            "/v1/schedules",
            {"json": {"name": "nightly", "action": "run", "cron": "* * * * *"}},
            409,
            "schedule_name_taken",
        ),
        ("POST", "/v1/schedules", {"json": {"name": "n", "action": "run", "cron": "bad"}}, 422, "invalid_schedule"),
        ("PATCH", "/v1/schedules/{schedule_id}", {"json": {"time_zone": "Mars/Base"}}, 422, "invalid_schedule"),
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
