"""How errors leave the gateway, and how the teacher's budget refills."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import OperationalError

from fogline_server.gateway.infer import Budget
from fogline_server.gateway.status import STATUS, as_known
from fogline_shared.errors import ErrorKind, Exhausted


def test_every_kind_of_error_has_a_status_of_its_own():
    assert set(STATUS) == set(ErrorKind)
    assert len(set(STATUS.values())) == len(ErrorKind)


def test_what_was_not_foreseen_says_nothing_of_the_inside():
    known = as_known(RuntimeError("password=hunter2"))
    assert (known.kind, known.code) == (ErrorKind.INTERNAL, "internal_error")
    assert "hunter2" not in known.message


def test_a_database_that_is_away_asks_to_try_again():
    assert as_known(OperationalError("SELECT 1", {}, OSError())).kind == ErrorKind.UNAVAILABLE


def test_a_budget_refills_with_time_up_to_its_size():
    now = [0.0]
    budget = Budget(2, clock=lambda: now[0])
    budget.spend("dev_1")
    budget.spend("dev_1")
    with pytest.raises(Exhausted) as caught:
        budget.spend("dev_1")
    assert caught.value.detail["retry_after_s"] == pytest.approx(30)
    budget.spend("dev_2")
    now[0] = 31
    budget.spend("dev_1")
    now[0] = 10_000
    budget.spend("dev_1")
    budget.spend("dev_1")
    with pytest.raises(Exhausted):
        budget.spend("dev_1")
    with pytest.raises(Exhausted):
        Budget(0).spend("dev_1")
