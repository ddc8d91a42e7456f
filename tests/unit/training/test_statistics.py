from __future__ import annotations

import numpy as np
import pytest
from tiny_recipe import Tiny, signals

from fogline_server.training.admission import Candidate
from fogline_server.training.statistics import Statistics, gather
from fogline_shared.errors import Conflict
from fogline_shared.states import UpdateVerdict


def sums_of(node_id: int, seed: int, **changes: object) -> Candidate:
    sums = Tiny().channel_sums(signals(seed, 64))
    metrics = {
        "num-examples": 64,
        "count": sums.count,
        "total": sums.total.tolist(),
        "squares": sums.squares.tolist(),
    }
    return Candidate(node_id=node_id, metrics={**metrics, **changes})


def test_sums_add_up_to_the_statistics_of_all_data() -> None:
    statistics, judged = gather([sums_of(1, 1), sums_of(2, 2)], channels=6)
    everything = np.concatenate([signals(1, 64).x, signals(2, 64).x]).astype(np.float64)
    np.testing.assert_allclose(statistics.standardisation.mean, everything.mean((0, 2)), rtol=1e-9)
    np.testing.assert_allclose(statistics.standardisation.scale, everything.std((0, 2)), rtol=1e-6)
    assert statistics.samples == {1: 64, 2: 64}
    assert {j.verdict for j in judged} == {UpdateVerdict.ACCEPTED}
    assert Statistics.from_json(statistics.as_json()) == statistics


@pytest.mark.parametrize(
    "changes",
    [
        {"total": [1.0]},
        {"squares": [-1.0] * 6},
        {"count": 0},
        {"total": [float("nan")] * 6},
        {"num-examples": 1e12},
        {"num-examples": 0},
    ],
)
def test_bad_sums_are_refused_and_the_others_counted(changes: dict[str, object]) -> None:
    statistics, judged = gather([sums_of(1, 1), sums_of(2, 2), sums_of(3, 3, **changes)], channels=6)
    assert judged[2].verdict == UpdateVerdict.REFUSED
    assert set(statistics.samples) == {1, 2}


def test_no_usable_sums_end_the_run_with_the_first_reason() -> None:
    with pytest.raises(Conflict, match="no space") as caught:
        gather([Candidate(node_id=7, error=("disk_full", "no space"), fault=True)], channels=6)
    assert caught.value.code == "no_update_accepted"
