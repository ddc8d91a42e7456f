"""``fogline simulate``: a run over virtual devices on this machine, without a coordinator."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fogline_server.cli import show
from fogline_server.cli.options import (
    AsJson,
    EnsembleOptions,
    GateOptions,
    LocalPrivacyOptions,
    PacingOptions,
    Plan,
    PrivacyOptions,
    Quorum,
    Rounds,
    Size,
    SizeOf,
    StrategyOptions,
    pairs,
    texts,
)
from fogline_shared.errors import InvalidInput

if TYPE_CHECKING:
    from fogline_server.simulation.engine import OnProgress
    from fogline_server.simulation.spec import SimulationSpec
    from fogline_shared.recipe import Recipe

_MOST_PROCESSES = 256


def simulate(
    recipe: str,
    *,
    devices: Annotated[int, typer.Option(help="Virtual devices in the fleet.")] = 100,
    cohort: Annotated[int | None, typer.Option(help="Devices asked a round; default: 50, or all of fewer.")] = None,
    size: Size = "student",
    rounds: Rounds = None,
    strategy: str = "fedavg",
    option: StrategyOptions = None,
    plan: Plan = None,
    privacy: PrivacyOptions = None,
    local_privacy: LocalPrivacyOptions = None,
    delta: Annotated[float, typer.Option(help="At which the report tells ε of --privacy.")] = 1e-5,
    split: Annotated[str, typer.Option(help="Who holds which data: key, dirichlet:ALPHA or shards:NUMBER.")] = "key",
    samples: Annotated[int | None, typer.Option(help="Examples a device; default: as in the recipe's fleet.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Device options that make up the data: name=1..10 or name=a,b; may be repeated. "
            "Default: the recipe's fleet."
        ),
    ] = None,
    attack: Annotated[
        str | None,
        typer.Option(
            help="sign_flip, gaussian, alie, ipm or model_replacement, each with or without :TIMES; backdoor, label_flip, "
            "nan, inf or free_rider."
        ),
    ] = None,
    attackers: Annotated[float, typer.Option(help="Share of the fleet that attacks, 0 to 1.")] = 0.0,
    dropout: Annotated[float, typer.Option(help="Chance that an asked device never answers, 0 to 1.")] = 0.0,
    availability: Annotated[str, typer.Option(help="always, diurnal:HOURS a day, or trace:FILE.csv.")] = "always",
    speed: Annotated[float, typer.Option(help="Examples a second on the median device.")] = 200.0,
    spread: Annotated[float, typer.Option(help="Standard deviation of the speeds' logarithm.")] = 0.5,
    device_class: Annotated[
        list[str] | None,
        typer.Option("--class", help="CLASS=SHARE of the fleet, 0 to 1; may be repeated. The rest is generic."),
    ] = None,
    size_of: SizeOf = None,
    ensemble: EnsembleOptions = None,
    min_devices: Annotated[
        int | None, typer.Option(help="A round starts when so many are there; default: 2, or 1 where one is asked.")
    ] = None,
    quorum: Quorum = 0.8,
    round_deadline_s: Annotated[float, typer.Option(help="Virtual seconds.")] = 300.0,
    max_norm_ratio: Annotated[float, typer.Option(help="Refuse updates so many times as long as the median.")] = 5.0,
    pacing: PacingOptions = None,
    gate: GateOptions = None,
    evaluate_every: Annotated[int, typer.Option(help="Have the devices evaluate each n-th round; 0: never.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same report.")] = 0,
    processes: Annotated[int | None, typer.Option(help="Default: one a core. They do not change the result.")] = None,
    reports: Annotated[Path, typer.Option(help="Where report.json and report.html go.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Train RECIPE on virtual devices in virtual time, with a live run's strategies and admission; writes a report."""
    from fogline_server.simulation.spec import SimulationSpec, keys_of
    from fogline_server.training.ensemble.spec import Ensemble
    from fogline_server.training.gate import Gate
    from fogline_server.training.pacing import Pacing
    from fogline_server.training.privacy.local import LocalPrivacy
    from fogline_server.training.privacy.spec import Privacy
    from fogline_server.training.spec import RunSpec
    from fogline_shared.recipe import load_recipe

    chosen = load_recipe(recipe)
    # There are no populations here: the virtual fleet is the one.
    own = {"population": "simulated"} if privacy else {}
    spec = SimulationSpec(
        run=RunSpec(
            recipe=recipe,
            size=size,
            rounds=rounds,
            strategy=strategy,
            strategy_options=pairs(option, "--option"),
            plan=pairs(plan, "--plan"),
            seed=seed,
            privacy=Privacy.from_json({**own, **pairs(privacy, "--privacy")}),
            local_privacy=LocalPrivacy.from_json(pairs(local_privacy, "--local-privacy")),
            min_devices=min(2, max(1, cohort or devices)) if min_devices is None else min_devices,
            quorum=quorum,
            round_deadline_s=round_deadline_s,
            max_norm_ratio=max_norm_ratio,
            evaluate_every=evaluate_every,
            pacing=Pacing.from_json(pairs(pacing, "--pacing")),
            gate=Gate.from_json(pairs(gate, "--gate")),
            ensemble=Ensemble.from_json({**pairs(ensemble, "--ensemble"), "sizes": texts(size_of, "--size-of")}),
        ).resolved(chosen),
        keys=keys_of(chosen, texts(data, "--data")),
        devices=devices,
        cohort=cohort,
        split=split,
        samples=samples,
        attack=attack,
        attackers=attackers,
        dropout=dropout,
        availability=availability,
        speed=speed,
        spread=spread,
        classes=pairs(device_class, "--class"),
        delta=delta,
    )
    return _run(chosen, spec, _processes(processes, spec), reports, as_json=as_json)


