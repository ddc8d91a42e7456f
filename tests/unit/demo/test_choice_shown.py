"""The demo's tables and page say which student is released, by how much, and how sure that is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from fogline_server.demo import report, tables
from fogline_server.demo.story import VARIANTS
from fogline_server.distillation.choice import choose

AT = "2026-01-01T00:00:00+00:00"
RECORDINGS = np.repeat(np.arange(40), 10)


def form(name: str, size: int, *, front: bool, refused: list[str]) -> dict:
    return {
        "name": name,
        "accuracy": 0.8,
        "worst_class": 0.7,
        "size": size,
        "p50_us": 30.0,
        "front": front,
        "refused": refused,
    }


def facts(*, distilled_right: int) -> dict:
    """Of a demo whose control is right on 300 of 400 windows."""
    right = {
        "student": np.arange(400) < 300,
        "distilled": np.arange(400) < distilled_right,
        "teacher": np.arange(400) < 390,
    }
    metrics = {"accuracy": 0.75, "bytes": 1000, "bytes_zstd": 900, "p50_us": 30.0, "p99_us": 40.0}
    rollout = {"started_at": AT, "state": "SUCCEEDED", "reason": "", "wire_bytes": 500}
    rolled_out = {"rollout": rollout, "artifact": {"size": 1000}, "events": [], "assignments": [{}, {}], "stages": []}
    told = {
        "release": {
            "name": "coach-1",
            "report": {"choice": choose(right, RECORDINGS).as_json(), "gates": []},
            "variants": [{"name": name, "digest": "d", "metrics": metrics} for name in VARIANTS],
        },
        "unseen": {name: {"accuracy": 0.8, "worst_class_accuracy": 0.7} for name in VARIANTS},
        "yardsticks": {"local": {"by_person": {"1": 0.6}, "mean": 0.6, "best": 0.6}, "central": {"accuracy": 0.9}},
        "runs": {"student": {"rounds": [{"number": 1, "metrics": {"holdout_accuracy": 0.75}}]}},
        "batch": {
            "job": {"started_at": AT, "finished_at": "2026-01-01T00:00:10+00:00"},
            "plain": {"rows": 9, "seconds": 2},
        },
        "fleet": [],
        "personal": {
            "own": 244,
            "tested": 1239,
            "released": 0.8,
            "personal": 0.875,
            "scratch": 0.825,
            "people": [{"kept": True}, {"kept": False}],
        },
        "pick": {
            "taken": "student_int8",
            "sentence": "student_int8: 80.0% right",
            "variants": [
                form(
                    name, size, front=name != "student_packed", refused=["60000 bytes, 40000 allowed"] * (size > 40000)
                )
                for name, size in (
                    ("teacher_fp32", 10**6),
                    ("student_fp32", 60000),
                    ("student_int8", 20000),
                    ("student_packed", 30000),
                )
            ],
        },
        "checked": {"name": "person-1", "trusted_root": 1, "active_digest": "c0ffee" * 10, "running": True},
        **dict.fromkeys(("good", "broken"), rolled_out),
    }
    return {"seconds": 100.0, **report.facts(told)}


def printed(told: dict) -> str:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as capture:
        for table in tables.all_tables(told):
            console.print(table)
    return " ".join(capture.get().split())


@pytest.mark.parametrize("show", [printed, report.page])
def test_a_lead_within_chance_is_shown_with_its_interval_and_the_control_is_released(show) -> None:
    said = show(facts(distilled_right=306))
    assert "student, released" in said
    assert "distilled, released" not in said
    assert "The control is released, as the simpler one" in said
    assert "+1.5" in said
    assert "-1.5 to +4.5" in said


@pytest.mark.parametrize("show", [printed, report.page])
def test_a_better_student_is_shown_as_released(show) -> None:
    said = show(facts(distilled_right=380))
    assert "distilled, released" in said
    assert "student, released" not in said
    assert "The distilled student is released" in said
    assert "+20.0" in said


def test_the_personal_head_is_shown_beside_the_control_and_how_often_it_won() -> None:
    said = printed(facts(distilled_right=306))
    assert "with a personal head where it won │ 87.5" in said
    assert "control: from scratch on the same windows │ 82.5" in said
    assert "1 of 2 did" in said


def test_the_page_shows_the_personal_head_and_the_control_too() -> None:
    said = report.page(facts(distilled_right=306))
    assert "<tr><td>federated, with a personal head where it won<td>87.5 %" in said
    assert "<tr><td>control: from scratch on the same windows<td>82.5 %" in said


@pytest.mark.parametrize("show", [printed, report.page])
def test_what_went_over_the_wire_and_who_signed_it_is_shown(show) -> None:
    said = show(facts(distilled_right=306))
    assert "2,000" in said
    assert "25%" in said.replace(" %", "%")
    assert "Device person-1 serves c0ffeec0ffee: metadata that the keys of root 1" in said


@pytest.mark.parametrize("show", [printed, report.page])
def test_the_forms_of_the_student_are_shown_with_the_pick_and_why_not_the_others(show) -> None:
    said = show(facts(distilled_right=306))
    assert "student_int8: 80.0% right" in said
    assert "60000 bytes, 40000 allowed" in said
    assert "student_packed" in said


def test_the_chart_of_forms_fills_those_that_no_other_beats() -> None:
    said = report.page(facts(distilled_right=306))
    assert said.count('class="beaten"') == 1
    assert said.count('r="7"') == 1
    assert 'cx="580.0"' in said  # the largest student, at the right
