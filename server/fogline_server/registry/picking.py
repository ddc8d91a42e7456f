"""Which variant of a release suits limits, with its reasons."""

from __future__ import annotations

from sqlalchemy.orm import Session

from fogline_server.compression.front import Limits, Measured, Pick, pick
from fogline_server.registry.model import STUDENT
from fogline_server.registry.service import ready_release, variants_of
from fogline_shared.errors import Conflict


def choose_variant(session: Session, reference: str, limits: Limits) -> tuple[Pick, list[Measured]]:
    """The pick, and all variants as they were measured.

    Raises NotFound ``release_not_found``; Conflict ``release_not_ready``, ``accuracy_unknown``.
    """
    release = ready_release(session, reference)
    forms = {}
    for variant in variants_of(session, release.id):
        metrics = variant.metrics or {}
        if metrics.get("accuracy") is None:
            message = f"the accuracy of {variant.name} is not known: the recipe had no holdout when it was measured"
            raise Conflict("accuracy_unknown", message, variant=variant.name)
        forms[variant.name] = Measured.of(variant.name, {"bytes_zstd": variant.size, **metrics})
    if STUDENT not in forms:
        raise Conflict(
            "accuracy_unknown", f"release {release.name!r} was imported: it has no float student to compare with"
        )
    return pick(list(forms.values()), limits, parent=forms[STUDENT]), list(forms.values())
