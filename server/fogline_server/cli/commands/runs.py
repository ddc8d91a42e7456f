"""``fogline run``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from click.core import ParameterSource

from fogline_server.cli import follow, run_spec, show
from fogline_server.cli.api import Api
from fogline_server.cli.options import (
    DEVICES,
    ROUNDS,
    TRAINING,
    UPDATES,
    AsJson,
    EnsembleOptions,
    GateOptions,
    Limit,
    LocalPrivacyOptions,
    PacingOptions,
    Plan,
    PrivacyOptions,
    Quorum,
    Rounds,
    Size,
    SizeOf,
    Strategy,
    StrategyOptions,
    Texts,
    Wait,
    api,
    group,
    pairs,
    texts,
)
from fogline_server.training.ensemble.report import comparison

app = group("Federated training.")

_COLUMNS = (
    ("id", "id"),
    ("recipe", "recipe"),
    ("size", "size"),
    ("state", "state"),
    ("rounds", lambda r: f"{r['rounds_done']}/{r['rounds_total']}"),
    ("created", show.when("created_at")),
    ("error", lambda r: (r["error"] or {}).get("message")),
)


@app.command("start")
def start(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Argument(help="Default: that of --spec.")] = None,
    *,
    spec: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A run as JSON, as `run show --spec` prints it; options go before it."),
    ] = None,
    size: Size = "student",
    rounds: Rounds = None,
    strategy: Strategy = "fedavg",
    option: StrategyOptions = None,
    plan: Plan = None,
    privacy: PrivacyOptions = None,
    local_privacy: LocalPrivacyOptions = None,
    tag: Annotated[
        Texts, typer.Option(help="Only those that have it; may be repeated.", rich_help_panel=DEVICES)
    ] = None,
    exclude_tag: Annotated[
        Texts, typer.Option(help="None that has it; may be repeated.", rich_help_panel=DEVICES)
    ] = None,
    condition: Annotated[
        Texts,
        typer.Option(help="min_battery_percent=30, charging=true …; may be repeated.", rich_help_panel=DEVICES),
    ] = None,
    min_devices: Annotated[
        int, typer.Option(help="A round starts when so many are there.", rich_help_panel=DEVICES)
    ] = 2,
    max_devices: Annotated[
        int | None,
        typer.Option(
            help="A round asks at most so many; with fedbuff, so many work at a time.", rich_help_panel=DEVICES
        ),
    ] = None,
    quorum: Quorum = 0.8,
    round_deadline_s: Annotated[
        float, typer.Option(help="A round without a quorum waits on, up to four times as long.", rich_help_panel=ROUNDS)
    ] = 300.0,
    seed: Annotated[
        int, typer.Option(help="The same seed and replies give the same model.", rich_help_panel=TRAINING)
    ] = 0,
    distil_from: Annotated[
        str | None, typer.Option(help="Run whose model the devices learn from.", rich_help_panel=TRAINING)
    ] = None,
    from_release: Annotated[
        str | None,
        typer.Option(
            help="Release (id, name or alias) whose float parameters it starts from.", rich_help_panel=TRAINING
        ),
    ] = None,
    codec: Annotated[
        str,
        typer.Option(help="How devices encode their updates: eden, fp16, int8, topk.", rich_help_panel=UPDATES),
    ] = "none",
    codec_option: Annotated[
        Texts, typer.Option(help="Of the codec: key=value, may be repeated.", rich_help_panel=UPDATES)
    ] = None,
    size_of: SizeOf = None,
    ensemble: EnsembleOptions = None,
    pacing: PacingOptions = None,
    gate: GateOptions = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Train RECIPE on the devices that have it; prints the run's id."""
    options: dict[str, Any] = {
        "recipe": recipe,
        "size": size,
        "rounds": rounds,
        "strategy": strategy,
        "strategy_options": pairs(option, "--option"),
        "plan": pairs(plan, "--plan"),
        "privacy": pairs(privacy, "--privacy"),
        "local_privacy": pairs(local_privacy, "--local-privacy"),
        "tags": tag or [],
        "exclude_tags": exclude_tag or [],
        "eligibility": pairs(condition, "--condition"),
        "min_devices": min_devices,
        "max_devices": max_devices,
        "quorum": quorum,
        "round_deadline_s": round_deadline_s,
        "seed": seed,
        "distil_from": distil_from,
        "init_from_release": from_release,
        "codec": codec,
        "codec_options": pairs(codec_option, "--codec-option"),
        "pacing": pairs(pacing, "--pacing"),
        "gate": pairs(gate, "--gate"),
        "ensemble": {**pairs(ensemble, "--ensemble"), "sizes": texts(size_of, "--size-of")},
    }
    unset = {name for name in options if context.get_parameter_source(name) is ParameterSource.DEFAULT}
    body = run_spec.body(run_spec.read(spec), options, unset=unset)
    connection = api(context)
    run = connection.post("/v1/runs", body)
    _finish(connection, run, wait=wait, as_json=as_json)


