"""A compression search on the tiny recipe: from a release over rungs of candidates to a pick, and to a release of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select
from tiny_recipe import Tiny
from tiny_release import engine_of, finished_run, ready_release, run_all

from fogline_server.blobs.store import BlobStore
from fogline_server.compression.chain import Chain
from fogline_server.compression.engine import manifest_of, open_session
from fogline_server.compression.front import Limits
from fogline_server.console.search_view import search_page
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.jobs import service as jobs
from fogline_server.jobs.engine import Engine
from fogline_server.jobs.runner import JobContext, Outcome
from fogline_server.jobs.tables import Job
from fogline_server.registry import service as registry
from fogline_server.registry.students import chosen_student
from fogline_server.registry.tables import Release
from fogline_server.registry.tick import tick
from fogline_server.search import service
from fogline_server.search.model import SearchSpec
from fogline_server.search.tables import Candidate, Search
from fogline_server.storage import holders
from fogline_server.training.tables import Run
from fogline_shared.errors import Conflict, InvalidInput

CHAINS = tuple(
    Chain.parse(text)
    for text in (
        "float16",
        "weight_only:bits=4",
        "sparse_n_m,int8_static",
        "prune_channels:share=0.5:rounds=1,int8_static",
        "finetune,int8_static",
    )
)
LOOSE = Limits(max_drop=0.9)


def released(db: Database, blobs: BlobStore) -> Release:
    """A release whose student has still much to learn, so that forms of it differ."""
    student = finished_run(db, blobs, "student", epochs=1)
    return ready_release(db, blobs, teacher_run=None, student_run=student, max_accuracy_drop=0.5)


@pytest.fixture
def source(sqlite_database: Database, blobs: BlobStore) -> Release:
    return released(sqlite_database, blobs)


def start(db: Database, release: Release, **spec: Any) -> str:
    asked = SearchSpec(**{"chains": CHAINS, "steps": 9, "limits": LOOSE, **spec})
    with db.transaction() as session:
        return service.start_search(session, release.id, asked, now=utc_now(), actor="test").id


def ended(db: Database, blobs: BlobStore, search_id: str) -> tuple[Search, Job]:
    run_all(engine_of(db, blobs))
    with db.read() as session:
        return service.get_search(session, search_id)


def by_chain(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["chain"].split(",")[0].split(":")[0]: row for row in result["candidates"]}


def test_a_search_ends_with_a_release_of_what_it_found(database: Database, blobs: BlobStore) -> None:
    source = released(database, blobs)
    found, job = ended(database, blobs, start(database, source, name="small"))
    assert job.state == "SUCCEEDED", job.error
    result = found.result
    rows = by_chain(result)
    assert [len(rows[name]["rungs"]) for name in ("float16", "weight_only")] == [1, 1]
    # Three chains train: one rung with a third of their steps, of which the best goes on.
    trained = [rows[name] for name in ("sparse_n_m", "prune_channels", "finetune")]
    assert sorted(len(row["rungs"]) for row in trained) == [1, 1, 2]
    (dropped, *_) = (row for row in trained if len(row["rungs"]) == 1)
    assert (dropped["final"], dropped["metrics"]) == (False, None)
    assert "best third" in dropped["why_not"][0]
    finalists = [row for row in result["candidates"] if row["final"]]
    best = max(finalists, key=lambda row: row["metrics"]["choosing"]["accuracy"])
    assert [row["why_not"] for row in finalists if row["name"] == result["pick"]] == [[]]
    picked = next(row for row in finalists if row["name"] == result["pick"])
    assert picked["metrics"]["choosing"]["accuracy"] == best["metrics"]["choosing"]["accuracy"]
    assert result["best_single"] in {rows[name]["name"] for name in ("float16", "weight_only")}
    assert f"{picked['metrics']['judging']['accuracy']:.1%} are right" in result["sentence"]
    with database.read() as session:
        page = search_page(session, found.id, now=utc_now())
    assert sorted(dot.kind for dot in page.chart.dots).count("pick") == 1
    assert len(page.chart.dots) == len(finalists)
    assert page.candidates[0]["metrics"]["choosing"]["accuracy"] == best["metrics"]["choosing"]["accuracy"]
    tick(database, now=utc_now())
    with database.read() as session:
        release = registry.get_release(session, "small")
        variants = {v.name: v for v in registry.variants_of(session, release.id)}
        assert registry.verify(session, blobs, release.id).ok
    assert (release.state, release.default_variant) == ("READY", result["pick"])
    assert {"student_fp32", "student_int8", result["pick"]} <= set(variants)
    assert variants[result["pick"]].digest == picked["digest"]
    assert set(variants) - {"student_fp32", "student_int8"} <= set(result["front"])
    assert manifest_of(open_session(blobs.read(picked["digest"]))).variant == result["pick"]
    assert {"step": "searched", "source": source.id}.items() <= next(
        link["facts"] for link in release.lineage["chain"] if link["facts"]["step"] == "searched"
    ).items()


def test_the_same_search_finds_everything_made_and_comes_to_the_same_result(
    sqlite_database: Database, blobs: BlobStore, source: Release
) -> None:
    first, _ = ended(sqlite_database, blobs, start(sqlite_database, source))
    again, job = ended(sqlite_database, blobs, start(sqlite_database, source))
    assert (first.result["cached"], again.result["cached"]) == (0, again.result["trials"])
    with sqlite_database.read() as session:
        assert jobs.list_jobs(session, parent_id=job.id) == []

    def told(result: Mapping[str, Any]) -> Any:
        return result["pick"], result["front"], [row["metrics"] for row in result["candidates"]]

    assert told(again.result) == told(first.result)
    other, _ = ended(sqlite_database, blobs, start(sqlite_database, source, seed=1, chains=CHAINS[:1]))
    assert other.result["cached"] == 0

    # What is on no front may go; it is made again, to the same bytes, when somebody wants it.
    with sqlite_database.read() as session:
        made = {c.digest for c in session.scalars(select(Candidate)) if c.digest}
        kept = made & holders.needed(session)
    front = {row["digest"] for result in (first.result, other.result) for row in result["candidates"] if row["front"]}
    assert kept == front - {None}
    assert made - kept
    for digest in made - kept:
        blobs.path(digest).unlink()
    third, _ = ended(sqlite_database, blobs, start(sqlite_database, source))
    assert 0 < third.result["cached"] < third.result["trials"]
    with sqlite_database.read() as session:
        assert {c.digest for c in session.scalars(select(Candidate)) if c.digest} == made


def test_what_cannot_be_made_is_evidence_and_what_fits_nothing_is_said(
    sqlite_database: Database, blobs: BlobStore, source: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: Tiny, _x: object, _generator: object) -> None:
        raise ValueError("a slip of the recipe's author")

    monkeypatch.setattr(Tiny, "augment", broken)
    chains = (*CHAINS[:2], CHAINS[-1])
    search_id = start(sqlite_database, source, chains=chains, limits=Limits(max_bytes=10), name="none")
    found, job = ended(sqlite_database, blobs, search_id)
    assert job.state == "SUCCEEDED", job.error
    assert (found.result["pick"], found.result["release"]) == (None, None)
    assert found.result["sentence"].startswith("none of 2 is within the limits; nearest is ")
    rows = by_chain(found.result)
    assert rows["finetune"]["why_not"] == ["chain_crashed: ValueError: a slip of the recipe's author"]
    assert rows["float16"]["why_not"][0].endswith(" bytes, 10 allowed")
    monkeypatch.setattr(Tiny, "transfer", lambda _self: None)
    found, _ = ended(sqlite_database, blobs, start(sqlite_database, source, chains=chains))
    assert by_chain(found.result)["finetune"]["why_not"][0].startswith("no_transfer_data: ")
    with sqlite_database.read() as session:
        assert session.scalar(select(Release.id).where(Release.name == "none")) is None


def deadly(db: Database, blobs: BlobStore, *names: str) -> Engine:
    """An engine whose worker dies of candidates of these names; the coordinator sees no more of it than silence."""
    engine = engine_of(db, blobs, lease_s=0.0)
    usual = engine.kinds["compress_candidate"]

    def run(ctx: JobContext) -> Outcome:
        if ctx.spec["name"].startswith(names):
            raise SystemExit
        return usual.run(ctx)

    engine.kinds = {**engine.kinds, "compress_candidate": replace(usual, run=run)}
    return engine


def killed(engine: Engine, search_id: str) -> tuple[Search, Job]:
    """Take the search up until it has ended, whatever dies."""
    with engine.db.read() as session:
        _, job = service.get_search(session, search_id)
    while job.state in ("QUEUED", "RUNNING"):
        with suppress(SystemExit):
            engine.execute(job.id)
        engine.reconcile()
        with engine.db.read() as session:
            found, job = service.get_search(session, search_id)
    return found, job


def test_a_candidate_that_kills_its_workers_costs_one_candidate(
    sqlite_database: Database, blobs: BlobStore, source: Release
) -> None:
    search_id = start(sqlite_database, source, chains=CHAINS[:2])
    found, job = killed(deadly(sqlite_database, blobs, "weight_only"), search_id)
    assert job.state == "SUCCEEDED", job.error
    rows = by_chain(found.result)
    assert rows["weight_only"]["why_not"][0].startswith("attempts_exhausted: ")
    assert found.result["pick"] == rows["float16"]["name"]


def test_a_search_that_failed_can_be_tried_again_with_what_had_failed_in_it(
    sqlite_database: Database, blobs: BlobStore, source: Release
) -> None:
    search_id = start(sqlite_database, source, chains=CHAINS[:2])
    engine = deadly(sqlite_database, blobs, "weight_only", "float16")
    _, job = killed(engine, search_id)
    assert (job.state, job.error["code"]) == ("FAILED", "attempts_exhausted")
    with sqlite_database.transaction() as session:
        jobs.retry(session, job.id, kinds=engine.kinds, now=utc_now())
    engine.reconcile()
    found, job = ended(sqlite_database, blobs, search_id)
    assert job.state == "SUCCEEDED", job.error
    assert [len(row["rungs"]) for row in found.result["candidates"] if row["final"]] == [1, 1]


def test_a_canceled_search_takes_its_candidates_with_it(
    sqlite_database: Database, blobs: BlobStore, source: Release
) -> None:
    search_id = start(sqlite_database, source)
    # Its worker dies of the first candidate, so that its jobs are there.
    engine = deadly(sqlite_database, blobs, "")
    with sqlite_database.transaction() as session:
        _, job = service.get_search(session, search_id)
    with pytest.raises(SystemExit):
        engine.execute(job.id)
    with sqlite_database.transaction() as session:
        assert len(jobs.list_jobs(session, parent_id=job.id)) == len(CHAINS)
        jobs.cancel(session, job.id, now=utc_now())
    engine.reconcile()
    with sqlite_database.read() as session:
        found, job = service.get_search(session, search_id)
        children = jobs.list_jobs(session, parent_id=job.id)
    assert {each.state for each in (job, *children)} == {"CANCELED"}
    assert found.result is None


def test_limits_of_the_release_hold_where_none_is_given(sqlite_database: Database, source: Release) -> None:
    with sqlite_database.transaction() as session:
        row = registry.get_release(session, source.id)
        limits = {"max_bytes": 40_000.0, "max_worst_class_drop": 0.1, "min_agreement": 0.9}
        row.lineage = {**row.lineage, "spec": {**row.lineage["spec"], "limits": limits}}
    search_id = start(sqlite_database, source, limits=Limits(max_worst_class_drop=0.05))
    with sqlite_database.read() as session:
        asked = service.get_search(session, search_id)[0].spec["limits"]
    assert asked == {"max_bytes": 40_000, "max_p50_us": None, "max_drop": 0.5, "max_worst_class_drop": 0.05}


def test_what_can_never_work_is_refused_when_it_is_asked_for(
    sqlite_database: Database, source: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = sqlite_database

    def code(expected: type[Exception], **spec: Any) -> str:
        with pytest.raises(expected) as refused:
            start(db, source, **spec)
        return refused.value.code

    assert code(Conflict, name=source.name) == "release_name_taken"
    assert code(InvalidInput, steps=0) == "invalid_search"
    assert code(InvalidInput, seed=-1) == "invalid_search"
    assert code(InvalidInput, chains=CHAINS * 13) == "invalid_search"
    monkeypatch.setattr(Tiny, "transfer", lambda _self: None)
    assert code(InvalidInput, chains=CHAINS[2:]) == "empty_search_space"
    monkeypatch.setattr(Tiny, "holdout", lambda _self: None)
    assert code(InvalidInput, limits=Limits(max_worst_class_drop=0.1)) == "no_search_data"
    monkeypatch.undo()
    monkeypatch.setattr(Tiny, "holdout", lambda _self: None)
    assert code(InvalidInput, limits=Limits(max_worst_class_drop=0.1)) == "limit_without_holdout"
    with db.transaction() as session:
        row = registry.get_release(session, source.id)
        row.lineage = {"imported": {}}
    assert code(Conflict) == "release_without_run"


def test_the_student_is_the_one_that_the_release_has_chosen(sqlite_database: Database, blobs: BlobStore) -> None:
    control, distilled = (finished_run(sqlite_database, blobs, "student", epochs=0, params=p) for p in (b"c", b"d"))
    runs = {"student": control, "distilled": distilled}
    taught = {"runs": {"student": control}, "taught": {"digest": "t" * 64}}
    with sqlite_database.read() as session:

        def of(lineage: dict[str, Any], chosen: str) -> str:
            release = Release(name="r", lineage=lineage, report={"choice": {"chosen": chosen}})
            return chosen_student(session, release).params_digest

        digests = [session.get_one(Run, run).params_digest for run in (control, distilled)]
        assert [of({"runs": runs}, role) for role in ("student", "distilled")] == digests
        assert (of(taught, "distilled"), of(taught, "student")) == ("t" * 64, digests[0])


def test_without_a_holdout_the_float_parent_says_what_is_right(
    sqlite_database: Database, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tiny, "holdout", lambda _self: None)
    source = ready_release(sqlite_database, blobs, teacher_run=None)
    found, _ = ended(sqlite_database, blobs, start(sqlite_database, source, chains=CHAINS[:2], limits=Limits()))
    assert found.result["evidence"]["kind"] == "agreement"
    assert found.result["parent"]["judging"]["accuracy"] == 1.0
    assert "labelled as the float parent labels them" in found.result["sentence"]
