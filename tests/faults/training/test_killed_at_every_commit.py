"""Killed at any commit of a run, a run ends with the very bytes of an unkilled one, and counts nothing twice.

The commits are those that an undisturbed run makes, whatever code makes them: nobody keeps a list. One test says which code
that is, so that a transaction that no run here comes to is noticed.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from commit_points import GATEWAY, Death, Nursery, Place
from run_lives import World
from sqlalchemy import select, update
from training_fleet import create_run

import fogline_server.training
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.training import lifecycle, service
from fogline_server.training.privacy import ledger
from fogline_server.training.privacy.spec import Privacy
from fogline_server.training.tables import PrivacyAccount, Run

DEVICES, ROUNDS = 2, 2
# A strategy and a codec with a state each, which the second round needs.
SPEC = {
    "rounds": ROUNDS,
    "min_devices": DEVICES,
    "strategy": "fedadam",
    "codec": "topk",
    "seed": 3,
    "evaluate_every": ROUNDS,
}
COMMIT = "fogline_server.training.trainer.Trainer._commit"
JOB_SITES = {
    "fogline_server.jobs.reconciler._forget",
    "fogline_server.jobs.engine.Engine.execute",
    "fogline_server.jobs.lease.SqlLease._extend",
    "fogline_server.jobs.engine.Engine._succeed",
}
# Of 38 commits, three share a run.
APART = 13

pytestmark = pytest.mark.slow
# What is tested twice only where the databases differ: each of these is a matter of the trainer's steps, not of locks.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def world(nursery: Nursery, database: Database, database_url: str, redis_url: str, tmp_path: Path) -> World:
    return World(nursery, Place(database_url, redis_url, str(tmp_path), DEVICES), database, SPEC)


def sites_in_the_code() -> set[str]:
    """Every function of the training package that opens a transaction of its own, read from the source."""
    found: set[str] = set()

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                inner = f"{name}.{child.name}"
            elif isinstance(child, ast.Attribute) and child.attr == "transaction":
                found.add(name)
            visit(child, inner)

    package = Path(fogline_server.training.__file__).parent
    for path in package.rglob("*.py"):
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        visit(ast.parse(path.read_text()), f"fogline_server.training.{module}")
    return found


def test_killed_at_each_commit(world: World) -> None:
    sites, expected = world.undisturbed()
    assert expected["run"][:2] == ("SUCCEEDED", ROUNDS)
    assert {verdict for *_, (verdict, _, _) in expected["updates"]} == {"ACCEPTED"}
    assert len(expected["updates"]) == DEVICES * (1 + ROUNDS + 1), "of a query, of each round, of an evaluation"
    assert [kind for kind, _ in expected["events"]] == [
        "run.created",
        "run.started",
        *["run.round_opened", "run.round_committed"] * (1 + ROUNDS),
        "run.succeeded",
    ]
    assert {GATEWAY, COMMIT, *JOB_SITES} <= set(sites)
    world.check_killed_at_each(range(len(sites)), sites, expected, apart=APART)


@on_sqlite
def test_a_private_run_killed_at_its_rounds_ends_with_the_same_noise_and_spends_nothing_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger.secrets, "token_hex", lambda count: "5a" * count)
    with world.db.transaction() as session:
        ledger.create(session, name="all", recipe="tiny", tags=[], epsilon=500, delta=1e-5, now=utc_now())
    # The second round's clip is what the first one's release made of it.
    privacy = Privacy(population="all", noise_multiplier=0.5, clip_quantile=0.5)
    private = {"privacy": privacy, "evaluate_every": 0}
    sites, expected = world.undisturbed(**private)
    assert expected["run"][:2] == ("SUCCEEDED", ROUNDS)
    rounds = [number for number, site in enumerate(sites) if site == COMMIT]
    assert len(rounds) == ROUNDS, "devices are asked for no statistics"
    clips = [metrics["clip"] for *_, metrics, _ in expected["rounds"]]
    assert clips[0] == 1.0 != clips[1]
    assert world.killed_at(rounds, sites, **private) == (expected, ())
    with world.db.read() as session:
        spent = session.execute(select(PrivacyAccount.rounds_spent, PrivacyAccount.rounds_reserved)).tuples().all()
    assert spent == [(ROUNDS, ROUNDS)] * 2


def test_a_distilled_run_is_killed_where_others_do_not_come(world: World) -> None:
    teacher_id, teacher_job = create_run(world.db, **SPEC | {"size": "teacher"})
    known = set(world.lives(teacher_job).sites)
    sites, expected = world.undisturbed(distil_from=teacher_id)
    buffered, _ = world.undisturbed(strategy="fedbuff", strategy_options={"buffer_size": DEVICES}, rounds=1)
    assert sites_in_the_code() <= known | set(sites) | set(buffered), "a transaction that none of the runs comes to"
    new = [number for number, site in enumerate(sites) if site not in known]
    assert new
    assert world.killed_at(new, sites, distil_from=teacher_id) == (expected, ())


def test_killed_where_only_a_recovery_comes(world: World) -> None:
    sites, expected = world.undisturbed()
    first = Death("after", COMMIT)
    _, job_id = create_run(world.db, **SPEC)
    world.dies(job_id, first)
    recovery = world.lives(job_id, life=1).sites
    new = [number for number, site in enumerate(recovery) if site not in sites]
    assert new, "taking the job from the dead is a commit"
    for number in new:
        run_id, job_id = create_run(world.db, **SPEC)
        world.dies(job_id, first)
        world.dies(job_id, Death("before", recovery[number]), life=1)
        world.dies(job_id, Death("after", recovery[number]), life=2)
        world.lives(job_id, life=3)
        assert world.story(run_id) == expected


def test_the_gateway_alone_is_killed_twice_at_each_reply(world: World) -> None:
    _, expected = world.undisturbed()
    run_id, job_id = create_run(world.db, **SPEC)
    world.lives(job_id, mortal_gateway=True)
    found = world.story(run_id)
    # The device sends again what it got no answer to: what a dead gateway had committed is noted, and counted once.
    assert {duplicates for *_, (_, _, duplicates) in found["updates"]} == {1}
    found["updates"] = [(*rest, (verdict, digest, 0)) for *rest, (verdict, digest, _) in found["updates"]]
    assert found == expected


@on_sqlite
def test_without_a_state_that_is_kept_a_run_ends_elsewhere(world: World) -> None:
    _, expected = world.undisturbed()
    ends = {expected["run"][2]}
    for lost in ("strategy", "residual"):
        run_id, job_id = create_run(world.db, **SPEC)
        world.dies(job_id, Death("after", COMMIT, nth=2))
        if lost == "strategy":
            with world.db.transaction() as session:
                session.execute(update(Run).where(Run.id == run_id).values(strategy_state_digest=None))
        else:
            world.forget_residuals()
        world.lives(job_id, life=1)
        ends.add(world.story(run_id)["run"][2])
    assert len(ends) == 3


@on_sqlite
def test_paused_after_each_step_and_resumed(world: World) -> None:
    sites, expected = world.undisturbed()
    for site in dict.fromkeys(site for site in sites if site.startswith("fogline_server.training.")):
        run_id, job_id = create_run(world.db, **SPEC)
        world.dies(job_id, Death("after", site))
        pause(world.db, run_id)
        world.lives(job_id, life=1)
        check_rests(world.db, run_id)
        world.lives(resume(world.db, run_id), life=2)
        assert without_pause(world.story(run_id)) == without_pause(expected), site


@on_sqlite
def test_killed_at_each_commit_of_pausing(world: World) -> None:
    _, expected = world.undisturbed()
    # Round 1 is committed, round 2 is not open.
    first = Death("after", COMMIT, nth=2)

    def paused() -> tuple[str, str]:
        run_id, job_id = create_run(world.db, **SPEC)
        world.dies(job_id, first)
        pause(world.db, run_id)
        return run_id, job_id

    pausing = world.lives(paused()[1], life=1).sites
    assert pausing[-1] == "fogline_server.jobs.engine.Engine._succeed"
    assert len(set(pausing)) == len(pausing)
    for site in pausing:
        run_id, job_id = paused()
        world.dies(job_id, Death("before", site), life=1)
        world.dies(job_id, Death("after", site), life=2)
        world.lives(job_id, life=3)
        check_rests(world.db, run_id)
        world.lives(resume(world.db, run_id), life=4)
        assert without_pause(world.story(run_id)) == without_pause(expected), site


@on_sqlite
def test_extended_early_or_late_it_ends_with_the_same_bytes(world: World) -> None:
    _, expected = world.undisturbed()
    run_id, job_id = create_run(world.db, **SPEC)
    extend(world.db, run_id)
    world.lives(job_id)
    early = world.story(run_id)
    assert early["run"][:2] == ("SUCCEEDED", ROUNDS + 1)
    assert [row[4] for row in early["rounds"][:-1]] == [row[4] for row in expected["rounds"]]
    run_id, job_id = create_run(world.db, **SPEC)
    world.lives(job_id)
    world.lives(extend(world.db, run_id), life=1)
    late = world.story(run_id)
    assert (late["run"], late["rounds"], late["updates"]) == (early["run"], early["rounds"], early["updates"])


def pause(db: Database, run_id: str) -> None:
    with db.transaction() as session:
        lifecycle.pause_run(session, run_id, now=utc_now())


def resume(db: Database, run_id: str) -> str:
    """The job that goes on with it."""
    with db.transaction() as session:
        return lifecycle.resume_run(session, run_id, now=utc_now()).job_id


def extend(db: Database, run_id: str) -> str:
    """By a round; the job that trains it."""
    with db.transaction() as session:
        return lifecycle.extend_run(session, run_id, 1, now=utc_now()).job_id


def check_rests(db: Database, run_id: str) -> None:
    with db.read() as session:
        assert service.get_run(session, run_id).state == "PAUSED"
        assert {row.state for row in service.rounds_of(session, run_id)} <= {"COMMITTED"}


def without_pause(told: dict[str, Any]) -> dict[str, Any]:
    """A run that was paused before it began is told to go on, not to start."""
    quiet = {"run.started", "run.paused", "run.resumed"}
    return told | {"events": [event for event in told["events"] if event[0] not in quiet]}
