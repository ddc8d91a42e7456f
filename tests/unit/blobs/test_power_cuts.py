"""A power cut at every write of the store: a blob is there whole, or as if it had never been written."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from disk import watched

from fogline_server.blobs.cold import ColdTier
from fogline_server.blobs.store import BlobStore
from fogline_shared import tensors
from fogline_shared.errors import NotFound

RNG = np.random.default_rng(0)
OLD, NEW = ({"body": RNG.normal(size=10_000), "head": RNG.normal(size=600)} for _ in range(2))
NEW["body"] = OLD["body"]


def data_of(arrays) -> bytes:
    return b"".join(map(bytes, tensors.encode(arrays)))


OLD_DATA, NEW_DATA = data_of(OLD), data_of(NEW)
OLD_NAME, NEW_NAME = (hashlib.sha256(data).hexdigest() for data in (OLD_DATA, NEW_DATA))


def store_in(root: Path, *, tiers: bool) -> BlobStore:
    if not tiers:
        return BlobStore(root / "hot")
    (root / "cold").mkdir(exist_ok=True, parents=True)
    return BlobStore(root / "hot", cold=ColdTier(f"file://{root / 'cold'}"), hot_bytes=1, spare_s=0)


def lose_hot(store: BlobStore) -> None:
    for digest in store.held():
        store._place(digest).unlink()


def damage_hot(store: BlobStore) -> None:
    store.prefetch([OLD_NAME])
    store._place(OLD_NAME).write_bytes(OLD_DATA[::-1])


def nothing(_store: BlobStore) -> None:
    pass


def put(store: BlobStore) -> None:
    store.put([NEW_DATA])


def put_and_evict(store: BlobStore) -> None:
    put(store)
    store.put([b"another"])
    assert NEW_NAME not in store.held()


def collect(store: BlobStore) -> None:
    store.remove([OLD_NAME, NEW_NAME], before=math.inf, keep=lambda: {OLD_NAME})
    store.remove_unused_chunks(before=math.inf)


Step = Callable[[BlobStore], object]


@pytest.mark.parametrize(
    ("tiers", "before", "work"),
    [
        (False, nothing, put),
        (False, put, collect),
        (True, nothing, put_and_evict),
        (True, put, collect),
        (True, lose_hot, lambda store: store.read(OLD_NAME)),
        (True, damage_hot, lambda store: store.read(OLD_NAME)),
    ],
    ids=["put", "collect", "tiers-put and evict", "tiers-collect", "tiers-bring back", "tiers-mend"],
)
def test_what_was_acknowledged_is_there_and_what_was_not_is_whole_or_absent(
    tmp_path: Path, monkeypatch, *, tiers: bool, before: Step, work: Step
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what is flushed is told apart from what is not
    root = tmp_path / "first"
    root.mkdir()
    store = store_in(root, tiers=tiers)
    store.put([OLD_DATA])
    before(store)
    with watched(root) as disk:
        work(store)
        disk.say()
    for number, left in enumerate(disk.left):
        again = store_in(left.put(tmp_path / str(number)), tiers=tiers)
        assert again.read(OLD_NAME) == OLD_DATA, left
        try:
            assert again.read(NEW_NAME) == NEW_DATA, left
        except NotFound:
            assert not (left.done and work in {put, put_and_evict}), left
        # Whatever was left over is cleared, and hinders nobody.
        again.sweep(older_than_s=-1)
        assert again.put([NEW_DATA]).digest == NEW_NAME, left
        assert again.read(NEW_NAME) == NEW_DATA, left
        assert not list((tmp_path / str(number)).rglob("*.part")), left
    assert len(disk.left) >= 3
