"""Methods in a declared order, ``prune_channels`` → ``finetune`` → ``int8_static`` say: checked when it is written down.

As text, for a command line: ``prune_channels:share=0.5:rounds=4,finetune,int8_static``. As JSON:
``[{"method": "prune_channels", "options": {"share": 0.5, "rounds": 4}}, …]``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from operator import or_
from typing import Any

import numpy as np

from fogline_server.compression.engine import open_session, run
from fogline_server.compression.examples import Needs
from fogline_server.compression.methods.base import Candidate, Method, Parent, Stage, load_method
from fogline_shared.errors import Corrupt, InvalidInput

MOST_LINKS = 8


@dataclass(frozen=True, kw_only=True)
class Link:
    """One method of a chain and the options that are not its defaults."""

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Method:
        """Raises InvalidInput ``unknown_method`` or ``invalid_method_options``."""
        return load_method(self.method, self.options)


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A valid order of methods: one to eight, of which only the last may leave ONNX.

    Raises InvalidInput ``invalid_chain``, ``chain_order``, ``unknown_method``, ``invalid_method_options``.
    """

    links: tuple[Link, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.links) <= MOST_LINKS:
            raise InvalidInput("invalid_chain", f"a chain has 1 to {MOST_LINKS} methods, not {len(self.links)}")
        methods = [link.load() for link in self.links]
        for i, method in enumerate(methods[:-1]):
            if method.leaves is Stage.ONNX:
                before, after = self.links[i].method, self.links[i + 1].method
                what = "changes the torch model" if methods[i + 1].takes is Stage.TORCH else "starts from float weights"
                message = f"{before} writes the ONNX file and ends a chain; {after} {what}: put it before"
                raise InvalidInput("chain_order", message, method=after)

    @classmethod
    def parse(cls, text: str) -> Chain:
        """From ``method:option=value:…,method…``; raises as the class, values being JSON or else plain words."""
        links = []
        for part in text.split(","):
            name, *pairs = part.strip().split(":")
            options = {}
            for pair in pairs:
                option, equals, value = pair.partition("=")
                if not (option and equals):
                    raise InvalidInput("invalid_chain", f"an option is written name=value, not {pair!r}")
                options[option] = _scalar(value)
            links.append(Link(method=name, options=options))
        return cls(links=tuple(links))

    @classmethod
    def from_json(cls, value: Sequence[Mapping[str, Any]]) -> Chain:
        """Inverse of :meth:`as_json`; raises as the class."""
        try:
            links = tuple(Link(method=str(link["method"]), options=dict(link.get("options") or {})) for link in value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = "a chain is a list of objects with a method and its options"
            raise InvalidInput("invalid_chain", message) from error
        return cls(links=links)

    def as_json(self) -> list[dict[str, Any]]:
        """For specs and reports."""
        return [asdict(link) for link in self.links]

    def __str__(self) -> str:
        """As :meth:`parse` reads it."""
        return ",".join(
            ":".join((link.method, *(f"{k}={_text(v)}" for k, v in link.options.items()))) for link in self.links
        )

    @property
    def needs(self) -> Needs:
        """What its methods need together."""
        return reduce(or_, (link.load().needs for link in self.links), Needs.NOTHING)

    def compress(self, parent: Parent) -> bytes:
        """The ONNX file; its manifest is written afterwards. The same parent and seed give the same bytes.

        Raises what :meth:`Parent.check` and the methods raise; Corrupt ``params_not_finite``, ``logits_not_finite``,
        ``signature_changed``.
        """
        parent.check(self.needs)
        if parent.module is not None:
            _check_finite(parent)
        candidate = Candidate.of(parent)
        for number, link in enumerate(self.links):
            # Two methods of one chain must not draw the same random numbers.
            seeded = replace(parent, seed=parent.seed + 1000 * number)
            candidate = replace(link.load().apply(replace(candidate, parent=seeded)), parent=parent)
        model = candidate.onnx()
        _check(parent, model)
        return model


def needs_of(chains: Iterable[Chain]) -> Needs:
    """What several chains need together."""
    return reduce(or_, (chain.needs for chain in chains), Needs.NOTHING)


def _scalar(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _check_finite(parent: Parent) -> None:
    assert parent.module is not None
    for name, value in parent.module.state_dict().items():
        if not value.isfinite().all():
            raise Corrupt("params_not_finite", f"{name!r} holds NaN or infinity", name=name)


def _check(parent: Parent, model: bytes) -> None:
    """Same input, same output, and finite answers to plausible inputs."""
    ours, theirs = open_session(model), open_session(parent.model)
    for side in ("get_inputs", "get_outputs"):
        got, wanted = ([(v.name, v.type) for v in getattr(session, side)()] for session in (ours, theirs))
        if got != wanted:
            raise Corrupt("signature_changed", f"the compressed model has {got}, its parent {wanted}")
    if not np.isfinite(run(ours, parent.examples)).all():
        raise Corrupt("logits_not_finite", "the compressed model answers plausible inputs with NaN or infinity")
