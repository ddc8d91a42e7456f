"""A recipe with one mistake each: what its author is told, with a code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from odd_package import install_here
from tiny_recipe import Tiny, signals
from torch import nn

from fogline_recipes.check import check
from fogline_recipes.classifier import Classifier
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import Dataset, Options, load_recipe

OPTIONS = {"seed": "1"}


def with_device_data(make: Callable[[], object]) -> Tiny:
    class Odd(Tiny):
        def device_data(self, options: Options) -> Dataset:
            return make()  # type: ignore[return-value]

    return Odd()


def x(**changed: object) -> Dataset:
    return Dataset(**{"x": signals(1, 8).x, "y": signals(1, 8).y, **changed})  # type: ignore[arg-type]


def test_a_good_recipe_is_tried_whole() -> None:
    found = check(Tiny(), OPTIONS)
    assert found.examples == {"device": 64, "holdout": 200, "unseen": 200, "root": 64, "transfer": 100}
    assert set(found.sizes) == {"teacher", "student"}
    for tried in found.sizes.values():
        assert tried.examples == 64
        assert tried.accuracy > 0.25, "better than chance after one epoch"
    assert found.sizes["teacher"].count > found.sizes["student"].count


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (lambda: Dataset(x=np.zeros((0, 6, 32), np.float32), y=np.zeros(0, np.int64)), "empty_dataset", "no examples"),
        (lambda: x(x=np.zeros((8, 32, 6), np.float32)), "invalid_dataset", r"float32 \(n, 6, 32\)"),
        (lambda: x(x=np.zeros((8, 6, 32))), "invalid_dataset", "float64"),
        (lambda: x(x=np.full((8, 6, 32), np.nan, np.float32)), "invalid_dataset", "NaN"),
        (lambda: x(y=np.zeros(8)), "invalid_dataset", "int64"),
        (lambda: x(y=np.full(8, 4)), "invalid_dataset", "4 classes"),
        (lambda: x(y=np.full(8, -1)), "invalid_dataset", "from -1"),
        (lambda: x(y=np.zeros(7, np.int64)), "invalid_dataset", "7 labels"),
        (lambda: None, "invalid_dataset", "NoneType"),
    ],
)
def test_data_that_is_not_what_the_recipe_declares(data: Callable[[], object], code: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        check(with_device_data(data), OPTIONS)
    assert caught.value.code == code


class Restless(Tiny):
    def model(self, size: str, *, seed: int) -> nn.Module:
        return super().model(size, seed=int(torch.randint(2**31, ())))


class Exploding(Tiny):
    def train(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = super().train(model, *args, **kwargs)
        with torch.no_grad():
            next(model.parameters()).fill_(torch.nan)
        return result


class OneSum(Tiny):
    def channel_sums(self, data: Dataset) -> Any:
        from dataclasses import replace

        return replace(super().channel_sums(data), total=np.zeros(1))


@pytest.mark.parametrize(
    ("recipe", "said"),
    [(Restless, "other weights each time"), (Exploding, "not finite"), (OneSum, "1 sums of .* for 6 channels")],
)
def test_a_method_that_breaks_the_contract_is_named(recipe: type[Tiny], said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        check(recipe(), OPTIONS)
    assert caught.value.code == "broken_recipe"


class NoBuild(Classifier):
    name = "odd"
    classes = ("a", "b")
    input_shape = (1,)

    def device_data(self, options: Options) -> Dataset:
        raise NotImplementedError


def changed(**fields: object) -> type:
    return type("Odd", (Tiny,), {"name": "odd", **fields})


class Undeclared(Classifier):
    def build(self, size: str) -> nn.Module:
        raise NotImplementedError

    def device_data(self, options: Options) -> Dataset:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (NoBuild, "abstract method '?build"),
        (Undeclared, "does not say its name and classes and input_shape"),
        (changed(name="other"), "calls itself 'other'"),
        (changed(classes=("only",)), "at least two classes"),
        (changed(classes="ab"), "at least two classes"),
        (changed(input_shape=()), "input_shape"),
        (changed(input_shape=(1, 0)), "input_shape"),
        (changed(sizes=("student",)), "lacks the size teacher"),
        (dict, "not a fogline_shared.recipe.Recipe"),
    ],
)
def test_a_recipe_that_lacks_something_does_not_load(tmp_path, monkeypatch, factory: type, said: str) -> None:
    monkeypatch.setitem(globals(), "FACTORY", factory)
    install_here(monkeypatch, tmp_path, f"{__name__}:FACTORY")
    with pytest.raises(InvalidInput, match=said) as caught:
        load_recipe("odd")
    assert caught.value.code == "broken_recipe"


def test_a_module_that_does_not_import_is_told_with_its_error(tmp_path, monkeypatch) -> None:
    install_here(monkeypatch, tmp_path, "odd_recipe:Odd", "import no_such_library\n")
    with pytest.raises(InvalidInput, match="ModuleNotFoundError: No module named 'no_such_library'") as caught:
        load_recipe("odd")
    assert caught.value.code == "broken_recipe"
