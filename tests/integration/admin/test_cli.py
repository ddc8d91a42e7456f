"""``fogline`` against a served coordinator: what it prints where, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from population import ARTIFACT

from fogline_server.blobs.store import BlobStore
from fogline_server.cli import main
from fogline_server.cli.exits import MEANING, Exit
from fogline_server.db.base import utc_now
from fogline_server.jobs.service import get_job
from fogline_server.registry.deltas import service as deltas
from fogline_server.registry.deltas.service import Pair
from fogline_server.storage.holders import needed
from fogline_server.training.tables import Update
from fogline_shared.delta import NOTHING


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def fogline(sqlite_plant, monkeypatch, capsys):
    """Run a command as its console script does, with the admin's key."""
    monkeypatch.setenv("FOGLINE_URL", sqlite_plant.url)
    monkeypatch.setenv("FOGLINE_API_KEY", sqlite_plant.keys["admin"])

    def call(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["fogline", *map(str, words)])
        with pytest.raises(SystemExit) as exited:
            main.run()
        captured = capsys.readouterr()
        return Said(int(exited.value.code or 0), captured.out, captured.err)

    return call


def test_every_list_prints_a_table_and_json(fogline, sqlite_plant):
    found = {
        "device": "watch-01",
        "token": sqlite_plant.ids.token,
        "run": "5/8",
        "release": "student_int8",
        "rollout": "1/2",
        "job": "62000/100000",
        "schedule": "0 3 * * * UTC",
        "event": "rollout.created",
        "key": "spare",
        "recipe": "tiny",
    }
    for group, expected in found.items():
        table, document = fogline(group, "list"), fogline(group, "list", "--json")
        assert (table.code, table.err, document.code, document.err) == (0, "", 0, ""), group
        assert expected in table.out, group
        assert isinstance(document.json, list), group


def test_every_thing_can_be_shown(fogline, sqlite_plant):
    ids = sqlite_plant.ids
    for group, one, expected in (
        ("device", ids.device, "x86_64"),
        ("run", ids.run, "holdout_accuracy"),
        ("release", "champion", "87.8 %"),
        ("rollout", ids.rollout, "error_rate HOLD"),
        ("job", ids.failed_job, "int8 loses"),
    ):
        said = fogline(group, "show", one)
        assert said.code == 0, said.err
        assert expected in said.out
        assert fogline(group, "show", one, "--json").json["id"]
    assert "The control is released, as the simpler one" in fogline("release", "show", "champion").out
    head, *rounds = fogline("run", "show", ids.finished_run).out.split("round ")[1].splitlines()
    assert head.split()[:6] == ["state", "devices", "accepted", "refused", "error", "late"]
    assert rounds[3].split()[:5] == ["3", "COMMITTED", "10", "9", "1"]
    assert "not_finite" in fogline("run", "updates", ids.finished_run).out
    assert "PROBATION" in fogline("rollout", "assignments", ids.rollout).out
    assert "offline: is offline" in fogline("device", "why-not", ids.offline_device, "--run", ids.run).out
    assert "round 6 may choose it" in fogline("device", "why-not", ids.device, "--run", ids.run).out
    assert fogline("device", "why-not", ids.device, "--run", "run_x").code == 4


def test_the_spec_of_a_run_starts_the_same_again_and_options_go_before_it(fogline, tmp_path):
    words = ["--plan", "epochs=3", "--plan", "learning_rate=0.5", "--strategy", "fedadam", "--option", "eta=0.5"]
    first = fogline("run", "start", "tiny", *words, "--gate", "max_drop=5", "--min-devices", 3, "--json").json["id"]
    fogline("run", "extend", first, "--rounds", 2)
    told = fogline("run", "show", first, "--spec")
    file = tmp_path / "run.json"
    file.write_text(told.out)

    def started(*more: object) -> dict:
        said = fogline("run", "start", *more, "--json")
        assert said.code == 0, said.err
        return said.json["spec"]

    assert started("--spec", file) == told.json | {"extensions": []}
    assert started("--spec", told.out) == told.json | {"extensions": []}, "JSON as it stands"
    changed = started("tiny", "--spec", file, "--plan", "epochs=1", "--min-devices", 2, "--gate", "max_drop=null")
    assert changed["plan"] == {"epochs": 1, "learning_rate": 0.5}
    assert (changed["min_devices"], changed["gate"]["max_drop"], changed["strategy"]) == (2, None, "fedadam")
    assert changed["strategy_options"]["eta"] == 0.5
    assert started("--spec", file, "--strategy", "fedprox")["strategy_options"] == {"proximal_mu": 0.01}
    assert started("--spec", file, "--strategy", "fedadam")["strategy_options"]["eta"] == 0.5
    assert started("--spec", file, "--from-release", "champion")["init_from"] is not None


