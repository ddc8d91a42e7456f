from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

from fogline_server.blobs import hot
from fogline_server.blobs.cold import ColdTier
from fogline_server.blobs.store import BlobStore
from fogline_shared.errors import Corrupt, Exhausted, FoglineError, InvalidInput, NotFound

DATA = [b"fog", memoryview(b"line"), bytearray(b"!")]
DIGEST = hashlib.sha256(b"fogline!").hexdigest()


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def test_a_blob_is_found_under_its_digest_once_however_often_it_is_written(blobs: BlobStore, tmp_path: Path) -> None:
    assert blobs.put(DATA, expect=DIGEST) == blobs.put(DATA)
    assert blobs.read(DIGEST) == b"fogline!"
    assert (blobs.exists(DIGEST), blobs.size(DIGEST)) == (True, 8)
    assert b"".join(blobs.chunks(DIGEST, 3, chunk=2)) == b"line!"
    assert files(tmp_path / "blobs") == [DIGEST]


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [({"expect": "0" * 64}, Corrupt, "digest_mismatch"), ({"limit": 7}, Exhausted, "blob_too_large")],
)
def test_what_is_refused_leaves_nothing_behind(
    blobs: BlobStore, tmp_path: Path, options: dict, error: type[FoglineError], code: str
) -> None:
    with pytest.raises(error, match=code):
        blobs.put(DATA, **options)
    assert files(tmp_path / "blobs") == []


def test_a_flipped_byte_on_disk_is_found(blobs: BlobStore) -> None:
    blobs.put(DATA)
    blobs.path(DIGEST).write_bytes(b"fogline?")
    with pytest.raises(Corrupt, match="blob_damaged"):
        blobs.read(DIGEST)


@pytest.mark.parametrize("digest", ["../../etc/passwd", "", "A" * 64, "0" * 63])
def test_a_name_that_is_no_digest_reaches_no_file(blobs: BlobStore, digest: str) -> None:
    with pytest.raises(InvalidInput, match="bad_digest"):
        blobs.path(digest)


def test_an_unknown_digest_is_not_found(blobs: BlobStore) -> None:
    with pytest.raises(NotFound, match="blob_not_found"):
        blobs.size("0" * 64)


def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from fogline_server.blobs.store import BlobStore
from fogline_shared.errors import Exhausted
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    BlobStore(Path(sys.argv[1])).put([bytes(1 << 20)])
except Exhausted as error:
    sys.stdout.write(error.code)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "blobs"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "disk_full"
    assert files(tmp_path / "blobs") == []


def test_what_a_killed_writer_left_is_swept_and_what_is_being_written_is_not(blobs: BlobStore, tmp_path: Path) -> None:
    blobs.put(DATA)
    incoming = tmp_path / "blobs" / "incoming"
    (incoming / "left").write_bytes(b"half")
    (incoming / "present").write_bytes(b"half")
    yesterday = time.time() - 90_000
    os.utime(incoming / "left", (yesterday, yesterday))
    assert blobs.sweep(older_than_s=86_400) == 1
    assert files(tmp_path / "blobs") == sorted(["present", DIGEST])


def test_a_cooled_blob_can_be_read(blobs: BlobStore) -> None:
    blobs.put(DATA)
    blobs.cool(DIGEST)
    assert blobs.read(DIGEST) == b"fogline!"
    with pytest.raises(NotFound, match="blob_not_found"):
        blobs.cool("0" * 64)


def test_each_use_asks_for_the_file_and_is_noted_in_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(hot, "time", SimpleNamespace(time=lambda: now))
    store = BlobStore(tmp_path / "hot", cold=ColdTier(f"memory://{uuid.uuid4().hex}"), hot_bytes=100_000, spare_s=40)
    digest = store.put([b"used"]).digest
    place = store.path(digest)
    for _ in range(3):  # also within the time for which no use is noted
        place.unlink()
        assert store.path(digest).read_bytes() == b"used"
    os.utime(place, (now - 11, now - 11))
    now += 11
    store.path(digest)
    assert place.stat().st_mtime > now - 12
