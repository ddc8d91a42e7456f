"""What a compression method is. To add one: copy a module here; its ``METHOD`` is a frozen dataclass of the options.

The module's name is the method's name in configurations; a contract test runs over every module. Methods compose in a
chain (:mod:`fogline_server.compression.chain`): those that leave a torch module come first, one that leaves ONNX ends it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast, get_type_hints

from fogline_server.compression.engine import FloatArray
from fogline_server.compression.examples import Examples, Needs
from fogline_shared.errors import InvalidInput
from fogline_shared.plugins import load_module

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

PACKAGE = "fogline_server.compression.methods"


class Stage(StrEnum):
    """What a candidate is at some place of a chain."""

    TORCH = "torch"
    ONNX = "onnx"


@dataclass(frozen=True, kw_only=True)
class Parent(Examples):
    """The float model a chain starts from, and what there is to compress it with.

    ``module`` and ``model`` are the same model, in torch (evaluation mode) and as a float32 ONNX file; both take raw units.
    ``examples`` are plausible inputs to trace and check with; ``augment`` is :meth:`~fogline_shared.recipe.Recipe.augment`.
    ``seed`` decides everything random.
    """

    model: bytes
    examples: FloatArray
    # None: an imported file, of which there is only the ONNX.
    module: Module | None = None
    augment: Callable[[Tensor, Generator], Tensor] | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model on its way through a chain: a float torch ``module`` first, the ONNX file ``model`` afterwards; never both."""

    parent: Parent
    module: Module | None
    model: bytes | None

    @classmethod
    def of(cls, parent: Parent) -> Candidate:
        """Where a chain starts: in torch if the parent is there, else with its file."""
        return cls(parent=parent, module=parent.module, model=None if parent.module is not None else parent.model)

    def private_module(self) -> Module:
        """A copy of the module to change in place, in evaluation mode; raises InvalidInput ``no_torch_model``."""
        if self.module is None:
            raise InvalidInput("no_torch_model", "this method changes the torch model, and there is only an ONNX file")
        return copy.deepcopy(self.module).eval()

    def with_module(self, module: Module) -> Candidate:
        """The candidate after a method that stays in torch."""
        return replace(self, module=module.eval(), model=None)

    def with_model(self, model: bytes) -> Candidate:
        """The candidate after a method that wrote an ONNX file."""
        return replace(self, module=None, model=model)

    def onnx(self) -> bytes:
        """The ONNX file as it would be now; raises what :func:`~fogline_server.compression.export.export_module` raises."""
        if self.model is not None:
            return self.model
        if self.module is self.parent.module:
            return self.parent.model
        from fogline_server.compression.engine import open_session
        from fogline_server.compression.export import export_module

        session = open_session(self.parent.model)
        given, answer = session.get_inputs()[0], session.get_outputs()[0]
        assert self.module is not None
        return export_module(
            self.module,
            self.parent.examples,
            input_name=given.name,
            output_name=answer.name,
            classes=answer.shape[1],
        )


class Method(Protocol):
    """Turns a candidate into a smaller or faster one with the same input and output. Its fields are its options."""

    # Honestly: bytes, latency or neither, and on which devices.
    buys: ClassVar[str]
    # What it works on: a method of TORCH cannot follow one that leaves ONNX.
    takes: ClassVar[Stage]
    # A method that leaves ONNX ends its chain.
    leaves: ClassVar[Stage]

    @property
    def needs(self) -> Needs:
        """What must be there with these options; the chain, and who asks for a release, check it beforehand."""

    def apply(self, candidate: Candidate) -> Candidate:
        """The compressed candidate; the one given is untouched. Raises InvalidInput or Corrupt.

        Methods that train raise Corrupt ``training_diverged``.
        """


def load_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """A method by name; raises InvalidInput ``unknown_method`` or ``invalid_method_options``."""
    factory = load_module(PACKAGE, name).METHOD
    given = dict(options or {})
    hints = get_type_hints(factory)
    kinds = {field.name: hints[field.name] for field in fields(factory)}
    for option, value in given.items():
        if option not in kinds:
            known = ", ".join(kinds) or "none"
            raise refusal(name, f"has no option {option!r}; it has: {known}")
        if not _fits(value, kinds[option]):
            raise refusal(name, f"option {option!r} is {kinds[option].__name__}, not {value!r}")
    return cast("Method", factory(**given))


def _fits(value: Any, kind: type) -> bool:
    """Whether a JSON value is of an option's type: a whole number is a float too, but true and false are no numbers."""
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is kind


def refusal(method: str, why: str) -> InvalidInput:
    """InvalidInput ``invalid_method_options``."""
    return InvalidInput("invalid_method_options", f"method {method!r} {why}", method=method)


def within(method: str, option: str, value: float, low: float, high: float) -> None:
    """Raises InvalidInput ``invalid_method_options`` unless low ≤ value ≤ high."""
    if not low <= value <= high:
        raise refusal(method, f"option {option!r} is between {low:g} and {high:g}, not {value}")


def one_of(method: str, option: str, value: object, known: tuple[object, ...]) -> None:
    """Raises InvalidInput ``invalid_method_options`` unless value is among the known ones."""
    if value not in known:
        raise refusal(method, f"option {option!r} is one of {', '.join(map(str, known))}, not {value}")
