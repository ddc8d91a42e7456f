"""The loop, step by step. Each step asks the platform for something, waits, and returns what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fogline_server.demo import inputs
from fogline_server.demo.plant import Plant
from fogline_server.demo.rest import Rest, Row
from fogline_shared.errors import Unavailable

SEED, ROUNDS = 0, 16
VARIANTS = ("teacher_fp32", "student_fp32", "student_int8")
# What the search tries of the student; chains that train would need a transfer set, which this recipe does not have.
SPACE = (
    "float16",
    "int8_static",
    "int8_dynamic",
    "weight_only",
    "weight_only:bits=4",
    "low_rank,int8_static",
    "prune_channels:share=0.125:rounds=1:steps=0,int8_static",
    "sparse_magnitude:sparsity=0.3:rounds=1:steps=0,int8_static",
)
# What a device may be asked to take: bytes as sent, and accuracy below the float student's, a share.
ROOM = {"max_bytes": 40_000, "max_drop": 0.01}
PLAN = {"stages": [20.0, 100.0], "soak_s": 4.0, "probation_s": 1.0}
ERRORS = {"gate": "error_rate", "options": {"max_rate": 0.02}}
# Windows of one recording overlap by three quarters, hence the design effect. The first release has nothing to compare with.
FIRST = [ERRORS, {"gate": "accuracy", "options": {"minimum": 0.5, "max_drop": None, "design_effect": 4.0}}]
LATER = [ERRORS, {"gate": "accuracy", "options": {"max_drop": 0.15, "design_effect": 4.0}}]
Seen = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Story:
    """One telling of the demo. ``step(title)`` opens a progress line and returns how to move it."""

    plant: Plant
    rest: Rest
    step: Callable[[str], Seen]

    def enrol(self) -> list[str]:
        """Ten people's devices: keys, certificates, agents."""
        seen, people = self.step("ten devices enrol and connect"), inputs.members(self.plant.folder)
        done: list[str] = []

        def enrolled() -> None:
            done.append("one more")
            seen(len(done), len(people), "")

        self.plant.start_agents(self.rest, people, enrolled)
        return [person.name for person in people]

    def federate(self) -> dict[str, Row]:
        """Teacher, student, and the same student with the teacher's soft labels, in that order."""
        teacher = self._train("teacher", "teacher: 276,000 parameters, 8 rounds", {})
        student = self._train("student", "student: 14,000 parameters, 16 rounds", {})
        distilled = self._train(
            "student", "the same student, taught by the teacher", {"distil_from": teacher["run"]["id"]}
        )
        return {"teacher": teacher, "student": student, "distilled": distilled}

    def _train(self, size: str, title: str, more: Mapping[str, Any]) -> Row:
        seen = self.step(title)
        body = {"recipe": "smartwatch", "size": size, "seed": SEED, "tags": [inputs.TRAINING], "min_devices": 7}
        run = self.rest.post("/v1/runs", {**body, **more})
        path = f"/v1/runs/{run['id']}"
        run = self.rest.wait(
            path,
            timeout_s=240,
            seen=lambda row: seen(row["rounds_done"], row["rounds_total"], _holdout_note(self.rest, path)),
        )
        _require(run, "SUCCEEDED")
        return {"run": run, "rounds": self.rest.get(f"{path}/rounds")["items"]}

    def release(self, runs: Mapping[str, Row]) -> Row:
        """Choose between control and distilled, export, quantize, measure, seal."""
        seen = self.step("release: export, int8, measure, choose")
        body = {
            "name": "exercise-coach-1",
            "recipe": "smartwatch",
            "teacher_run": runs["teacher"]["run"]["id"],
            "student_run": runs["student"]["run"]["id"],
            "distilled_run": runs["distilled"]["run"]["id"],
            # Of one volunteer's few hundred windows; the unseen people judge the result.
            "max_accuracy_drop": 0.03,
        }
        made = self.rest.post("/v1/releases", body)
        release = self.rest.wait(
            f"/v1/releases/{made['id']}",
            timeout_s=120,
            seen=lambda row: seen(sum(bool(v["metrics"]) for v in row["variants"]), len(VARIANTS), row["state"]),
        )
        _require(release, "READY")
        self.rest.put("/v1/aliases/champion", {"release": release["id"]})
        for variant in VARIANTS:
            path = f"/v1/releases/{release['id']}/variants/{variant}/artifact"
            self.rest.download(path, self.artifact(variant))
        return release

    def search(self, release: Row) -> Row:
        """Which form of the student would suit a device with little :data:`ROOM`, and why not the others."""
        # Imported here: the command line starts with this module.
        from fogline_server.compression.chain import Chain

        seen = self.step("search: smaller forms of the student")
        chains = [Chain.parse(text).as_json() for text in SPACE]
        body = {"release": release["id"], "limits": ROOM, "chains": chains, "seed": SEED}
        made = self.rest.post("/v1/compression-searches", body)
        path = f"/v1/compression-searches/{made['id']}"
        search = self.rest.wait(
            path, timeout_s=120, seen=lambda row: seen(row["done"], row["total"] or len(SPACE), row["message"])
        )
        _require(search, "SUCCEEDED")
        return search

    def artifact(self, variant: str) -> Path:
        """Where a downloaded artifact lies."""
        return self.plant.folder / f"{variant}.onnx"

    def roll_out(self, release: Row, title: str, *, gates: Sequence[Row], expect: str) -> Row:
        """Two stages: two devices, then all. ``expect``: the state it must end in."""
        seen = self.step(title)
        made = self.rest.post(
            "/v1/rollouts", {"release": release["id"], "plan": {**PLAN, "gates": gates}, "start": True}
        )
        path = f"/v1/rollouts/{made['id']}"

        def look(row: Row) -> None:
            parts = self.rest.get(f"{path}/assignments", limit=200)["items"]
            done = sum(a["state"] in {"SUCCEEDED", "REVERTED"} for a in parts)
            seen(done, 10, f"stage {row['current_stage'] + 1} {row['state'].lower().replace('_', ' ')}")

        rollout = self.rest.wait(path, timeout_s=180, seen=look)
        _require(rollout, expect)
        return {
            "rollout": rollout,
            "artifact": next(v for v in release["variants"] if v["name"] == release["default_variant"]),
            "stages": self.rest.get(f"{path}/stages")["items"],
            "assignments": self.rest.get(f"{path}/assignments", limit=200)["items"],
            "events": self.rest.items("/v1/events", limit=1000, subject_id=made["id"])[::-1],
        }

    def break_it(self, release: Row) -> Row:
        """A release whose labels have slipped by one: as fast and as sure of itself as the good one, and wrong."""
        broken = inputs.mislabelled(self.artifact("student_int8").read_bytes())
        made = self.rest.upload("/v1/releases:import", broken, name="exercise-coach-2-broken", like=release["id"])
        imported = self.rest.wait(f"/v1/releases/{made['id']}", timeout_s=60)
        _require(imported, "READY")
        return imported

    def batch(self, release: Row) -> Row:
        """Score a table on the workers, then with the loop one would write by hand."""
        seen = self.step(f"offline: {inputs.BATCH_ROWS:,} windows through the workers")
        table = inputs.batch_table(self.plant.folder / "recordings.parquet")
        output = self.plant.folder / "labels.parquet"
        body = {"kind": "batch", "release": release["id"], "input": str(table), "output": str(output)}
        made = self.rest.post("/v1/jobs", {**body, "id_column": "recording"})
        job = self.rest.wait(
            f"/v1/jobs/{made['id']}", timeout_s=180, seen=lambda row: seen(row["done"], row["total"], row["message"])
        )
        _require(job, "SUCCEEDED")
        plain = measured(
            "plain", str(table), str(self.artifact("student_int8")), str(self.plant.folder / "plain.parquet")
        )
        return {"job": job, "plain": plain, "output": str(output)}

    def checked(self) -> Row:
        """What one device says of the model it serves: it has installed it because signed metadata list it."""
        return self.plant.status(inputs.members(self.plant.folder)[0])

    def fleet(self) -> Sequence[Row]:
        """Every device, as the coordinator sees it."""
        return self.rest.items("/v1/devices", limit=100)


