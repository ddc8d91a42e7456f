"""What is refused before it serves; each refusal has a sound twin that loads."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from artifacts import artifact, example

from fogline_client import Predictor
from fogline_client.inference.engines.base import load_engine
from fogline_shared.errors import Corrupt
from fogline_shared.manifest import METADATA_KEY, KnownAnswer, Manifest

SOUND = artifact()


def _code(tmp_path, content: bytes, **options) -> str:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(Corrupt) as refused:
        Predictor().load(path, **options)
    return refused.value.code


def test_a_sound_artifact_loads_and_says_what_it_is(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(SOUND)
    digest = hashlib.sha256(SOUND).hexdigest()
    model = Predictor().load(path, digest=digest)
    assert (model.digest, model.size, model.manifest.recipe) == (digest, len(SOUND), "toy")
    assert model.warm_us > 0


@pytest.mark.parametrize("content", [b"", b"hello", SOUND[: len(SOUND) // 2], SOUND[:-7], b"\x00" * 100, b"PK\x03\x04"])
def test_a_truncated_or_foreign_file_is_refused(tmp_path, content):
    assert _code(tmp_path, content) in {"not_a_model", "manifest_missing"}


def test_other_bytes_than_promised_are_refused(tmp_path):
    assert _code(tmp_path, SOUND, digest="0" * 64) == "digest_mismatch"


def test_an_artifact_without_a_manifest_is_refused(tmp_path):
    assert _code(tmp_path, artifact(manifest=None)) == "manifest_missing"


@pytest.mark.parametrize("text", ["{}", "[]", "not json", '{"format": 99}', "null"])
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path, text):
    assert _code(tmp_path, artifact(manifest=text)) == "bad_manifest"


@pytest.mark.parametrize(
    "changes",
    [{"input_shape": (3, 9)}, {"input_shape": (24,)}, {"input_name": "x"}, {"output_name": "probabilities"}],
)
def test_a_manifest_that_does_not_describe_its_graph_is_refused(tmp_path, changes):
    assert _code(tmp_path, artifact(**changes)) == "manifest_mismatch"


def test_a_manifest_with_another_number_of_classes_is_refused(tmp_path):
    described = load_engine().open(SOUND).metadata[METADATA_KEY]
    fewer = replace(Manifest.from_json(described), classes=("only", "three", "names"))
    assert _code(tmp_path, artifact(manifest=fewer.to_json())) == "manifest_mismatch"


def test_a_model_that_fails_its_known_answer_is_refused(tmp_path):
    assert _code(tmp_path, artifact(known_label=3)) == "known_answer_failed"


def test_a_known_answer_of_another_shape_is_refused(tmp_path):
    short = KnownAnswer.of(example(1)[:2], 1)
    assert _code(tmp_path, artifact(known_answers=(short,))) == "bad_manifest"


def test_a_model_that_answers_nan_is_refused(tmp_path):
    assert _code(tmp_path, artifact(nan=True)) == "output_not_finite"