def _run(recipe: Recipe, spec: SimulationSpec, processes: int, reports: Path, *, as_json: bool) -> None:
    """Simulate with a bar, write both reports, print the summary."""
    from fogline_server.simulation import report
    from fogline_server.simulation.engine import simulate as run_simulation

    reports.mkdir(parents=True, exist_ok=True)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    with _progress(recipe, spec) as seen:
        facts = run_simulation(recipe, spec, processes=processes, on_progress=seen)
    text = json.dumps(facts, indent=2, allow_nan=False) + "\n"
    (reports / "report.json").write_text(text)
    (reports / "report.html").write_text(report.html(facts))
    show.note(f"report.json and report.html are in {reports.resolve()}")
    if as_json:
        return show.json_out(facts)
    summary = report.summary(facts)
    return show.record(summary, [(name, name) for name in summary])


def _processes(wanted: int | None, spec: SimulationSpec) -> int:
    """At most one a device that is asked."""
    if wanted is not None and not 1 <= wanted <= _MOST_PROCESSES:
        message = f"processes must be an integer from 1 to {_MOST_PROCESSES}, got {wanted}"
        raise InvalidInput("invalid_simulation", message, field="processes")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(wanted or cores, spec.asked)


@contextmanager
def _progress(recipe: Recipe, spec: SimulationSpec) -> Iterator[OnProgress]:
    """A bar over all answers on a terminal; one line a round elsewhere."""
    err = Console(stderr=True)
    columns = (
        TextColumn(f"{recipe.name} on {spec.devices} devices"),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    total = spec.run.total_rounds
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=total * spec.asked, note="statistics")

        def seen(number: int, facts: dict[str, Any] | None) -> None:
            if facts is None:
                if number:
                    bar.advance(task)
                return
            note = _told(number, total, facts)
            # Devices that were asked and are not waited for any more count as done.
            bar.update(task, completed=number * spec.asked, note=note)
            if not err.is_terminal:
                show.note(note)

        yield seen


def _told(number: int, total: int, facts: dict[str, Any]) -> str:
    if not number:
        return f"statistics of {facts['asked']} devices"
    result = f"{facts['accepted']} of {facts['asked']} accepted" if "code" not in facts else f"{facts['code']}"
    accuracy = f", holdout {facts['holdout']['accuracy']:.1%}" if "holdout" in facts else ""
    return f"round {number} of {total}: {result}{accuracy}"
