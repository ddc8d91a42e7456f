"""Where a release comes from, read from the rows of its runs, and whether what is sealed still matches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.blobs.store import BlobStore
from fogline_server.registry.lineage import broken_link, fingerprint, head_of
from fogline_server.registry.model import Problem, Verification
from fogline_server.registry.tables import Release, Variant
from fogline_server.training.tables import Round, Run, Task, Update
from fogline_shared.errors import FoglineError
from fogline_shared.states import RoundState, UpdateVerdict

Facts = dict[str, Any]
Links = Sequence[Mapping[str, Any]]


def facts_of_run(session: Session, run: Run, role: str) -> list[Facts]:
    """Who took part in each committed round with which accepted update, and the parameters that came of it."""
    rounds = session.scalars(
        select(Round).where(Round.run_id == run.id, Round.state == RoundState.COMMITTED).order_by(Round.number)
    )
    accepted = session.execute(
        select(Task.round, Task.device_id, Update.digest)
        .join(Update, Update.task_id == Task.id)
        .where(Task.run_id == run.id, Update.verdict == UpdateVerdict.ACCEPTED)
        .order_by(Task.round, Task.kind, Task.device_id)
    ).all()
    facts: list[Facts] = [
        {
            "step": "round",
            "run": run.id,
            "round": each.number,
            "cohort": list(each.cohort),
            "params_in": each.params_in,
            "params_out": each.params_out,
            "updates": [[device, digest] for number, device, digest in accepted if number == each.number],
        }
        for each in rounds
    ]
    facts.append(
        {
            "step": "parameters",
            "run": run.id,
            "role": role,
            "digest": run.params_digest,
            "statistics": run.statistics,
        }
    )
    return facts


def facts_of_variant(variant: Variant) -> Facts:
    """The last link: the artifact a device downloads."""
    return {"step": "artifact", "variant": variant.name, "digest": variant.digest, "size": variant.size}


def seal_of(release: Release, variants: Sequence[Variant]) -> str:
    """One hash over everything that may not change once the release is READY."""
    return fingerprint(
        {
            "name": release.name,
            "recipe": release.recipe,
            "default_variant": release.default_variant,
            "report": release.report,
            "head": head_of(release.lineage.get("chain", ())),
            "variants": [[v.name, v.digest, v.size, v.metrics] for v in variants],
        }
    )


def verification(session: Session, blobs: BlobStore, release: Release, variants: Sequence[Variant]) -> Verification:
    """Hash every blob of the lineage again and compare every row with what was sealed."""
    links = _links_of(release)
    if links is None:
        text = "the lineage has no hash chain, or not one of links"
        problems = [Problem(code="lineage_missing", subject="release", message=text)]
    else:
        problems = list(_row_problems(session, release, variants, links))
    checked = size = 0
    for subject, digest, required in _blobs_of(release, variants, links or ()):
        if not required and not blobs.exists(digest):
            continue  # an update's bytes may have been cleared away; its digest is still in the chain
        try:
            size += len(blobs.read(digest))
            checked += 1
        except FoglineError as error:
            problems.append(Problem(code=error.code, subject=subject, message=error.message))
    return Verification(release_id=release.id, blobs_checked=checked, bytes_checked=size, problems=tuple(problems))


def _links_of(release: Release) -> Links | None:
    """The chain, if it has the form of one: a verification must survive whatever became of a row."""
    links = release.lineage.get("chain")
    formed = isinstance(links, list) and all(
        isinstance(link, dict) and isinstance(link.get("facts"), dict) and isinstance(link.get("hash"), str)
        for link in links
    )
    return links if formed else None


def _row_problems(session: Session, release: Release, variants: Sequence[Variant], links: Links) -> Iterator[Problem]:
    broken = broken_link(links)
    if broken is not None:
        yield Problem(code="lineage_broken", subject="release", message=f"link {broken} does not follow from the last")
    if release.lineage.get("seal") != seal_of(release, variants):
        yield Problem(code="seal_broken", subject="release", message="the release or a variant changed after sealing")
    sealed = [link["facts"] for link in links]
    for role, run_id in release.lineage.get("runs", {}).items():
        run = session.get(Run, run_id)
        now = [] if run is None else facts_of_run(session, run, role)
        if not now or now != [f for f in sealed if f.get("run") == run_id]:
            yield Problem(code="lineage_differs", subject=run_id, message=f"the rows of the {role} run have changed")
    if [facts_of_variant(v) for v in variants] != [f for f in sealed if f.get("step") == "artifact"]:
        yield Problem(code="lineage_differs", subject="release", message="a variant is not the one that was sealed")


def _blobs_of(release: Release, variants: Sequence[Variant], links: Links) -> Iterator[tuple[str, str, bool]]:
    """(subject, digest, required), each digest once."""
    seen = set()
    for variant in variants:
        seen.add(variant.digest)
        yield variant.name, variant.digest, True
    for link in links:
        facts = link["facts"]
        found = [(facts.get("digest"), True)] if facts.get("step") in {"parameters", "taught", "left_out"} else []
        found += [(digest, False) for _, digest in facts.get("updates", [])]
        for digest, required in found:
            if digest and digest not in seen:
                seen.add(digest)
                yield str(facts.get("run", facts.get("variant", release.id))), digest, required
