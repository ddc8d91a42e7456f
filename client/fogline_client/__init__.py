"""The edge: a device's agent, and :class:`Predictor`, which also works alone in a process of your own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fogline_client.inference.predictor import Predictor
    from fogline_client.inference.values import Observation, Prediction

__all__ = ["Observation", "Prediction", "Predictor"]

_HOMES = {"Observation": "inference.values", "Prediction": "inference.values", "Predictor": "inference.predictor"}


def __getattr__(name: str) -> Any:
    """Load what is asked for, and only that: enrolment and the training child predict nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