class Yardsticks:
    """Local-only and centralised training, in processes of their own, while the rollout soaks."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=2)
        self._local: Future[Any] | None = None
        self._central: Future[Any] | None = None

    def start(self) -> None:
        """Begin; the machine has two cores, and a soak needs none."""
        self._central = self._pool.submit(measured, "central", str(ROUNDS), str(SEED))
        self._local = self._pool.submit(measured, "local", str(ROUNDS), str(SEED))

    def results(self) -> dict[str, Any]:
        """Wait for both."""
        assert self._local is not None
        assert self._central is not None
        return {"local": self._local.result(), "central": self._central.result()}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def measured(*arguments: str) -> Any:
    """Run :mod:`fogline_server.demo.measure`; raises Unavailable ``demo_measure_failed``."""
    command = [sys.executable, "-m", "fogline_server.demo.measure", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable("demo_measure_failed", f"measuring {arguments[0]}: {done.stderr.strip()[-800:]}")
    return json.loads(done.stdout)


def _require(row: Row, state: str) -> None:
    if row["state"] != state:
        why = row.get("error") or row.get("reason") or "no reason given"
        raise Unavailable("demo_step_failed", f"{row['id']} is {row['state']}, expected {state}: {why}")


def _holdout_note(rest: Rest, path: str) -> str:
    rounds = rest.get(f"{path}/rounds")["items"]
    scores = [r["metrics"]["holdout_accuracy"] for r in rounds if "holdout_accuracy" in r["metrics"]]
    return f"holdout {scores[-1]:.1%}" if scores else "waking the devices' trainers"