def test_a_spec_with_unknown_keys_is_refused_with_their_names(fogline):
    said = fogline("run", "start", "--spec", '{"recipe": "tiny", "round": 3, "gate": {"drop": 1}}')
    assert (said.code, said.out) == (Exit.INVALID, "")
    assert "round" in said.err
    assert "gate.drop" in said.err
    assert fogline("run", "start", "--spec", '{"rounds": 3}').err == (
        "error: invalid_option: name a RECIPE, or give a --spec that does\n"
    )
    assert "invalid_json" in fogline("run", "start", "--spec", "/nonexistent").err


def test_what_is_made_is_named_on_standard_output_alone(fogline, sqlite_plant, tmp_path):
    run = fogline("run", "start", "tiny", "--rounds", 3, "--plan", "epochs=1", "--option", "unused=1")
    assert (run.code, "invalid_option" in run.err) == (2, True)
    run = fogline("run", "start", "tiny", "--condition", "min_battery_percent=101")
    assert (run.code, "invalid_eligibility" in run.err, "from 0 to 100" in run.err) == (2, True, True)
    asked = fogline(
        "run", "start", "tiny", "--condition", "charging=true", "--condition", "min_samples=9", "--json"
    ).json
    assert (asked["spec"]["eligibility"]["charging"], asked["spec"]["eligibility"]["min_samples"]) == (True, 9)
    run = fogline("run", "start", "tiny", "--rounds", 3, "--plan", "epochs=1")
    assert (run.code, run.out[:4], run.err) == (0, "run_", "")
    tuned = fogline("run", "start", "tiny", "--from-release", "champion")
    assert (tuned.code, tuned.out[:4], tuned.err) == (0, "run_", "")
    longer = fogline("run", "extend", run.out.strip(), "--rounds", 2, "--json")
    assert (longer.code, longer.json["rounds_total"], longer.err) == (0, 5, "")
    token = fogline("token", "create", "--name", "watch-11")
    assert token.out.startswith("fogline-et1.")
    secret = tmp_path / "token"
    assert fogline("token", "create", "--output", secret).out == ""
    assert secret.stat().st_mode & 0o777 == 0o600
    batch = fogline(
        "job", "submit", "batch", "--release", "champion", "--input", "in.parquet", "--output", "out.parquet"
    )
    assert batch.out.startswith("job_")
    rollout = fogline("rollout", "create", "champion", "--stages", "20,100", "--at", "2040-01-01T00:00:00")
    assert fogline("rollout", "show", rollout.out.strip(), "--json").json["start_at"] == "2040-01-01T00:00:00Z"
    schedule = fogline("schedule", "create", "weekly", "run", "--cron", "0 4 * * 1", "--spec", '{"recipe": "tiny"}')
    assert schedule.out.startswith("sch_")
    key = fogline("key", "create", "ci")
    assert key.out.startswith("fl_")
    assert sqlite_plant.ids.release in fogline("release", "aliases").out


def test_a_release_is_asked_for_with_variants_by_chains_of_methods(fogline, sqlite_plant):
    create = ("release", "create", "chained", "--student-run", sqlite_plant.ids.finished_run)
    small = ("--variant", "small=prune_channels:share=0.25,int8_static:qdq=true")
    made = fogline(*create, *small, "--variant", "half=float16", "--default-variant", "small", "--json").json
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


