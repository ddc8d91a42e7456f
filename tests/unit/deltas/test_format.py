"""A delta gives the target to the byte, whatever the files are; a malformed one is refused by name, and in little memory."""

from __future__ import annotations

import hashlib
import io
import struct
import tracemalloc

import numpy as np
import onnx
import pytest
import zstandard
from artifacts import artifact
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fogline_server.registry.deltas.build import build, pack
from fogline_server.registry.deltas.tensors import tensors
from fogline_shared import delta
from fogline_shared.delta import Kind, Operation
from fogline_shared.errors import Corrupt

FEW = settings(max_examples=60, deadline=None)
TYPES = (np.int8, np.uint8, np.float32, np.int32, np.float16, np.float64, np.int64)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def applied(made: bytes, base: bytes | None, target: bytes) -> bytes:
    """What applying gives to a device that wants ``target``."""
    out = io.BytesIO()
    given_base = None if base is None else io.BytesIO(base)
    delta.apply(io.BytesIO(made), given_base, out, digest=digest(target), size=len(target))
    return out.getvalue()


@st.composite
def models(draw, *, names=("a", "b", "c", "d")) -> tuple[bytes, bytes]:
    """An ONNX file and another: some tensors moved a little, some wholly, some changed their shape, came or went."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    before, after = [], []
    for name in names:
        kind, length = draw(st.sampled_from(TYPES)), draw(st.integers(1, 300))
        values = (rng.standard_normal(length) * 50).astype(kind)
        moved = {
            "same": values,
            "little": (values + rng.integers(-2, 3, length)).astype(kind),
            "wholly": (rng.standard_normal(length) * 50).astype(kind),
            "longer": (rng.standard_normal(length + draw(st.integers(1, 9))) * 50).astype(kind),
        }
        how = draw(st.sampled_from([*moved, "gone", "new"]))
        if how != "new":
            before.append(numpy_helper.from_array(values, name))
        if how != "gone":
            after.append(numpy_helper.from_array(moved.get(how, values), name))
    return _model(before, "old"), _model(after, draw(st.sampled_from(["old", "new", "another name"])))


def _model(initializers: list[TensorProto], note: str) -> bytes:
    graph = helper.make_graph([], "g", [], [], initializers, doc_string=note)
    return helper.make_model(graph, ir_version=8).SerializeToString()


@FEW
@given(pair=models())
def test_any_model_is_made_of_any_other(pair) -> None:
    base, target = pair
    assert applied(build(base, target), base, target) == target


@FEW
@given(base=st.binary(max_size=600), edits=st.lists(st.tuples(st.integers(0, 600), st.binary(max_size=90)), max_size=4))
@example(base=b"", edits=[])
@example(base=b"x" * 64, edits=[(0, b"y")])
def test_any_file_is_made_of_any_other(base: bytes, edits) -> None:
    target = base * 2
    for place, inserted in edits:
        target = target[:place] + inserted + target[place + len(inserted) // 2 :]
    assert applied(build(base, target), base, target) == target
    assert applied(pack(target), None, target) == target


@FEW
@given(numbers=st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), min_size=1, max_size=50))
@pytest.mark.parametrize(("kind", "width"), [(Kind.BYTES, 1), (Kind.HALVES, 2), (Kind.WORDS, 4)])
def test_differences_wrap_around(kind: Kind, width: int, numbers) -> None:
    base, target = (b"".join((n[i] % 256**width).to_bytes(width, "little") for n in numbers) for i in (0, 1))
    made = delta.encode(base, target, [Operation(kind, len(target), 0)])
    assert applied(made, base, target) == target


def test_tensors_are_found_where_they_lie() -> None:
    data = artifact()
    parsed = {t.name: t for t in onnx.load_from_string(data).graph.initializer}
    found = {t.name: t for t in tensors(data)}
    assert set(found) == set(parsed)
    for name, tensor in found.items():
        assert data[tensor.start : tensor.end] == parsed[name].raw_data
        assert tensor.width == 4
    assert tensors(b"\xff" * 40) == tensors(b"") == []


def test_a_little_change_costs_little_and_numbers_are_told_apart_by_their_type() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(40_000).astype(np.float32)
    codes = rng.integers(-64, 64, 40_000).astype(np.int8)
    moved = codes + (rng.random(40_000) < 0.03).astype(np.int8)
    near = (weights * np.float32(1 + 1e-6)).astype(np.float32)
    base = _model([numpy_helper.from_array(weights, "w"), numpy_helper.from_array(codes, "c")], "old")
    target = _model([numpy_helper.from_array(near, "w"), numpy_helper.from_array(moved, "c")], "old")
    full = len(zstandard.ZstdCompressor(level=19).compress(target))
    assert len(build(base, target)) < full / 6


BASE, TARGET = artifact(), artifact(shift=1, scale=4.0)
SOUND = build(BASE, TARGET)


def refused(made: bytes, base: bytes | None = BASE, target: bytes = TARGET) -> str:
    with pytest.raises(Corrupt) as caught:
        applied(made, base, target)
    return caught.value.code


def test_a_delta_cut_anywhere_is_malformed() -> None:
    assert {refused(SOUND[:end]) for end in range(len(SOUND))} == {"delta_malformed"}
    assert refused(SOUND + b"\0") == "delta_malformed"


@settings(max_examples=400, deadline=None)
@given(place=st.integers(0, len(SOUND) - 1), value=st.integers(1, 255))
def test_a_delta_with_a_changed_byte_gives_the_target_or_is_refused_by_name(place: int, value: int) -> None:
    made = bytearray(SOUND)
    made[place] ^= value
    outcome = "made"
    try:
        assert applied(bytes(made), BASE, TARGET) == TARGET
    except Corrupt as error:
        outcome = error.code
    assert outcome in {"made", "delta_malformed", "delta_wrong_target", "delta_wrong_base", "delta_wrong_result"}


@FEW
@given(rest=st.binary(max_size=400))
def test_any_bytes_behind_a_sound_header_are_refused_by_name(rest: bytes) -> None:
    lengths = struct.pack("<9I", len(rest), *[0] * 8)
    assert refused(SOUND[:84] + lengths + rest) in {"delta_malformed", "delta_wrong_result"}


def test_a_wrong_base_and_a_wrong_target_have_names_of_their_own() -> None:
    assert refused(SOUND, base=TARGET) == "delta_wrong_base"
    assert refused(SOUND, base=None) == "delta_wrong_base"
    assert refused(SOUND, target=BASE) == "delta_wrong_target"
    newer = SOUND[:8] + b"\2" + SOUND[9:]
    assert refused(newer) == "delta_malformed"


def forged(operations: bytes, literals: bytes = b"") -> bytes:
    """A delta of these two streams, already packed, that claims to make ``TARGET`` of ``BASE``."""
    sizes = (len(BASE), len(TARGET), len(operations), len(literals), *[0] * 7)
    digests = (bytes.fromhex(digest(BASE)), bytes.fromhex(digest(TARGET)))
    return struct.pack("<8sB3x32s32sII9I", b"FOGDELTA", 1, *digests, *sizes) + operations + literals


@pytest.mark.parametrize(
    "operations",
    [
        b"\0\x04\1",  # begins before the base
        b"\0\x04" + b"\xfe\xff\x03",  # begins behind it
        b"\0" + delta._varint(len(BASE) + 1) + b"\0",  # ends behind it
        b"\1" + delta._varint(len(TARGET) + 1),  # more than the target has
        b"\1\0",  # nothing, for ever
        b"\4\x03\0",  # part of a number
        b"\7\x01",  # no operation
        b"\1" + b"\xff" * 9,  # a length without end
        b"\0\x04\0",  # ends too early
    ],
)  # fmt: skip
def test_operations_out_of_bounds_are_malformed(operations: bytes) -> None:
    made = forged(zstandard.compress(operations), zstandard.compress(b"x" * 10))
    assert refused(made) == "delta_malformed"


def test_a_stream_that_swells_is_not_unpacked_beyond_the_target() -> None:
    narrow = zstandard.ZstdCompressionParameters.from_level(3, window_log=20)
    bomb = zstandard.ZstdCompressor(compression_params=narrow).compress(bytes(100 << 20))
    made = forged(zstandard.compress(b"\1" + delta._varint(len(TARGET))), bomb)
    tracemalloc.start()
    assert refused(made) == "delta_wrong_result"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_stream_that_wants_much_memory_is_refused() -> None:
    wide = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    greedy = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    assert refused(forged(greedy.compress(bytes(3 << 20)) + greedy.flush())) == "delta_malformed"