@app.command("wait")
def wait_for(context: typer.Context, run: str, *, as_json: AsJson = False) -> None:
    """Show progress until a run has ended; exit 7 if it fails."""
    connection = api(context)
    _finish(connection, connection.get(f"/v1/runs/{run}"), wait=True, as_json=as_json)


def _finish(connection: Api, run: dict[str, Any], *, wait: bool, as_json: bool) -> None:
    if wait:
        path = f"/v1/runs/{run['id']}"
        run = follow.wait(connection, path, follow.run, title=f"run {run['recipe']} {run['size']}")
    show.identified(run, as_json=as_json)


@app.command("list")
def list_runs(
    context: typer.Context,
    *,
    recipe: str | None = None,
    state: str | None = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Runs, newest first."""
    items = api(context).items("/v1/runs", limit=limit, recipe=recipe, state=state)
    if as_json:
        return show.json_out(items)
    return show.table(items, _COLUMNS, empty="no runs; `fogline run start RECIPE` starts one")


@app.command("show")
def show_run(
    context: typer.Context,
    run: str,
    *,
    spec: Annotated[
        bool, typer.Option("--spec", help="Print what starts another such run: `run start --spec`.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """One run and its rounds."""
    connection = api(context)
    item = connection.get(f"/v1/runs/{run}")
    if spec:
        return show.json_out(run_spec.reusable(item))
    rounds = connection.get(f"/v1/runs/{run}/rounds")["items"]
    if item["spec"].get("ensemble", {}).get("sizes"):
        item["distillation"] = comparison(next((r["metrics"] for r in reversed(rounds) if r["params_out"]), {}))
    if as_json:
        return show.json_out({**item, "rounds": rounds})
    show.record(
        item,
        (
            *_COLUMNS,
            ("distillation", lambda r: r.get("distillation", {}).get("sentence")),
            ("job", "job_id"),
            ("parameters", "params_digest"),
            ("spec", "spec"),
        ),
    )
    measured = sorted({name for each in rounds for name, value in each["metrics"].items() if isinstance(value, float)})
    columns: list[show.Column] = [("round", "number"), ("state", "state"), ("devices", lambda r: len(r["cohort"]))]
    columns += [(name, _metric(name)) for name in ("accepted", "refused", "error", "late")]
    columns += [(heading, _bytes(name)) for heading, name in (("sent", "bytes_sent"), ("plain", "bytes_plain"))]
    columns += [(name, _metric(name)) for name in measured]
    columns.append(("why", _why))
    return show.table(rounds, columns, empty="no rounds yet")


def _why(each: dict[str, Any]) -> str:
    """Why a round's result is not used, and what its earlier cohorts failed of."""
    failed = [f"attempt {i} of {len(a['cohort'])} devices: {a['code']}" for i, a in enumerate(each["attempts"], 1)]
    return "; ".join([*failed, *([each["error"]["message"]] if each["error"] else [])])


def _metric(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda each: each["metrics"].get(name)


def _bytes(name: str) -> Callable[[dict[str, Any]], object]:
    """A metric in bytes; none in round 0, which sends no parameters."""
    return lambda each: show.size(name)(each["metrics"]) if name in each["metrics"] else None


@app.command("updates")
def list_updates(
    context: typer.Context,
    run: str,
    *,
    number: Annotated[int | None, typer.Option("--round", min=0, help="Only this round.")] = None,
    limit: Limit = 200,
    as_json: AsJson = False,
) -> None:
    """What each device sent, and what became of it."""
    items = api(context).items(f"/v1/runs/{run}/updates", limit=limit, round=number)
    if as_json:
        return show.json_out(items)
    columns = (
        ("round", "round"),
        ("kind", "kind"),
        ("device", "device_id"),
        ("verdict", "verdict"),
        *((name, name) for name in ("step", "staleness") if any(item[name] is not None for item in items)),
        ("size", show.size("size")),
        ("code", "code"),
        ("reason", "reason"),
    )
    return show.table(items, columns, empty="no updates yet")


@app.command("pause")
def pause(context: typer.Context, run: str) -> None:
    """Open no further round; the one that is open is finished."""
    _act(context, run, "pause")


@app.command("resume")
def resume(context: typer.Context, run: str) -> None:
    """Go on with a paused run."""
    _act(context, run, "resume")


@app.command("extend")
def extend(
    context: typer.Context,
    run: str,
    *,
    rounds: Annotated[int, typer.Option(help="How many to add.")],
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Add rounds, also to a run that has SUCCEEDED, which then goes on."""
    connection = api(context)
    _finish(connection, connection.post(f"/v1/runs/{run}:extend", {"rounds": rounds}), wait=wait, as_json=as_json)


@app.command("cancel")
def cancel(context: typer.Context, run: str) -> None:
    """Ask for the end of a run."""
    _act(context, run, "cancel")


def _act(context: typer.Context, run: str, action: str) -> None:
    item = api(context).post(f"/v1/runs/{run}:{action}")
    show.note(f"{item['id']} is {item['state']}")
