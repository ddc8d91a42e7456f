from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from idx_files import TEST, TRAINING, encoded, write_fashion

from fogline_recipes.fashion import Fashion, data
from fogline_shared.errors import Corrupt, InvalidInput, Unavailable
from fogline_shared.recipe import load_recipe


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the recipe looks for its files; empty."""
    monkeypatch.setenv(data.VARIABLE, str(tmp_path))
    for cached in (data._file, data._parts):
        cached.cache_clear()
    yield tmp_path
    for cached in (data._file, data._parts):
        cached.cache_clear()


def test_every_image_is_somebodys_and_nobody_both_trains_and_judges(folder: Path) -> None:
    write_fashion(folder)
    recipe = load_recipe("fashion")
    devices = [recipe.device_data(options) for options in recipe.fleet()]
    holdout, transfer, unseen = recipe.holdout(), recipe.transfer(), recipe.unseen()
    assert holdout is not None
    assert transfer is not None
    assert unseen is not None
    assert sum(map(len, devices)) == data.LABELLED
    assert (len(holdout), len(unseen)) == (data.HOLDOUT, TEST)
    images = [x.tobytes() for part in (*(d.x for d in devices), holdout.x, transfer) for x in part]
    assert len(set(images)) == len(images) == TRAINING


def test_images_are_grey_values_under_their_own_labels(folder: Path) -> None:
    write_fashion(folder)
    device = Fashion().device_data({"device": "7"})
    assert device.x.shape[1:] == (1, 28, 28)
    assert device.x.dtype == np.float32
    assert device.x.max() == 200
    np.testing.assert_array_equal((device.x.mean((1, 3)).argmax(1) - 4) // 2, device.y)


def test_augmentation_moves_and_mirrors_without_inventing_light(folder: Path) -> None:
    write_fashion(folder)
    x = torch.from_numpy(Fashion().device_data({"device": "1"}).x)
    moved = Fashion().augment(x, torch.Generator().manual_seed(0))
    assert moved.shape == x.shape
    assert not torch.equal(moved, x)
    # The middle of an image stays in it, wherever it goes.
    assert torch.all(moved.sum((1, 2, 3)) >= x[:, :, 2:-2, 2:-2].sum((1, 2, 3)))
    assert torch.all(moved.sum((1, 2, 3)) <= x.sum((1, 2, 3)))
    assert torch.equal(moved, Fashion().augment(x, torch.Generator().manual_seed(0)))


def test_students_are_light() -> None:
    recipe = Fashion()
    count = {size: sum(p.numel() for p in recipe.model(size, seed=0).parameters()) for size in recipe.sizes}
    assert count == {"teacher": pytest.approx(242_000, rel=0.01), "student": 9034, "shuffle": 8898}


def test_missing_files_are_named_with_the_two_ways_to_get_them(folder: Path) -> None:
    with pytest.raises(Unavailable, match=f"install Debian's dataset-fashion-mnist or set {data.VARIABLE}") as caught:
        Fashion().holdout()
    assert str(folder) in caught.value.message


@pytest.mark.parametrize(("name", "array"), [("images-idx3", np.zeros((4000, 8, 8))), ("labels-idx1", np.zeros(3999))])
def test_files_that_do_not_belong_together_are_refused(folder: Path, name: str, array: np.ndarray) -> None:
    write_fashion(folder)
    (folder / f"train-{name}-ubyte").write_bytes(encoded(array.astype(np.uint8)))
    with pytest.raises(Corrupt) as caught:
        Fashion().device_data({"device": "0"})
    assert caught.value.code == "bad_dataset"


def test_a_device_that_is_not_there_is_named_with_the_range() -> None:
    with pytest.raises(InvalidInput, match="from 0 to 19"):
        Fashion().device_data({"device": "20"})
