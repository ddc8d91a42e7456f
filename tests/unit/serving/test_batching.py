"""When a batch is thought to pay, on engines whose cost is known: time is what they say it is."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fogline_client.inference.model import LoadedModel
from fogline_client.serving.batching import measure
from fogline_shared.manifest import Manifest

MANIFEST = Manifest(
    recipe="toy",
    variant="student_fp32",
    input_name="x",
    input_shape=(4,),
    output_name="y",
    classes=("a", "b", "c", "d"),
)


class Session:
    """Answers its input. A call takes ``fixed + each * n`` seconds."""

    def __init__(self, *, fixed, each, whole_batch=False):
        self.fixed, self.each, self.whole_batch = fixed, each, whole_batch
        self.now = 0.0

    def clock(self):
        return self.now

    def run(self, x):
        self.now += self.fixed + self.each * len(x)
        # As dynamic quantization does: one scale for all that is in the batch.
        scale = np.abs(x).max() / 127 or 1.0
        return np.round(x / scale) * scale if self.whole_batch else x.copy()

    def bind(self, shape, width):
        bound = SimpleNamespace(input=np.zeros((1, *shape), np.float32), output=np.zeros((1, width), np.float32))
        bound.run = lambda: bound.output.__setitem__(slice(None), self.run(bound.input))
        return bound


@pytest.mark.parametrize(
    ("fixed", "each", "size"),
    [
        (0.0, 0.001, 1),  # nothing gained
        (0.0001, 0.001, 1),  # too little to let anybody wait for it
        (0.001, 0.001, 16),  # half of each call is the call
        (0.001, 0.0, 16),
        (0.0, 1.0, 1),  # too slow to be measured, or waited for
    ],
)
def test_a_batch_must_clearly_pay(fixed, each, size):
    session = Session(fixed=fixed, each=each)
    model = LoadedModel(digest="d", size=1, manifest=MANIFEST, session=session)
    assert measure(model, clock=session.clock) == size


def test_answers_that_depend_on_their_neighbours_are_never_batched():
    session = Session(fixed=0.001, each=0.0, whole_batch=True)
    model = LoadedModel(digest="d", size=1, manifest=MANIFEST, session=session)
    assert measure(model, clock=session.clock) == 1
