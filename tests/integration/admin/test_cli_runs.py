"""``fogline run`` and ``fogline population``: what their options make of a run."""

from __future__ import annotations

import json

from fogline_server.cli.exits import Exit
from fogline_server.training.tables import Update


def test_the_spec_of_a_run_starts_the_same_again_and_options_go_before_it(fogline, tmp_path):
    words = ["--plan", "epochs=3", "--plan", "learning_rate=0.5", "--strategy", "fedadam", "--option", "eta=0.5"]
    first = fogline("run", "start", "tiny", *words, "--gate", "max_drop=5", "--min-devices", 3, "--json").json["id"]
    fogline("run", "extend", first, "--rounds", 2)
    told = fogline("run", "show", first, "--spec")
    file = tmp_path / "run.json"
    file.write_text(told.out)

    def started(*more: object) -> dict:
        said = fogline("run", "start", *more, "--json")
        assert said.code == 0, said.err
        return said.json["spec"]

    assert started("--spec", file) == told.json | {"extensions": []}
    assert started("--spec", told.out) == told.json | {"extensions": []}, "JSON as it stands"
    changed = started("tiny", "--spec", file, "--plan", "epochs=1", "--min-devices", 2, "--gate", "max_drop=null")
    assert changed["plan"] == {"epochs": 1, "learning_rate": 0.5}
    assert (changed["min_devices"], changed["gate"]["max_drop"], changed["strategy"]) == (2, None, "fedadam")
    assert changed["strategy_options"]["eta"] == 0.5
    assert started("--spec", file, "--strategy", "fedprox")["strategy_options"] == {"proximal_mu": 0.01}
    assert started("--spec", file, "--strategy", "fedadam")["strategy_options"]["eta"] == 0.5
    assert started("--spec", file, "--from-release", "champion")["init_from"] is not None


def test_a_spec_with_unknown_keys_is_refused_with_their_names(fogline):
    said = fogline("run", "start", "--spec", '{"recipe": "tiny", "round": 3, "gate": {"drop": 1}}')
    assert (said.code, said.out) == (Exit.INVALID, "")
    assert "round" in said.err
    assert "gate.drop" in said.err
    assert fogline("run", "start", "--spec", '{"rounds": 3}').err == (
        "error: invalid_option: name a RECIPE, or give a --spec that does\n"
    )
    assert "invalid_json" in fogline("run", "start", "--spec", "/nonexistent").err


def test_what_a_budget_of_privacy_asks_for_is_told_without_a_coordinator(fogline):
    asked = ("--rounds", 30, "--epsilon", 8, "--parameters", 14000)
    few, *_, many = fogline("privacy", "plan", "--devices", 8, *asked, "--json").json
    assert (few["devices"], many["devices"]) == (8, 8000)
    assert few["noise_to_update"] > 1 > many["noise_to_update"]
    told = fogline("privacy", "plan", "--devices", 8, *asked)
    assert (told.code, "8000" in told.out, "noise is shorter" in told.err) == (0, True, True)
    local = fogline("privacy", "plan", "--devices", 8, *asked, "--local", "--json").json
    assert [row["noise_to_update"] > 1 for row in local] == [True] * 4


