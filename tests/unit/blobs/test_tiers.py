"""A blob store with a cold tier behind a bounded folder: whatever leaves the folder comes back as it was."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fogline_server.blobs import store as store_module
from fogline_server.blobs.cold import ColdTier
from fogline_server.blobs.hot import held
from fogline_server.blobs.store import BlobStore
from fogline_server.bootstrap import build_blobs
from fogline_server.registry.deltas.tensors import tensors as onnx_tensors
from fogline_server.settings import Settings
from fogline_shared import tensors
from fogline_shared.errors import Corrupt, FoglineError, InvalidInput, NotFound, Unavailable


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(params=["file", "memory", "dir"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, a store whose objects appear at once, and one of neither kind."""
    if request.param != "file":
        return {"memory": "", "dir": "dir::"}[request.param] + f"memory://{uuid.uuid4().hex}"
    (tmp_path / "cold").mkdir()
    return f"file://{tmp_path / 'cold'}"


@pytest.fixture
def store(tmp_path: Path, url: str) -> BlobStore:
    return BlobStore(tmp_path / "hot", cold=ColdTier(url), hot_bytes=100_000, spare_s=0)


def forget_hot(store: BlobStore, digest: str) -> None:
    store._place(digest).unlink(missing_ok=True)


def objects(store: BlobStore) -> Iterator[str]:
    assert store.cold is not None
    yield from store.cold._fs.find(store.cold._root)


def test_a_blob_is_cold_before_it_is_acknowledged_and_comes_back(store: BlobStore) -> None:
    blob = store.put([b"fog", b"line"])
    forget_hot(store, blob.digest)
    assert (store.exists(blob.digest), store.size(blob.digest)) == (True, 7)
    assert b"".join(store.chunks(blob.digest, 3)) == b"line"
    assert store.path(blob.digest).read_bytes() == store.read(blob.digest) == b"fogline"


def test_prefetched_blobs_are_hot_and_a_lost_one_is_left_to_its_reader(store: BlobStore) -> None:
    there = [store.put([bytes([i])]).digest for i in range(3)]
    forget_hot(store, there[0])
    forget_hot(store, there[1])
    assert store.prefetch([*there, "0" * 64]) == 2
    assert set(there) <= set(store.held())
    with pytest.raises(NotFound, match="blob_not_found"):
        store.path("0" * 64)


def test_the_folder_stays_below_its_bound_and_nothing_is_lost(store: BlobStore) -> None:
    blobs = {store.put([np.random.default_rng(i).bytes(9000)]).digest: i for i in range(30)}
    assert sum(each.size for each in held(store._root)) <= 100_000 + 9000
    for digest, seed in blobs.items():
        assert store.read(digest) == np.random.default_rng(seed).bytes(9000)


def test_what_is_large_and_long_unused_goes_first(store: BlobStore) -> None:
    old_small, old_large, new_large = (
        store.put([bytes([i]) * size]).digest for i, size in enumerate((10, 40_000, 40_001))
    )
    for digest, age in ((old_small, 1000), (old_large, 1000), (new_large, 10)):
        os.utime(store._place(digest), (time.time() - age,) * 2)
    store.put([b"x" * 45_000])
    assert old_small in store.held()
    assert new_large in store.held()
    assert old_large not in store.held()


def test_what_was_used_a_moment_ago_is_not_evicted(tmp_path: Path) -> None:
    (tmp_path / "cold").mkdir()
    store = BlobStore(tmp_path / "hot", cold=ColdTier(str(tmp_path / "cold")), hot_bytes=10)
    blob = store.put([b"longer than the bound"])
    assert blob.digest in store.held()


def test_a_blob_from_before_there_was_a_cold_tier_is_brought_there_when_it_is_evicted(tmp_path: Path, url: str) -> None:
    digest = BlobStore(tmp_path / "hot").put([b"old" * 100]).digest
    store = BlobStore(tmp_path / "hot", cold=ColdTier(url), hot_bytes=10, spare_s=0)
    store.put([b"new"])
    assert digest not in store.held()
    assert store.read(digest) == b"old" * 100


def test_a_bound_without_a_cold_tier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="invalid_setting"):
        BlobStore(tmp_path, hot_bytes=1)
    with pytest.raises(InvalidInput, match="invalid_setting"):
        ColdTier("no-such-scheme://x")


