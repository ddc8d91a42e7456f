"""``fogline release``: what its options make of a release, and what it tells of one."""

from __future__ import annotations

import httpx
from population import ARTIFACT

from fogline_server.cli.exits import Exit
from fogline_server.db.base import utc_now
from fogline_server.registry.deltas import service as deltas
from fogline_server.registry.deltas.service import Pair
from fogline_server.registry.notes import MOST, add_note
from fogline_server.registry.tables import Release
from fogline_shared.delta import NOTHING


def test_a_release_is_asked_for_with_variants_by_chains_of_methods(fogline, sqlite_plant):
    create = ("release", "create", "chained", "--student-run", sqlite_plant.ids.finished_run)
    small = ("--variant", "small=prune_channels:share=0.25,int8_static:qdq=true")
    limits = ("--limit", "min_agreement=0.9", "--limit", "max_bytes=40000")
    made = fogline(*create, *small, "--variant", "half=float16", "--default-variant", "small", *limits, "--json").json
    assert made["lineage"]["spec"]["limits"] == {"min_agreement": 0.9, "max_bytes": 40000}
    assert made["default_variant"] == "small"
    assert made["lineage"]["spec"]["chains"] == {
        "small": [
            {"method": "prune_channels", "options": {"share": 0.25}},
            {"method": "int8_static", "options": {"qdq": True}},
        ],
        "half": [{"method": "float16", "options": {}}],
    }
    for wrong, code in (
        ("small", "invalid_chain"),
        ("small=int8_static,finetune", "chain_order"),
        ("small=magic", "unknown_method"),
        ("small=prune_channels:share=2", "invalid_method_options"),
    ):
        said = fogline(*create, "--variant", wrong)
        assert (said.code, code in said.err) == (Exit.INVALID, True), said.err
    said = fogline(*create, "--limit", "max_heat=1")
    assert (said.code, "invalid_release_limits" in said.err) == (Exit.INVALID, True), said.err


def test_a_release_is_asked_for_with_a_student_taught_at_the_cloud(fogline, sqlite_plant):
    create = ("release", "create", "taught", "--student-run", sqlite_plant.ids.finished_run)
    elder = ("--teacher-release", sqlite_plant.ids.release)
    made = fogline(*create, *elder, "--teaching", "steps=50", "--teaching", "mixup=0.2", "--json").json
    assert made["lineage"]["spec"]["teaching"] == {"steps": 50, "mixup": 0.2}
    assert [each["release"] for each in made["lineage"]["teachers"]] == [sqlite_plant.ids.release]
    for wrong, code in (
        (("--taught",), "invalid_release_spec"),
        ((*elder, "--teaching", "warmth=2"), "invalid_request"),
        ((*elder, "--teaching", "steps=0"), "invalid_teaching"),
        (("--teacher-release", "nobody"), "release_not_found"),
    ):
        said = fogline(*create, *wrong)
        assert code in said.err, said.err


def test_the_variant_that_fits_is_named_with_reasons_against_the_others(fogline):
    chosen = fogline("release", "pick", "champion", "--max-p50-us", 100, "--max-drop", 0.01, "--json").json
    assert chosen["taken"] == "student_fp32"
    refused = {variant["name"]: variant["refused"] for variant in chosen["variants"]}
    assert refused == {"student_fp32": [], "student_int8": [], "teacher_fp32": ["220 µs, 100 allowed"]}
    told = fogline("release", "pick", "champion", "--max-p50-us", 100)
    assert (told.code, "student_fp32: 88.0% right" in told.err, "220 µs" in told.out) == (0, True, True)
    nothing = fogline("release", "pick", "champion", "--max-bytes", 1)
    assert (nothing.code, "nothing_fits: none of 3 is within the limits" in nothing.err) == (Exit.FAILED, True)


def test_deltas_of_a_release_are_shown_and_measured(fogline, sqlite_plant):
    assert "no deltas" in fogline("release", "deltas", "champion").err
    pair = Pair(variant="student_int8", base=NOTHING, target=sqlite_plant.ids.digest)
    with sqlite_plant.db.transaction() as session:
        deltas.add(session, pair, digest="d" * 64, size=3, target_size=len(ARTIFACT), now=utc_now())
    assert "nothing (compressed)" in fogline("release", "deltas", "champion").out
    measured = fogline("release", "delta", "champion", "champion", "--json").json
    assert (measured["variant"], measured["full_bytes"]) == ("student_int8", len(ARTIFACT))
    assert measured["peak_bytes"] < 8 << 20
    assert "copy and hash" in fogline("release", "delta", "champion", "champion").out


