"""A population's budget as a scheduled resource: reserved when a run is submitted, spent by its rounds, released at its end.

What was spent are whole numbers of rounds, so it adds up exactly; ε is computed from them. The caller owns the transaction: a
round's cost is written with the round itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.db.events import SYSTEM
from fogline_server.training.privacy.spec import Privacy
from fogline_server.training.tables import Population, PrivacyAccount
from fogline_shared.checks import number
from fogline_shared.errors import Conflict, InvalidInput, NotFound
from fogline_shared.privacy.accountant import DELTA, EPSILON, Releases, epsilon


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A population and where its budget stands: ``spent`` by rounds, ``committed`` with what open runs have reserved."""

    name: str
    recipe: str
    tags: Sequence[str]
    epsilon: float
    delta: float
    spent: float
    committed: float
    created_at: datetime


def create(
    session: Session,
    *,
    name: str,
    recipe: str,
    tags: Sequence[str],
    epsilon: float,
    delta: float,
    now: datetime,
    actor: str = SYSTEM,
) -> Standing:
    """Add a population: the devices that have the recipe and all of the tags.

    Raises InvalidInput ``invalid_privacy``, Conflict ``population_name_taken``.
    """
    for field, value, (low, high) in (("epsilon", epsilon, EPSILON), ("delta", delta, DELTA)):
        number(field, value, low=low, high=high, code="invalid_privacy")
    if session.get(Population, name) is not None:
        raise Conflict("population_name_taken", f"there is a population {name}")
    row = Population(name=name, recipe=recipe, tags=list(tags), epsilon=epsilon, delta=delta, created_at=now)
    session.add(row)
    session.flush()
    events.record(session, "population.created", "population", name, actor=actor, epsilon=epsilon, delta=delta)
    return _standing(session, row)


def get(session: Session, name: str) -> Standing:
    """Raises NotFound ``population_not_found``."""
    row = session.get(Population, name)
    if row is None:
        raise _unknown(name)
    return _standing(session, row)


def list_all(session: Session, *, after: str | None = None, limit: int = 50) -> list[Standing]:
    """By name; ``after`` is the last one seen."""
    query = select(Population).order_by(Population.name).limit(limit)
    rows = session.scalars(query if after is None else query.where(Population.name > after))
    return [_standing(session, row) for row in rows.all()]


def check_devices(
    session: Session, privacy: Privacy, *, recipe: str, tags: Sequence[str], exclude_tags: Sequence[str]
) -> None:
    """No run reads a population's devices but at its cost.

    Raises InvalidInput ``not_the_population``: the run asks for devices outside of the population it names; Conflict
    ``population_protected``: it might ask some of another.
    """
    for row in session.scalars(select(Population).where(Population.recipe == recipe)):
        if row.name != privacy.population and not set(row.tags) & set(exclude_tags):
            raise Conflict("population_protected", _protected(row))
    if privacy.population is None:
        return
    row = _population(session, privacy.population)
    if row.recipe != recipe or not set(row.tags) <= set(tags):
        text = f"population {row.name} has the recipe {row.recipe} and the tags {row.tags}; the run must ask for them"
        raise InvalidInput("not_the_population", text)


def _protected(row: Population) -> str:
    """Why another run may not start, and how it may."""
    cost = f"train at its cost (privacy: population={row.name})"
    if not row.tags:
        everyone = f"population {row.name} has no tags, so it is all devices with the recipe {row.recipe}"
        return f"{everyone}: every run of the recipe must {cost}, since no tag keeps its devices out"
    tags = ", ".join(row.tags)
    return f"its devices may be of population {row.name}: {cost}, or exclude one of the population's tags: {tags}"


def reserve(session: Session, run_id: str, privacy: Privacy, rounds: int) -> None:
    """Set the cost of all rounds aside; raises Conflict ``privacy_budget_exceeded``, NotFound ``population_not_found``."""
    if privacy.population is None:
        return
    row = _population(session, privacy.population)
    account = PrivacyAccount(
        run_id=run_id,
        population=row.name,
        noise_multiplier=privacy.noise_multiplier,
        rounds_reserved=0,
        rounds_spent=0,
        open=True,
        secret=secrets.token_hex(32),
    )
    _add(session, row, account, rounds)
    session.add(account)


def extend(session: Session, run_id: str, rounds: int) -> None:
    """Set the cost of further rounds of a run aside; raises Conflict ``privacy_budget_exceeded``."""
    account = session.get(PrivacyAccount, run_id)
    if account is not None:
        _add(session, _population(session, account.population), account, rounds)


def spend(session: Session, run_id: str) -> None:
    """One round of the run is released, in this very transaction; nothing for a run without privacy."""
    account = session.get(PrivacyAccount, run_id, with_for_update=True, populate_existing=True)
    if account is not None:
        assert account.rounds_spent < account.rounds_reserved, "a run has no more rounds than were reserved"
        account.rounds_spent += 1


def close(session: Session, run_id: str) -> None:
    """The run has ended: what it did not spend is the population's again."""
    account = session.get(PrivacyAccount, run_id, with_for_update=True, populate_existing=True)
    if account is not None:
        account.open = False


def secret(session: Session, run_id: str) -> bytes:
    """What a private run's noise is drawn from. Nobody is shown it."""
    return bytes.fromhex(session.get_one(PrivacyAccount, run_id).secret)


def _add(session: Session, row: Population, account: PrivacyAccount, rounds: int) -> None:
    others = _releases(session, row, spent_only=False)
    cost = Releases(noise_multiplier=account.noise_multiplier, rounds=rounds)
    committed, then = epsilon(others, row.delta), epsilon([*others, cost], row.delta)
    if then > row.epsilon:
        text = (
            f"population {row.name} has ε {row.epsilon:g} at δ {row.delta:g}, {committed:.3f} of it spent or reserved; {rounds} "
            f"rounds cost {epsilon([cost], row.delta):.3f} by themselves and would bring it to {then:.3f}"
        )
        raise Conflict("privacy_budget_exceeded", text, budget=row.epsilon, committed=committed, would_be=then)
    account.rounds_reserved += rounds


def _population(session: Session, name: str) -> Population:
    # Locked: who reserves sees what others have reserved.
    row = session.get(Population, name, with_for_update=True, populate_existing=True)
    if row is None:
        raise _unknown(name)
    return row


def _unknown(name: str) -> NotFound:
    return NotFound("population_not_found", f"no population {name}")


def _releases(session: Session, row: Population, *, spent_only: bool) -> list[Releases]:
    accounts = session.scalars(select(PrivacyAccount).where(PrivacyAccount.population == row.name))
    return [
        Releases(
            noise_multiplier=each.noise_multiplier,
            rounds=each.rounds_reserved if each.open and not spent_only else each.rounds_spent,
        )
        for each in accounts
    ]


def _standing(session: Session, row: Population) -> Standing:
    return Standing(
        name=row.name,
        recipe=row.recipe,
        tags=row.tags,
        epsilon=row.epsilon,
        delta=row.delta,
        spent=epsilon(_releases(session, row, spent_only=True), row.delta),
        committed=epsilon(_releases(session, row, spent_only=False), row.delta),
        created_at=row.created_at,
    )
