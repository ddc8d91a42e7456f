"""Rules that weigh updates by their Gram matrix, against the same rules written out in space."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import MetricRecord, RecordDict

from fogline_server.training.aggregation.blocks import BLOCK
from fogline_server.training.aggregation.geometric import Geometric, Updates
from fogline_server.training.strategies import (
    centred_clipping,
    geometric_median,
    nearest_neighbour_mixing,
    norm_bounded_mean,
)
from fogline_shared import flower
from fogline_shared.flower import Address

DEVICES, LENGTH = 9, 40
EVENLY = np.full(DEVICES, 1 / DEVICES)


@pytest.fixture
def updates() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.normal(size=LENGTH) + 0.3 * rng.normal(size=(DEVICES, LENGTH))


def gram(rows: np.ndarray) -> np.ndarray:
    return rows @ rows.T


def test_norm_bounded_mean_scales_long_updates_down(updates: np.ndarray) -> None:
    updates[4] *= 50
    norms = np.linalg.norm(updates, axis=1)
    limit = 1.5 * np.median(norms)
    expected = np.mean([u * min(1, limit / n) for u, n in zip(updates, norms, strict=True)], axis=0)
    options = norm_bounded_mean.Options(ratio=1.5)
    assert norm_bounded_mean.weigh(options, gram(updates), EVENLY) @ updates == pytest.approx(expected)


def test_centred_clipping_is_the_papers_iteration(updates: np.ndarray) -> None:
    updates[0] = -20 * updates[0]
    previous = updates[1:].mean(axis=0) + 0.1
    centre = previous
    for _ in range(4):
        differences = updates - centre
        norms = np.linalg.norm(differences, axis=1)
        limit = 0.7 * np.median(norms)
        centre = centre + np.mean([d * min(1, limit / n) for d, n in zip(differences, norms, strict=True)], axis=0)
    rows = np.vstack([updates, previous])
    options = centred_clipping.Options(ratio=0.7, iterations=4)
    assert centred_clipping.weigh(options, gram(rows), np.append(EVENLY, 0)) @ rows == pytest.approx(centre)


def test_geometric_median_has_the_least_sum_of_distances(updates: np.ndarray) -> None:
    def total(point: np.ndarray) -> float:
        return float(np.linalg.norm(updates - point, axis=1).sum())

    options = geometric_median.Options(iterations=100)
    found = geometric_median.weigh(options, gram(updates), EVENLY) @ updates
    rng = np.random.default_rng(0)
    nearby = [found + 0.01 * rng.normal(size=LENGTH) for _ in range(200)]
    assert total(found) < min(map(total, nearby))
    assert total(found) < total(updates.mean(axis=0))


def test_neighbours_are_mixed_as_in_space(updates: np.ndarray) -> None:
    updates[:3] = -4 * updates[:3]
    mixed = []
    for own in updates:
        nearest = np.argsort(np.linalg.norm(updates - own, axis=1))[:6]
        mixed.append(updates[nearest].mean(axis=0))
    mixed = np.array(mixed)
    expected = geometric_median.weigh(geometric_median.Options(), gram(mixed), EVENLY) @ mixed
    options = nearest_neighbour_mixing.Options(liars=1 / 3)
    assert nearest_neighbour_mixing.weigh(options, gram(updates), EVENLY) @ updates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rule", "rows"),
    [
        (norm_bounded_mean, DEVICES),
        (centred_clipping, DEVICES + 1),
        (geometric_median, DEVICES),
        (nearest_neighbour_mixing, DEVICES),
    ],
)
def test_liar_moves_the_result_little_however_loud(rule, rows: int, updates: np.ndarray) -> None:
    padded = np.vstack([updates, np.zeros((rows - DEVICES, LENGTH))])
    shares = np.append(EVENLY, np.zeros(rows - DEVICES))
    honest = rule.weigh(rule.Options(), gram(padded), shares) @ padded
    for loudness in (1e2, 1e6):
        padded[2] = -loudness * updates[2]
        lied = rule.weigh(rule.Options(), gram(padded), shares) @ padded
        assert np.linalg.norm(lied - honest) < 0.5 * np.linalg.norm(honest)


@pytest.mark.parametrize(
    ("rule", "rows"),
    [
        (norm_bounded_mean, DEVICES),
        (centred_clipping, DEVICES + 1),
        (geometric_median, DEVICES),
        (nearest_neighbour_mixing, DEVICES),
    ],
)
def test_devices_that_do_not_move_leave_the_parameters_alone(rule, rows: int) -> None:
    coefficients = rule.weigh(rule.Options(), np.zeros((rows, rows)), np.full(rows, 1 / rows))
    assert np.isfinite(coefficients).all()


def test_blocks_add_up_to_whole_arrays() -> None:
    rng = np.random.default_rng(1)
    shapes = {"long": (3, BLOCK // 2 + 7), "short": (5,), "scalar": ()}
    reference = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    sent = [
        {name: np.asarray(array + rng.normal(size=array.shape), np.float32) for name, array in reference.items()}
        for _ in range(3)
    ]
    anchor = {"long": rng.normal(size=shapes["long"])}
    updates = Updates([flower.to_record(arrays) for arrays in sent], reference, anchor=anchor)
    rows = [np.concatenate([(a[n] - reference[n].astype(np.float64)).reshape(-1) for n in shapes]) for a in sent]
    rows.append(np.concatenate([np.asarray(anchor.get(n, np.zeros(shapes[n]))).reshape(-1) for n in shapes]))
    assert updates.gram(shapes) == pytest.approx(gram(np.array(rows)))
    coefficients = np.array([0.5, -1.0, 2.0, 0.25])
    combined = {name: updates.combine(name, coefficients) for name in shapes}
    assert {name: array.shape for name, array in combined.items()} == shapes
    flat = np.concatenate([combined[name].reshape(-1) for name in shapes])
    assert flat == pytest.approx(coefficients @ np.array(rows), rel=1e-5, abs=1e-5)


def test_running_statistics_are_weighed_by_themselves() -> None:
    """A device whose sensor differs is not silenced in what it learned."""
    sent = [{"w": np.full(2, value, np.float32), "bn": np.full(2, 1.0, np.float32)} for value in (1.0, 1.0, 1.0)]
    sent[0]["bn"] *= 1e4
    strategy = norm_bounded_mean.build(norm_bounded_mean.Options())
    assert isinstance(strategy, Geometric)
    for running, expected in (((), 2 / 3), (("bn",), 1.0)):
        strategy.running = running
        strategy.reference = {name: np.zeros(2, np.float32) for name in ("w", "bn")}
        replies = [
            flower.reply(
                RecordDict({"arrays": flower.to_record(arrays), "metrics": MetricRecord({"num-examples": 1})}),
                Address(message_id=str(node), node_id=node, group_id="1", message_type="train"),
            )
            for node, arrays in enumerate(sent)
        ]
        arrays, _ = strategy.aggregate_train(1, replies)
        assert flower.arrays_of(arrays)["w"] == pytest.approx(np.full(2, expected), rel=1e-3)
