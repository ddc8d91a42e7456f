from __future__ import annotations

import numpy as np
import pytest

from fogline_recipes.options import whole_number
from fogline_recipes.partition import dirichlet
from fogline_shared.errors import InvalidInput

LABELS = np.random.default_rng(0).integers(0, 10, 1000)


def test_every_example_has_exactly_one_device() -> None:
    parts = dirichlet(LABELS, 10, alpha=0.5, smallest=10)
    assert len(parts) == 10
    assert sorted(np.concatenate(parts)) == list(range(1000))
    assert min(map(len, parts)) >= 10


def test_the_seed_decides_the_split() -> None:
    first, again, other = (dirichlet(LABELS, 4, alpha=1.0, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def largest_share(alpha: float) -> float:
    """Mean over devices of the share their most frequent label has; a tenth when all labels are as frequent."""
    parts = dirichlet(LABELS, 5, alpha=alpha)
    return float(np.mean([np.bincount(LABELS[part]).max() / len(part) for part in parts]))


def test_small_alpha_gives_devices_labels_of_their_own() -> None:
    assert largest_share(0.1) > 0.25
    assert largest_share(1000.0) < 0.16


def test_labels_need_not_be_numbers_and_devices_may_be_empty() -> None:
    parts = dirichlet(["a", "b"], 5, alpha=0.5, smallest=0)
    assert sorted(map(len, parts))[:3] == [0, 0, 0]
    assert sorted(np.concatenate(parts)) == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"devices": 0, "alpha": 1.0}, "invalid_partition"),
        ({"devices": 2, "alpha": 0.0}, "invalid_partition"),
        ({"devices": 2, "alpha": float("nan")}, "invalid_partition"),
        ({"devices": 2, "alpha": float("inf")}, "invalid_partition"),
        ({"devices": 2, "alpha": 1.0, "smallest": -1}, "invalid_partition"),
        ({"devices": 1001, "alpha": 1.0}, "impossible_partition"),
        ({"devices": 10, "alpha": 1e-3, "smallest": 100}, "impossible_partition"),
    ],
)
def test_a_partition_that_cannot_be_is_refused(arguments: dict[str, float], code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        dirichlet(LABELS, **arguments)  # type: ignore[arg-type]
    assert caught.value.code == code


@pytest.mark.parametrize("text", [None, "", "-1", "10", "1.0", "one", "²", "٣", "0x1"])
def test_an_option_out_of_range_is_named_with_its_range(text: str | None) -> None:
    options = {} if text is None else {"device": text}
    with pytest.raises(InvalidInput, match="'device' must be a whole number from 0 to 9") as caught:
        whole_number(options, "device", range(10))
    assert caught.value.code == "invalid_option"


def test_an_option_in_range_is_a_number() -> None:
    assert whole_number({"device": "9"}, "device", range(10)) == 9
