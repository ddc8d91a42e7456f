from __future__ import annotations

import numpy as np
import pytest
import torch

from fogline_recipes import parameters
from fogline_recipes.smartwatch import Smartwatch
from fogline_recipes.smartwatch.augment import augmented
from fogline_recipes.smartwatch.data import PEOPLE, WIDTH
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import load_recipe


def test_recipe_is_installed_and_nobody_both_trains_and_judges() -> None:
    recipe = load_recipe("smartwatch")
    assert isinstance(recipe, Smartwatch)
    assert sorted([*recipe.training_people, *recipe.unseen_people, recipe.volunteer]) == list(PEOPLE)
    for person in (*recipe.unseen_people, recipe.volunteer):
        with pytest.raises(InvalidInput, match="person_held_out"):
            recipe.device_data({"person": str(person)})


@pytest.mark.parametrize("person", ["", "0", "11", "-1", "1.0", "one", "²"])
def test_wrong_person_is_named_with_the_range(person: str) -> None:
    with pytest.raises(InvalidInput, match="from 1 to 10") as caught:
        Smartwatch().device_data({"person": person})
    assert caught.value.code == "invalid_option"


def test_data_is_raw_windows_of_all_seven_activities() -> None:
    for data in (Smartwatch().device_data({"person": "1"}), Smartwatch().unseen(), Smartwatch().holdout()):
        assert data is not None
        assert data.x.shape[1:] == (6, WIDTH)
        assert data.x.dtype == np.float32
        assert set(data.y) == set(range(7))
        np.testing.assert_array_equal(data.x[3].T, data.source.series[data.source.start[3] :][:WIDTH])


def test_models_have_the_promised_sizes_and_seeds_decide() -> None:
    recipe = Smartwatch()
    count = {size: sum(p.numel() for p in recipe.model(size, seed=0).parameters()) for size in recipe.sizes}
    assert count["light"] == pytest.approx(4_000, rel=0.1)
    assert count["student"] == pytest.approx(14_000, rel=0.05)
    assert count["teacher"] == pytest.approx(276_000, rel=0.05)
    a, b, c = (parameters.read(recipe.model("student", seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(a["0.0.weight"], b["0.0.weight"])
    assert not np.array_equal(a["0.0.weight"], c["0.0.weight"])


def test_augmentation_keeps_units_and_the_length_of_gravity() -> None:
    data = Smartwatch().device_data({"person": "2"})
    every = torch.arange(len(data))
    x, y = augmented(data, every, torch.Generator().manual_seed(0))
    assert x.shape == data.x.shape
    assert torch.isfinite(x).all()
    np.testing.assert_array_equal(y.numpy(), data.y)
    # Rotations and mirrors do not change how long the acceleration vector is; the gain varies by a tenth.
    length = np.linalg.norm(data.x[:, :3], axis=1).mean()
    assert float(x[:, :3].norm(dim=1).mean()) == pytest.approx(length, rel=0.05)
    again, _ = augmented(data, every, torch.Generator().manual_seed(0))
    assert torch.equal(x, again)
