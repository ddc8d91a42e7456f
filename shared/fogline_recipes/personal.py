"""A personal head: the last linear layer of a released artifact, fine-tuned on one device's own labelled data.

The body stays as it was released, in float or int8: features are computed by it once, through ONNX Runtime, and the head
is fitted to them in numpy. It is kept only if it beats the released head on examples of the device it was not fitted to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fogline_recipes.heads import Floats, Head, behead
from fogline_shared.errors import Corrupt, InvalidInput
from fogline_shared.manifest import METADATA_KEY, Manifest
from fogline_shared.recipe import Dataset

if TYPE_CHECKING:
    from onnx import ModelProto

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Personalisation:
    """How a head is fitted, and when it is kept.

    ``margin``: how much better it must be on the validation part, as a share of it. ``steps`` of Adam over all examples;
    ``decay`` pulls towards the released head, so that a class the device has no example of is not forgotten at once.
    """

    margin: float = 0.01
    steps: int = 300
    learning_rate: float = 0.01
    decay: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """``artifact``: None when the released one stays. ``released``, ``personal``: accuracy on the validation part."""

    artifact: bytes | None
    released: float
    personal: float
    fitted: int
    validated: int

    @property
    def gain(self) -> float:
        """By how much the personal head is better on the validation part."""
        return self.personal - self.released


def personalise(artifact: bytes, data: Dataset, how: Personalisation | None = None) -> Outcome:
    """Fit a head to part of ``data`` and compare it with the released one on the rest.

    The artifact that comes back answers to the same manifest, without known answers: those are the released head's.
    Raises InvalidInput ``no_head`` or ``too_little_data``, Corrupt ``not_a_model``.
    """
    how = how or Personalisation()
    fit, check = split(data)
    released = behead(artifact)
    features = released.features(data.x)
    head = fitted(released.head, features[fit], data.y[fit], how)
    before = _accuracy(released.head, features[check], data.y[check])
    after = _accuracy(head, features[check], data.y[check])
    better = after - before > how.margin
    return Outcome(
        artifact=_named(released.wearing(head)) if better else None,
        released=before,
        personal=after,
        fitted=len(fit),
        validated=len(check),
    )


def split(data: Dataset) -> tuple[Indices, Indices]:
    """Rows to fit and rows to validate, of every class about three to one. Groups are not torn apart.

    A class with a single group (or example) is fitted and not validated. The same data is always split in the same way.
    Raises InvalidInput ``too_little_data`` when nothing would be left to validate.
    """
    groups = np.arange(len(data)) if data.groups is None else data.groups
    check = np.zeros(len(data), dtype=bool)
    for label in np.unique(data.y):
        own = np.unique(groups[data.y == label])
        held = own[len(own) - max(len(own) // 4, min(1, len(own) - 1)) :]
        check |= np.isin(groups, held)
    if not check.any() or check.all():
        raise InvalidInput("too_little_data", f"{len(data)} examples are too few to fit a head and to validate it")
    return np.flatnonzero(~check), np.flatnonzero(check)


def fitted(head: Head, features: Floats, y: Indices, how: Personalisation) -> Head:
    """Softmax regression from ``head`` on, by Adam over all rows at once: no randomness, the same head every time."""
    scale = features.std(axis=0) + 1e-3
    x = np.concatenate([features / scale, np.ones((len(features), 1), np.float32)], axis=1)
    start = np.concatenate([head.weight * scale, head.bias[:, None]], axis=1).astype(np.float64)
    w, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
    truth = np.eye(len(head.bias))[y]
    for step in range(1, how.steps + 1):
        logits = x @ w.T
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        gradient = (chances - truth).T @ x / len(x) + how.decay * (w - start)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        w -= how.learning_rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return Head(weight=(w[:, :-1] / scale).astype(np.float32), bias=w[:, -1].astype(np.float32))


def _accuracy(head: Head, features: Floats, y: Indices) -> float:
    return float(((features @ head.weight.T + head.bias).argmax(axis=1) == y).mean())


def _named(model: ModelProto) -> bytes:
    """With a manifest that says it is personal and promises no answers."""
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            manifest = Manifest.from_json(entry.value)
            entry.value = replace(manifest, variant=f"{manifest.variant}_personal", known_answers=()).to_json()
    return bytes(model.SerializeToString(deterministic=True))


def recipe_of(artifact: bytes) -> str:
    """The recipe named by the artifact's manifest; empty when it has none. Raises Corrupt ``bad_manifest``, ``not_a_model``."""
    import onnx

    try:
        entries = onnx.load_model_from_string(artifact).metadata_props
    except Exception as error:  # the parser's errors share no base class
        raise Corrupt("not_a_model", f"the artifact cannot be read: {error}") from error
    return next((Manifest.from_json(entry.value).recipe for entry in entries if entry.key == METADATA_KEY), "")
