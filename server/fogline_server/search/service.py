"""Use cases of compression searches. Each takes the caller's session and leaves the commit to the caller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.compression.front import Limits
from fogline_server.db import events
from fogline_server.db.base import new_id
from fogline_server.jobs import service as jobs
from fogline_server.jobs.tables import Job
from fogline_server.registry.model import STUDENT
from fogline_server.registry.service import check_name_free, get_variant, ready_release
from fogline_server.registry.students import chosen_student
from fogline_server.registry.tables import Release
from fogline_server.search.evidence import check_examples_to_judge_by
from fogline_server.search.model import SearchSpec
from fogline_server.search.space import divided, entries
from fogline_server.search.tables import Search
from fogline_shared.errors import InvalidInput, NotFound
from fogline_shared.recipe import Recipe, load_recipe

# Limits that a release was built with, and that hold for its search where none is given.
_INHERITED = ("max_bytes", "max_drop", "max_worst_class_drop")
QUEUE = "compute"
SEARCH, CANDIDATE = "compress_search", "compress_candidate"


def start_search(session: Session, reference: str, spec: SearchSpec, *, now: datetime, actor: str) -> Search:
    """A search over the forms of a READY release's student, and its job.

    Limits that are left out are those the release was built with. Raises NotFound ``release_not_found``, ``variant_not_found``;
    Conflict ``release_not_ready``, ``release_without_run``, ``release_name_taken``; InvalidInput ``limit_without_holdout``,
    ``no_search_data``, ``empty_search_space``.
    """
    release = ready_release(session, reference)
    chosen_student(session, release)
    get_variant(session, release.id, STUDENT)
    recipe = load_recipe(release.recipe)
    check_examples_to_judge_by(recipe)
    spec = replace(spec, limits=_limits(release, recipe, spec.limits))
    space = entries(spec.chains, spec.steps)
    tried, left_out = divided(space, recipe)
    if not tried:
        message = f"recipe {recipe.name} has no examples for any of {len(space)} chains: {left_out[0][1].message}"
        raise InvalidInput("empty_search_space", message, field="chains")
    if spec.name is not None:
        check_name_free(session, spec.name)
    search = Search(id=new_id("search"), release_id=release.id, spec=spec.as_json(), result=None, created_at=now)
    job = jobs.submit(session, SEARCH, {"search_id": search.id}, queue=QUEUE, now=now, actor=actor)
    search.job_id = job.id
    session.add(search)
    session.flush()
    events.record(session, "search.started", "search", search.id, actor=actor, release=release.id, name=spec.name)
    return search


def _limits(release: Release, recipe: Recipe, limits: Limits) -> Limits:
    """With the release's own where none is given; raises InvalidInput for those that need labels which are not there."""
    if recipe.holdout() is None:
        for name in ("max_drop", "max_worst_class_drop"):
            if getattr(limits, name) is not None:
                message = f"{name} is measured on labelled examples: recipe {recipe.name} has no holdout()"
                raise InvalidInput("limit_without_holdout", message, field=f"limits.{name}")
        return limits
    built = release.lineage.get("spec", {})
    own = {"max_drop": built.get("max_accuracy_drop"), **built.get("limits", {})}
    lacking = {name: own.get(name) for name in _INHERITED if getattr(limits, name) is None}
    return replace(limits, **lacking)


def get_search(session: Session, search_id: str) -> tuple[Search, Job]:
    """With its job, which says how far it is; raises NotFound ``search_not_found``."""
    search = session.get(Search, search_id)
    if search is None:
        raise NotFound("search_not_found", f"no compression search {search_id}", search_id=search_id)
    return search, session.get_one(Job, search.job_id)


def list_searches(session: Session, *, after: str | None = None, limit: int = 50) -> Sequence[tuple[Search, Job]]:
    """Newest first, each with its job; ``after`` is the id of the last one of the page before."""
    query = select(Search, Job).join(Job, Job.id == Search.job_id).order_by(Search.id.desc()).limit(limit)
    if after is not None:
        query = query.where(Search.id < after)
    return [(search, job) for search, job in session.execute(query)]
