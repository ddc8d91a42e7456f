"""``fogline simulate`` from the command line to its reports, over the tiny recipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from simulation import simulate as in_process

from fogline_server.cli import main
from fogline_server.cli.exits import Exit

Simulate = Callable[..., tuple[dict[str, Any], bytes]]


@pytest.fixture
def said(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run ``fogline simulate`` as its console script does."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fogline", "simulate", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main.run()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def simulate(said, tmp_path: Path) -> Simulate:
    """The facts, and the bytes of both reports."""

    def call(*words: object, processes: int = 1) -> tuple[dict[str, Any], bytes]:
        code, out, err = said("tiny", *words, "--processes", processes, "--reports", tmp_path, "--json")
        assert code == Exit.OK, err
        reports = [(tmp_path / name).read_bytes() for name in ("report.json", "report.html")]
        assert json.loads(out) == json.loads(reports[0])
        return json.loads(out), b"".join(reports)

    return call


def test_by_key_it_ends_with_the_bytes_of_a_run_in_the_field(simulate: Simulate) -> None:
    facts, _ = simulate("--devices", 4, "--rounds", 3, "--seed", 5, "--data", "seed=0..3")
    assert facts["params_digest"] == in_process(4, rounds=3, seed=5)


BUSY = (
    *("--devices", 1000, "--cohort", 12, "--rounds", 2, "--samples", 24, "--split", "dirichlet:0.5", "--dropout", 0.2),
    *("--attack", "gaussian:2", "--attackers", 0.2, "--availability", "diurnal:12", "--evaluate-every", 1),
    *("--quorum", 0.5, "--strategy", "fedtrimmedavg"),
)


def test_the_same_seed_gives_the_same_bytes_in_any_number_of_processes(simulate: Simulate) -> None:
    facts, alone = simulate(*BUSY, "--seed", 1)
    _, again = simulate(*BUSY, "--seed", 1)
    _, two = simulate(*BUSY, "--seed", 1, processes=2)
    assert again == alone
    assert two == alone
    other, _ = simulate(*BUSY, "--seed", 2)
    assert other["params_digest"] != facts["params_digest"]
    assert facts["committed"] == 2
    assert any(told["lost"] for told in facts["rounds"])


def test_a_fifth_of_attackers_undoes_the_mean_and_not_a_robust_rule(simulate: Simulate) -> None:
    def accuracy(strategy: str, *attack: object) -> float:
        facts, _ = simulate("--devices", 20, "--rounds", 6, "--strategy", strategy, *attack)
        return facts["unseen"]["accuracy"]

    attack = ("--attack", "sign_flip:4", "--attackers", 0.2)
    honest, mean, robust = accuracy("fedavg"), accuracy("fedavg", *attack), accuracy("fedmedian", *attack)
    assert mean < honest - 0.2
    assert robust > honest - 0.1


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        ("nan", "not_finite"),
        ("inf", "not_finite"),
        ("sign_flip:100", "implausible_norm"),
        ("gaussian:50", "implausible_norm"),
    ],
)
def test_admission_leaves_the_crude_attackers_out(simulate: Simulate, attack: str, code: str) -> None:
    facts, _ = simulate("--devices", 10, "--rounds", 1, "--attack", attack, "--attackers", 0.2)
    told = facts["rounds"][1]
    assert told["left_out"] == {code: 2}
    assert told["accepted"] == 8
    assert told["attackers"] == {"answered": 2, "accepted": 0}


def test_attackers_that_agree_turn_the_mean_around_and_not_fltrust(simulate: Simulate) -> None:
    """Two of five, each sending twice the honest mean backwards: FedAvg goes 0.6 - 0.8 times it."""
    attack = ("--devices", 10, "--rounds", 4, "--attack", "ipm:2", "--attackers", 0.4)
    facts = {strategy: simulate(*attack, "--strategy", strategy)[0] for strategy in ("fedavg", "fltrust")}
    assert facts["fedavg"]["unseen"]["accuracy"] < 0.4, "chance is a quarter"
    assert facts["fltrust"]["unseen"]["accuracy"] > 0.45
    for told in facts.values():
        assert told["rounds"][1]["attackers"] == {"answered": 4, "accepted": 4}
        assert told["backdoor_success"] is None


def test_a_backdoor_opens_in_the_mean_and_not_in_fltrust(simulate: Simulate) -> None:
    """Tiny's signals look like the target's with the mark on them, whoever trains: about 0.88 of them without a backdoor."""
    attack = ("--devices", 10, "--rounds", 6, "--attack", "model_replacement:4", "--attackers", 0.2)
    success = {s: simulate(*attack, "--strategy", s)[0]["backdoor_success"] for s in ("fedavg", "fltrust")}
    assert success["fedavg"] > 0.97
    assert success["fltrust"] < 0.9


def test_a_free_rider_and_a_label_flipper_are_admitted(simulate: Simulate) -> None:
    for attack in ("free_rider", "label_flip"):
        facts, _ = simulate("--devices", 10, "--rounds", 1, "--attack", attack, "--attackers", 0.2)
        assert facts["rounds"][1]["attackers"] == {"answered": 2, "accepted": 2}


def test_slow_devices_are_late_and_a_round_without_a_quorum_keeps_the_model(simulate: Simulate) -> None:
    late, _ = simulate("--devices", 30, "--rounds", 2, "--spread", 1.5, "--round-deadline-s", 1, "--quorum", 0.3)
    assert any(told["late"] for told in late["rounds"])
    assert late["wasted_share"] > 0
    # Round 0 goes over the data once, a round of training twenty times.
    none, _ = simulate(*("--devices", 10, "--rounds", 2, "--spread", 0, "--round-deadline-s", 1, "--plan", "epochs=20"))
    assert none["committed"] == 0
    assert {told["code"] for told in none["rounds"][1:]} == {"quorum_not_reached"}
    other, _ = simulate(
        *("--devices", 10, "--rounds", 1, "--spread", 0, "--round-deadline-s", 1, "--plan", "epochs=20")
    )
    assert none["params_digest"] == other["params_digest"]


def test_the_page_stands_alone_and_the_terminal_gets_a_summary(said, tmp_path: Path) -> None:
    code, out, err = said(
        "tiny", "--devices", 5, "--rounds", 2, "--processes", 1, "--reports", tmp_path / "new" / "folder"
    )
    assert code == Exit.OK, err
    page = (tmp_path / "new" / "folder" / "report.html").read_text()
    assert "<script" not in page
    assert "http" not in page
    assert 'polyline class="holdout"' in page
    assert "unseen accuracy" in out
    assert "round 2 of 2: 5 of 5 accepted, holdout" in err


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (("nope",), "unknown_recipe", Exit.INVALID),
        (("tiny", "--devices", 0), "invalid_simulation", Exit.INVALID),
        (("tiny", "--split", "random"), "invalid_simulation", Exit.INVALID),
        (("tiny", "--attack", "magic", "--attackers", 0.1), "invalid_simulation", Exit.INVALID),
        (("tiny", "--attackers", 0.1), "invalid_simulation", Exit.INVALID),
        (("tiny", "--availability", "trace:/none.csv"), "invalid_simulation", Exit.INVALID),
        (("tiny", "--data", "person=1..3"), "invalid_simulation", Exit.INVALID),
        (("tiny", "--data", "seed"), "invalid_option", Exit.INVALID),
        (("tiny", "--data", "seed=x,y"), "invalid_option", Exit.INVALID),
        (("tiny", "--processes", 0), "invalid_simulation", Exit.INVALID),
        (("tiny", "--strategy", "magic"), "unknown_strategy", Exit.INVALID),
        (("tiny", "--strategy", "fedprox", "--option", "mu=1"), "invalid_option", Exit.INVALID),
        (("tiny", "--size", "giant"), "unknown_size", Exit.INVALID),
        (("tiny", "--rounds", 0), "invalid_run", Exit.INVALID),
        (("tiny", "--plan", "epochs=many"), "invalid_run", Exit.INVALID),
        (("tiny", "--dropout", 1), "quorum_not_reached", Exit.CONFLICT),
    ],
)
def test_what_cannot_be_is_one_line_with_a_code(said, tmp_path: Path, words, code: str, exit_code: Exit) -> None:
    processes = () if "--processes" in words else ("--processes", 1)
    ended, out, err = said(*words, *processes, "--reports", tmp_path)
    assert ended == exit_code
    assert err.splitlines()[-1].startswith(f"error: {code}: ")
    assert not out
    assert not list(tmp_path.iterdir())


def test_a_recipe_that_does_not_tell_its_fleet_needs_data(said, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tiny_recipe.Tiny.fleet", lambda _: ())
    code, _, err = said("tiny", "--reports", tmp_path)
    assert code == Exit.INVALID
    assert "--data seed=…" in err


def test_a_file_where_the_reports_should_go_is_told(said, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = said("tiny", "--reports", tmp_path / "file", "--processes", 1)
    assert code == Exit.OTHER
    assert "error: cannot_write: File exists" in err
