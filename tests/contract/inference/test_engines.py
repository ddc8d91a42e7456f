"""One suite over every engine: a new file in ``engines/`` is tested at once."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from artifacts import CLASSES, SHAPE, artifact, example
from poisoned import hanging, marked
from tiny_recipe import Tiny
from tiny_release import trained

from fogline_client.inference.engines.base import load_engine
from fogline_client.inference.model import load_model
from fogline_server.compression.chain import Chain
from fogline_server.distillation.choice import CONTROL
from fogline_server.registry.build import build_artifacts
from fogline_server.registry.taught import Source
from fogline_shared.errors import Corrupt, InvalidInput, Unavailable
from fogline_shared.manifest import METADATA_KEY
from fogline_shared.plugins import module_names

ENGINES = module_names("fogline_client.inference.engines")


@pytest.fixture(params=ENGINES)
def engine(request):
    return load_engine(request.param)


def test_it_describes_the_graph(engine):
    session = engine.open(artifact())
    assert [(p.name, p.dtype, p.shape) for p in session.inputs] == [("input", "float32", (None, *SHAPE))]
    assert [(p.name, p.dtype, p.shape) for p in session.outputs] == [("logits", "float32", (None, len(CLASSES)))]
    assert METADATA_KEY in session.metadata


def test_bound_and_batched_runs_agree(engine):
    session = engine.open(artifact())
    bound = session.bind(SHAPE, len(CLASSES))
    batch = np.random.default_rng(0).normal(size=(5, *SHAPE)).astype(np.float32)
    batched = session.run(batch)
    for x, expected in zip(batch, batched, strict=True):
        bound.input[0] = x
        bound.run()
        assert np.allclose(bound.output[0], expected, atol=1e-5)


def test_a_stopped_session_never_answers_again(engine):
    session = engine.open(artifact())
    assert session.run(example(2)[None])[0].argmax() == 2
    session.stop()
    with pytest.raises(Exception, match=r"stopped|terminate"):  # whatever the engine raises
        session.run(example(2)[None])


@pytest.mark.parametrize("name", ["onnxruntime_cpu", "onnxruntime_providers"])  # a loop is one operator to OpenVINO
def test_a_run_that_does_not_end_is_told_to(name):
    session = load_engine(name).open(hanging())
    assert session.run(example(2)[None])[0].argmax() == 2
    said = []

    def run():
        try:
            session.run(marked(2)[None])
        except Exception as error:  # whatever the engine raises
            said.append(error)

    caller = threading.Thread(target=run, daemon=True)
    caller.start()
    caller.join(0.1)
    assert caller.is_alive()
    session.stop()
    caller.join(20)
    assert len(said) == 1


def test_threads_share_a_session(engine):
    session = engine.open(artifact())
    with ThreadPoolExecutor(4) as pool:
        labels = list(pool.map(lambda i: int(session.run(example(i % 4)[None])[0].argmax()), range(200)))
    assert labels == [i % 4 for i in range(200)]


@pytest.fixture(scope="module")
def variants():
    """The student of a release as it is shipped: float, and int8 in either way to write it."""
    params, standardisation = trained("student")
    chains = {"qdq": "int8_static:qdq=true", "half": "float16", "packed": "weight_only:bits=4"}
    sources = {CONTROL: Source(params=params, standardisation=standardisation)}
    return build_artifacts(Tiny(), sources, {name: Chain.parse(text) for name, text in chains.items()}).artifacts


def logits(engine, model, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(model)
    return np.array([answer.logits for answer in load_model(file, engine).predict_many(Tiny().holdout().x)])


def assert_alike(ours, reference):
    assert np.abs(ours - reference).max() < 0.1 * reference.std()
    assert np.mean(ours.argmax(axis=1) == reference.argmax(axis=1)) >= 0.99


@pytest.mark.parametrize("variant", ["student_fp32", "qdq", "half", "packed"])
def test_what_is_shipped_is_answered_as_by_the_default_engine(engine, variants, variant, tmp_path):
    model = variants[variant]
    assert_alike(logits(engine, model, tmp_path), logits(load_engine(), model, tmp_path))


def test_int8_in_the_operators_of_onnx_runtime_is_for_onnx_runtime(variants, tmp_path):
    model = variants["student_int8"]
    assert_alike(logits(load_engine("onnxruntime_providers"), model, tmp_path), logits(load_engine(), model, tmp_path))
    with pytest.raises(Corrupt) as refused:
        load_engine("openvino").open(model)
    assert (refused.value.code, "int8_static:qdq=true" in refused.value.message) == ("not_a_model", True)


def test_an_engine_that_is_not_installed_says_how_to_install_it(monkeypatch):
    load_engine("openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if no such package were there
    with pytest.raises(Unavailable) as refused:
        load_engine("openvino")
    assert (refused.value.code, "pip install 'fogline[openvino]'" in refused.value.message) == (
        "engine_not_installed",
        True,
    )


def test_a_device_that_openvino_does_not_find_is_not_replaced_by_another():
    with pytest.raises(Unavailable) as refused:
        load_engine("openvino", {"device": "NPU.7"}).open(artifact())
    assert (refused.value.code, "CPU" in refused.value.message) == ("engine_device_missing", True)


@pytest.mark.parametrize(
    ("providers", "code"),
    [
        ("RocketExecutionProvider", "provider_unavailable"),
        ("RocketExecutionProvider,CPUExecutionProvider", "provider_unavailable"),
        # It is in every build, but runs no operator by itself.
        ("AzureExecutionProvider", "provider_unavailable"),
        ("", "invalid_engine_option"),
        ("CPUExecutionProvider,CPUExecutionProvider", "invalid_engine_option"),
    ],
)
def test_onnx_runtime_never_falls_back_in_silence(providers, code):
    with pytest.raises((Unavailable, InvalidInput)) as refused:
        load_engine("onnxruntime_providers", {"providers": providers}).open(artifact())
    assert refused.value.code == code


def test_a_provider_with_the_cpu_for_the_rest_is_taken():
    engine = load_engine("onnxruntime_providers", {"providers": "AzureExecutionProvider,CPUExecutionProvider"})
    assert engine.open(artifact()).run(example(2)[None]).argmax() == 2


@pytest.mark.parametrize("content", [b"", b"not a model", artifact()[:-20]])
def test_foreign_bytes_have_one_code(engine, content):
    with pytest.raises(Corrupt) as refused:
        engine.open(content)
    assert refused.value.code == "not_a_model"


@pytest.mark.parametrize("name", ENGINES)
def test_an_unknown_option_is_named(name):
    with pytest.raises(InvalidInput) as refused:
        load_engine(name, {"no_such_option": 1})
    assert refused.value.code == "invalid_engine_option"


def test_an_unknown_engine_names_the_known():
    with pytest.raises(InvalidInput) as refused:
        load_engine("abacus")
    assert refused.value.code == "unknown_engine"
    assert ENGINES[0] in refused.value.message


def test_options_are_checked():
    with pytest.raises(InvalidInput):
        load_engine("onnxruntime_cpu", {"threads": 0})
    assert load_engine("onnxruntime_cpu", {"threads": 2}).open(artifact()).run(example(1)[None]).argmax() == 1
