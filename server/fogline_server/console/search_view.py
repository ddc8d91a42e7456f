"""What the console's page of one compression search shows: where its forms lie, the pick, and why not the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from fogline_server.jobs.tables import Job
from fogline_server.registry.tables import Release
from fogline_server.reporting.scatter import Form, Scatter, kind_of, scatter
from fogline_server.search.service import get_search
from fogline_server.search.tables import Search

_WORDS = {
    "max_bytes": "at most {:,} bytes as sent",
    "max_p50_us": "at most {:g} µs",
    "max_drop": "at most {:g} points below the float parent",
    "max_worst_class_drop": "at most {:g} points below it in the worst class",
}
_FACTORS = {"max_drop": 100, "max_worst_class_drop": 100}


@dataclass(frozen=True, kw_only=True)
class SearchPage:
    """``candidates``: those with their whole training first, the most accurate first; empty until the search has ended."""

    now: datetime
    search: Search
    job: Job
    release: Release
    limits: Sequence[str]
    chart: Scatter | None
    candidates: Sequence[Mapping[str, Any]]


def search_page(session: Session, search_id: str, *, now: datetime) -> SearchPage:
    """The page as of ``now``; raises NotFound ``search_not_found``."""
    search, job = get_search(session, search_id)
    result = search.result or {}
    candidates = sorted(result.get("candidates", ()), key=_best_first)
    return SearchPage(
        now=now,
        search=search,
        job=job,
        release=session.get_one(Release, search.release_id),
        limits=_limits(search.spec["limits"]),
        chart=scatter([_form(each, result.get("pick")) for each in candidates if each["metrics"]]),
        candidates=candidates,
    )


def _best_first(candidate: Mapping[str, Any]) -> tuple[bool, float, int]:
    metrics = candidate["metrics"]
    accuracy = metrics["choosing"]["accuracy"] if metrics else 0.0
    return not candidate["final"], -accuracy, candidate["number"]


def _form(candidate: Mapping[str, Any], pick: str | None) -> Form:
    metrics = candidate["metrics"]
    accuracy, size = metrics["choosing"]["accuracy"], metrics["bytes_zstd"]
    title = f"{candidate['chain']}: {accuracy:.1%} right, {size:,} bytes as sent, {metrics['p50_us']:g} µs"
    kind = kind_of(candidate["name"], front=candidate["front"], pick=pick)
    return Form(name=candidate["name"], kind=kind, size=size, accuracy=accuracy, title=title)


def _limits(limits: Mapping[str, Any]) -> list[str]:
    """In words, those there are."""
    return [_WORDS[name].format(value * _FACTORS.get(name, 1)) for name, value in limits.items() if value is not None]
