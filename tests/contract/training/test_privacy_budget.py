"""A population's budget: refused before it is overspent, spent by rounds, released at a run's end."""

from __future__ import annotations

import pytest
from training_fleet import create_run

from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.training import lifecycle, service
from fogline_server.training.privacy import ledger
from fogline_server.training.privacy.spec import Privacy
from fogline_server.training.tables import Run
from fogline_shared.errors import Conflict, InvalidInput, NotFound
from fogline_shared.privacy.accountant import Releases, epsilon
from fogline_shared.states import RunState

NOISE, DELTA = 4.0, 1e-5


def cost(rounds: int) -> float:
    return epsilon([Releases(noise_multiplier=NOISE, rounds=rounds)], DELTA)


def private(database: Database, rounds: int, **more: object) -> str:
    privacy = Privacy(population="ward", noise_multiplier=NOISE)
    return create_run(database, **{"rounds": rounds, "tags": ["ward"], "privacy": privacy, **more})[0]


def standing(database: Database) -> ledger.Standing:
    with database.read() as session:
        return ledger.get(session, "ward")


@pytest.fixture
def ward(database: Database) -> Database:
    """A population that can pay ten rounds."""
    with database.transaction() as session:
        ledger.create(session, name="ward", recipe="tiny", tags=["ward"], epsilon=cost(10), delta=DELTA, now=utc_now())
    return database


def test_a_run_that_would_overspend_is_refused_before_it_starts_and_leaves_nothing(ward: Database) -> None:
    private(ward, 6)
    with pytest.raises(Conflict) as refused:
        private(ward, 5)
    assert refused.value.code == "privacy_budget_exceeded"
    assert refused.value.detail == {"budget": cost(10), "committed": cost(6), "would_be": cost(11)}
    assert f"5 rounds cost {cost(5):.3f}" in refused.value.message
    private(ward, 4)
    with ward.read() as session:
        assert session.query(Run).count() == 2


def test_what_a_canceled_run_did_not_spend_is_released(ward: Database) -> None:
    run_id = private(ward, 10)
    with ward.transaction() as session:
        for _ in range(3):
            ledger.spend(session, run_id)
    assert (standing(ward).spent, standing(ward).committed) == (cost(3), cost(10))
    with ward.transaction() as session:
        service.end_run(session, run_id, RunState.CANCELED, now=utc_now(), error=None)
    assert (standing(ward).spent, standing(ward).committed) == (cost(3), cost(3))
    private(ward, 7)


def test_an_extension_is_reserved_like_a_run(ward: Database) -> None:
    run_id = private(ward, 6)
    with ward.transaction() as session:
        lifecycle.extend_run(session, run_id, 4, now=utc_now())
    assert standing(ward).committed == cost(10)
    with pytest.raises(Conflict, match="privacy_budget_exceeded"), ward.transaction() as session:
        lifecycle.extend_run(session, run_id, 1, now=utc_now())


def test_no_run_reads_a_populations_devices_but_at_its_cost(ward: Database) -> None:
    for more in ({}, {"tags": ["ward"]}, {"tags": ["lab"]}):
        with pytest.raises(Conflict, match=r"population_protected.* exclude one of the population's tags: ward"):
            create_run(ward, **more)
    create_run(ward, exclude_tags=["ward"])
    with pytest.raises(InvalidInput, match="not_the_population"):
        private(ward, 1, tags=[])
    with pytest.raises(NotFound, match="population_not_found"):
        create_run(ward, exclude_tags=["ward"], privacy=Privacy(population="none"))


def test_a_population_without_tags_says_that_it_is_everybody_and_what_a_run_can_do(ward: Database) -> None:
    with ward.transaction() as session:
        ledger.create(session, name="all", recipe="tiny", tags=[], epsilon=1000.0, delta=DELTA, now=utc_now())
    with pytest.raises(Conflict) as refused:
        create_run(ward, exclude_tags=["ward"])
    assert refused.value.code == "population_protected"
    assert "population all has no tags, so it is all devices with the recipe tiny" in refused.value.message
    assert "exclude" not in refused.value.message, "there is nothing to exclude"
    assert "(privacy: population=all)" in refused.value.message
    create_run(ward, exclude_tags=["ward"], privacy=Privacy(population="all"), rounds=1, evaluate_every=0)


def test_a_name_is_taken_once_and_a_budget_has_its_range(ward: Database) -> None:
    given = {"name": "ward", "recipe": "tiny", "tags": [], "epsilon": 1.0, "delta": DELTA, "now": utc_now()}
    with ward.transaction() as session, pytest.raises(Conflict, match="population_name_taken"):
        ledger.create(session, **given)
    with ward.transaction() as session, pytest.raises(InvalidInput, match="epsilon must be a number"):
        ledger.create(session, **{**given, "name": "other", "epsilon": 0})
