"""The private mean: no device moves it far, its noise is what was asked for, and repeating a round tells nothing new."""

from __future__ import annotations

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from hypothesis import given
from hypothesis import strategies as st

from fogline_server.training.privacy.central import Central
from fogline_server.training.privacy.run import PrivateRun
from fogline_server.training.privacy.spec import SOUND, Privacy
from fogline_server.training.spec import RunSpec
from fogline_server.training.strategies import base as strategies
from fogline_shared.errors import InvalidInput
from fogline_shared.flower import HeldArray
from fogline_shared.privacy.accountant import ORDERS, Releases, epsilon
from fogline_shared.privacy.noise import gaussian

REFERENCE = {"a": np.full((3, 5), 2.0), "b": np.zeros(7)}


def release(updates, *, number: int = 1, secret: bytes = b"s", asked: int = 4, noise: float = 1.0, clip: float = 1.0):
    how = Central(clip=clip, noise_multiplier=noise, asked=asked, number=number, secret=secret)
    return how.release(held(updates), REFERENCE).arrays


def held(updates):
    return [{name: HeldArray(array) for name, array in update.items()} for update in updates]


def update(seed: int, size: float):
    rng = np.random.default_rng(seed)
    return {name: sent + size * rng.normal(size=sent.shape) for name, sent in REFERENCE.items()}


def flat(arrays):
    return np.concatenate([array.ravel() for array in arrays.values()])


@given(sizes=st.lists(st.floats(0, 1e6), min_size=1, max_size=5), clip=st.floats(1e-3, 1e3), left_out=st.integers(0, 4))
def test_no_device_moves_the_sum_by_more_than_the_clip(sizes: list[float], clip: float, left_out: int) -> None:
    updates = [update(seed, size) for seed, size in enumerate(sizes)]
    one = left_out % len(updates)
    still = [*updates[:one], REFERENCE, *updates[one + 1 :]]
    # Noise of a millionth, so that what is left is the sum.
    both = [flat(release(each, clip=clip, asked=1, noise=1e-9)) for each in (updates, still)]
    assert np.linalg.norm(both[0] - both[1]) <= clip * (1 + 1e-6) + 1e-9


def test_short_updates_are_added_as_they_are() -> None:
    updates = [update(seed, 1e-3) for seed in range(3)]
    mean = REFERENCE["a"] + sum(each["a"] - REFERENCE["a"] for each in updates) / 4
    assert np.allclose(release(updates, noise=1e-12)["a"], mean, atol=1e-9)


def test_noise_is_gaussian_of_the_scale_asked_for() -> None:
    drawn = gaussian(b"key", 200_001)
    assert (abs(drawn.mean()) < 0.01, drawn.std() == pytest.approx(1, abs=0.01)) == (True, True)
    for limit, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert np.mean(abs(drawn) < limit) == pytest.approx(share, abs=0.005)
    noise = np.concatenate([flat(release([REFERENCE], secret=bytes([i]), noise=3, clip=0.5)) for i in range(200)])
    assert (noise - np.tile(flat(REFERENCE), 200)).std() == pytest.approx(3 * 0.5 / 4, rel=0.05)


def test_the_same_round_of_the_same_updates_is_the_same_and_of_others_has_other_noise() -> None:
    updates = [update(seed, 0.01) for seed in range(3)]
    first = flat(release(updates))
    assert np.array_equal(first, flat(release(updates)))
    less = flat(release(updates[:2]))
    bare = flat(release(updates, noise=1e-12)) - flat(release(updates[:2], noise=1e-12))
    assert np.linalg.norm(first - less - bare) > 0.5, "the noise does not cancel"
    for other in (release(updates, number=2), release(updates, secret=b"t")):
        assert np.linalg.norm(first - flat(other)) > 0.5


@pytest.mark.parametrize("name", strategies.names())
def test_rules_that_one_device_may_move_far_are_refused(name: str) -> None:
    privacy = Privacy(population="ward")
    if name in SOUND:
        assert RunSpec(recipe="tiny", strategy=name, privacy=privacy).privacy == privacy
        return
    with pytest.raises(InvalidInput) as refused:
        RunSpec(recipe="tiny", strategy=name, privacy=privacy)
    assert refused.value.code == "strategy_not_private"