def test_actions_change_and_say_so(fogline, sqlite_plant, tmp_path):
    ids = sqlite_plant.ids
    assert "is PAUSED" in fogline("rollout", "pause", ids.rollout, "--reason", "lunch").err
    assert "is RUNNING" in fogline("rollout", "resume", ids.rollout).err
    assert "is ROLLING_BACK" in fogline("rollout", "rollback", ids.rollout).err
    assert "is CANCELED" in fogline("rollout", "cancel", ids.draft).err
    assert "is REVOKED" in fogline("device", "revoke", ids.device).err
    for words in (
        ("device", "tag", ids.offline_device, "floor:2"),
        ("token", "delete", ids.token),
        ("run", "pause", ids.run),
        ("run", "resume", ids.run),
        ("run", "cancel", ids.run),
        ("job", "retry", ids.failed_batch),
        ("job", "cancel", ids.batch),
        ("schedule", "disable", ids.schedule),
        ("schedule", "enable", ids.schedule),
        ("schedule", "delete", ids.schedule),
        ("release", "alias", "candidate", "tiny-1"),
        ("key", "revoke", ids.key),
    ):
        said = fogline(*words)
        assert (said.code, said.out) == (0, ""), (words, said.err)
    file = tmp_path / "model.onnx"
    assert fogline("release", "download", "champion", "student_int8", file).code == 0
    assert file.read_bytes() == ARTIFACT
    assert fogline("release", "import", "again", file, "--like", "tiny-1").out.startswith("rel_")


def test_what_a_budget_of_privacy_asks_for_is_told_without_a_coordinator(fogline):
    asked = ("--rounds", 30, "--epsilon", 8, "--parameters", 14000)
    few, *_, many = fogline("privacy", "plan", "--devices", 8, *asked, "--json").json
    assert (few["devices"], many["devices"]) == (8, 8000)
    assert few["noise_to_update"] > 1 > many["noise_to_update"]
    told = fogline("privacy", "plan", "--devices", 8, *asked)
    assert (told.code, "8000" in told.out, "noise is shorter" in told.err) == (0, True, True)
    local = fogline("privacy", "plan", "--devices", 8, *asked, "--local", "--json").json
    assert [row["noise_to_update"] > 1 for row in local] == [True] * 4


def test_a_population_is_made_listed_and_shown_and_a_private_run_counts_against_it(fogline):
    ward = ("population", "create", "wards", "--recipe", "tiny", "--tag", "ward")
    made = fogline(*ward, "--epsilon", 8)
    assert (made.code, made.out, "population wards has ε 8 at δ 1e-05" in made.err) == (0, "", True)
    again, bad = (
        fogline(*ward, "--epsilon", 8),
        fogline("population", "create", "x", "--recipe", "tiny", "--epsilon", 0),
    )
    assert (again.code, "population_name_taken" in again.err) == (Exit.CONFLICT, True)
    assert (bad.code, "epsilon must be a number from 0.001 to 1000" in bad.err) == (Exit.INVALID, True)
    start = ("run", "start", "tiny", "--tag", "ward", "--privacy", "population=wards", "--json")
    noise = ("--privacy", "noise_multiplier=4", "--privacy", "clip=0.5", "--privacy", "clip_quantile=0.5")
    run = fogline(*start, *noise, "--rounds", 10)
    assert (run.code, run.json["spec"]["privacy"]["clip_quantile"]) == (0, 0.5)
    over = fogline(*start, *noise, "--rounds", 1000)
    assert (over.code, "privacy_budget_exceeded" in over.err) == (Exit.CONFLICT, True)
    longer = fogline("run", "extend", run.json["id"], "--rounds", 1000)
    assert (longer.code, "privacy_budget_exceeded" in longer.err) == (Exit.CONFLICT, True)
    (listed,) = fogline("population", "list", "--json").json
    shown = fogline("population", "show", "wards", "--json").json
    assert listed == shown
    assert (shown["spent"], 0 < shown["committed"] < 8) == (0, True)
    for table in (fogline("population", "list"), fogline("population", "show", "wards")):
        assert (table.code, "wards" in table.out, f"{shown['committed']:.3f}" in table.out) == (0, True, True)
    missing = fogline("population", "show", "none")
    assert (missing.code, "population_not_found" in missing.err) == (Exit.NOT_FOUND, True)
    open_to_all = fogline("run", "start", "tiny", "--local-privacy", "epsilon=8")
    assert (open_to_all.code, "population_protected" in open_to_all.err) == (Exit.CONFLICT, True)


