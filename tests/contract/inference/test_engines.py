"""One suite over every engine: a new file in ``engines/`` is tested at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from artifacts import CLASSES, SHAPE, artifact, example

from fogline_client.inference.engines.base import load_engine
from fogline_shared.errors import Corrupt, InvalidInput
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


def test_threads_share_a_session(engine):
    session = engine.open(artifact())
    with ThreadPoolExecutor(4) as pool:
        labels = list(pool.map(lambda i: int(session.run(example(i % 4)[None])[0].argmax()), range(200)))
    assert labels == [i % 4 for i in range(200)]


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
