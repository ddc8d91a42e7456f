"""Which variant of a release suits limits, with its reasons."""

from __future__ import annotations

import math

from sqlalchemy.orm import Session

from fogline_server.compression.front import Limits, Measured, Pick, pick
from fogline_server.registry.measurements.summary import p50_of_class
from fogline_server.registry.model import STUDENT
from fogline_server.registry.service import ready_release, variants_of
from fogline_shared.errors import Conflict


def choose_variant(
    session: Session, reference: str, limits: Limits, *, device_class: str | None = None
) -> tuple[Pick, list[Measured]]:
    """The pick, and all variants as they were measured.

    ``device_class``: latency is the median that devices of this class have measured, infinite where none has, and not the
    coordinator's. Raises NotFound ``release_not_found``; Conflict ``release_not_ready``, ``accuracy_unknown``.
    """
    release = ready_release(session, reference)
    forms = {}
    for variant in variants_of(session, release.id):
        metrics = variant.metrics or {}
        if metrics.get("accuracy") is None:
            message = f"the accuracy of {variant.name} is not known: the recipe had no holdout when it was measured"
            raise Conflict("accuracy_unknown", message, variant=variant.name)
        forms[variant.name] = {"bytes_zstd": variant.size, **metrics}
    if STUDENT not in forms:
        raise Conflict(
            "accuracy_unknown", f"release {release.name!r} was imported: it has no float student to compare with"
        )
    if device_class is not None:
        there = p50_of_class(session, release.id, device_class)
        forms = {name: {**metrics, "p50_us": there.get(name, math.inf)} for name, metrics in forms.items()}
    measured = {name: Measured.of(name, metrics) for name, metrics in forms.items()}
    return pick(list(measured.values()), limits, parent=measured[STUDENT]), list(measured.values())
