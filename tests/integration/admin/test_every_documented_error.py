"""Every error that the OpenAPI document promises happens: for each operation and each status a request that gets it.

The last test compares these requests with the document, so that a new route, or a new status of one, fails until it has
a case. That no route answers with what is not documented is checked on every request of the tests' client.
"""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from admin_server import admin_app, serving
from api_cases import ALONE, CASES, IDS, PROBLEM, send

from fogline_server.access.tables import ApiKey
from fogline_server.api.limits import MAX_ARTIFACT_BYTES, MAX_BODY_BYTES
from fogline_server.db.database import Database
from fogline_server.settings import Settings

JSON = {"Content-Type": "application/json"}
NAMES = {"variant": "student_int8", "name": "tiny", "alias": "champion", "population": "ward"}
# What an operation needs so that it comes to look at the id in its path.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("PUT", "/v1/devices/{device_id}/tags"): {"json": {"tags": []}},
    ("POST", "/v1/runs/{run_id}:extend"): {"json": {"rounds": 1}},
    ("PUT", "/v1/aliases/{alias}"): {"json": {"release": "nope"}},
    ("POST", "/v1/releases/{release}/notes"): {"json": {"text": "a"}},
    ("POST", "/v1/releases/{release}/measurements"): {"json": {}},
    ("PATCH", "/v1/schedules/{schedule_id}"): {"json": {}},
    ("GET", "/v1/devices/{device_id}/why-not"): {"params": {"run": "$run"}},
}
# What is not found though no path names it.
NOT_FOUND: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/runs"): {"json": {"recipe": "tiny", "distil_from": "run_x"}},
    ("POST", "/v1/releases"): {"json": {"name": "t", "recipe": "tiny", "student_run": "run_x"}},
    ("POST", "/v1/releases:import"): {"params": {"name": "f", "like": "nope"}, "content": b"x"},
    ("POST", "/v1/compression-searches"): {"json": {"release": "nope"}},
    ("POST", "/v1/rollouts"): {"json": {"release": "nope"}},
    ("POST", "/v1/jobs"): {"json": {"kind": "batch", "release": "nope", "input": "a", "output": "b"}},
}
CONFLICT: dict[tuple[str, str], tuple[dict[str, Any], str]] = {
    ("POST", "/v1/runs"): ({"json": {"recipe": "tiny", "distil_from": "$run"}}, "teacher_not_ready"),
    ("POST", "/v1/populations"): ({"json": {"name": "ward", "recipe": "big", "epsilon": 1}}, "population_name_taken"),
    ("POST", "/v1/runs/{run_id}:pause"): ({"path": {"run_id": "$finished_run"}}, "illegal_transition"),
    ("POST", "/v1/runs/{run_id}:resume"): ({}, "illegal_transition"),
    ("POST", "/v1/runs/{run_id}:extend"): (
        {"path": {"run_id": "$finished_run"}, "json": {"rounds": 2}},
        "run_in_use",
    ),
    ("POST", "/v1/runs/{run_id}:cancel"): ({"path": {"run_id": "$finished_run"}}, "illegal_transition"),
    ("POST", "/v1/releases"): (
        {"json": {"name": "tiny-1", "recipe": "tiny", "student_run": "$finished_run"}},
        "release_name_taken",
    ),
    ("POST", "/v1/releases:import"): ({"params": {"name": "tiny-1"}, "content": b"x"}, "release_name_taken"),
    ("GET", "/v1/releases/{release}/pick"): ({"path": {"release": "unbuilt"}}, "release_not_ready"),
    ("POST", "/v1/releases/{release}:verify"): ({"path": {"release": "unbuilt"}}, "release_not_ready"),
    ("POST", "/v1/compression-searches"): ({"json": {"release": "unbuilt"}}, "release_not_ready"),
    ("PUT", "/v1/aliases/{alias}"): ({"json": {"release": "unbuilt"}}, "release_not_ready"),
    ("POST", "/v1/releases/{release}:unlist"): ({}, "release_in_use"),
    ("POST", "/v1/releases/{release}:relist"): ({}, "illegal_transition"),
    ("POST", "/v1/releases/{release}/measurements"): (
        {"path": {"release": "unbuilt"}, "json": {}},
        "release_not_ready",
    ),
    ("POST", "/v1/releases/{release}/notes"): ({"repeated": {"json": {"text": "a"}}}, "idempotency_key_reused"),
    ("POST", "/v1/rollouts"): ({"json": {"release": "tiny-1", "start": True}}, "rollout_active"),
    ("POST", "/v1/rollouts/{rollout_id}:start"): ({"path": {"rollout_id": "$draft"}}, "rollout_active"),
    ("POST", "/v1/rollouts/{rollout_id}:pause"): ({"path": {"rollout_id": "$draft"}}, "illegal_transition"),
    ("POST", "/v1/rollouts/{rollout_id}:resume"): ({}, "illegal_transition"),
    ("POST", "/v1/rollouts/{rollout_id}:rollback"): ({"path": {"rollout_id": "$draft"}}, "illegal_transition"),
    ("POST", "/v1/trust:import"): ({"json": {"documents": "$strange_root"}}, "trust_other_root"),
    ("POST", "/v1/trust:new-online-keys"): ({"repeated": {}}, "idempotency_key_reused"),
    ("POST", "/v1/jobs"): (
        {"json": {"kind": "batch", "release": "unbuilt", "input": "a", "output": "b"}},
        "release_not_ready",
    ),
    ("POST", "/v1/jobs/{job_id}:cancel"): ({"path": {"job_id": "$failed_job"}}, "illegal_transition"),
    ("POST", "/v1/jobs/{job_id}:retry"): ({"path": {"job_id": "$failed_job"}}, "retry_cannot_help"),
    ("POST", "/v1/schedules"): (
        {"json": {"name": "nightly", "action": "run", "cron": "* * * * *", "spec": {"recipe": "tiny"}}},
        "schedule_name_taken",
    ),
    ("PATCH", "/v1/schedules/{schedule_id}"): ({"json": {"name": "weekly"}}, "schedule_name_taken"),
    ("POST", "/v1/devices/{device_id}:revoke"): ({"repeated": {}}, "idempotency_key_reused"),
    ("POST", "/v1/rollouts/{rollout_id}:cancel"): ({}, "illegal_transition"),
    ("POST", "/v1/api-keys/{key_id}:revoke"): ({"last_admin": True}, "last_admin_key"),
}
IMPORT = ("POST", "/v1/releases:import")
ARTIFACT = ("GET", "/v1/releases/{release}/variants/{variant}/artifact")