def test_a_damaged_copy_is_replaced_from_the_cold_tier(store: BlobStore) -> None:
    digest = store.put([b"fogline"]).digest
    store._place(digest).write_bytes(b"fogLine")
    assert store.read(digest) == b"fogline"
    store._place(digest).write_bytes(b"fogLine")
    with pytest.raises(Corrupt, match="blob_damaged"):
        list(store.chunks(digest))
    assert list(store.chunks(digest)) == [b"fogline"]


def test_a_damaged_or_lost_object_of_the_cold_tier_is_told(store: BlobStore) -> None:
    assert store.cold is not None
    arrays = {name: np.random.default_rng(i).normal(size=20_000) for i, name in enumerate("ab")}
    whole, cut = store.put([b"fogline" * 100]).digest, store.put(tensors.encode(arrays)).digest
    forget_hot(store, whole)
    forget_hot(store, cut)
    fs = store.cold._fs
    for place in objects(store):
        data = fs.cat_file(place)
        fs.pipe_file(place, data[:-1] + bytes([data[-1] ^ 1]))
    for digest in (whole, cut):
        with pytest.raises(Corrupt, match="blob_damaged"):
            store.path(digest)
    piece = next(place for place in objects(store) if "/chunks/" in place)
    for place in objects(store):
        if "/recipes/" in place:
            data = fs.cat_file(place)
            fs.pipe_file(place, data[:-1] + bytes([data[-1] ^ 1]))
    fs.rm_file(piece)
    with pytest.raises(Corrupt, match="blob_damaged"):
        store.path(cut)
    store._place(whole).write_bytes(b"only")
    store.cold.remove(whole)
    with pytest.raises(Corrupt, match="blob_damaged"):
        store.read(whole)
    assert store.exists(whole)


class Trouble(fsspec.AbstractFileSystem):
    """Answers as it is told: an error, or not at all."""

    protocol = "memory"
    cachable = False

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error, self.hangs = error, threading.Event()

    def info(self, path, **kwargs):
        return self.pipe_file(path, b"")

    exists = cat_file = info

    def pipe_file(self, path, value, **kwargs):
        if self.error is not None:
            raise self.error
        self.hangs.wait()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, "No space left"), "disk_full"),
        (ConnectionError("password=x"), "cold_unreachable"),
        (None, "cold_unreachable"),
    ],
)
def test_a_cold_tier_in_trouble_is_told_and_leaves_nothing_half_stored(tmp_path: Path, error, code: str) -> None:
    cold = ColdTier("memory://trouble", timeout_s=0.05)
    cold._fs = trouble = Trouble(error)
    store = BlobStore(tmp_path / "hot", cold=cold)
    with pytest.raises(FoglineError) as told:
        store.put([b"fogline"])
    trouble.hangs.set()
    assert told.value.code == code
    assert "password" not in str(told.value)
    assert not store.held()
    assert not list((tmp_path / "hot" / "incoming").iterdir())


def test_a_folder_that_is_not_mounted_is_unreachable_not_empty(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "hot", cold=ColdTier(f"file://{tmp_path / 'mount'}"))
    for use in (lambda: store.put([b"x"]), lambda: store.exists("0" * 64), lambda: store.path("0" * 64)):
        with pytest.raises(Unavailable, match="cold_unreachable"):
            use()
    assert not (tmp_path / "mount").exists()


def test_a_tensor_that_two_blobs_share_is_stored_once(store: BlobStore) -> None:
    assert store.cold is not None
    body = np.random.default_rng(0).normal(size=50_000)
    stored = []
    for head in (1, 2):
        arrays = {"body": body, "head": np.random.default_rng(head).normal(size=1000)}
        stored.append((store.put(tensors.encode(arrays)).digest, b"".join(map(bytes, tensors.encode(arrays)))))
    assert sum(each.size for each in store.cold.chunks().values()) < 1.2 * body.nbytes
    for digest, data in stored:
        forget_hot(store, digest)
        assert store.read(digest) == data


def test_a_tensor_of_mostly_zeros_takes_little(store: BlobStore) -> None:
    assert store.cold is not None
    rng = np.random.default_rng(0)
    sparse = np.where(rng.random(100_000) < 0.05, rng.normal(size=100_000), 0).astype(np.float32)
    digest = store.put(tensors.encode({"w": sparse})).digest
    at_rest = sum(each.size for each in (store.cold.chunks() | store.cold.listing()).values())
    assert at_rest < np.count_nonzero(sparse) * 4 + sparse.size / 8 + 500
    forget_hot(store, digest)
    assert tensors.decode(store.read(digest))["w"].tobytes() == sparse.tobytes()


