"""Successive halving and the space it works on: pure, over candidates by chance."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fogline_server.compression.chain import Chain
from fogline_server.compression.front import Limits, Measured, front
from fogline_server.search.halving import ETA, expected, shares, survivors
from fogline_server.search.space import DEFAULT, entries, name_of, steps_of

PARENT = Measured(name="parent", accuracy=0.9, worst_class=0.8, size=100, p50_us=100)
# Few values, so that forms are often equal in something.
FORMS = st.lists(
    st.builds(
        Measured,
        name=st.uuids().map(str),
        accuracy=st.sampled_from([0.1, 0.5, 0.8, 0.9]),
        worst_class=st.sampled_from([0.0, 0.4, 0.8]),
        size=st.integers(1, 5).map(lambda n: 20 * n),
        p50_us=st.integers(1, 5).map(lambda n: 20.0 * n),
    ),
    min_size=1,
    max_size=30,
    unique_by=lambda form: form.name,
)
LIMITS = st.builds(
    Limits,
    max_bytes=st.none() | st.integers(1, 120),
    max_p50_us=st.none() | st.floats(1, 120),
    max_drop=st.none() | st.floats(0, 1),
)


@given(forms=FORMS, limits=LIMITS)
def test_a_third_survives_with_some_of_the_front_and_what_fits_before_what_does_not(forms, limits):
    kept = survivors(forms, limits, parent=PARENT)
    assert len(kept) == math.ceil(len(forms) / ETA)
    assert {form.name for form in front(forms)} & set(kept)
    size, p50 = (math.inf if limit is None else limit for limit in (limits.max_bytes, limits.max_p50_us))
    fits = {form.name: form.size <= size and form.p50_us <= p50 for form in forms}
    if not all(fits[name] for name in kept):
        assert {name for name, fit in fits.items() if fit} <= set(kept)
    worst = min((form.accuracy for form in forms if form.name in kept and fits[form.name]), default=None)
    others = [form.accuracy for form in forms if fits[form.name] and form.name not in kept]
    assert worst is None or all(accuracy <= worst for accuracy in others)


@pytest.mark.parametrize(
    ("candidates", "rungs", "trainings"),
    [
        (0, [1], 0),
        (1, [1], 1),
        (2, [1], 2),
        (3, [1 / 3, 1], 4),
        (9, [1 / 9, 1 / 3, 1], 13),
        (60, [1 / 9, 1 / 3, 1], 87),
    ],
)
def test_rungs_end_with_the_whole_training(candidates, rungs, trainings):
    assert shares(candidates) == pytest.approx(rungs)
    assert expected(candidates) == trainings


def test_the_space_tries_every_method_once_by_a_name_that_a_variant_may_have():
    space = entries((), steps=900)
    assert len({entry.name for entry in space}) == len(space) == len(DEFAULT)
    methods = {link.method for entry in space for link in entry.chain.links}
    assert {"binarize", "prune_channels", "low_rank", "qat", "sparse_n_m", "int8_static", "weight_only"} <= methods
    for entry in space:
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,39}", entry.name)
        assert entry.name == name_of(Chain.parse(str(entry.chain)))
    assert len(entries([Chain.parse("float16"), Chain.parse("float16")], steps=9)) == 1


def test_training_is_shortened_and_nothing_else():
    (entry,) = entries([Chain.parse("prune_channels:share=0.5,finetune:steps=70,int8_static")], steps=900)
    # Pruning trains after each of its four rounds.
    assert [steps_of(link) for link in entry.chain.links] == [225, 70, 0]
    assert str(entry.with_share(1 / 9)) == "prune_channels:share=0.5:steps=25,finetune:steps=8,int8_static"
    assert entry.with_share(1.0) == entry.chain
    (still,) = entries([Chain.parse("prune_channels:steps=0,int8_static")], steps=900)
    assert (entry.trains, still.trains) == (True, False)