def documented(plant, status: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for method, route, operation in plant.operations():
        if str(status) in operation["responses"]:
            yield method, route, operation


def expect(response: httpx.Response, status: int, *codes: str) -> None:
    what = f"{response.request.method} {response.request.url.path}: {response.status_code} {response.text[:300]}"
    assert response.status_code == status, what
    assert response.headers["content-type"] == PROBLEM, what
    assert (response.json()["status"], response.json()["type"]) == (
        status,
        f"urn:fogline:problem:{response.json()['code']}",
    )
    assert not codes or response.json()["code"] in codes, what


def test_401_without_a_key(sqlite_plant):
    with sqlite_plant.client(role=None) as client:
        for method, route, _ in documented(sqlite_plant, 401):
            response = send(client, sqlite_plant, method, route, {"path": NAMES})
            expect(response, 401, "missing_api_key")
            assert response.headers["www-authenticate"] == "Bearer"


def test_403_with_too_low_a_role(sqlite_plant):
    with sqlite_plant.client("viewer") as viewer, sqlite_plant.client("operator") as operator:
        for method, route, _ in documented(sqlite_plant, 403):
            client = operator if route.startswith(("/v1/api-keys", "/v1/trust")) else viewer
            expect(send(client, sqlite_plant, method, route, {"path": NAMES}), 403, "role_too_low")


def test_404_for_what_does_not_exist(plant):
    with plant.client() as client:
        for method, route, _ in documented(plant, 404):
            given = NOT_FOUND.get((method, route)) or BODIES.get((method, route), {})
            path = dict.fromkeys([*IDS, *NAMES], "nope")
            response = send(client, plant, method, route, {**given, "path": path})
            expect(response, 404)
            assert response.json()["code"].endswith("_not_found"), response.text


def test_409_in_the_wrong_state(plant):
    with plant.client() as client:
        unbuilt = {"name": "unbuilt", "recipe": "tiny", "student_run": plant.ids.finished_run}
        assert client.post("/v1/releases", json=unbuilt).status_code == 201
        assert client.post("/v1/populations", json={"name": "ward", "recipe": "big", "epsilon": 1}).status_code == 201
        weekly = {"name": "weekly", "action": "run", "cron": "0 4 * * 1", "spec": {"recipe": "tiny"}}
        assert client.post("/v1/schedules", json=weekly).status_code == 201
        for (method, route), (given, code) in CONFLICT.items():
            if "repeated" in given:
                headers = {"Idempotency-Key": f"k{abs(hash(route))}"}
                assert send(client, plant, method, route, {"headers": headers, **given["repeated"]}).is_success
                given = {"headers": headers, "json": {"reason": "another"}}  # noqa: PLW2901 - the second request
            elif given.get("last_admin"):
                given = {"path": {"key_id": only_admin_key(plant)}}  # noqa: PLW2901
            expect(send(client, plant, method, route, {**given, "path": NAMES | given.get("path", {})}), 409, code)


def only_admin_key(plant) -> str:
    """Leave the client's key as the last admin's."""
    used = f"key_{plant.keys['admin'].split('_')[1]}"
    with plant.db.transaction() as session:
        session.query(ApiKey).where(ApiKey.role == "admin", ApiKey.id != used).delete()
    return used


def test_400_for_a_body_that_is_not_json(sqlite_plant):
    with sqlite_plant.client() as client:
        for method, route, _ in documented(sqlite_plant, 400):
            for content in (b'{"a": ', b"\xff\xfe", b"[" * 100_000):
                given = {"content": content, "headers": JSON, "path": NAMES}
                expect(send(client, sqlite_plant, method, route, given), 400, "malformed_json", "malformed_request")


def test_422_for_a_request_of_another_form(sqlite_plant):
    long_id = "x" * 81
    with sqlite_plant.client() as client:
        for method, route, operation in documented(sqlite_plant, 422):
            wrong: list[dict[str, Any]] = []
            if "{" in route:
                wrong.append({"path": dict.fromkeys([*IDS, *NAMES], long_id), **BODIES.get((method, route), {})})
            if "application/json" in operation.get("requestBody", {}).get("content", {}):
                wrong.append({"json": {"no_such_field": 1}, "path": NAMES})
            for each in operation.get("parameters", ()):
                if each["in"] == "query" and "boolean" not in str(each["schema"]):
                    wrong.append({"params": {each["name"]: "\x00"}, "path": NAMES})
                if each["name"] == "Idempotency-Key":
                    wrong.append({"headers": {"Idempotency-Key": "not this one!"}, "path": NAMES})
            assert wrong, f"{method} {route} documents 422, but nothing in it could be wrong"
            for given in wrong:
                response = send(client, sqlite_plant, method, route, given)
                expect(response, 422, "invalid_request")
                assert response.json()["errors"], response.text


def test_413_for_too_much(sqlite_plant):
    with sqlite_plant.client() as client:
        for method, route, operation in documented(sqlite_plant, 413):
            if (method, route) == IMPORT:
                continue
            headers = JSON if "application/json" in str(operation.get("requestBody")) else {"Idempotency-Key": "k"}
            given = {"content": iter([b" " * MAX_BODY_BYTES, b" "]), "headers": headers, "path": NAMES}
            expect(send(client, sqlite_plant, method, route, given), 413, "body_too_large")


def test_413_for_an_artifact_that_announces_too_much_before_any_of_it_is_read(sqlite_plant):
    url = urlsplit(sqlite_plant.url)
    head = [
        "POST /v1/releases:import?name=huge HTTP/1.1",
        f"Host: {url.netloc}",
        f"Authorization: Bearer {sqlite_plant.keys['admin']}",
        f"Content-Length: {MAX_ARTIFACT_BYTES + 1}",
    ]
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        answer = b""
        while b"body_too_large" not in answer:
            piece = connection.recv(4096)
            assert piece, answer
            answer += piece
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_416_for_a_range_behind_the_end_and_no_fuss_about_odd_ones(sqlite_plant):
    with sqlite_plant.client() as client:

        def ask(asked: str) -> httpx.Response:
            return send(client, sqlite_plant, *ARTIFACT, {"path": NAMES, "headers": {"Range": asked}})

        for asked in ("bytes=1000-", "bytes=24-30", "bytes=-0"):
            expect(ask(asked), 416, "range_not_satisfiable")
            assert ask(asked).headers["content-range"] == "bytes */24"
        for asked in ("bytes=abc", "bytes=5-2", "lines=1-2", "bytes=0-1,4-5", "bytes=-", f"bytes={'9' * 5000}-"):
            assert (ask(asked).status_code, len(ask(asked).content)) == (200, 24), asked
        assert ask("bytes=-5").content == ask("bytes=19-23").content == b"ifact"


def test_507_when_the_disk_is_full(sqlite_plant):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with sqlite_plant.client() as client:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 20, hard))
        try:
            full = client.post("/v1/releases:import", params={"name": "big"}, content=bytes(17 << 20))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        expect(full, 507, "disk_full")
        assert client.post("/v1/releases:import", params={"name": "small"}, content=b"x").status_code == 201