def test_options_of_rounds_reach_the_run_and_what_is_out_of_range_is_told(fogline):
    given = {
        "pacing": {"target": 5, "over_selection": 0.3, "self_tuning": True, "steering": False, "retries": 2},
        "gate": {"max_drop": 2.5, "patience": 3},
        "local_privacy": {"epsilon": 8, "delta": 1e-6, "clip": 0.5},
    }
    options = [
        word
        for name, fields in given.items()
        for key, value in fields.items()
        for word in ("--" + name.replace("_", "-"), f"{key}={json.dumps(value)}")
    ]
    spec = fogline("run", "start", "tiny", *options, "--json").json["spec"]
    assert {name: spec[name] for name in given} == given
    for option, said in (
        ("--pacing=target=0", "pacing.target must be an integer from 1"),
        ("--pacing=haste=1", "pacing.haste"),
        ("--gate=max_drop=101", "gate.max_drop must be a number from 0 to 100"),
        ("--gate=max_drop", "invalid_option"),
        ("--privacy=clip_quantile=2", "privacy.clip_quantile must be a number from 0.01 to 0.99"),
        ("--local-privacy=epsilon=0", "local_privacy.epsilon must be a number from 0.01 to 100"),
        ("--local-privacy=noise=1", "local_privacy has no field 'noise'"),
    ):
        refused = fogline("run", "start", "tiny", option)
        assert (refused.code, refused.out, said in refused.err) == (Exit.INVALID, "", True), refused.err


def test_an_asynchronous_run_is_started_and_its_updates_say_how_stale_they_were(fogline, sqlite_plant):
    started = fogline(
        *("run", "start", "tiny", "--strategy", "fedbuff", "--option", "buffer_size=4", "--max-devices", 40, "--json")
    ).json["spec"]
    assert (started["strategy_options"]["buffer_size"], started["max_devices"]) == (4, 40)
    refused = fogline("run", "start", "tiny", "--strategy", "fedbuff", "--pacing", "retries=1")
    assert (refused.code, "invalid_run: fedbuff has no rounds" in refused.err) == (Exit.INVALID, True)
    run = sqlite_plant.ids.run
    assert "staleness" not in fogline("run", "updates", run).out, "a synchronous run has none"
    with sqlite_plant.db.transaction() as session:
        session.get_one(Update, f"{run}-1-train-1").step = 3
    assert "staleness" in fogline("run", "updates", run).out
    (shown,) = fogline("run", "updates", run, "--json").json
    assert (shown["round"], shown["step"], shown["staleness"]) == (1, 3, 2)


