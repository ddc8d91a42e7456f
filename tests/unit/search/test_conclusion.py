"""What a search comes to: pure but for latency, which is not measured again where everything was found."""

from __future__ import annotations

import numpy as np

from fogline_server.compression.chain import Chain
from fogline_server.compression.front import Limits
from fogline_server.registry.students import ChosenStudent
from fogline_server.search.conclusion import Conclusion, conclude
from fogline_server.search.evidence import Evidence
from fogline_server.search.model import SearchSpec
from fogline_server.search.outcomes import Tried
from fogline_server.search.source import Source
from fogline_server.search.space import entries
from fogline_shared.recipe import Dataset, load_recipe

TEXTS = ("float16", "weight_only", "low_rank,int8_static", "finetune,int8_static", "int8_dynamic")


def metrics(choosing: float, judging: float, size: int, p50: float = 50.0) -> dict:
    halves = {
        name: {"accuracy": share, "worst_class_accuracy": share - 0.1, "calibration_error": 0.0}
        for name, share in (("choosing", choosing), ("judging", judging))
    }
    return {**halves, "agreement": 1.0, "bytes": 2 * size, "bytes_zstd": size, "p50_us": p50, "p99_us": p50}


def concluded(measured: list[dict | str], **limits: float) -> Conclusion:
    """Of chains by place: what was measured of each, or the code it failed with."""
    data = Dataset(x=np.zeros((3, 6, 32), np.float32), y=np.zeros(3, np.int64))
    student = ChosenStudent(run_id="run_1", params_digest="p" * 64, statistics={})
    source = Source(recipe=load_recipe("tiny"), student=student, params=b"", model=b"", model_digest="m" * 64, seed=0)
    vars(source)["evidence"] = Evidence(kind="holdout", choosing=data, judging=data)
    space = entries([Chain.parse(text) for text in TEXTS[: len(measured)]], steps=9)
    tried = [
        Tried(
            entry=entry,
            key="k",
            share=1.0,
            cached=True,
            digest=None if isinstance(found, str) else f"{entry.number:064x}",
            size=None if isinstance(found, str) else 7,
            metrics=None if isinstance(found, str) else found,
            error={"code": found, "message": "so it is"} if isinstance(found, str) else None,
        )
        for entry, found in zip(space, measured, strict=True)
    ]
    spec = SearchSpec(limits=Limits(**limits))
    return conclude(spec, source, [tried], [], parent=metrics(0.90, 0.90, 1000, 80.0), read=lambda _: b"")


def test_the_luckiest_on_the_half_that_chose_must_keep_the_limits_on_the_other_too() -> None:
    lucky, honest, coarse = metrics(0.95, 0.80, 300), metrics(0.90, 0.90, 300), metrics(0.80, 0.95, 100)
    found = concluded([lucky, honest, coarse], max_drop=0.05)
    names = [row["name"] for row in found.candidates]
    assert found.pick == names[1]
    assert [row["why_not"] for row in found.candidates] == [
        ["on the judging half: loses 10.0%, 5.0% allowed"],
        [],
        ["loses 10.0%, 5.0% allowed"],
    ]
    assert "of the 3 that only judged, 90.0% are right (float parent 90.0%)" in found.sentence
    # The front is what no other beats, whatever the limits; a release gets what is within them.
    assert set(found.front) == {names[0], names[2]}
    assert found.shipped == [names[1]]
    assert found.as_json()["best_single_sentence"] == "it is the pick"


def test_the_best_single_method_stands_beside_a_pick_that_is_a_chain() -> None:
    found = concluded([metrics(0.85, 0.85, 300), metrics(0.84, 0.9, 200), metrics(0.89, 0.9, 250)])
    assert found.pick == found.candidates[2]["name"]
    assert found.best_single == found.candidates[0]["name"]
    assert found.single_sentence.startswith(found.best_single)
    assert found.candidates[1]["why_not"] == [f"84.00% where {found.pick} has 89.00%"]
    assert found.shipped == [found.pick, found.candidates[1]["name"]]


def test_of_equals_it_says_what_made_the_difference() -> None:
    found = concluded([metrics(0.9, 0.9, 300, 40.0), metrics(0.9, 0.9, 200, 45.0)])
    assert found.pick == found.candidates[0]["name"]
    assert found.candidates[1]["why_not"] == ["as accurate, but 45 µs and 200 bytes"]


def test_nothing_that_fits_and_nothing_that_was_made_are_different_answers() -> None:
    none = concluded([metrics(0.9, 0.9, 300), metrics(0.7, 0.7, 200)], max_bytes=250, max_drop=0.1)
    assert (none.pick, none.shipped) == (None, [])
    assert none.sentence.startswith("none of 2 is within the limits; nearest is ")
    assert none.sentence.endswith(": 300 bytes, 250 allowed")
    failed = concluded(["not_prunable"])
    assert failed.sentence.startswith("none of 0 is within the limits: no chain gave a form")
    assert failed.candidates[0]["why_not"] == ["not_prunable: so it is"]
    assert failed.candidates[0]["rungs"][0]["error"] == {"code": "not_prunable", "message": "so it is"}
