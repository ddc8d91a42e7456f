from __future__ import annotations

from fogline_server.registry.gates import check
from fogline_server.registry.model import ReleaseSpec

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
