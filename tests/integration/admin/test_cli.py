"""``fogline`` against a served coordinator: what it prints where, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from population import ARTIFACT

from fogline_server.blobs.store import BlobStore
from fogline_server.cli.exits import MEANING, Exit
from fogline_server.jobs.service import get_job
from fogline_server.storage.holders import needed


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
    assert "mean_0 0.40, spread_0 0.01 over 240 inputs" in fogline("device", "show", ids.device).out
    head, *rounds = fogline("run", "show", ids.finished_run).out.split("round ")[1].splitlines()
    assert head.split()[:6] == ["state", "devices", "accepted", "refused", "error", "late"]
    assert rounds[3].split()[:5] == ["3", "COMMITTED", "10", "9", "1"]
    assert "not_finite" in fogline("run", "updates", ids.finished_run).out
    assert "PROBATION" in fogline("rollout", "assignments", ids.rollout).out
    assert "offline: is offline" in fogline("device", "why-not", ids.offline_device, "--run", ids.run).out
    assert "round 6 may choose it" in fogline("device", "why-not", ids.device, "--run", ids.run).out
    assert fogline("device", "why-not", ids.device, "--run", "run_x").code == 4


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
    assert fogline("release", "export", "champion", "--output", file).out == f"{file}\n"
    assert file.read_bytes() == ARTIFACT
    assert fogline("release", "import", "again", file, "--like", "tiny-1").out.startswith("rel_")


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
        (["release", "export", "champion", "--output", "/proc/x.onnx"], Exit.OTHER, "cannot_write"),
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
