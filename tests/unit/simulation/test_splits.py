"""A device's rows of the pool: by its number alone, and as uneven as was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from fogline_server.simulation.choices import chance
from fogline_server.simulation.splits import Shards, dirichlet, uniform
from fogline_shared.errors import InvalidInput

LABELS = np.random.default_rng(0).permutation(np.arange(1000) % 10)


def shares(rows: np.ndarray) -> np.ndarray:
    return np.bincount(LABELS[rows], minlength=10) / len(rows)


def drawn(alpha: float, device: int) -> np.ndarray:
    return dirichlet(LABELS, 50, alpha, chance(0, "split", device))


def test_no_row_is_held_twice_and_all_devices_hold_as_many() -> None:
    for rows in (drawn(0.001, 1), drawn(0.5, 2), drawn(1e6, 3), uniform(1000, 50, chance(0, "split", 4))):
        assert len(set(rows.tolist())) == len(rows) == 50
        assert (np.diff(rows) > 0).all()


def test_a_small_alpha_leaves_few_labels_and_a_large_one_all() -> None:
    skewed = np.mean([shares(drawn(0.05, device)).max() for device in range(30)])
    even = np.mean([shares(drawn(1000.0, device)).max() for device in range(30)])
    assert skewed > 0.7
    assert even < 0.25


def test_over_the_fleet_every_label_counts_alike() -> None:
    mean = np.mean([shares(drawn(0.5, device)) for device in range(400)], axis=0)
    assert np.abs(mean - 0.1).max() < 0.04


def test_more_than_the_pool_has_is_the_pool() -> None:
    assert dirichlet(LABELS, 5000, 0.1, chance(0, "split", 1)).tolist() == list(range(1000))
    assert uniform(10, 50, chance(0, "split", 1)).tolist() == list(range(10))


def test_shards_are_a_partition_when_they_come_out_even() -> None:
    shards = Shards(LABELS, 50, 2, seed=0)
    held = [shards.rows(device) for device in range(20)]
    assert sorted(np.concatenate(held).tolist()) == list(range(1000))
    assert max(len(set(LABELS[rows].tolist())) for rows in held) <= 2


def test_a_larger_fleet_deals_the_shards_again_in_another_order() -> None:
    shards = Shards(LABELS, 50, 2, seed=0)
    again = [shards.rows(device).tolist() for device in range(20, 40)]
    assert sorted(row for rows in again for row in rows) == list(range(1000))
    assert again != [shards.rows(device).tolist() for device in range(20)]
    assert shards.rows(10**9).tolist() == Shards(LABELS, 50, 2, seed=0).rows(10**9).tolist()


def test_more_shards_than_examples_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 60 examples") as caught:
        Shards(LABELS, 50, 60, seed=0)
    assert caught.value.code == "invalid_simulation"
