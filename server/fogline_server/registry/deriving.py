"""A release of another's student in further forms that are there already: nothing is computed again, everything is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from fogline_server.compression.chain import Chain
from fogline_server.db import events
from fogline_server.registry.build import add_variants
from fogline_server.registry.model import VARIANTS, ReleaseSpec
from fogline_server.registry.service import new_release, variants_of
from fogline_server.registry.tables import Release

# Of a source's report what is as true of the new release.
_KEPT = ("choice", "parity", "teaching")


@dataclass(frozen=True, kw_only=True)
class Form:
    """A stored artifact and the chain that made it of the source's float student."""

    digest: str
    size: int
    chain: Chain


def derive_release(
    session: Session,
    source: Release,
    name: str,
    forms: Mapping[str, Form],
    *,
    default_variant: str,
    max_accuracy_drop: float | None,
    searched: Mapping[str, Any],
    now: datetime,
) -> Release:
    """A BUILDING release with the standard variants of ``source``, READY, and ``forms`` by name; jobs measure them.

    It is sealed by the gates of its source, of which ``max_accuracy_drop`` may allow more. ``searched``: who found the forms.
    Raises Conflict ``release_name_taken``; InvalidInput as :class:`ReleaseSpec`.
    """
    built = ReleaseSpec(**source.lineage["spec"])
    spec = replace(
        built,
        name=name,
        chains={form: each.chain.as_json() for form, each in forms.items()},
        default_variant=default_variant,
        max_accuracy_drop=max(built.max_accuracy_drop, max_accuracy_drop or 0.0),
    )
    release = new_release(session, name, source.recipe, now=now)
    release.default_variant = default_variant
    kept = {key: value for key, value in source.lineage.items() if key in {"runs", "teachers", "taught"}}
    release.lineage = {"spec": spec.as_json(), **kept, "searched": {"source": source.id, **searched}}
    release.report = {key: source.report[key] for key in _KEPT if key in source.report} | {"search": dict(searched)}
    session.flush()
    own = {v.name: (v.digest, v.size) for v in variants_of(session, source.id) if v.name in VARIANTS}
    add_variants(session, release, own | {form: (each.digest, each.size) for form, each in forms.items()})
    events.record(session, "release.derived", "release", release.id, name=name, source=source.id, **searched)
    return release
