"""Who needs which blob: every column that may name one is known, and every row that may still use one keeps it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import JSON, DateTime, Float, LargeBinary, String, text
from sqlalchemy.orm import Session

from fogline_server.batch.tables import Shard
from fogline_server.db.database import Database
from fogline_server.jobs.tables import Job
from fogline_server.registry.tables import Release
from fogline_server.schema import METADATA, create_all
from fogline_server.search.tables import Candidate, Search, Trial
from fogline_server.storage.holders import HOLDERS, KEEPS_NOTHING, Holder, kinds, needed
from fogline_server.training.tables import Round, Run, Task, Update
from fogline_shared.states import JobState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGESTS = (f"{number:064x}" for number in itertools.count(1))
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def one_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database to which nobody commits."""
    db = Database(f"sqlite:///{tmp_path_factory.mktemp('holders') / 'rows.db'}")
    create_all(db)
    yield db
    db.dispose()


@pytest.fixture
def session(one_database: Database) -> Iterator[Session]:
    """A session whose rows may name others that are not there: it is never committed."""
    with one_database.transaction() as session:
        session.execute(text("PRAGMA defer_foreign_keys=ON"))
        yield session
        session.rollback()


def add(session: Session, model: type, **given: Any) -> Any:
    """A row with something in every column that wants it."""
    values: dict[str, Any] = {}
    for column in model.__table__.columns:
        if column.name in given or column.nullable or column.default is not None:
            continue
        if isinstance(column.type, String):
            values[column.name] = f"x{next(NUMBERS)}"
        elif isinstance(column.type, JSON):
            values[column.name] = []
        elif isinstance(getattr(column.type, "impl", None), DateTime):
            values[column.name] = NOW
        elif isinstance(column.type, Float):
            values[column.name] = 0.5
        else:
            values[column.name] = next(NUMBERS)
    row = model(**values, **given)
    session.add(row)
    session.flush()
    return row


def test_every_column_that_may_hold_a_digest_is_known() -> None:
    """A new one belongs into HOLDERS, or with its reason into KEEPS_NOTHING."""
    may = {
        f"{table.name}.{column.name}"
        for table in METADATA.sorted_tables
        for column in table.columns
        if isinstance(column.type, JSON | LargeBinary)
        or (isinstance(column.type, String) and column.type.length in {None, 64})
        or any(word in column.name for word in ("digest", "sha256", "params", "blob"))
    }
    held = {holder.name for holder in HOLDERS}
    assert may == held | set(KEEPS_NOTHING)
    assert not held & set(KEEPS_NOTHING)


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: holder.name)
def test_what_a_row_names_is_needed_while_work_goes_on(session: Session, holder: Holder) -> None:
    digest = next(DIGESTS)
    run, job = add(session, Run, state="RUNNING"), add(session, Job, state="RUNNING")
    links = {"run_id": run.id, "job_id": job.id}
    if holder.column.class_ is Update:
        links["task_id"] = add(session, Task, run_id=run.id).id
    if holder.column.class_ is Candidate:
        search = add(session, Search, job_id=job.id)
        links["key"] = add(session, Trial, search_id=search.id, key=f"{next(NUMBERS):x}").key
    columns = holder.column.class_.__table__.columns
    is_json = isinstance(columns[holder.column.key].type, JSON)
    value = [{"deep": {"name": f"sha256:{digest}"}}] if is_json else digest
    given = {name: link for name, link in links.items() if name in columns}
    add(session, holder.column.class_, **{**given, holder.column.key: value})
    assert digest in needed(session)
    assert digest in kinds(session)


def a_run(session: Session, state: str, *, step: int | None = None) -> dict[str, str]:
    """A run with one of everything that names a blob, and a second update that no step has taken."""
    made = {name: next(DIGESTS) for name in ("params", "state", "in", "out", "sent", "update", "late")}
    run = add(
        session,
        Run,
        state=state,
        params_digest=made["params"],
        strategy_state_digest=made["state"],
        spec={},
        rounds_done=1,
    )
    add(session, Round, run_id=run.id, number=1, params_in=made["in"], params_out=made["out"])
    for name, taken in (("update", step), ("late", None)):
        task = add(session, Task, run_id=run.id, round=1, blobs=[{"record": "arrays", "digest": made["sent"]}])
        add(session, Update, task_id=task.id, digest=made[name], step=taken)
    return made


@pytest.mark.parametrize(
    ("state", "step", "free"),
    [
        ("PENDING", None, set()),
        ("PAUSED", None, set()),
        # It may be extended: from its parameters, and the strategy's state.
        ("SUCCEEDED", None, {"in", "out", "sent", "update", "late"}),
        # In an asynchronous run the buffer goes on too, and what it was trained from.
        ("SUCCEEDED", 1, {"in", "out", "update"}),
        ("FAILED", 1, {"state", "in", "out", "sent", "update", "late"}),
        ("CANCELED", None, {"state", "in", "out", "sent", "update", "late"}),
    ],
)
def test_a_run_keeps_what_it_can_still_use(session: Session, state: str, step: int | None, free: set[str]) -> None:
    made = a_run(session, state, step=step)
    kept = needed(session)
    assert {name for name, digest in made.items() if digest not in kept} == free
    assert set(made.values()) <= set(kinds(session))


@pytest.mark.parametrize("state", list(JobState))
def test_a_batch_job_keeps_its_shards_until_it_cannot_be_tried_again(session: Session, state: str) -> None:
    digest = next(DIGESTS)
    parent = add(session, Job, state=state)
    child = add(session, Job, state="SUCCEEDED", parent_id=parent.id, result={"digest": digest})
    add(session, Shard, job_id=parent.id, shard_job_id=child.id, output_digest=digest)
    assert (digest in needed(session)) is (state in {"QUEUED", "RUNNING", "FAILED"})


def test_a_hash_chain_keeps_a_releases_parameters_and_not_every_update_it_came_from(session: Session) -> None:
    kept, gone = next(DIGESTS), next(DIGESTS)
    chain = [
        {"facts": {"step": "round", "params_in": gone, "params_out": gone, "updates": [["dev", gone]]}, "hash": "0"},
        {"facts": {"step": "parameters", "digest": kept}, "hash": "1"},
    ]
    add(session, Release, lineage={"chain": chain}, report={"best": {next(DIGESTS): 1}})
    found = needed(session)
    assert kept in found
    assert gone not in found
    assert len(found) == 2