def test_503_while_the_database_is_away(sqlite_plant, tmp_path: Path):
    away = Database(f"sqlite:///{tmp_path}/no/such/folder/fogline.db")
    app = admin_app(Settings(state_dir=sqlite_plant.state_dir, redis_url="redis://127.0.0.1:1/0"), away)
    with serving(app, lifespan="off") as url, httpx.Client(base_url=url, headers=key_of(sqlite_plant)) as client:
        for method, route, _ in documented(sqlite_plant, 503):
            expect(send(client, sqlite_plant, method, route, {"path": NAMES}), 503, "database_unavailable")


def key_of(plant) -> dict[str, str]:
    return {"Authorization": f"Bearer {plant.keys['admin']}"}


def test_every_answer_in_the_openapi_document_has_a_case(sqlite_plant):
    # 400, 401, 403, 413, 422 and 503 are asked of whatever documents them; the rest has cases of its own.
    asked_of_all = {400, 401, 403, 413, 422, 503}
    cases = {(method, route, status) for method, route, _, status in CASES}
    cases |= {(method, route, 200) for method, route in ALONE}
    cases |= {(method, route, 409) for method, route in CONFLICT}
    cases |= {(method, route, 404) for method, route in NOT_FOUND}
    cases |= {(*IMPORT, 507), (*ARTIFACT, 416)}
    promised = set()
    for method, route, operation in sqlite_plant.operations():
        for status in map(int, operation["responses"]):
            if status not in asked_of_all and not (status == 404 and "{" in route):
                promised.add((method, route, status))
            if status >= 400:
                content = operation["responses"][str(status)]["content"]
                assert content == {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}, f"{method} {route}"
    assert promised == cases
