"""Every codec there is, by name: sizes it promises, seeds, errors that shrink, and bytes that nobody has written."""

from __future__ import annotations

import tracemalloc
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fogline_shared.codecs import base
from fogline_shared.errors import Corrupt, InvalidInput

EVERY = pytest.mark.parametrize("name", base.names())
SIZES = st.integers(1, 1500)


def refusal(codec: base.Codec, packed: base.Bytes, size: int) -> str | None:
    """The code of a refusal; None for bytes that decode, which they do to finite values of the right number."""
    try:
        got = codec.decode(packed, size)
    except Corrupt as error:
        return error.code
    assert got.shape == (size,)
    assert np.isfinite(got).all()
    return None


def test_the_codecs_are_those_that_the_docs_tell_of() -> None:
    assert base.names() == ["eden", "fp16", "int8", "none", "topk"]


def test_unknown_codec_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match="eden, fp16, int8, none, topk") as caught:
        base.load("gzip", {})
    assert caught.value.code == "unknown_codec"


@EVERY
def test_options_are_frozen_and_unknown_ones_are_refused(name: str) -> None:
    codec = base.load(name, {})
    assert base.load(name, codec.options_json()) == codec
    with pytest.raises(InvalidInput, match="no option 'speed'") as caught:
        base.load(name, {"speed": 3})
    assert caught.value.code == "invalid_option"
    for field in fields(codec.options):
        with pytest.raises(FrozenInstanceError):
            setattr(codec.options, field.name, 1)


@EVERY
@settings(deadline=None)
@given(size=SIZES, seed=st.integers(0, 2**63 - 1), exponent=st.integers(-44, 37))
def test_what_is_encoded_decodes_near_what_it_was(name: str, size: int, seed: int, exponent: int) -> None:
    codec = base.load(name, {})
    update = (np.random.default_rng(seed).uniform(-1, 1, size) * 10.0**exponent).astype(np.float32)
    before = update.copy()
    packed = codec.encode(update, seed=seed)
    assert (packed.dtype, packed.shape) == (np.uint8, (codec.nbytes(size),))
    np.testing.assert_array_equal(packed, codec.encode(update, seed=seed))
    np.testing.assert_array_equal(update, before)
    got = codec.decode(packed, size)
    assert (got.dtype, got.shape) == (np.float32, (size,))
    assert np.isfinite(got).all()
    # What is left is never longer than the update: error feedback comes to an end only with that.
    left, whole = (np.linalg.norm(values.astype(np.float64)) for values in (got - update, update))
    assert left <= whole * (1 + 1e-5) + 1e-30


@EVERY
@settings(deadline=None)
@given(size=SIZES, data=st.data())
def test_bytes_that_nobody_has_written_are_refused_or_finite(name: str, size: int, data: st.DataObject) -> None:
    codec = base.load(name, {})
    rubbish = np.frombuffer(data.draw(st.binary(min_size=codec.nbytes(size), max_size=codec.nbytes(size))), np.uint8)
    assert refusal(codec, rubbish, size) in (None, "bad_encoding")


@EVERY
@settings(deadline=None)
@given(size=SIZES, flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4))
def test_honest_bytes_with_some_changed_are_refused_or_finite(
    name: str, size: int, flips: list[tuple[int, int]]
) -> None:
    codec = base.load(name, {})
    packed = codec.encode(np.random.default_rng(size).normal(size=size).astype(np.float32), seed=0)
    for place, value in flips:
        packed[place % packed.size] ^= value
    assert refusal(codec, packed, size) in (None, "bad_encoding")


@EVERY
@settings(deadline=None)
@given(size=SIZES, other=st.integers(0, 10_000))
def test_truncated_and_padded_bytes_are_refused(name: str, size: int, other: int) -> None:
    codec = base.load(name, {})
    wrong = other if other != codec.nbytes(size) else other + 1
    with pytest.raises(Corrupt, match=f"{name} packs {size} values in {codec.nbytes(size)} bytes") as caught:
        codec.decode(np.zeros(wrong, np.uint8), size)
    assert caught.value.code == "bad_encoding"


@EVERY
def test_claimed_size_is_checked_before_it_is_allocated(name: str) -> None:
    codec = base.load(name, {})
    tracemalloc.start()
    with pytest.raises(Corrupt):
        codec.decode(np.zeros(10, np.uint8), 10**12)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@EVERY
def test_residual_is_what_the_bytes_do_not_say(name: str) -> None:
    codec = base.load(name, {})
    rng = np.random.default_rng(3)
    update = {"a": rng.normal(size=(20, 30)).astype(np.float32), "b": rng.normal(size=300).astype(np.float32)}
    packed = base.pack(codec, update, {}, seed=1)
    assert packed is not None
    for key, change in update.items():
        got = codec.decode(packed.arrays[key], change.size).reshape(change.shape)
        np.testing.assert_array_equal(packed.residual[key], change - got)
