"""FLTrust against the paper's formula, its anchor, and the refusal of recipes without root data."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_recipe import Tiny, signals

from fogline_server.training.spec import RunSpec
from fogline_server.training.strategies import base, fltrust
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import Dataset, Recipe, root_data


@pytest.mark.parametrize("power", [1, 2])
def test_updates_count_by_their_angle_with_the_servers(power: int) -> None:
    rng = np.random.default_rng(5)
    own = rng.normal(size=30)
    rows = np.vstack([own + 0.5 * rng.normal(size=(6, 30)), own])
    rows[1] *= -10
    rows[2] *= 1e6
    cosines = np.array([row @ own / np.linalg.norm(row) / np.linalg.norm(own) for row in rows[:-1]])
    trust = cosines.clip(min=0) ** power
    scaled = [row / np.linalg.norm(row) * np.linalg.norm(own) for row in rows[:-1]]
    expected = sum(t * row for t, row in zip(trust, scaled, strict=True)) / trust.sum()
    coefficients = fltrust.weigh(fltrust.Options(power=power), rows @ rows.T, np.append(np.full(6, 1 / 6), 0))
    assert coefficients @ rows == pytest.approx(expected)
    assert coefficients[1] == coefficients[-1] == 0


@pytest.mark.parametrize("rows", [np.zeros((4, 3)), np.array([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])])
def test_nothing_moves_where_nobody_is_trusted(rows: np.ndarray) -> None:
    assert fltrust.weigh(fltrust.Options(), rows @ rows.T, np.zeros(len(rows))) @ rows == pytest.approx(
        np.zeros(rows.shape[1])
    )


class Rootless(Tiny):
    root = Recipe.root


class Overlapping(Tiny):
    def root(self) -> Dataset:
        seen = self.unseen()
        return Dataset(x=seen.x[:3], y=seen.y[:3])


class Mislabelled(Tiny):
    def root(self) -> Dataset:
        return Dataset(x=signals(1, 4).x, y=np.full(4, 9))


@pytest.mark.parametrize(
    ("recipe", "code", "words"),
    [
        (Rootless(), "no_root_data", "recipe tiny has no root"),
        (Overlapping(), "root_overlaps", "3 examples of unseen are in the root data too"),
        (Mislabelled(), "invalid_dataset", "labels of the root data go from 9 to 9"),
    ],
)
def test_run_is_refused_when_it_is_submitted(recipe: Tiny, code: str, words: str) -> None:
    spec = RunSpec(recipe="tiny", strategy="fltrust")
    with pytest.raises(InvalidInput, match=words) as caught:
        spec.resolved(recipe)
    assert caught.value.code == code
    assert RunSpec(recipe="tiny", strategy="fedavg").resolved(recipe).strategy == "fedavg", "others do not ask"


def test_recipe_with_root_data_is_accepted() -> None:
    assert RunSpec(recipe="tiny", strategy="fltrust").resolved(Tiny()).strategy == "fltrust"
    assert len(root_data(Tiny())) == 64
    assert base.load("fltrust", {}).needs_root
