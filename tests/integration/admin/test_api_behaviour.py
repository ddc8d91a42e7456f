"""What clients rely on beyond single answers: repetition, pages, streams, downloads, limits, silence about internals."""

from __future__ import annotations

import json
import threading

import httpx
from parts import eventually
from population import ARTIFACT

from fogline_server.db import events
from fogline_server.db.base import utc_now
from fogline_server.jobs import service as jobs


def test_a_repeated_post_acts_once(plant):
    body, headers = {"recipe": "tiny", "rounds": 3}, {"Idempotency-Key": "once"}
    with plant.client() as client:
        first = client.post("/v1/runs", json=body, headers=headers)
        again = client.post("/v1/runs", json=body, headers=headers)
        other = client.post("/v1/runs", json=body | {"rounds": 4}, headers=headers)
        assert (first.status_code, again.status_code) == (201, 201)
        assert again.json() == first.json()
        assert again.headers["Idempotency-Replayed"] == "true"
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
        assert len(client.get("/v1/runs").json()["items"]) == 3


def test_another_key_may_use_the_same_idempotency_key(sqlite_plant):
    headers = {"Idempotency-Key": "once"}
    with sqlite_plant.client() as admin, sqlite_plant.client("operator") as operator:
        first = admin.post("/v1/runs", json={"recipe": "tiny"}, headers=headers)
        second = operator.post("/v1/runs", json={"recipe": "tiny"}, headers=headers)
    assert first.json()["id"] != second.json()["id"]


def test_a_refused_post_can_be_corrected_under_its_key(sqlite_plant):
    headers = {"Idempotency-Key": "once"}
    with sqlite_plant.client() as client:
        assert client.post("/v1/runs", json={"recipe": "nope"}, headers=headers).status_code == 422
        assert client.post("/v1/runs", json={"recipe": "tiny"}, headers=headers).status_code == 201


def test_a_viewer_gets_no_stored_answer(sqlite_plant):
    headers = {"Idempotency-Key": "once"}
    with sqlite_plant.client() as admin, sqlite_plant.client("viewer") as viewer:
        admin.post("/v1/runs", json={"recipe": "tiny"}, headers=headers)
        assert viewer.post("/v1/runs", json={"recipe": "tiny"}, headers=headers).status_code == 403