@pytest.mark.parametrize(
    ("privacy", "more", "message"),
    [
        ({"noise_multiplier": 0}, {}, "privacy.noise_multiplier must be a number from 0.1 to 1000"),
        ({"clip": -1}, {}, "privacy.clip must be a number from 1e-06"),
        ({"population": ""}, {}, "name of a population"),
        ({"clip_quantile": 1.0}, {}, "privacy.clip_quantile must be a number from 0.01 to 0.99"),
        ({"clip_rate": 0}, {}, "privacy.clip_rate must be a number from 0.001 to 2"),
        ({"count_noise": 4.0}, {}, "needs privacy.clip_quantile"),
        (
            {"clip_quantile": 0.5, "noise_multiplier": 4, "count_noise": 2},
            {},
            "privacy.count_noise must be a number from 2.004",
        ),
        ({}, {"evaluate_every": 2}, "evaluate_every uses devices' data without noise"),
        ({}, {"distil_from": "run_1"}, "distil_from uses"),
    ],
)
def test_what_a_private_run_cannot_have_is_refused(privacy: dict, more: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        RunSpec(recipe="tiny", privacy=Privacy(**{"population": "ward", **privacy}), **more)
    assert refused.value.code == "invalid_privacy"


@given(noise=st.floats(0.3, 30), times=st.floats(0.6, 10), rounds=st.integers(1, 300))
def test_updates_and_count_together_cost_what_the_run_is_charged(noise: float, times: float, rounds: int) -> None:
    privacy = Privacy(population="ward", noise_multiplier=noise, clip_quantile=0.5, count_noise=times * noise)
    accountant = RdpAccountant(list(ORDERS))
    # A device changes the count by a half, so its noise is twice as large as it looks.
    for part in (privacy.update_noise, 2 * privacy.noise_of_count):
        accountant.compose(dp_accounting.GaussianDpEvent(part), rounds)
    charged = epsilon([Releases(noise_multiplier=noise, rounds=rounds)], 1e-5)
    assert charged == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
def test_the_clip_finds_the_quantile_from_far_below_and_from_far_above(quantile: float) -> None:
    lengths = np.linspace(1.0, 2.0, 101)
    direction = flat(update(1, 1.0)) - flat(REFERENCE)
    direction /= np.linalg.norm(direction)
    updates = held([split(flat(REFERENCE) + length * direction) for length in lengths])
    for first in (0.05, 50.0):
        run = PrivateRun(Privacy(population="w", noise_multiplier=1.0, clip=first, clip_quantile=quantile), b"secret")
        clips = []
        for number in range(1, 121):
            how = run.round(number, asked=len(updates))
            run.follow(how.release(updates, REFERENCE).metrics())
            clips.append(how.clip)
        assert np.mean(clips[-40:]) == pytest.approx(np.quantile(lengths, quantile), abs=0.06)


def test_one_device_changes_the_count_by_a_half_and_one_that_fails_counts_as_half_within() -> None:
    how = Central(clip=1.0, noise_multiplier=1.0, asked=4, number=1, secret=b"s", count_noise=1e-12)
    short, long = update(1, 1e-3), update(2, 10.0)
    shares = [how.release(held(sent), REFERENCE).within for sent in ([short], [long], [], [short, long, short])]
    assert shares == pytest.approx([0.625, 0.375, 0.5, 0.625])


def test_the_clip_goes_on_from_a_checkpoint_and_a_fixed_one_has_none() -> None:
    privacy = Privacy(population="w", clip=3.0, clip_quantile=0.5)
    run, other = PrivateRun(privacy, b"s"), PrivateRun(privacy, b"s")
    run.follow({"within_clip": 1.0})
    other.restore(run.state())
    assert other.round(2, asked=3).clip == run.round(2, asked=3).clip == pytest.approx(3.0 * np.exp(-0.1))
    other.restore({})
    assert other.round(2, asked=3).clip == 3.0
    assert PrivateRun(Privacy(population="w"), b"s").state() == {}


def split(vector):
    cut = REFERENCE["a"].size
    return {"a": vector[:cut].reshape(REFERENCE["a"].shape), "b": vector[cut:]}
