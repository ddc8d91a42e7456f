from __future__ import annotations

import pytest

from fogline_server.registry.gates import NAMES, check
from fogline_server.registry.limits import RANGES, ReleaseLimits
from fogline_server.registry.model import ReleaseSpec
from fogline_shared.errors import InvalidInput

SPEC = ReleaseSpec(name="a", recipe="tiny", student_run="run_1", max_accuracy_drop=0.02)


def verdict(parent: float | None, int8: float | None, agreement: float = 1.0) -> tuple[str, str]:
    metrics = {"student_fp32": {"accuracy": parent}, "student_int8": {"accuracy": int8, "agreement": agreement}}
    (result,) = check(SPEC, metrics)
    return result.gate, result.verdict.value


def test_int8_may_lose_up_to_the_limit_and_no_more() -> None:
    assert verdict(0.90, 0.88) == ("int8_accuracy_drop", "PASS")
    assert verdict(0.90, 0.8799) == ("int8_accuracy_drop", "FAIL")
    assert verdict(0.90, 0.95) == ("int8_accuracy_drop", "PASS")


def test_without_a_holdout_agreement_decides() -> None:
    assert verdict(None, None, 0.99) == ("int8_disagreement", "PASS")
    assert verdict(None, None, 0.9) == ("int8_disagreement", "FAIL")


def test_a_number_that_is_none_never_passes() -> None:
    assert verdict(0.9, float("nan")) == ("int8_accuracy_drop", "FAIL")


def test_every_chain_has_a_gate_of_its_own() -> None:
    spec = ReleaseSpec(name="a", recipe="tiny", student_run="run_1", chains={"half": [{"method": "float16"}]})
    numbers = {"student_fp32": 0.9, "student_int8": 0.9, "half": 0.8}
    results = check(spec, {name: {"accuracy": accuracy} for name, accuracy in numbers.items()})
    assert [(r.gate, r.verdict.value) for r in results] == [
        ("int8_accuracy_drop", "PASS"),
        ("variant_accuracy_drop", "FAIL"),
    ]
    assert results[1].reason.startswith("half has 80.0%")


PARENT = {"accuracy": 0.9, "worst_class_accuracy": 0.8, "p50_us": 20.0}
INT8 = {
    "accuracy": 0.9,
    "worst_class_accuracy": 0.75,
    "agreement": 0.97,
    "calibration_error": 0.04,
    "bytes_zstd": 9000,
    "p50_us": 15.0,
}
JUST_ENOUGH = {
    "max_worst_class_drop": 0.05,
    "min_agreement": 0.97,
    "max_calibration_error": 0.04,
    "max_bytes": 9000,
    "max_p50_ratio": 0.75,
}
TOO_MUCH = {
    "max_worst_class_drop": 0.049,
    "min_agreement": 0.971,
    "max_calibration_error": 0.039,
    "max_bytes": 8999,
    "max_p50_ratio": 0.74,
}


def limited(limits: dict[str, float], int8: dict[str, float | None]) -> dict[str, str]:
    spec = ReleaseSpec(name="a", recipe="tiny", student_run="run_1", limits=limits)
    results = check(spec, {"student_fp32": PARENT, "student_int8": int8})
    assert all(result.reason for result in results)
    return {result.gate: result.verdict.value for result in results}


def test_each_limit_is_a_gate_that_passes_up_to_it() -> None:
    assert limited({}, INT8) == {"int8_accuracy_drop": "PASS"}
    assert limited(JUST_ENOUGH, INT8) == {"int8_accuracy_drop": "PASS", **dict.fromkeys(NAMES, "PASS")}
    assert limited(TOO_MUCH, INT8) == {"int8_accuracy_drop": "PASS", **dict.fromkeys(NAMES, "FAIL")}


def test_what_was_not_measured_is_no_pass() -> None:
    unmeasured = {"accuracy": 0.9, "worst_class_accuracy": None}
    assert set(limited(JUST_ENOUGH, unmeasured).values()) == {"PASS", "HOLD"}
    assert [verdict for gate, verdict in limited(JUST_ENOUGH, unmeasured).items() if gate in NAMES] == ["HOLD"] * 5
    not_a_number = dict.fromkeys(INT8, float("nan"))
    assert set(limited(JUST_ENOUGH, {**not_a_number, "accuracy": 0.9}).values()) == {"PASS", "FAIL"}


@pytest.mark.parametrize("name", RANGES)
def test_a_limit_out_of_range_is_named_with_the_range(name: str) -> None:
    for wrong in (RANGES[name][0] - 1, RANGES[name][1] * 2, "much"):
        with pytest.raises(InvalidInput, match=f"limits.{name} must be") as caught:
            ReleaseSpec(name="a", recipe="tiny", student_run="run_1", limits={name: wrong})
        assert caught.value.code == "invalid_release_limits"


def test_an_unknown_limit_is_named_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match="limits has no field 'max_heat'; fields: max_worst_class_drop"):
        ReleaseLimits.from_json({"max_heat": 1})


def test_limits_on_labels_need_labels() -> None:
    ReleaseLimits(max_calibration_error=0.1).check_labels("tiny", labelled=True)
    ReleaseLimits(max_bytes=100).check_labels("tiny", labelled=False)
    with pytest.raises(InvalidInput, match="max_calibration_error is measured on labelled") as caught:
        ReleaseLimits(max_calibration_error=0.1).check_labels("tiny", labelled=False)
    assert caught.value.code == "limit_without_holdout"