def test_pages_show_everything_once_while_more_is_added(plant):
    def add(count):
        with plant.db.transaction() as session:
            for _ in range(count):
                jobs.submit(session, "evaluate", {}, queue="compute", now=utc_now())

    add(7)
    seen, cursor = [], None
    with plant.client() as client:
        expected = [job["id"] for job in client.get("/v1/jobs", params={"limit": 200}).json()["items"]]
        while True:
            page = client.get("/v1/jobs", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
            seen += [job["id"] for job in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
            add(1)
    assert seen == expected


def test_a_running_job_says_how_long_it_still_needs(sqlite_plant):
    with sqlite_plant.client() as client:
        job = client.get(f"/v1/jobs/{sqlite_plant.ids.job}").json()
    assert 25 < job["eta_s"] < 40  # 5 of 8 rounds in 50 seconds


def test_a_dry_run_of_a_rollout_writes_nothing(sqlite_plant):
    with sqlite_plant.client() as client:
        before = client.get("/v1/rollouts").json()
        answer = client.post("/v1/rollouts", params={"validate_only": True}, json={"release": "champion"})
        assert answer.status_code == 200
        assert (answer.json()["devices"], answer.json()["online"], answer.json()["stages"]) == (10, 9, [1, 9])
        assert answer.json()["in_the_way"] == [sqlite_plant.ids.rollout]
        assert client.get("/v1/rollouts").json() == before


def test_an_artifact_downloads_whole_and_in_parts(sqlite_plant):
    path = f"/v1/releases/{sqlite_plant.ids.release}/variants/student_int8/artifact"
    with sqlite_plant.client("viewer") as client:
        whole = client.get(path)
        part = client.get(path, headers={"Range": "bytes=4-9"})
    assert whole.content == ARTIFACT
    assert whole.headers["etag"] == f'"{sqlite_plant.ids.digest}"'
    assert (part.status_code, part.content) == (206, ARTIFACT[4:10])


def test_an_upload_past_the_limit_is_cut_off_and_leaves_nothing(sqlite_plant, monkeypatch):
    monkeypatch.setattr("fogline_server.api.routers.releases.MAX_ARTIFACT_BYTES", 1 << 20)
    incoming = sqlite_plant.state_dir / "blobs" / "incoming"
    with sqlite_plant.client() as client:
        answer = client.post("/v1/releases:import", params={"name": "big"}, content=iter([b"x" * (1 << 19)] * 4))
    assert (answer.status_code, answer.json()["code"]) == (413, "blob_too_large")
    assert list(incoming.iterdir()) == []


def test_events_stream_as_they_happen_and_go_on_after_a_break(plant):
    heard: list[dict] = []

    def listen(headers):
        with plant.client() as client, client.stream("GET", "/v1/events", headers=headers) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    heard.append(json.loads(line.removeprefix("data: ")))
                    if heard[-1]["kind"] == "test.last":
                        return

    def record(kind):
        with plant.db.transaction() as session:
            events.record(session, kind, "test", "test_1")

    with plant.db.read() as session:
        start = events.last_seq(session)
    listener = threading.Thread(
        target=listen, args=({"Accept": "text/event-stream", "Last-Event-ID": str(start)},), daemon=True
    )
    record("test.first")  # before anybody listens: Last-Event-ID asks for it
    listener.start()
    eventually(lambda: heard)
    record("test.last")
    listener.join(10)
    assert [event["kind"] for event in heard] == ["test.first", "test.last"]


def test_an_event_that_commits_late_is_not_missed(plant):
    heard: list[str] = []

    def listen():
        headers = {"Accept": "text/event-stream"}
        with plant.client() as client, client.stream("GET", "/v1/events", headers=headers) as stream:
            heard.append("listening")
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    heard.append(json.loads(line.removeprefix("data: "))["kind"])
                    if "test.late" in heard:
                        return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    eventually(lambda: heard)
    with plant.db.transaction() as slow:
        events.record(slow, "test.late", "test", "test_1")
        slow.flush()  # has its number now, and is seen by nobody before the commit
        if not plant.db.is_sqlite:  # SQLite has one writer at a time: numbers and commits are in one order
            with plant.db.transaction() as quick:
                events.record(quick, "test.quick", "test", "test_1")
            eventually(lambda: "test.quick" in heard)
    listener.join(10)
    assert "test.late" in heard


def test_an_unforeseen_error_tells_nothing(sqlite_plant):
    @sqlite_plant.app.get("/breaks")
    def breaks():
        raise RuntimeError("the password is hunter2")

    answer = httpx.get(f"{sqlite_plant.url}/breaks")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "hunter2" not in answer.text


def test_a_database_that_is_away_is_a_503_and_not_ready(sqlite_plant):
    path = sqlite_plant.db.engine.url.database
    sqlite_plant.db.dispose()
    with open(path, "r+b") as file:  # noqa: PTH123
        file.write(b"not a database any more")
    with sqlite_plant.client() as client:
        for route in ("/readyz", "/v1/jobs"):
            answer = client.get(route)
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable"), route
        assert client.get("/healthz").status_code == 200


def test_metrics_count_what_is_there(sqlite_plant):
    with sqlite_plant.client("viewer") as client:
        lines = client.get("/metrics").text.splitlines()
    assert 'fogline_devices{state="ACTIVE"} 10.0' in lines
    assert "fogline_devices_online 9.0" in lines
    assert "fogline_devices_drifting 3.0" in lines
    assert 'fogline_rollouts{state="DRAFT"} 1.0' in lines