def test_an_onnx_file_is_cut_at_its_initialisers(tmp_path: Path, url: str) -> None:
    cold = ColdTier(url, tensors=onnx_tensors)
    store = BlobStore(tmp_path / "hot", cold=cold)
    rng = np.random.default_rng(0)
    body = rng.normal(size=(100, 300)).astype(np.float32)
    models = {}
    for _ in range(2):
        head = rng.normal(size=(300, 5)).astype(np.float32)
        parts = [onnx.numpy_helper.from_array(array, name) for name, array in (("body", body), ("head", head))]
        nodes = [
            onnx.helper.make_node("MatMul", ["x", "body"], ["h"]),
            onnx.helper.make_node("MatMul", ["h", "head"], ["y"]),
        ]
        model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [], initializer=parts))
        models[store.put([model.SerializeToString()]).digest] = model.SerializeToString()
    assert sum(each.size for each in cold.chunks().values()) < 1.2 * body.nbytes
    for digest, data in models.items():
        forget_hot(store, digest)
        assert store.read(digest) == data


def test_a_piece_that_a_writer_uses_again_while_it_is_collected_stays(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.cold is not None
    body = np.random.default_rng(0).normal(size=20_000)
    first, second = (tensors.encode({"body": body, "head": np.full(1000, seed, np.float32)}) for seed in (1, 2))
    gone = store.put(first).digest
    store.cold.remove(gone)
    forget_hot(store, gone)
    used, written = store.cold.used_chunks, []

    def then_write(known):
        found = used(known)
        if not written:
            written.append(store.put(second).digest)
        return found

    monkeypatch.setattr(store.cold, "used_chunks", then_write)
    assert store.remove_unused_chunks(before=math.inf) > 0
    forget_hot(store, written[0])
    assert store.read(written[0]) == b"".join(map(bytes, second))


def test_nothing_is_published_while_the_collector_has_the_folder(blobs: BlobStore, monkeypatch) -> None:
    monkeypatch.setattr(store_module, "_LOCK_WAIT_S", 0.05)
    refused = []

    def keep():
        with pytest.raises(Unavailable, match="storage_busy") as told:
            blobs.put([b"fogline"])
        refused.append(told.value)
        return ()

    blobs.remove(["0" * 64], before=math.inf, keep=keep)
    assert refused
    assert not blobs.held()
    blobs.put([b"fogline"])


HEADER = st.dictionaries(
    st.text(max_size=3),
    st.one_of(
        st.none(),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "I8", "?"]),
                "data_offsets": st.lists(st.integers(-9, 200_000), max_size=3),
            }
        ),
    ),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=HEADER, seed=st.integers(0, 5), zeros=st.floats(0, 1), size=st.sampled_from([0, 1, 70_000, 140_001]))
def test_every_blob_comes_back_byte_for_byte_whatever_its_header_claims(store, header, seed, zeros, size) -> None:
    text = json.dumps(header).encode()
    rng = np.random.default_rng(seed)
    body = np.where(rng.random(size) < zeros, 0, rng.integers(0, 256, size)).astype(np.uint8).tobytes()
    data = len(text).to_bytes(8, "little") + text + body
    digest = store.put([data]).digest
    forget_hot(store, digest)
    assert store.size(digest) == len(data)
    assert store.read(digest) == data


def test_readers_find_every_blob_while_others_are_evicted(tmp_path: Path) -> None:
    (tmp_path / "cold").mkdir()
    store = BlobStore(tmp_path / "hot", cold=ColdTier(f"file://{tmp_path / 'cold'}"), hot_bytes=20_000, spare_s=0)
    blobs = {store.put([(data := bytes([i]) * 3000)]).digest: data for i in range(12)}
    failures: list[BaseException] = []

    def read(seed: int) -> None:
        try:
            for digest in np.random.default_rng(seed).choice(list(blobs), 40):
                assert store.read(str(digest)) == blobs[str(digest)]
        except BaseException as error:  # told by the main thread
            failures.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_settings_make_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOGLINE_STATE_DIR", str(tmp_path))
    assert build_blobs(Settings()).cold is None
    monkeypatch.setenv("FOGLINE_HOT_BYTES", "1000")
    with pytest.raises(InvalidInput, match="FOGLINE_COLD_URL"):
        build_blobs(Settings())
    monkeypatch.setenv("FOGLINE_COLD_URL", f"memory://{uuid.uuid4().hex}")
    store = build_blobs(Settings())
    digest = store.put([b"fogline"]).digest
    forget_hot(store, digest)
    assert store.read(digest) == b"fogline"
