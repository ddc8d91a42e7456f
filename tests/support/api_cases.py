"""A request that succeeds for every operation of the API, over the population's ids."""

from __future__ import annotations

from typing import Any

import httpx

PROBLEM = "application/problem+json"
IDS = {
    "device_id": "device",
    "token_id": "token",
    "run_id": "run",
    "rollout_id": "rollout",
    "job_id": "job",
    "schedule_id": "schedule",
    "key_id": "key",
    "release": "release",
    "search_id": "search",
}

# In this order: method, route, what to send, the expected status.
Case = tuple[str, str, dict[str, Any], int]
CASES: list[Case] = [
    ("GET", "/healthz", {}, 200),
    ("GET", "/readyz", {}, 200),
    ("GET", "/metrics", {}, 200),
    ("GET", "/v1/devices", {"params": {"online": True, "tag": "lab", "state": "ACTIVE"}}, 200),
    ("GET", "/v1/devices/{device_id}", {}, 200),
    ("GET", "/v1/devices/{device_id}/why-not", {"params": {"run": "$run"}}, 200),
    ("PUT", "/v1/devices/{device_id}/tags", {"json": {"tags": ["lab", "floor:2"]}}, 200),
    ("POST", "/v1/devices/{device_id}:revoke", {"json": {"reason": "lost"}}, 200),
    ("GET", "/v1/enrollment-tokens", {}, 200),
    ("POST", "/v1/enrollment-tokens", {"json": {"device_name": "watch-11", "tags": ["lab"]}}, 201),
    ("DELETE", "/v1/enrollment-tokens/{token_id}", {}, 204),
    ("GET", "/v1/recipes", {}, 200),
    ("GET", "/v1/recipes/{name}", {"path": {"name": "tiny"}}, 200),
    ("GET", "/v1/runs", {"params": {"recipe": "tiny", "state": "RUNNING"}}, 200),
    ("POST", "/v1/runs", {"json": {"recipe": "tiny", "rounds": 3, "plan": {"epochs": 1}}}, 201),
    ("POST", "/v1/runs", {"json": {"recipe": "tiny", "eligibility": {"charging": True, "min_samples": 9}}}, 201),
    ("POST", "/v1/runs", {"json": {"recipe": "tiny", "init_from_release": "champion"}}, 201),
    ("GET", "/v1/runs/{run_id}", {}, 200),
    ("GET", "/v1/runs/{run_id}/rounds", {}, 200),
    ("GET", "/v1/runs/{run_id}/updates", {"params": {"round": 1}}, 200),
    ("POST", "/v1/runs/{run_id}:pause", {}, 200),
    ("POST", "/v1/runs/{run_id}:extend", {"json": {"rounds": 2}}, 200),
    ("POST", "/v1/runs/{run_id}:resume", {}, 200),
    ("POST", "/v1/runs/{run_id}:cancel", {}, 200),
    ("POST", "/v1/populations", {"json": {"name": "ward", "recipe": "big", "tags": ["ward"], "epsilon": 8}}, 201),
    ("GET", "/v1/populations", {}, 200),
    ("GET", "/v1/populations/{population}", {"path": {"population": "ward"}}, 200),
    ("GET", "/v1/storage", {}, 200),
    ("POST", "/v1/storage:collect", {"json": {"dry_run": True}}, 200),
    ("GET", "/v1/releases", {"params": {"state": "READY"}}, 200),
    ("POST", "/v1/releases", {"json": {"name": "tiny-2", "recipe": "tiny", "student_run": "$finished_run"}}, 201),
    ("POST", "/v1/releases:import", {"params": {"name": "foreign", "like": "tiny-1"}, "content": b"onnx"}, 201),
    ("GET", "/v1/releases/{release}", {"path": {"release": "champion"}}, 200),
    ("GET", "/v1/releases/{release}/variants", {}, 200),
    ("GET", "/v1/releases/{release}/variants/{variant}", {"path": {"variant": "student_int8"}}, 200),
    ("GET", "/v1/releases/{release}/variants/{variant}/artifact", {"path": {"variant": "student_int8"}}, 200),
    (
        "GET",
        "/v1/releases/{release}/variants/{variant}/artifact",
        {"path": {"variant": "student_int8"}, "headers": {"Range": "bytes=4-"}},
        206,
    ),
    ("GET", "/v1/releases/{release}/deltas", {}, 200),
    ("POST", "/v1/releases/{release}/notes", {"json": {"text": "slow on old watches"}}, 201),
    ("GET", "/v1/releases/{release}/notes", {}, 200),
    ("POST", "/v1/releases/{release}/measurements", {"json": {"most": 2, "expires_s": 60}}, 201),
    ("GET", "/v1/releases/{release}/measurements", {"params": {"limit": 1}}, 200),
    ("POST", "/v1/releases/{release}:unlist", {"path": {"release": "idle"}}, 200),
    ("POST", "/v1/releases/{release}:relist", {"path": {"release": "idle"}}, 200),
    ("GET", "/v1/releases/{release}/pick", {"params": {"max_drop": 0.01}}, 200),
    ("POST", "/v1/releases/{release}:verify", {}, 200),
    ("GET", "/v1/compression-searches", {"params": {"limit": 1}}, 200),
    (
        "POST",
        "/v1/compression-searches",
        {
            "json": {
                "release": "tiny-1",
                "name": "small",
                "chains": [[{"method": "float16"}]],
                "limits": {"max_bytes": 9},
            }
        },
        201,
    ),
    ("GET", "/v1/compression-searches/{search_id}", {}, 200),
    ("GET", "/v1/aliases", {}, 200),
    ("PUT", "/v1/aliases/{alias}", {"path": {"alias": "candidate"}, "json": {"release": "tiny-1"}}, 200),
    ("GET", "/v1/trust", {}, 200),
    ("POST", "/v1/trust:import", {"json": {"documents": "$trusted"}}, 200),
    ("POST", "/v1/trust:new-online-keys", {}, 200),
    ("GET", "/v1/telemetry", {"params": {"artifact_digest": "$digest"}}, 200),
    ("GET", "/v1/rollouts", {"params": {"state": "RUNNING"}}, 200),
    ("GET", "/v1/rollouts/{rollout_id}", {}, 200),
    ("GET", "/v1/rollouts/{rollout_id}/stages", {}, 200),
    ("GET", "/v1/rollouts/{rollout_id}/assignments", {}, 200),
    ("POST", "/v1/rollouts/{rollout_id}:pause", {"json": {"reason": "lunch"}}, 200),
    ("POST", "/v1/rollouts/{rollout_id}:resume", {}, 200),
    ("POST", "/v1/rollouts/{rollout_id}:rollback", {}, 200),
    ("POST", "/v1/rollouts", {"json": {"release": "champion", "plan": {"stages": [50, 100]}}}, 201),
    ("POST", "/v1/rollouts", {"json": {"release": "champion"}, "params": {"validate_only": True}}, 200),
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
