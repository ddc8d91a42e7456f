"""Variants that a release is sealed without: what was made and measured of them, and why no device gets them.

They stand in the release's report, which the seal covers, and have no row of their own: nothing that looks for variants
(signed metadata, deltas, downloads, rollouts) can find one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.registry.model import ReleaseSpec
from fogline_server.registry.tables import Release, Variant
from fogline_shared.errors import FoglineError

_KEY = "left_out"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """``code`` and ``message``: the gate it failed or what its chain raised. Without an artifact there is no digest and no size."""

    name: str
    code: str
    message: str
    digest: str | None = None
    size: int | None = None
    metrics: Mapping[str, Any] | None = None

    @property
    def reason(self) -> str:
        """Code and message."""
        return f"{self.code}: {self.message}"

    @property
    def facts(self) -> dict[str, Any]:
        """Its link of the hash chain."""
        return {"step": _KEY, "variant": self.name, "code": self.code, "digest": self.digest, "size": self.size}


def of_release(release: Release) -> list[LeftOut]:
    """Those of a release, by name."""
    return [LeftOut(**each) for _, each in sorted(release.report.get(_KEY, {}).items())]


def may_be(release: Release, name: str) -> bool:
    """Whether the release can do without: every chain but the default variant's. The standard variants always pass."""
    if "spec" not in release.lineage:
        return False
    spec = ReleaseSpec(**release.lineage["spec"])
    return name in spec.chains and name != spec.default_variant


def leave_out(session: Session, release: Release, name: str, error: FoglineError) -> None:
    """Keep a variant of a BUILDING release as evidence only. The first reason stays; the caller holds the release's row."""
    told = release.report.get(_KEY, {})
    if name in told:
        return
    left = LeftOut(name=name, code=error.code, message=error.message)
    row = session.get(Variant, (release.id, name))
    if row is not None:
        left = LeftOut(
            name=name,
            code=error.code,
            message=error.message,
            digest=row.digest,
            size=row.size,
            metrics=row.metrics,
        )
        session.delete(row)
    release.report = {**release.report, _KEY: {**told, name: asdict(left)}}
    events.record(session, "release.variant_left_out", "release", release.id, variant=name, code=error.code)
    session.flush()
