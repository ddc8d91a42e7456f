"""``fogline release export``: the file that was sealed, or none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from artifacts import SHAPE, artifact
from population import ARTIFACT

from fogline_server.cli.exits import Exit
from fogline_server.compression.engine import open_session, run
from fogline_server.registry.tables import Variant


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def small(sqlite_plant) -> Path:
    """Where the artifact of variant ``small``, a real one, lies in the store."""
    blobs = sqlite_plant.app.state.services.blobs
    stored = blobs.put([artifact()])
    with sqlite_plant.db.transaction() as session:
        session.merge(
            Variant(
                release_id=sqlite_plant.ids.release, name="small", digest=stored.digest, size=stored.size, metrics={}
            )
        )
    return blobs.path(stored.digest)


def test_it_writes_the_default_variant_under_the_releases_name_and_replaces_nothing(fogline, here):
    said = fogline("release", "export", "champion")
    assert (said.code, said.out) == (0, "tiny-1-student_int8.onnx\n")
    file = here / "tiny-1-student_int8.onnx"
    assert file.read_bytes() == ARTIFACT
    file.write_bytes(b"mine")
    said = fogline("release", "export", "champion")
    assert (said.code, said.out, "file_exists" in said.err) == (Exit.CONFLICT, "", True)
    assert file.read_bytes() == b"mine"
    assert fogline("release", "export", "champion", "--force").code == 0
    assert file.read_bytes() == ARTIFACT
    assert [each.name for each in here.iterdir()] == [file.name]


def test_a_plain_file_says_nothing_of_fogline_and_answers_alike(fogline, small, here):
    export = ("release", "export", "tiny-1", "--variant", "small")
    assert fogline(*export, "--output", "whole.onnx").code == 0
    assert fogline(*export, "--output", "plain.onnx", "--plain").code == 0
    assert hashlib.sha256((here / "whole.onnx").read_bytes()).hexdigest() == small.name
    whole, plain = ((here / f"{name}.onnx").read_bytes() for name in ("whole", "plain"))
    assert (b"fogline" in whole, b"fogline" in plain) == (True, False)
    x = np.random.default_rng(0).normal(size=(9, *SHAPE)).astype(np.float32)
    assert np.array_equal(run(open_session(whole), x), run(open_session(plain), x))
    onnx.checker.check_model(onnx.load_from_string(plain), full_check=True)


def test_what_is_not_the_sealed_file_is_not_written(fogline, small, here):
    export = ("release", "export", "tiny-1", "--variant", "small", "--output", "model.onnx")
    sound = small.read_bytes()
    small.write_bytes(sound[:100] + bytes([sound[100] ^ 1]) + sound[101:])
    said = fogline(*export)
    assert (said.code, "digest_mismatch" in said.err, list(here.iterdir())) == (Exit.INVALID, True, [])
    small.write_bytes(sound)
    assert fogline(*export).code == 0


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("nobody",), Exit.NOT_FOUND, "release_not_found"),
        (("champion", "--variant", "huge"), Exit.NOT_FOUND, "variant_not_found"),
        (("champion", "--output", "no/such/folder/model.onnx"), Exit.OTHER, "cannot_write"),
        (("champion", "--plain"), Exit.INVALID, "not_onnx"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(fogline, here, words, code, error):
    said = fogline("release", "export", *words)
    assert (said.code, said.out, error in said.err) == (code, "", True), said.err
    assert list(here.iterdir()) == []
