"""How a name in a run's spec becomes a Flower strategy.

To add one, add a module here whose name is the strategy's. It has

- ``Options``: a frozen dataclass with defaults, validated in ``__post_init__`` (InvalidInput ``invalid_option``);
- ``build(options) -> Strategy``: imports flwr inside, since the API validates options without loading it, and passes
  :data:`EVERY_NODE`, because who takes part is decided by eligibility, not by the strategy;
- optionally ``STATE``: names of the strategy's attributes, each ``dict[str, ndarray] | None``, that a checkpoint keeps;
- optionally ``ADAPTIVE = True``: a server-side optimiser, from which running statistics (BatchNorm's) are kept away;
- optionally ``ASYNCHRONOUS = True``: it takes updates of earlier versions, by the options ``buffer_size`` and ``max_staleness``;
- optionally ``ROOT = True``: it trains at the server, on the recipe's root data; ``build`` then takes the recipe too;
- optionally ``plan``: a function from the options to :class:`~fogline_shared.recipe.TrainPlan` fields they decide.

The contract test runs over every module here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fogline_shared.errors import InvalidInput
from fogline_shared.plugins import load_module, module_names
from fogline_shared.recipe import Recipe, root_data

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

_PACKAGE = "fogline_server.training.strategies"

# Keyword arguments for any Flower strategy: it takes the cohort it is given, whatever its size.
EVERY_NODE: Mapping[str, Any] = {
    "fraction_train": 1.0,
    "fraction_evaluate": 1.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
}


def no_plan(_options: Any) -> Mapping[str, float | str]:
    """The plan fields that most strategies decide: none."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A validated choice of strategy."""

    name: str
    options: Any
    state: tuple[str, ...]
    adaptive: bool
    plan: Mapping[str, float | str]
    needs_root: bool
    asynchronous: bool
    _build: Callable[..., Strategy]

    def build(self, recipe: Recipe) -> Strategy:
        """A fresh Flower strategy for a run of that recipe."""
        return self._build(self.options, recipe) if self.needs_root else self._build(self.options)

    def check(self, recipe: Recipe) -> None:
        """Raises InvalidInput, as :func:`~fogline_shared.recipe.root_data` does, when the recipe lacks what the rule needs."""
        if self.needs_root:
            root_data(recipe)

    def options_json(self) -> dict[str, Any]:
        """Every option with its value, defaults included."""
        return asdict(self.options)


def names() -> list[str]:
    """Every strategy there is."""
    return module_names(_PACKAGE)


def load(name: str, options: Mapping[str, Any]) -> Rule:
    """Validate; raise InvalidInput ``unknown_strategy`` or ``invalid_option``."""
    module = load_module(_PACKAGE, name)
    known = [field.name for field in fields(module.Options)]
    if unknown := sorted(set(options) - set(known)):
        listed = ", ".join(known) or "none"
        raise InvalidInput("invalid_option", f"{name} has no option {unknown[0]!r}; options: {listed}", known=known)
    chosen = module.Options(**options)
    return Rule(
        name=name,
        options=chosen,
        state=getattr(module, "STATE", ()),
        adaptive=getattr(module, "ADAPTIVE", False),
        plan=getattr(module, "plan", no_plan)(chosen),
        needs_root=getattr(module, "ROOT", False),
        asynchronous=getattr(module, "ASYNCHRONOUS", False),
        _build=module.build,
    )


def read_state(rule: Rule, strategy: Strategy) -> dict[str, NDArray[Any]]:
    """What a checkpoint keeps of a strategy: arrays named ``attribute/array``."""
    return {
        f"{attribute}/{name}": np.asarray(array)
        for attribute in rule.state
        for name, array in (getattr(strategy, attribute) or {}).items()
    }


def write_state(rule: Rule, strategy: Strategy, state: Mapping[str, NDArray[Any]]) -> None:
    """Inverse of :func:`read_state`."""
    for attribute in rule.state:
        prefix = f"{attribute}/"
        arrays = {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
        setattr(strategy, attribute, arrays or None)