def test_a_population_is_made_listed_and_shown_and_a_private_run_counts_against_it(fogline):
    ward = ("population", "create", "wards", "--recipe", "tiny", "--tag", "ward")
    made = fogline(*ward, "--epsilon", 8)
    assert (made.code, made.out, "population wards has ε 8 at δ 1e-05" in made.err) == (0, "", True)
    again, bad = (
        fogline(*ward, "--epsilon", 8),
        fogline("population", "create", "x", "--recipe", "tiny", "--epsilon", 0),
    )
    assert (again.code, "population_name_taken" in again.err) == (Exit.CONFLICT, True)
    assert (bad.code, "epsilon must be a number from 0.001 to 1000" in bad.err) == (Exit.INVALID, True)
    start = ("run", "start", "tiny", "--tag", "ward", "--privacy", "population=wards", "--json")
    noise = ("--privacy", "noise_multiplier=4", "--privacy", "clip=0.5", "--privacy", "clip_quantile=0.5")
    run = fogline(*start, *noise, "--rounds", 10)
    assert (run.code, run.json["spec"]["privacy"]["clip_quantile"]) == (0, 0.5)
    over = fogline(*start, *noise, "--rounds", 1000)
    assert (over.code, "privacy_budget_exceeded" in over.err) == (Exit.CONFLICT, True)
    longer = fogline("run", "extend", run.json["id"], "--rounds", 1000)
    assert (longer.code, "privacy_budget_exceeded" in longer.err) == (Exit.CONFLICT, True)
    (listed,) = fogline("population", "list", "--json").json
    shown = fogline("population", "show", "wards", "--json").json
    assert listed == shown
    assert (shown["spent"], 0 < shown["committed"] < 8) == (0, True)
    for table in (fogline("population", "list"), fogline("population", "show", "wards")):
        assert (table.code, "wards" in table.out, f"{shown['committed']:.3f}" in table.out) == (0, True, True)
    missing = fogline("population", "show", "none")
    assert (missing.code, "population_not_found" in missing.err) == (Exit.NOT_FOUND, True)
    open_to_all = fogline("run", "start", "tiny", "--local-privacy", "epsilon=8")
    assert (open_to_all.code, "population_protected" in open_to_all.err) == (Exit.CONFLICT, True)


def test_options_of_rounds_reach_the_run_and_what_is_out_of_range_is_told(fogline):
    given = {
        "pacing": {"target": 5, "over_selection": 0.3, "self_tuning": True, "steering": False, "retries": 2},
        "gate": {"max_drop": 2.5, "patience": 3},
        "local_privacy": {"epsilon": 8, "delta": 1e-6, "clip": 0.5},
    }
    options = [
        word
        for name, fields in given.items()
        for key, value in fields.items()
        for word in ("--" + name.replace("_", "-"), f"{key}={json.dumps(value)}")
    ]
    spec = fogline("run", "start", "tiny", *options, "--json").json["spec"]
    assert {name: spec[name] for name in given} == given
    for option, said in (
        ("--pacing=target=0", "pacing.target must be an integer from 1"),
        ("--pacing=haste=1", "pacing.haste"),
        ("--gate=max_drop=101", "gate.max_drop must be a number from 0 to 100"),
        ("--gate=max_drop", "invalid_option"),
        ("--privacy=clip_quantile=2", "privacy.clip_quantile must be a number from 0.01 to 0.99"),
        ("--local-privacy=epsilon=0", "local_privacy.epsilon must be a number from 0.01 to 100"),
        ("--local-privacy=noise=1", "local_privacy has no field 'noise'"),
    ):
        refused = fogline("run", "start", "tiny", option)
        assert (refused.code, refused.out, said in refused.err) == (Exit.INVALID, "", True), refused.err


def test_an_asynchronous_run_is_started_and_its_updates_say_how_stale_they_were(fogline, sqlite_plant):
    started = fogline(
        *("run", "start", "tiny", "--strategy", "fedbuff", "--option", "buffer_size=4", "--max-devices", 40, "--json")
    ).json["spec"]
    assert (started["strategy_options"]["buffer_size"], started["max_devices"]) == (4, 40)
    refused = fogline("run", "start", "tiny", "--strategy", "fedbuff", "--pacing", "retries=1")
    assert (refused.code, "invalid_run: fedbuff has no rounds" in refused.err) == (Exit.INVALID, True)
    run = sqlite_plant.ids.run
    assert "staleness" not in fogline("run", "updates", run).out, "a synchronous run has none"
    with sqlite_plant.db.transaction() as session:
        session.get_one(Update, f"{run}-1-train-1").step = 3
    assert "staleness" in fogline("run", "updates", run).out
    (shown,) = fogline("run", "updates", run, "--json").json
    assert (shown["round"], shown["step"], shown["staleness"]) == (1, 3, 2)
