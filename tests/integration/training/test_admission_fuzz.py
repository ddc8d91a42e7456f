"""Ten thousand malformed replies take the way of every reply, from the gateway to the strategy: none arrives.

Each is an honest reply with one fault, and the honest reply is in the same round: it must arrive, to the bit.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import honest_replies
import pytest
from honest_replies import Honest, Sent
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lying_fleet import Lie, field_of, seeded
from malformed import FAULTS

from fogline_server.db.database import Database

# Refusals that the seeded fuzzer must have met: a check that it never reaches would be a check that nobody tests.
CODES = {
    "bad_encoding",
    "bad_records",
    "bad_sample_count",
    "bad_tensors",
    "implausible_norm",
    "implausible_samples",
    "malformed_reply",
    "missing_metric",
    "no_arrays",
    "not_finite",
    "wrong_codec",
    "wrong_dtype",
    "wrong_keys",
    "wrong_shape",
}
# What the gateway says to a device at once: nothing is stored, and its task stays open.
REFUSED_UPLOADS = {
    "blob_too_large",
    "digest_mismatch",
    "malformed_frame",
    "reply_too_large",
    "size_mismatch",
    "task_unknown",
}

MB = 2**20
LIARS = 450


def test_ten_thousand_malformed_replies_reach_no_strategy(sqlite_database, doorbell, tmp_path):
    rng = random.Random(3)
    with field_of(sqlite_database, doorbell, tmp_path, liars=LIARS) as bench:
        bench.round(seeded(rng, LIARS), uploaded=5)
        before = _reset_peak()
        while bench.sent < 10_000:
            bench.round(seeded(rng, LIARS), uploaded=5)
        assert _peak() - before < 100 * MB
    assert set(bench.codes) == CODES
    assert set(bench.refused_uploads) == REFUSED_UPLOADS


def test_fuzzer_notices_a_reply_that_passes(sqlite_database, doorbell, tmp_path):
    def none_at_all(twin: Honest) -> Sent:
        return twin.sent

    honest = Lie(name="none_at_all", twin=0, make=none_at_all)
    with field_of(sqlite_database, doorbell, tmp_path, liars=3) as bench:
        with pytest.raises(AssertionError, match="none_at_all"):
            bench.round([*seeded(random.Random(1), 2), honest])
        bench.round(seeded(random.Random(1), 3))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["arrays", "metrics", "encoding", "other"])
KINDS = st.sampled_from(["arrays", "metrics", "config"])
# Records of any form; those of the right form still lack a count.
RECORDS = st.dictionaries(NAMES, JSON | st.fixed_dictionaries({"kind": KINDS, "values": JSON}), max_size=3)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "I64", "C64"]) | JSON,
        "shape": st.lists(st.integers(-1, 2**70) | st.booleans() | st.floats(), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 2**70) | st.booleans() | st.floats(), min_size=2, max_size=2) | JSON,
    },
)
# None of them describes all the arrays of the model.
HEADERS = st.dictionaries(st.sampled_from(["layer.weight", "scale"]) | st.text(max_size=5), ENTRIES | JSON, max_size=3)


def of_text(text: str) -> Lie:
    return Lie(name="text", twin=0, make=lambda twin: replace(twin.sent, text=text))


def of_bytes(blob: bytes) -> Lie:
    return Lie(name="bytes", twin=0, make=lambda twin: replace(twin.sent, blob=blob))


def of_header(header: Any) -> Lie:
    blob = honest_replies.blob_with(json.dumps(header), bytes(64))
    return Lie(name="header", twin=0, make=lambda twin: replace(twin.sent, blob=blob))


INVENTED = st.one_of(
    RECORDS.map(json.dumps).map(of_text),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(of_text),  # protobuf carries no others
    st.binary(max_size=40).map(of_bytes),
    HEADERS.map(of_header),
)


def test_invented_replies_reach_no_strategy(postgres_url, doorbell, tmp_path):
    """On PostgreSQL, which does not hold every text."""
    db = Database(postgres_url)
    size = len(FAULTS)
    with field_of(db, doorbell, tmp_path, liars=size) as bench:

        @settings(max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate], database=None)
        @given(st.lists(INVENTED, min_size=size, max_size=size))
        def rounds_of(lies):
            bench.round(lies, uploaded=2)

        rounds_of()
        bench.round(seeded(random.Random(5), size))
        assert bench.number == 11
    db.dispose()


def _reset_peak() -> int:
    """Forget the process's peak so far; its resident bytes now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """The most bytes that were resident since the last reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
