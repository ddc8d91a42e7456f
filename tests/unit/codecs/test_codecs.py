"""What each codec promises: how far off it may be, that its chance is fair, that nothing is lost for good."""

from __future__ import annotations

import numpy as np
import pytest

from fogline_shared.codecs import base
from fogline_shared.codecs.base import Codec, Floats
from fogline_shared.codecs.int8 import BLOCK, LEVELS
from fogline_shared.errors import Corrupt, InvalidInput


def update_of(size: int, seed: int = 1, scale: float = 0.01) -> Floats:
    return np.random.default_rng(seed).normal(0, scale, size).astype(np.float32)


def through(codec: Codec, update: Floats, seed: int = 0) -> Floats:
    return codec.decode(codec.encode(update, seed=seed), update.size)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 5000])
def test_none_is_exact(size: int) -> None:
    update = update_of(size)
    np.testing.assert_array_equal(through(base.load("none", {}), update), update)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 5000])
def test_fp16_rounds_to_eleven_bits(size: int) -> None:
    update = update_of(size)
    np.testing.assert_allclose(through(base.load("fp16", {}), update), update, rtol=2**-11, atol=2**-25)


def test_fp16_sends_its_largest_for_what_is_larger() -> None:
    got = through(base.load("fp16", {}), np.array([1e9, -1e9, 65504.0], np.float32))
    np.testing.assert_array_equal(got, [65504.0, -65504.0, 65504.0])


