"""A device's honest reply to a training task, as arrays and as it travels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fogline_shared import flower, tensors
from fogline_shared.codecs import base as codecs
from fogline_shared.codecs.base import Codec
from fogline_shared.flower import ConfigRecord, MetricRecord, RecordDict

Arrays = dict[str, np.ndarray]

# Names of running statistics.
RUNNING = ("norm.mean", "norm.count")
ENROLLED = 100


def reference(seed: int) -> Arrays:
    """The parameters that a round sends: far longer than an update, with a counter of another type among them."""
    rng = np.random.default_rng(seed)
    return {
        "layer.weight": rng.normal(0, 10, (8, 12)).astype(np.float32),
        "layer.bias": rng.normal(0, 10, 8).astype(np.float32),
        "norm.mean": rng.normal(0, 10, 8).astype(np.float32),
        "norm.count": np.int64(7 + seed).reshape(()),
        "scale": rng.normal(0, 10, (1, 3)).astype(np.float32),
    }


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A reply as it travels."""

    text: str
    blob: bytes


@dataclass(frozen=True, kw_only=True)
class Honest:
    """A reply before it travels. ``arrays`` as the codec made them; ``means``: the parameters they stand for."""

    arrays: Arrays
    means: Arrays
    metrics: dict[str, Any]
    codec: str

    def records(self) -> dict[str, Any]:
        """To be spoiled."""
        records: dict[str, Any] = json.loads(self.sent.text)
        return records

    @cached_property
    def sent(self) -> Sent:
        content = RecordDict({"arrays": flower.to_record(self.arrays), "metrics": MetricRecord(self.metrics)})
        if self.codec != codecs.NONE:
            content["encoding"] = ConfigRecord({"codec": self.codec})
        return Sent(text=json.dumps(flower.encode(content).records), blob=blob_of(self.arrays))


def honest(sent: Mapping[str, np.ndarray], codec: Codec, seed: int) -> Honest:
    """What a device that trained answers: every array moved by about a tenth."""
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}
    for name, old in sent.items():
        moved = np.asarray(old + 1 if old.dtype == np.int64 else old + rng.normal(0, 0.1, old.shape), old.dtype)
        arrays[name] = moved.reshape(old.shape)
    metrics = {"num-examples": int(rng.integers(1, ENROLLED + 1)), "loss": float(rng.uniform(0, 3))}
    means = dict(arrays)
    if codec.name != codecs.NONE:
        names = [n for n, a in sent.items() if n not in RUNNING and codec.packs(a.dtype.name, a.size)]
        packed = codecs.pack(codec, {n: arrays[n] - sent[n] for n in names}, {}, seed=seed)
        assert packed is not None
        arrays |= packed.arrays
        means |= {n: codec.decode(packed.arrays[n], sent[n].size).reshape(sent[n].shape) + sent[n] for n in names}
    return Honest(arrays=arrays, means=means, metrics=metrics, codec=codec.name)


def blob_of(arrays: Mapping[str, np.ndarray]) -> bytes:
    return b"".join(map(bytes, tensors.encode(arrays)))


def blob_with(header: str | bytes, data: bytes) -> bytes:
    """A blob whose header is this text, well announced."""
    text = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return len(text).to_bytes(8, "little") + text + data


def parts_of(blob: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a good blob."""
    end = 8 + int.from_bytes(blob[:8], "little")
    return json.loads(blob[8:end]), blob[end:]
