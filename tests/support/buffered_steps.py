"""What must be true of every asynchronous run, whoever was fast in it: read from its rows and blobs alone."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.training import service
from fogline_shared import tensors
from fogline_shared.codecs import base as codecs


def check_steps(db: Database, blobs: BlobStore, run_id: str, *, buffer_size: int) -> None:
    """Each step took as many as the buffer holds, each once, and made of them what the paper says."""
    with db.read() as session:
        rows = service.rounds_of(session, run_id)
        told = service.updates_of(session, run_id)
    versions = {row.number: row for row in rows if row.state == "COMMITTED"}
    updates = [update for update in told if update.kind == "train" and update.verdict == "ACCEPTED"]

    def arrays(digest: str) -> dict[str, np.ndarray]:
        return tensors.decode(blobs.read(digest))

    assert Counter(update.step for update in updates) == {number: buffer_size for number in versions if number}
    for number, row in versions.items():
        taken = [update for update in updates if update.step == number and number]
        ages = [update.staleness for update in taken]
        assert ages == [number - update.round for update in taken]
        if not taken:
            continue
        assert row.metrics["staleness_max"] == max(ages)
        assert row.metrics["staleness"] == pytest.approx(sum(ages) / len(ages))
        before, after = arrays(row.params_in), arrays(row.params_out)
        for name in before:
            if "running" in name or "num_batches" in name:
                continue
            moves = [
                _move(arrays(each.digest)[name], arrays(versions[each.round].params_in)[name])
                / math.sqrt(1 + each.staleness)
                for each in taken
            ]
            np.testing.assert_allclose(after[name], before[name] + sum(moves) / len(moves), atol=1e-6)


def _move(sent: np.ndarray, began: np.ndarray) -> np.ndarray:
    """What a device added to the version it began from."""
    if sent.dtype == began.dtype:
        return sent - began
    return codecs.load("int8", {}).decode(sent, began.size).reshape(began.shape)