def test_a_damaged_release_is_found(fogline, sqlite_plant):
    assert fogline("release", "verify", "champion").code == 0
    path = sqlite_plant.app.state.services.blobs.path(sqlite_plant.ids.digest)
    path.chmod(0o600)
    path.write_bytes(b"tampered with")
    said = fogline("release", "verify", "champion")
    assert (said.code, "blob_damaged" in said.out) == (Exit.FAILED, True)


def test_what_a_release_was_built_without_is_told_with_the_reason(fogline, sqlite_plant):
    left = {"name": "small", "code": "artifact_bytes", "message": "small is sent as 9,000 bytes", "digest": "a" * 64,
            "size": 9100, "metrics": {"accuracy": 0.871}}  # fmt: skip
    with sqlite_plant.db.transaction() as session:
        release = session.get_one(Release, sqlite_plant.ids.release)
        release.report = {**release.report, "left_out": {"small": left}}
    assert fogline("release", "show", "champion", "--json").json["left_out"] == [left]
    shown = fogline("release", "show", "champion").out
    assert "87.1 %" in shown
    assert "artifact_bytes: small is sent as" in shown
    told = fogline("release", "pick", "champion")
    assert "small was left out of the release: artifact_bytes" in told.err
    said = fogline("release", "export", "champion", "--variant", "small")
    assert (said.code, "variant_left_out" in said.err) == (Exit.NOT_FOUND, True), said.err
    with sqlite_plant.client() as client:
        for path, body in (
            ("/v1/rollouts", {"release": "champion", "plan": {"variant": "small"}}),
            ("/v1/jobs", {"kind": "batch", "release": "champion", "input": "in", "output": "out", "variant": "small"}),
        ):
            answer = client.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (404, "variant_left_out"), path
    with httpx.Client(base_url=sqlite_plant.url) as client:
        client.post("/login", data={"api_key": sqlite_plant.keys["viewer"]})
        assert "artifact_bytes: small is sent as 9,000 bytes" in client.get("/console/live").text


def test_notes_on_a_release_are_told_with_writer_and_time_and_have_bounds(fogline, sqlite_plant):
    before = fogline("release", "show", "champion", "--json").json
    assert fogline("release", "note", "champion", "slow on old watches").code == 0
    assert fogline("release", "note", "tiny-1", "two\nlines <b>").code == 0
    after = fogline("release", "show", "champion", "--json").json
    assert [(note["text"], note["actor"].split()[0]) for note in after["notes"]] == [
        ("slow on old watches", "admin"),
        ("two\nlines <b>", "admin"),
    ]
    assert (after["lineage"], after["report"]) == (before["lineage"], before["report"])
    assert fogline("release", "verify", "champion").code == 0
    assert "slow on old watches" in fogline("release", "show", "champion").out
    told = fogline("event", "list", "--json").json
    assert [event["data"]["text"] for event in told if event["kind"] == "release.noted"][-1] == "slow on old watches"
    with httpx.Client(base_url=sqlite_plant.url) as client:
        client.post("/login", data={"api_key": sqlite_plant.keys["viewer"]})
        assert "two\nlines &lt;b&gt;" in client.get("/console/live").text
    for text, code in (("  ", "invalid_note"), ("bell \a", "invalid_note"), ("x" * 1001, "invalid_request")):
        said = fogline("release", "note", "champion", text)
        assert (said.code, code in said.err) == (Exit.INVALID, True), said.err
    with sqlite_plant.db.transaction() as session:
        for _ in range(MOST - 2):
            add_note(session, "champion", "again", actor="test")
    said = fogline("release", "note", "champion", "one too many")
    assert (said.code, "too_many_notes" in said.err) == (Exit.CONFLICT, True), said.err
    assert len(fogline("release", "show", "champion", "--json").json["notes"]) == MOST


def test_a_release_is_withdrawn_and_taken_back_unless_something_needs_it(fogline, sqlite_plant):
    said = fogline("release", "unlist", "champion")
    assert (said.code, "release_in_use" in said.err, "alias champion" in said.err) == (Exit.CONFLICT, True, True)
    assert "idle is UNLISTED" in fogline("release", "unlist", "idle").err
    assert fogline("release", "show", "idle", "--json").json["state"] == "UNLISTED"
    assert fogline("release", "verify", "idle").code == 0
    for refused in (
        ("rollout", "create", "idle"),
        ("release", "alias", "candidate", "idle"),
        ("release", "pick", "idle"),
    ):
        said = fogline(*refused)
        assert (said.code, "release_unlisted" in said.err) == (Exit.CONFLICT, True), said.err
    assert [row["name"] for row in fogline("release", "list", "--state", "UNLISTED", "--json").json] == ["idle"]
    assert "idle is READY" in fogline("release", "relist", "idle").err
    assert fogline("release", "alias", "candidate", "idle").code == 0
