"""Local privacy: what a device lets out hides which update it made, and honest noise is never taken for an attack."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fogline_server.training.admission import Judgement
from fogline_server.training.privacy.local import UNSOUND, LocalPrivacy, judged
from fogline_server.training.privacy.spec import Privacy
from fogline_server.training.spec import RunSpec
from fogline_server.training.strategies import base as strategies
from fogline_shared.eligibility import Eligibility
from fogline_shared.errors import InvalidInput
from fogline_shared.privacy.accountant import Releases, epsilon
from fogline_shared.privacy.local import Local
from fogline_shared.states import UpdateVerdict

SENT = {"w": np.full((40, 50), 2.0, np.float32), "b": np.zeros(1000, np.float32)}
VALUES = 3000


def trained(size: float, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: (sent + size * rng.normal(size=sent.shape)).astype(np.float32) for name, sent in SENT.items()}


def moved(arrays) -> np.ndarray:
    return np.concatenate([(arrays[name].astype(np.float64) - sent).ravel() for name, sent in SENT.items()])


def test_the_noise_is_measured_in_the_distance_of_any_two_clipped_updates() -> None:
    local = Local(clip=0.5, noise_multiplier=3.0)
    noise = np.concatenate([moved(local.protect(SENT, SENT, bytes([i])).arrays) for i in range(20)])
    assert noise.std() == pytest.approx(3.0 * 2 * 0.5, rel=0.02)
    # Hardly any noise: what is left is the update, no longer than the clip.
    quiet = Local(clip=0.5, noise_multiplier=0.1)
    for size in (1e-3, 10.0):
        one, none = (moved(quiet.protect(new, SENT, b"s").arrays) for new in (trained(size), SENT))
        noises = [math.dist(each, np.zeros(VALUES)) for each in (one, none)]
        assert noises[0] == pytest.approx(noises[1], rel=0.1), "an update is not seen in what is sent"


def test_the_same_update_is_sent_the_same_and_of_another_the_noise_does_not_cancel() -> None:
    local = Local(clip=1.0, noise_multiplier=1.0)
    first, again = (local.protect(trained(0.001), SENT, b"s") for _ in range(2))
    assert first.fingerprint == again.fingerprint
    assert np.array_equal(moved(first.arrays), moved(again.arrays))
    for new, secret in ((trained(0.001, seed=1), b"s"), (trained(0.001), b"t")):
        other = local.protect(new, SENT, secret)
        assert other.fingerprint != first.fingerprint
        assert np.linalg.norm(moved(first.arrays) - moved(other.arrays)) > local.deviation * math.sqrt(VALUES)


def test_that_an_update_is_not_finite_is_not_told() -> None:
    broken = {name: np.full_like(sent, np.nan) for name, sent in SENT.items()}
    sent = moved(Local(clip=1.0, noise_multiplier=1.0).protect(broken, SENT, b"s").arrays)
    assert np.isfinite(sent).all()
    assert sent.std() == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize(("target", "delta"), [(0.5, 1e-5), (8.0, 1e-5), (8.0, 1e-8)])
def test_an_update_costs_what_was_asked_for_and_rounds_add_up(target: float, delta: float) -> None:
    asked = LocalPrivacy(epsilon=target, delta=delta)
    noise = asked.mechanism.noise_multiplier
    assert asked.spent(1) <= target < epsilon([Releases(noise_multiplier=noise - 0.0015, rounds=1)], delta)
    assert asked.spent(30) == epsilon([Releases(noise_multiplier=noise, rounds=30)], delta)


def reply(norm: float, *, node: int = 1) -> Judgement:
    return Judgement(node_id=node, verdict=UpdateVerdict.ACCEPTED, norm=norm, samples=1)


@given(seed=st.integers(0, 10**9), values=st.sampled_from([1, 2, 10, 1000]), clip=st.floats(1e-3, 100))
def test_an_honest_update_is_admitted_however_few_its_values_are(seed: int, values: int, clip: float) -> None:
    local = Local(clip=clip, noise_multiplier=0.7)
    sent = {"w": np.zeros(values, np.float64)}
    new = {"w": np.random.default_rng(seed).normal(size=values) * 100}
    norm = float(np.linalg.norm(local.protect(new, sent, str(seed).encode()).arrays["w"]))
    (told,) = judged(local, [reply(norm)], marked={1}, values=values, plain=True)
    assert told.verdict == UpdateVerdict.ACCEPTED


def test_a_long_update_and_one_without_noise_are_refused_without_a_cohort_to_compare_with() -> None:
    local = Local(clip=1.0, noise_multiplier=1.0)
    usual = 2.0 * math.sqrt(VALUES)
    judgements = judged(local, [reply(1.5 * usual), reply(usual, node=2)], marked={1}, values=VALUES, plain=True)
    assert [each.code for each in judgements] == ["implausible_norm", "not_private"]
    # A codec may carry over what it left out the round before: its replies are compared with each other.
    (told,) = judged(local, [reply(1.5 * usual)], marked={1}, values=VALUES, plain=False)
    assert told.code == ""


@pytest.mark.parametrize("name", strategies.names())
def test_rules_that_need_more_than_parameters_are_refused(name: str) -> None:
    local = LocalPrivacy(epsilon=8.0)
    if name not in UNSOUND:
        assert RunSpec(recipe="tiny", strategy=name, local_privacy=local).local_privacy == local
        return
    with pytest.raises(InvalidInput, match="strategy_not_private"):
        RunSpec(recipe="tiny", strategy=name, local_privacy=local)


@pytest.mark.parametrize(
    ("local", "more", "message"),
    [
        ({"epsilon": 0}, {}, "local_privacy.epsilon must be a number from 0.01 to 100"),
        ({"delta": 1}, {}, "local_privacy.delta must be a number from 1e-15 to 0.1"),
        ({"clip": 0}, {}, "local_privacy.clip must be a number from 1e-06"),
        ({"noise": 1}, {}, "local_privacy has no field 'noise'; fields: epsilon, delta, clip"),
        ({}, {"evaluate_every": 1}, "evaluate_every and local_privacy do not go together"),
        ({}, {"privacy": Privacy(population="ward")}, "privacy and local_privacy do not go together"),
        ({}, {"eligibility": Eligibility(min_samples=3)}, "min_samples and local_privacy"),
    ],
)
def test_what_cannot_be_is_refused_with_its_range(local: dict, more: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        RunSpec(recipe="tiny", local_privacy=LocalPrivacy.from_json({"epsilon": 8.0, **local}), **more)
    assert refused.value.code == "invalid_privacy"
    assert not LocalPrivacy()


def test_a_spec_with_local_privacy_comes_back_from_its_row() -> None:
    spec = RunSpec(recipe="tiny", local_privacy=LocalPrivacy(epsilon=2.0))
    assert RunSpec.from_json(spec.as_json()).local_privacy == spec.local_privacy
    old = {name: value for name, value in spec.as_json().items() if name != "local_privacy"}
    assert not RunSpec.from_json(old).local_privacy
