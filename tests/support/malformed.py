"""Replies that are not what they should be. Each is an honest reply with one fault, so its honest twin is known."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from honest_replies import ENROLLED, Arrays, Honest, Sent, blob_of, blob_with, parts_of

from fogline_shared import flower, tensors
from fogline_shared.codecs import base as codecs
from fogline_shared.flower import ConfigRecord, RecordDict

# --- faults of the bytes -------------------------------------------------------------------------------------------


def truncated(rng: random.Random, reply: Honest) -> Sent:
    sent = reply.sent
    return replace(sent, blob=sent.blob[: rng.randrange(1, len(sent.blob))])


def trailing_bytes(rng: random.Random, reply: Honest) -> Sent:
    sent = reply.sent
    return replace(sent, blob=sent.blob + rng.randbytes(rng.randrange(1, 50)))


def no_blob(rng: random.Random, reply: Honest) -> Sent:
    del rng
    return replace(reply.sent, blob=b"")


def noise(rng: random.Random, reply: Honest) -> Sent:
    return replace(reply.sent, blob=rng.randbytes(rng.randrange(1, 600)))


def header_longer_than_claimed(rng: random.Random, reply: Honest) -> Sent:
    sent = reply.sent
    claim = rng.choice([0, 1, 1 << 20, 1 << 40, (1 << 64) - 1, rng.randrange(1 << 64)])
    return replace(sent, blob=claim.to_bytes(8, "little") + sent.blob[8:])


def header_character_changed(rng: random.Random, reply: Honest) -> Sent:
    """Any one that is not blank: each has a meaning."""
    sent = reply.sent
    end = 8 + int.from_bytes(sent.blob[:8], "little")
    place = rng.choice([i for i in range(8, end) if sent.blob[i] not in b" "])
    other = rng.choice(
        [c for c in (string.digits + string.ascii_letters + '{}[]",:\\').encode() if c != sent.blob[place]]
    )
    return replace(sent, blob=sent.blob[:place] + bytes([other]) + sent.blob[place + 1 :])


def oversize_claim(rng: random.Random, reply: Honest) -> Sent:
    """Arrays of terabytes, which the bytes do not hold."""
    header, data = parts_of(reply.sent.blob)
    entry = header[rng.choice(list(header))]
    entry["shape"] = [rng.choice([1 << 20, 1 << 40, 1 << 70, 10**4000])] * rng.randrange(1, 4)
    if rng.random() < 0.5:
        size = np.dtype(tensors.DTYPES[entry["dtype"]]).itemsize
        for n in entry["shape"]:
            size *= n
        entry["data_offsets"][1] = entry["data_offsets"][0] + size if size < 10**4200 else 10**4200
    return replace(reply.sent, blob=blob_with(json.dumps(header), data))


def header_of_other_types(rng: random.Random, reply: Honest) -> Sent:
    """Equal to Python, and not what the format says: true for 1, 24.0 for 24, text for numbers."""
    header, data = parts_of(reply.sent.blob)
    entry = header[rng.choice([name for name in header if header[name]["shape"]])]
    other: Callable[[int], Any] = rng.choice([float, str, lambda n: [n], lambda n: {"n": n}, lambda _: None])
    field = rng.choice(["data_offsets", "shape"])
    entry[field] = [other(n) for n in entry[field]] if rng.random() < 0.8 else other(0)
    return replace(reply.sent, blob=blob_with(json.dumps(header), data))


def header_of_truth_values(rng: random.Random, reply: Honest) -> Sent:
    """A dimension of one element, written as true."""
    del rng
    header, data = parts_of(reply.sent.blob)
    header["scale"]["shape"][0] = True
    return replace(reply.sent, blob=blob_with(json.dumps(header), data))


def header_nested_deeply(rng: random.Random, reply: Honest) -> Sent:
    depth = rng.choice([1_000, 10_000])
    opening = rng.choice(["[", '{"a":'])
    return replace(reply.sent, blob=blob_with(opening * depth, b""))


def header_not_an_object(rng: random.Random, reply: Honest) -> Sent:
    other = rng.choice(["[]", "7", "null", '"arrays"', "[[]]", '{"a": 1}', '{"a": []}', "", "NaN", "\ud800"])
    return replace(reply.sent, blob=blob_with(other, parts_of(reply.sent.blob)[1]))


# --- faults of the arrays ------------------------------------------------------------------------------------------


def _with(reply: Honest, arrays: Arrays) -> Sent:
    return replace(reply.sent, blob=blob_of(arrays))


def missing_array(rng: random.Random, reply: Honest) -> Sent:
    gone = set(rng.sample(list(reply.arrays), rng.randrange(1, len(reply.arrays) + 1)))
    return _with(reply, {name: array for name, array in reply.arrays.items() if name not in gone})


def extra_array(rng: random.Random, reply: Honest) -> Sent:
    name = rng.choice(["extra", "", "layer.weight ", "LAYER.weight", "\x00", "é", "n" * 5000])
    return _with(reply, reply.arrays | {name: np.zeros(rng.choice([0, 1, 1000]), np.float32)})


def renamed_array(rng: random.Random, reply: Honest) -> Sent:
    old = rng.choice(list(reply.arrays))
    return _with(reply, {name if name != old else f"{name}'": array for name, array in reply.arrays.items()})


def wrong_dtype(rng: random.Random, reply: Honest) -> Sent:
    name = rng.choice(list(reply.arrays))
    own = reply.arrays[name]
    other = rng.choice([d for d in tensors.DTYPES.values() if d != own.dtype])
    with np.errstate(all="ignore"):
        return _with(reply, reply.arrays | {name: own.astype(other)})


def dtype_nobody_knows(rng: random.Random, reply: Honest) -> Sent:
    """Complex numbers among them: they have a norm, and would pass for an update."""
    header, data = parts_of(reply.sent.blob)
    header[rng.choice(list(header))]["dtype"] = rng.choice(
        ["C64", "C128", "BF16", "F8_E4M3", "O", "U64", "f4", None, 4]
    )
    return replace(reply.sent, blob=blob_with(json.dumps(header), data))


def wrong_shape(rng: random.Random, reply: Honest) -> Sent:
    name = rng.choice(list(reply.arrays))
    own = reply.arrays[name]
    shapes = [(own.size, 1), (1, own.size), (1, *own.shape), (*own.shape, 1), (0,), (own.size + 1,), (2, 3, 4)]
    return _with(reply, reply.arrays | {name: np.resize(own, rng.choice([s for s in shapes if s != own.shape]))})


def _floats(reply: Honest) -> list[str]:
    return [name for name, array in reply.arrays.items() if array.dtype == np.float32]


def not_finite(rng: random.Random, reply: Honest) -> Sent:
    name = rng.choice(_floats(reply))
    bad = reply.arrays[name].copy()
    bad.reshape(-1)[rng.randrange(bad.size)] = rng.choice([np.nan, np.inf, -np.inf])
    return _with(reply, reply.arrays | {name: bad})


def subnormal(rng: random.Random, reply: Honest) -> Sent:
    """Every learned parameter is one of the smallest floats: finite, and nothing is left of the model."""
    tiny = np.float32(rng.choice([1e-45, -1e-45, 1e-39]))
    gone = {name: np.full_like(reply.arrays[name], tiny) for name in _floats(reply)}
    if reply.codec != codecs.NONE:
        return encoded_noise(rng, reply)  # as an update it would be an honest one that moved nothing
    return _with(reply, reply.arrays | gone)


def huge(rng: random.Random, reply: Honest) -> Sent:
    name = rng.choice(_floats(reply))
    bad = reply.arrays[name].copy()
    bad.reshape(-1)[rng.randrange(bad.size)] = rng.choice([3e38, -3e38, 1e20, 1e6, -1e5])
    return _with(reply, reply.arrays | {name: bad})


def encoded_noise(rng: random.Random, reply: Honest) -> Sent:
    """Bytes that no encoder writes; for a reply that is not encoded, the claim that it is."""
    if reply.codec == codecs.NONE:
        return wrong_encoding(rng, reply)
    name = rng.choice([n for n, array in reply.arrays.items() if array.dtype == np.uint8])
    own = reply.arrays[name]
    other = rng.choice([np.full_like(own, 0xFF), own[:-1], np.append(own, own[:1]), own.reshape(1, -1), own[:0]])
    return _with(reply, reply.arrays | {name: other})


def wrong_encoding(rng: random.Random, reply: Honest) -> Sent:
    records = reply.records()
    name = rng.choice(["zip", "", "\ud800", "none" if reply.codec != "none" else "int8", 7, b"fp16", [1.0]])
    content = RecordDict({"encoding": ConfigRecord({"codec": name})})
    records["encoding"] = flower.encode(content).records["encoding"]
    if rng.random() < 0.3:
        records["encoding"] = {"kind": "metrics", "values": {}}
    return replace(reply.sent, text=json.dumps(records))


# --- faults of the metrics and records -----------------------------------------------------------------------------

COUNTS = [0, -1, -5e-324, 5e-324, 0.5, 1e300, 2**53 + 2, 10**400, 10**12, ENROLLED * 10 + 1]
COUNTS += [[5], [], {"float": "nan"}, {"float": "inf"}, {"float": "-inf"}, {"float": "1e400"}, {"float": "-7"}]
COUNTS += [True, None, "5", {"bytes": "BQ=="}, {"int": 5}, [[5]], ["5"], {"float": []}, {"bytes": "?"}]


def bad_count(rng: random.Random, reply: Honest) -> Sent:
    return _with_metric(reply, "num-examples", rng.choice([*COUNTS, -rng.randrange(1, 1 << 60), rng.random()]))


LOSSES = [{"float": "nan"}, {"float": "inf"}, {"float": "-inf"}, {"float": "1e999"}, 10**400, [1.0], True, "low", None]


def bad_loss(rng: random.Random, reply: Honest) -> Sent:
    return _with_metric(reply, "loss", rng.choice(LOSSES))


def bad_extra_metric(rng: random.Random, reply: Honest) -> Sent:
    values = [{"float": "nan"}, [1.0, {"float": "inf"}], [10**400], [1, "two"], {"a": 1}, None]
    return _with_metric(reply, rng.choice(["accuracy", "", "é" * 300]), rng.choice(values))


def _with_metric(reply: Honest, name: str, value: Any) -> Sent:
    records = reply.records()
    records["metrics"]["values"][name] = value
    return replace(reply.sent, text=json.dumps(records))


def missing_metric(rng: random.Random, reply: Honest) -> Sent:
    records = reply.records()
    if rng.random() < 0.5:
        del records["metrics"]["values"][rng.choice(["num-examples", "loss"])]
    else:
        del records[rng.choice(["metrics", "arrays"])]
    return replace(reply.sent, text=json.dumps(records))


def records_of_other_kinds(rng: random.Random, reply: Honest) -> Sent:
    records: dict[str, Any] = reply.records()
    name = rng.choice(["metrics", "arrays"])
    junk = [None, 7, [], "arrays", {}, {"kind": None}, {"kind": []}, {"kind": "tensor"}, {"kind": "metrics"}]
    junk += [{"kind": "metrics", "values": 7}, {"kind": "config", "values": {}}, {"kind": "metrics", "values": [1]}]
    records[name] = rng.choice(junk)
    if rng.random() < 0.2:
        records = reply.records() | {"other": {"kind": "arrays"}}
    return replace(reply.sent, text=json.dumps(records))


def not_records(rng: random.Random, reply: Honest) -> Sent:
    good = reply.sent.text
    cut = good[: rng.randrange(1, len(good))]
    bare = good.replace('"loss": ', '"loss": NaN, "was": ')
    deep = '{"a": ' * rng.choice([100, 30_000])
    long = json.dumps({"metrics": "x" * 300_000})
    return replace(
        reply.sent, text=rng.choice([cut, bare, deep, long, "[]", "7", "null", good + "}", '{"a": "\\u0000"}'])
    )


Fault = Callable[[random.Random, Honest], Sent]
FAULTS: tuple[Fault, ...] = (
    truncated,
    trailing_bytes,
    no_blob,
    noise,
    header_longer_than_claimed,
    header_character_changed,
    oversize_claim,
    header_of_other_types,
    header_of_truth_values,
    header_nested_deeply,
    header_not_an_object,
    missing_array,
    extra_array,
    renamed_array,
    wrong_dtype,
    dtype_nobody_knows,
    wrong_shape,
    not_finite,
    subnormal,
    huge,
    encoded_noise,
    wrong_encoding,
    bad_count,
    bad_loss,
    bad_extra_metric,
    missing_metric,
    records_of_other_kinds,
    not_records,
)
