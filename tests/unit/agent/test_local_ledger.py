"""A device's own account of local privacy: charged before anything is sent, and never overspent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fogline_client import cli
from fogline_client import config as settings
from fogline_client.config import AgentConfig, StateDir
from fogline_client.training.host import host_of
from fogline_client.training.local_privacy import Budget, Ledger
from fogline_shared.errors import Conflict, Corrupt, Exhausted, InvalidInput
from fogline_shared.privacy.accountant import Releases, epsilon
from fogline_shared.privacy.local import Local

LOCAL = Local(clip=1.0, noise_multiplier=2.0)
SENT = {"w": np.zeros(10, np.float32)}
DELTA = 1e-5


def cost(rounds: int) -> float:
    return epsilon([Releases(noise_multiplier=2.0, rounds=rounds)], DELTA)


def update(number: int) -> dict[str, np.ndarray]:
    return {"w": np.random.default_rng(number).normal(size=10).astype(np.float32)}


def test_no_more_is_let_out_than_the_budget_allows_through_restarts(tmp_path: Path) -> None:
    path = tmp_path / "training" / "ledger.json"
    for number in range(3):
        Ledger(path, Budget(epsilon=cost(3), delta=DELTA)).release(LOCAL, update(number), SENT)
    assert path.stat().st_mode & 0o777 == 0o600
    ledger = Ledger(path, Budget(epsilon=cost(3), delta=DELTA))
    for refused in (
        lambda: ledger.check(LOCAL, what="training"),
        lambda: ledger.release(LOCAL, update(3), SENT),
    ):
        with pytest.raises(Conflict, match="local_budget_spent") as told:
            refused()
        assert f"has told {cost(3):.3f}; one more would be {cost(4):.3f}" in told.value.message
    # More noise costs less, a larger budget allows more, and what was spent stays spent.
    with pytest.raises(Conflict, match="local_budget_spent"):
        ledger.release(Local(clip=1.0, noise_multiplier=9.0), update(3), SENT)
    Ledger(path, Budget(epsilon=cost(4), delta=DELTA)).release(LOCAL, update(3), SENT)


def test_an_answer_that_was_lost_with_the_power_is_the_same_and_costs_nothing(tmp_path: Path) -> None:
    path, budget = tmp_path / "ledger.json", Budget(epsilon=cost(1), delta=DELTA)
    first = Ledger(path, budget).release(LOCAL, update(1), SENT)
    again = Ledger(path, budget).release(LOCAL, update(1), SENT)
    assert np.array_equal(first.arrays["w"], again.arrays["w"])
    with pytest.raises(Conflict, match="local_budget_spent"):
        Ledger(path, budget).release(LOCAL, update(2), SENT)


def test_what_cannot_be_written_down_is_not_let_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "ledger.json", Budget(epsilon=cost(1), delta=DELTA))

    def full(*_: object, **__: object) -> None:
        raise Exhausted("disk_full", "no space left")

    with monkeypatch.context() as patch:
        patch.setattr("fogline_client.durable.write", full)
        for _ in range(2):
            with pytest.raises(Exhausted, match="disk_full"):
                ledger.release(LOCAL, update(1), SENT)
    ledger.release(LOCAL, update(1), SENT)


def test_with_a_budget_nothing_is_answered_without_noise_and_without_one_everything(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="local_privacy_required"):
        Ledger(tmp_path / "a", Budget(epsilon=1.0)).check(None, what="query")
    Ledger(tmp_path / "b").check(None, what="query")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"rounds": {}}', '{"secret": "x"}', '{"secret": "00", "rounds": {"2.0": "x"}}']
)
def test_a_ledger_that_cannot_be_read_lets_nothing_out(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(content)
    with pytest.raises(Corrupt, match="bad_privacy_ledger"):
        Ledger(path)


def test_the_owner_s_budget_reaches_the_training_child(tmp_path: Path) -> None:
    state = StateDir(root=tmp_path)
    settings.save(AgentConfig(name="watch", recipe="tiny"), state.config)
    for said in (8.0, None):
        host = host_of(state, settings.load(state.config, overrides={"local_epsilon": said}))
        assert (host._start.local_epsilon, host._start.local_delta) == (said, 1e-5)
    ended = CliRunner().invoke(cli.app, ["run", "--state-dir", str(tmp_path), "--local-epsilon", "0"])
    assert (ended.exit_code, "local_epsilon must be a number from 0.001 to 1000" in ended.output) == (2, True)


def test_a_budget_has_its_range() -> None:
    for setting in ({"local_epsilon": 0}, {"local_epsilon": "8"}, {"local_delta": None}):
        with pytest.raises(InvalidInput, match="bad_option"):
            AgentConfig(name="watch", **setting)