@pytest.mark.parametrize("size", [1, 255, 256, 257, 5000])
def test_int8_is_off_by_less_than_a_step_of_its_block(size: int) -> None:
    update = update_of(size) * np.repeat(np.float32(10.0) ** np.arange(-(-size // BLOCK)), BLOCK)[:size]
    got = through(base.load("int8", {}), update)
    for start in range(0, size, BLOCK):
        part = slice(start, start + BLOCK)
        step = np.abs(update[part]).max() / LEVELS
        assert np.abs(got[part] - update[part]).max() <= step * 1.001


def test_int8_rounds_without_bias() -> None:
    """The mean over seeds comes as near as chance lets it: rounding to nearest would stay half a step away."""
    update = np.full(BLOCK, 0.3, np.float32)
    update[0] = LEVELS  # so that a step is 1, and 0.3 lies between two codes
    codec = base.load("int8", {})
    trials = 400
    mean = np.mean([through(codec, update, seed) for seed in range(trials)], axis=0)
    deviation = np.sqrt(0.3 * 0.7 / (trials * (BLOCK - 1)))
    assert abs(mean[1:].mean() - 0.3) < 5 * deviation
    assert np.abs(mean[1:] - 0.3).max() < 6 * np.sqrt(0.3 * 0.7 / trials)


def test_int8_repeats_by_its_seed_alone() -> None:
    codec, update = base.load("int8", {}), update_of(1000)
    same, other = codec.encode(update, seed=5), codec.encode(update, seed=6)
    np.testing.assert_array_equal(same, codec.encode(update, seed=5))
    assert (same != other).any()


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-40, 3.4e38])
def test_int8_takes_the_smallest_and_the_largest_floats(value: float) -> None:
    update = np.full(300, value, np.float32)
    assert np.abs(through(base.load("int8", {}), update) - update).max() <= max(value / LEVELS * 1.001, 2e-43)


def test_topk_sends_the_largest_and_nothing_else() -> None:
    update = update_of(1000)
    got = through(base.load("topk", {"fraction": 0.05}), update)
    largest = np.argsort(np.abs(update))[-50:]
    np.testing.assert_allclose(got[largest], update[largest], rtol=2**-11)
    assert np.count_nonzero(got) == 50


def test_topk_of_few_values_sends_one() -> None:
    got = through(base.load("topk", {"fraction": 0.001}), np.array([1.0, -4.0, 2.0], np.float32))
    np.testing.assert_array_equal(got, [0.0, -4.0, 0.0])


@pytest.mark.parametrize("fraction", [0, 0.00001, 0.51, -1, float("nan"), "much", True])
def test_fraction_out_of_range_is_named_with_its_range(fraction: object) -> None:
    with pytest.raises(InvalidInput, match=r"fraction must be a number from 0\.0001 to 0\.5") as caught:
        base.load("topk", {"fraction": fraction})
    assert caught.value.code == "invalid_option"


def test_small_arrays_that_would_grow_stay_plain() -> None:
    topk, int8 = base.load("topk", {}), base.load("int8", {})
    assert not topk.packs("float32", 1)
    assert not int8.packs("float32", 1)
    assert topk.packs("float32", 2)
    assert int8.packs("float32", 2)
    assert not topk.packs("int64", 1000)
    assert not topk.packs("float32", 0)


@pytest.mark.parametrize("name", ["fp16", "int8", "topk"])
def test_error_feedback_lets_the_sum_of_what_arrives_follow_the_sum_of_what_was_meant(name: str) -> None:
    codec = base.load(name, {})
    residual: dict[str, Floats] = {}
    meant, arrived, without = (np.zeros(2000) for _ in range(3))
    for number in range(200):
        # A drift that is there every round, and is small beside the noise.
        update = update_of(2000, seed=number) + np.float32(0.002)
        packed = base.pack(codec, {"w": update}, residual, seed=number)
        assert packed is not None
        residual = dict(packed.residual)
        meant += update
        arrived += codec.decode(packed.arrays["w"], 2000)
        without += through(codec, update, number)
    off = np.abs(arrived - meant)
    # The rest is in the residual, to the last bits of float32.
    np.testing.assert_allclose(arrived + residual["w"], meant, atol=1e-4)
    assert off.mean() < 0.5 * np.abs(without - meant).mean()
    assert np.abs(residual["w"]).max() < 1.0, "what waits is sent in the end"


def test_residual_of_another_model_is_forgotten() -> None:
    codec, update = base.load("topk", {}), {"w": update_of(100)}
    fresh = base.pack(codec, update, {}, seed=0)
    assert fresh is not None
    for foreign in ({"w": np.ones(101, np.float32)}, {"v": np.ones(100, np.float32)}):
        again = base.pack(codec, update, foreign, seed=0)
        assert again is not None
        np.testing.assert_array_equal(again.arrays["w"], fresh.arrays["w"])
    added = base.pack(codec, update, {"w": np.ones(100, np.float32)}, seed=0)
    assert added is not None
    assert (added.arrays["w"] != fresh.arrays["w"]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", base.names())
def test_update_that_is_not_finite_is_not_encoded(name: str, bad: float) -> None:
    update = update_of(100)
    update[7] = bad
    assert base.pack(base.load(name, {}), {"w": update}, {}, seed=0) is None


def test_each_flaw_is_named() -> None:
    fp16, int8, topk = (base.load(name, {}) for name in ("fp16", "int8", "topk"))
    size = 600
    good = {codec.name: codec.encode(update_of(size), seed=0) for codec in (fp16, int8, topk)}

    def patched(name: str, dtype: str, place: int, value: float) -> np.ndarray:
        bytes_ = good[name].copy()
        width = np.dtype(dtype).itemsize
        bytes_[place * width : (place + 1) * width] = np.array([value], dtype).view(np.uint8)
        return bytes_

    flaws = [
        (fp16, patched("fp16", "<f2", 3, np.nan), "not finite"),
        (int8, patched("int8", "<f4", 1, np.nan), "scale"),
        (int8, patched("int8", "<f4", 1, -1.0), "scale"),
        (int8, patched("int8", "<f4", 1, 3.4e38), "too large"),
        (int8, patched("int8", "i1", 12, -128), "code"),
        (topk, patched("topk", "<u4", 29, size), f"below {size}"),
        (topk, patched("topk", "<u4", 5, 0), "rise"),
        (topk, patched("topk", "<f2", 2 * 30 + 4, np.inf), "not finite"),
    ]
    for codec, packed, says in flaws:
        with pytest.raises(Corrupt, match=says) as caught:
            codec.decode(packed, size)
        assert caught.value.code == "bad_encoding"
        codec.decode(good[codec.name], size)
