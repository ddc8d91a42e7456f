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


def candidate(chain: str, size: int, *, front: bool, why_not: list[str]) -> dict:
    half = {"accuracy": 0.8, "worst_class_accuracy": 0.7}
    metrics = {"choosing": half, "judging": {**half, "accuracy": 0.775}, "bytes_zstd": size, "p50_us": 30.0}
    row = {"name": f"{chain}-c0ffee", "chain": chain, "final": True, "front": front, "why_not": why_not}
    return {**row, "metrics": metrics}


FAILED = {
    "name": "low_rank-c0ffee",
    "chain": "low_rank",
    "final": False,
    "why_not": ["nothing_to_compress: it is small"],
}


RESULT = {
    "pick": "int8_static-c0ffee",
    "sentence": "int8_static-c0ffee: 80.0% right",
    "best_single_sentence": "int8_static-c0ffee: 80.0% right, alone",
    "evidence": {"kind": "holdout", "choosing": 200, "judging": 200},
    "trials": 4,
    "cached": 0,
    "candidates": [
        candidate("float16", 60000, front=True, why_not=["60000 bytes, 40000 allowed"]),
        candidate("int8_static", 20000, front=True, why_not=[]),
        candidate("weight_only", 30000, front=False, why_not=["as accurate, but 30 µs and 30000 bytes"]),
        FAILED,
    ],
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
        "search": {"result": RESULT},
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
def test_the_search_is_shown_with_its_pick_and_why_not_the_others(show) -> None:
    said = show(facts(distilled_right=306))
    assert "int8_static-c0ffee: 80.0% right" in said
    assert "int8_static-c0ffee: 80.0% right, alone" in said
    assert "60000 bytes, 40000 allowed" in said
    assert "nothing_to_compress: it is small" in said
    assert "77.5" in said


def test_the_chart_of_forms_names_those_that_no_other_beats_and_rings_the_pick() -> None:
    said = report.page(facts(distilled_right=306))
    assert said.count('class="dot beaten"') == 1
    assert said.count('class="ring"') == 1
    assert 'cx="876.0"' in said  # the largest form, at the right
    assert '">int8_static-c0ffee</text>' in said