def test_a_dry_run_says_what_would_happen(fogline):
    said = fogline("rollout", "create", "champion", "--stages", "10,100", "--dry-run", "--json")
    assert (said.json["online"], said.json["stages"]) == (9, [1, 9])


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["job", "show", "job_x"], Exit.NOT_FOUND, "job_not_found"),
        (["run", "start", "nope"], Exit.INVALID, "unknown_recipe"),
        (
            ["privacy", "plan", "--devices", 0, "--rounds", 1, "--epsilon", 1, "--parameters", 1],
            Exit.INVALID,
            "invalid_privacy",
        ),
        (["rollout", "create", "champion", "--start"], Exit.CONFLICT, "rollout_active"),
        (["--api-key", "fl_0123456789ab_0123456789abcdefghij", "job", "list"], Exit.DENIED, "invalid_api_key"),
        (["--url", "http://127.0.0.1:1", "job", "list"], Exit.UNAVAILABLE, "coordinator_unreachable"),
        (["--url", "nonsense", "job", "list"], Exit.UNAVAILABLE, "coordinator_unreachable"),
        (["rollout", "create", "champion", "--stages", "a,b"], Exit.INVALID, "invalid_option"),
        (["schedule", "create", "x", "run", "--spec", "{"], Exit.INVALID, "invalid_json"),
        (
            ["job", "submit", "batch", "--release", "champion", "--input", "/etc/passwd", "--output", "x"],
            Exit.INVALID,
            "path_not_allowed",
        ),
        (["job", "show", "../runs"], Exit.INVALID, "invalid_name"),
        (["job", "show", ""], Exit.INVALID, "invalid_name"),
        (["job", "show", "x?limit=1"], Exit.INVALID, "invalid_name"),
        (["job", "cancel", "../runs/run_1"], Exit.INVALID, "invalid_name"),
        (["job", "show", "\udcff"], Exit.INVALID, "invalid_name"),
        (["job", "list", "--state", "\udcff"], Exit.INVALID, "invalid_argument"),
        (["run", "start", "tiny", "--quorum", "nan"], Exit.INVALID, "invalid_argument"),
        (["run", "start", "tiny", "--plan", "epochs=1e400"], Exit.INVALID, "invalid_argument"),
        (["run", "start", "tiny", "--tag", "\udcff"], Exit.INVALID, "invalid_argument"),
        (["schedule", "create", "x", "run", "--spec", "[" * 100_000], Exit.INVALID, "invalid_json"),
        (["schedule", "create", "x", "run", "--spec", "@/nonexistent"], Exit.INVALID, "invalid_json"),
        (["--url", "http://[::1", "job", "list"], Exit.INVALID, "invalid_url"),
        (["--url", f"http://{'a' * 300}", "job", "list"], Exit.INVALID, "invalid_"),
        (["--api-key", "é", "job", "list"], Exit.DENIED, "invalid_api_key"),
        (["--api-key", "a\nb", "job", "list"], Exit.DENIED, "invalid_api_key"),
        (["job", "nothing"], Exit.INVALID, "No such command"),
        (["release", "download", "champion", "student_int8", "/proc/x.onnx"], Exit.OTHER, "cannot_write"),
    ],
)
def test_each_error_is_one_line_and_its_exit_code(fogline, words, code, error):
    said = fogline(*words)
    assert (said.code, said.out) == (code, ""), said.err
    assert error in said.err
    assert "Traceback" not in said.err


def test_a_viewer_is_denied(fogline, sqlite_plant):
    said = fogline("--api-key", sqlite_plant.keys["viewer"], "run", "start", "tiny")
    assert (said.code, "role_too_low" in said.err) == (Exit.DENIED, True)


def test_waiting_shows_progress_and_ends_with_the_job(fogline, sqlite_plant):
    def work():
        for done in (80_000, 100_000):
            time.sleep(0.4)
            with sqlite_plant.db.transaction() as session:
                job = get_job(session, sqlite_plant.ids.batch)
                job.done, job.state = done, "SUCCEEDED" if done == 100_000 else "RUNNING"

    worker = threading.Thread(target=work)
    worker.start()
    said = fogline("job", "wait", sqlite_plant.ids.batch)
    worker.join()
    assert (said.code, said.out) == (0, f"{sqlite_plant.ids.batch}\n")
    assert "100000/100000" in said.err


def test_waiting_for_what_fails_exits_with_7_and_the_reason(fogline, sqlite_plant):
    said = fogline("job", "wait", sqlite_plant.ids.failed_job)
    assert (said.code, said.out) == (Exit.FAILED, "")
    assert "int8_too_bad: int8 loses 4.1 % against float" in said.err


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


def test_the_coordinator_of_this_folder_is_found(fogline, sqlite_plant, monkeypatch, tmp_path):
    monkeypatch.delenv("FOGLINE_URL")
    monkeypatch.delenv("FOGLINE_API_KEY")
    monkeypatch.chdir(tmp_path)
    assert "no_coordinator" in fogline("device", "list").err
    key = tmp_path / "admin.key"
    key.write_text(sqlite_plant.keys["admin"] + "\n")
    Path(".fogline").mkdir()
    Path(".fogline/up.json").write_text(json.dumps({"url": sqlite_plant.url, "api_key_file": str(key)}))
    assert "watch-01" in fogline("device", "list").out
    # It sees the files of this folder; its data folder is another one, so the whole path is in what it answers.
    said = fogline(
        "job", "submit", "batch", "--release", "champion", "--input", "in.parquet", "--output", "out.parquet"
    )
    assert (said.code, f"{tmp_path / 'in.parquet'}" in said.err) == (Exit.INVALID, True)


