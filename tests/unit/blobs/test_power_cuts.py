"""A power cut before and after each durable operation of the store: a blob is there whole, or as if it had never been written."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import numpy as np
import pytest

from fogline_server.blobs.cold import ColdTier
from fogline_server.blobs.store import BlobStore
from fogline_shared import tensors
from fogline_shared.errors import NotFound

RNG = np.random.default_rng(0)
OLD, NEW = ({"body": RNG.normal(size=10_000), "head": RNG.normal(size=600)} for _ in range(2))
NEW["body"] = OLD["body"]


class PowerCut(BaseException):
    """Nothing runs any more, no clean-up either."""


class Power:
    """Cuts at the ``number``-th operation on the disk, before or after it took effect; then nothing has an effect."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int, *, after: bool) -> None:
        self.count, self.off = 0, False
        for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "unlink"), (os, "remove")):
            patch.setattr(owner, name, self.wrap(getattr(owner, name), number, after=after))

    def wrap(self, real, number: int, *, after: bool):
        def operation(*args, **options):
            if self.off:
                raise PowerCut
            self.count += 1
            if self.count == number and not after:
                self.off = True
                raise PowerCut
            try:
                return real(*args, **options)
            finally:
                if self.count == number:
                    self.off = True
                    raise PowerCut

        return operation


def store_in(root: Path, *, tiers: bool) -> BlobStore:
    if not tiers:
        return BlobStore(root / "hot")
    (root / "cold").mkdir(exist_ok=True, parents=True)
    return BlobStore(root / "hot", cold=ColdTier(f"file://{root / 'cold'}"), hot_bytes=1, spare_s=0)


def data_of(arrays) -> bytes:
    return b"".join(map(bytes, tensors.encode(arrays)))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("tiers", [False, True], ids=["folder", "tiers"])
@pytest.mark.parametrize("what", ["put", "collect"])
def test_what_was_acknowledged_is_there_and_what_was_not_is_whole_or_absent(
    tmp_path: Path, monkeypatch, tiers, after, what
) -> None:
    # What is flushed and what is not looks the same to a process that lives on; where it flushes is what is cut.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    number, finished = 0, False
    while not finished:
        number += 1
        root = tmp_path / str(number)
        store = store_in(root, tiers=tiers)
        old = store.put([data_of(OLD)]).digest
        gone = store.put([data_of(NEW)]).digest if what == "collect" else ""
        with pytest.MonkeyPatch.context() as patch:
            Power(patch, number, after=after)
            new = ""
            try:
                if what == "put":
                    new = store.put([data_of(NEW)]).digest
                else:
                    store.remove([old, gone], before=math.inf, keep=lambda old=old: {old})
                    store.remove_unused_chunks(before=math.inf)
                finished = True
            except PowerCut:
                pass
        again = store_in(root, tiers=tiers)
        assert again.read(old) == data_of(OLD)
        digest = hashlib.sha256(data_of(NEW)).hexdigest()
        try:
            assert again.read(digest) == data_of(NEW)
        except NotFound:
            assert not new
        # Whatever was left over is cleared, and hinders nobody.
        again.sweep(older_than_s=-1)
        assert again.put([data_of(NEW)]).digest == digest
        assert again.read(digest) == data_of(NEW)
        assert not [path for path in root.rglob("*") if path.name.endswith(".part")]
    assert number >= 2
