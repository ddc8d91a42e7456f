"""/v1/releases/{release}/pick: which variant suits limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Query

from fogline_server.api.problems import responses
from fogline_server.api.schemas import ID_PATTERN, PathId, Resource
from fogline_server.api.services import Parts
from fogline_server.compression.front import Limits, front
from fogline_server.registry import left_out
from fogline_server.registry.picking import choose_variant
from fogline_server.registry.service import get_release

router = APIRouter(tags=["releases"])


class MeasuredView(Resource):
    """``size``: bytes as sent; ``front``: no other variant beats it in accuracy, worst class, bytes and latency together.

    ``p50_us``: null where no device of the class that was asked for has measured it.
    """

    name: str
    accuracy: float
    worst_class: float
    size: int
    p50_us: float | None
    front: bool
    refused: Sequence[str]


class PickView(Resource):
    """``taken``: the variant; null: none is within the limits. ``left_out``: by name, why the release was built without."""

    taken: str | None
    sentence: str
    variants: list[MeasuredView]
    left_out: dict[str, str]


@router.get("/releases/{release:id}/pick", responses=responses(404, 409))
def pick_variant(
    services: Parts,
    release: PathId,
    max_bytes: Annotated[int | None, Query(gt=0, le=2**53, description="as sent, compressed")] = None,
    max_p50_us: Annotated[
        float | None, Query(gt=0, le=1e12, description="at the coordinator, or on device_class")
    ] = None,
    device_class: Annotated[
        str | None, Query(pattern=ID_PATTERN, description="latency as devices of this class have measured it")
    ] = None,
    max_drop: Annotated[
        float | None, Query(ge=0, le=1, description="share of accuracy below the float student")
    ] = None,
) -> PickView:
    """The most accurate variant within the limits, and why each other is not."""
    limits = Limits(max_bytes=max_bytes, max_p50_us=max_p50_us, max_drop=max_drop)
    with services.db.read() as session:
        chosen, forms = choose_variant(session, release, limits, device_class=device_class)
        without = {each.name: each.reason for each in left_out.of_release(get_release(session, release))}
    refused: Mapping[str, Sequence[str]] = chosen.refused
    best = front(forms)
    return PickView(
        taken=chosen.taken.name if chosen.taken else None,
        sentence=chosen.sentence,
        variants=[
            MeasuredView(
                **{**vars(form), "p50_us": None if math.isinf(form.p50_us) else form.p50_us},
                front=form in best,
                refused=refused.get(form.name, ()),
            )
            for form in sorted(forms, key=lambda form: form.size)
        ],
        left_out=without,
    )