def test_events_are_followed_as_they_happen_until_ctrl_c(sqlite_plant):
    environment = {"FOGLINE_URL": sqlite_plant.url, "FOGLINE_API_KEY": sqlite_plant.keys["admin"], "PATH": "/usr/bin"}
    # Whoever runs the tests in the background ignores SIGINT, and children inherit that.
    command = [
        "env",
        "--default-signal=INT",
        str(Path(sys.executable).with_name("fogline")),
        "event",
        "follow",
        "--json",
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        timer = threading.Timer(15, process.kill)
        timer.start()
        with sqlite_plant.client() as client:
            while not client.get("/v1/events", params={"kind": "device.tagged"}).json()["items"] or process.poll():
                time.sleep(1.5)  # it listens from when it is there
                client.put(f"/v1/devices/{sqlite_plant.ids.device}/tags", json={"tags": ["a"]})
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
        timer.cancel()
    assert json.loads(line)["kind"] == "device.tagged"
    assert (process.returncode, told) == (130, "")


def test_a_full_disk_behind_standard_output_is_told(sqlite_plant):
    environment = {"FOGLINE_URL": sqlite_plant.url, "FOGLINE_API_KEY": sqlite_plant.keys["admin"], "PATH": "/usr/bin"}
    command = [str(Path(sys.executable).with_name("fogline")), "device", "list"]
    for words in ([], ["--json"]):
        with Path("/dev/full").open("w") as full:
            said = subprocess.run(
                [*command, *words], env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert (said.returncode, said.stderr) == (Exit.OTHER, "error: cannot_write: No space left on device\n")


def test_an_up_file_of_another_form_is_no_up_file(fogline, monkeypatch, tmp_path):
    monkeypatch.delenv("FOGLINE_API_KEY")
    monkeypatch.setenv("FOGLINE_STATE_DIR", str(tmp_path))
    for text in ("nonsense", "[]", "{}", '{"api_key_file": 7}', '{"api_key_file": "/nonexistent"}'):
        (tmp_path / "up.json").write_text(text)
        said = fogline("device", "list")
        assert (said.code, said.err[:18]) == (Exit.DENIED, "error: no_api_key:"), text


def test_help_lists_every_exit_code(fogline):
    said = fogline("--help")
    words = " ".join(said.out.split())
    assert all(f"{int(code)} {meaning}" in words for code, meaning in MEANING.items())
    assert fogline("--version").out.startswith("fogline ")


def test_help_loads_neither_torch_nor_flwr():
    check = (
        "import sys, fogline_server.cli.main; print([m for m in ('torch', 'flwr', 'sqlalchemy') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert "torch" not in said.stdout
    assert "flwr" not in said.stdout


def test_storage_tells_what_is_there_and_collects_what_nobody_needs(fogline, sqlite_plant):
    blobs = BlobStore(sqlite_plant.state_dir / "blobs")
    old, young = blobs.put([b"stray"]).digest, blobs.put([b"young"]).digest
    os.utime(blobs.path(old), (0, 0))
    before = set(blobs.held())
    told = fogline("storage", "show", "--json").json
    unknown = next(share for share in told["shares"] if share["kind"] == "unknown")
    assert (told["tiers"], unknown["free_hot_bytes"] >= 10, told["chunk_bytes"]) == (["hot"], True, 0)
    assert "unknown" in fogline("storage", "show").out
    assert "would remove" in fogline("storage", "collect", "--dry-run").err
    assert blobs.exists(old)
    assert fogline("storage", "collect", "--grace", 1, "--json").json["blobs"] >= 1
    assert not blobs.exists(old)
    assert young in blobs.held()
    with sqlite_plant.db.read() as session:
        assert before & needed(session) <= set(blobs.held())
    refused = fogline("storage", "collect", "--grace", 0.5)
    assert (refused.code, "invalid_request" in refused.err) == (Exit.INVALID, True)
