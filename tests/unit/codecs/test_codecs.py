"""What each codec promises: how far off it may be, that its chance is fair, that nothing is lost for good."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fogline_shared.codecs import base
from fogline_shared.codecs.base import Bytes, Codec, Floats
from fogline_shared.codecs.eden import BLOCK as BLOCK_OF_EDEN
from fogline_shared.codecs.int8 import BLOCK, LEVELS
from fogline_shared.errors import Corrupt, InvalidInput

# Of 11 values: the seed 1234, scales of 8 and of 3 values, the bits.
EDEN_BYTES = "d20400000000003f0000803eb274c4"
EDEN_VALUES = "84d2873e670922bf630d853ed6a6203f4ed81a3f680922bfa6a8c3be3559013fc332763ecd5096be830024bf"


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
    eden, topk, int8 = (base.load(name, {}) for name in ("eden", "topk", "int8"))
    assert not eden.packs("float32", 3)
    assert not int8.packs("float32", 1)
    assert eden.packs("float32", 4)
    assert topk.packs("float32", 1)
    assert int8.packs("float32", 2)
    assert not topk.packs("int64", 1000)
    assert not topk.packs("float32", 0)


@pytest.mark.parametrize("name", ["eden", "fp16", "int8", "topk"])
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


def places_written(places: list[int], *, size: int, filling: str = "0") -> Bytes:
    """topk's bytes for ones at these places, as its docs say, with no regard to whether they rise."""
    low = (size // len(places)).bit_length() - 1
    lows = "".join(str(place >> number & 1) for place in places for number in range(low))
    marks = ["0"] * (len(places) + (size - 1 >> low))
    for number, place in enumerate(places):
        marks[(place >> low) + number] = "1"
    bits = [text + filling * (-len(text) % 8) for text in (lows, "".join(marks))]
    parts = [int(text, 2).to_bytes(len(text) // 8, "big") for text in bits if text]
    return np.frombuffer(np.ones(len(places), "<f2").tobytes() + b"".join(parts), np.uint8)


@pytest.mark.parametrize("size", [2, 30, 600, 5000])
@pytest.mark.parametrize("fraction", [0.001, 0.05, 0.3, 0.5])
def test_topk_writes_places_as_it_says(size: int, fraction: float) -> None:
    codec = base.load("topk", {"fraction": fraction})
    kept = math.ceil(fraction * size)
    places = sorted(np.random.default_rng(size).permutation(size)[:kept].tolist())
    update = np.zeros(size, np.float32)
    update[places] = 1
    np.testing.assert_array_equal(codec.encode(update, seed=0), places_written(places, size=size))
    np.testing.assert_array_equal(through(codec, update), update)


@pytest.mark.parametrize(("bits", "share"), [(1, 0.363), (2, 0.118), (3, 0.0346), (4, 0.0096)])
@pytest.mark.parametrize("size", [4096, 5000, 20_001])
def test_eden_loses_what_theory_says_of_any_update(bits: int, share: float, size: int) -> None:
    """The rotation makes an update normal whose values are few, or all alike, or of many sizes."""
    rng = np.random.default_rng(size)
    few = np.where(rng.random(size) < 0.03, rng.normal(size=size), 0)
    for values in (rng.normal(size=size), few, np.full(size, 0.3), rng.normal(size=size) ** 5):
        update = values.astype(np.float32)
        lost = np.square(through(base.load("eden", {"bits": bits}), update) - update).sum() / np.square(update).sum()
        assert lost <= share * 1.1


@pytest.mark.parametrize("size", [1, 7, 448, 4097])
def test_eden_takes_a_bit_a_value_and_eight_bytes(size: int) -> None:
    blocks = -(-size // min(BLOCK_OF_EDEN, 1 << (size.bit_length() - 1)))
    for bits in (1, 2, 3, 4):
        assert base.load("eden", {"bits": bits}).nbytes(size) == 4 + 4 * blocks + math.ceil(bits * size / 8)


def test_eden_means_the_same_by_the_same_bytes_for_ever() -> None:
    """Devices and coordinators of other versions of numpy or of us, on other processors, must agree to the last bit."""
    packed = np.frombuffer(bytes.fromhex(EDEN_BYTES), np.uint8)
    got = base.load("eden", {"bits": 2}).decode(packed, 11)
    assert got.astype("<f4").tobytes().hex() == EDEN_VALUES


def test_eden_of_many_devices_has_many_rotations() -> None:
    """So what they lose cancels in the average; with one rotation it would add up."""
    codec, update = base.load("eden", {}), update_of(5000)
    lost = [through(codec, update, seed) - update * (2 / np.pi) for seed in range(50)]
    assert np.linalg.norm(np.mean(lost, axis=0)) < 0.2 * np.linalg.norm(lost[0])


def test_eden_sends_its_largest_for_what_is_larger() -> None:
    update = np.full(5000, 3e38, np.float32)
    packed = base.pack(base.load("eden", {}), {"w": update}, {}, seed=0)
    assert packed is not None
    # What is sent is less than a step of float32 there.
    np.testing.assert_array_equal(packed.residual["w"], update)


@pytest.mark.parametrize("bits", [0, 5, 1.5, -1, "one", True])
def test_bits_out_of_range_are_named_with_their_range(bits: object) -> None:
    with pytest.raises(InvalidInput, match="bits must be an integer from 1 to 4") as caught:
        base.load("eden", {"bits": bits})
    assert caught.value.code == "invalid_option"


def test_each_flaw_is_named() -> None:
    eden, fp16, int8 = (base.load(name, {}) for name in ("eden", "fp16", "int8"))
    topk = base.load("topk", {"fraction": 0.05})
    # Two blocks of eden's, three of int8's, 31 values of topk's; bits that end within a byte.
    size = 603
    good = {codec.name: codec.encode(update_of(size), seed=0) for codec in (eden, fp16, int8, topk)}

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
        (topk, places_written([*range(30), size], size=size), f"below {size}"),
        (topk, places_written([5] * 31, size=size), "rise"),
        (topk, places_written([*range(31)], size=size, filling="1"), "behind the last"),
        (topk, patched("topk", "u1", 62 + 16, 0), "places for 31 values"),
        (topk, patched("topk", "<f2", 30, np.inf), "not finite"),
        (eden, patched("eden", "<f4", 1, np.nan), "scale"),
        (eden, patched("eden", "<f4", 2, np.inf), "scale"),
        (eden, patched("eden", "<f4", 2, -1.0), "scale"),
        (eden, patched("eden", "<f4", 1, 1e21), "scale"),
        (eden, patched("eden", "u1", 4 + 2 * 4 + 75, 255), "behind the last"),
    ]
    for codec, packed, says in flaws:
        with pytest.raises(Corrupt, match=says) as caught:
            codec.decode(packed, size)
        assert caught.value.code == "bad_encoding"
        codec.decode(good[codec.name], size)
