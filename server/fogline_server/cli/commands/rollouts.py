"""``fogline rollout``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from fogline_server.cli import follow, show
from fogline_server.cli.api import Api, CliError
from fogline_server.cli.exits import Exit
from fogline_server.cli.options import AsJson, Limit, Tags, Wait, api, group, json_argument

app = group("Moving devices to a release, in stages.")

_COLUMNS = (
    ("id", "id"),
    ("release", "release_id"),
    ("variant", "variant"),
    ("state", "state"),
    ("stage", lambda r: f"{min(r['current_stage'] + 1, len(r['plan']['stages']))}/{len(r['plan']['stages'])}"),
    ("created", show.when("created_at")),
    ("reason", "reason"),
)
_SENT = ("over the wire", show.size("wire_bytes"))
_STAGES = (
    ("stage", lambda s: s["number"] + 1),
    ("percent", "percent"),
    ("state", "state"),
    ("gates", lambda s: "; ".join(f"{e['gate']} {e['verdict']} ({e['reason']})" for e in s["evidence"]) or None),
)
Reason = Annotated[str, typer.Option(help="Kept in the event log.")]


@app.command("create")
def create(
    context: typer.Context,
    release: str,
    *,
    stages: Annotated[str | None, typer.Option(help="Percents, ascending to 100: 10,50,100.")] = None,
    gates: Annotated[str | None, typer.Option(help='JSON list: [{"gate": "accuracy", "options": {…}}].')] = None,
    plan: Annotated[str | None, typer.Option(help="Other parts of the plan as JSON, or @file.")] = None,
    tag: Tags = None,
    start: Annotated[bool, typer.Option("--start", help="Begin now.")] = False,
    at: Annotated[datetime | None, typer.Option(help="Begin then (UTC unless it has an offset).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Plan a rollout of RELEASE (id, name or alias); prints its id."""
    wanted = json_argument(plan, "--plan")
    if stages is not None:
        wanted["stages"] = _percents(stages)
    if gates is not None:
        wanted["gates"] = json_argument(f'{{"gates": {gates}}}', "--gates")["gates"]
    if tag:
        wanted["tags"] = tag
    start_at = None if at is None else (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()
    body = {"release": release, "plan": wanted, "start": start, "start_at": start_at}
    connection = api(context)
    if dry_run:
        return _preview(connection.post("/v1/rollouts", body, validate_only=True), as_json=as_json)
    return _finish(connection, connection.post("/v1/rollouts", body), wait=wait, as_json=as_json)


def _percents(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise CliError(Exit.INVALID, "invalid_option", f"--stages {text!r}: percents like 10,50,100") from error


def _preview(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        return show.json_out(answer)
    fields = ("variant", "artifact_digest", "devices", "online", "stages", "previous_release_id", "in_the_way")
    return show.record(answer, ((name.replace("_", " "), name) for name in fields))


def _finish(connection: Api, rollout: dict[str, Any], *, wait: bool, as_json: bool) -> None:
    if wait:
        path = f"/v1/rollouts/{rollout['id']}"
        rollout = follow.wait(connection, path, follow.rollout, title=f"rollout {rollout['variant']}")
    show.identified(rollout, as_json=as_json)


@app.command("wait")
def wait_for(context: typer.Context, rollout: str, *, as_json: AsJson = False) -> None:
    """Show progress until a rollout has ended; exit 7 unless it succeeded."""
    connection = api(context)
    _finish(connection, connection.get(f"/v1/rollouts/{rollout}"), wait=True, as_json=as_json)


@app.command("list")
def list_rollouts(
    context: typer.Context, *, state: str | None = None, limit: Limit = 50, as_json: AsJson = False
) -> None:
    """Rollouts, newest first."""
    items = api(context).items("/v1/rollouts", limit=limit, state=state)
    if as_json:
        return show.json_out(items)
    return show.table(items, _COLUMNS, empty="no rollouts; `fogline rollout create RELEASE` plans one")


@app.command("show")
def show_rollout(context: typer.Context, rollout: str, *, as_json: AsJson = False) -> None:
    """One rollout, its stages and what their gates saw."""
    connection = api(context)
    item = connection.get(f"/v1/rollouts/{rollout}")
    stages = connection.get(f"/v1/rollouts/{rollout}/stages")["items"]
    if as_json:
        return show.json_out({**item, "stages": stages})
    show.record(item, (*_COLUMNS, ("starts", "start_at"), ("previous release", "previous_release_id"), _SENT))
    return show.table(stages, _STAGES, empty="no stages")


@app.command("assignments")
def list_assignments(
    context: typer.Context, rollout: str, *, state: str | None = None, limit: Limit = 200, as_json: AsJson = False
) -> None:
    """The devices' parts in a rollout."""
    items = api(context).items(f"/v1/rollouts/{rollout}/assignments", limit=limit, state=state)
    if as_json:
        return show.json_out(items)
    columns = (
        ("device", "device_id"),
        ("stage", lambda a: a["stage"] + 1),
        ("state", "state"),
        ("attempt", "attempt"),
        _SENT,
        ("changed", show.when("updated_at")),
        ("message", lambda a: f"{a['code']}: {a['message']}" if a["code"] else None),
    )
    return show.table(items, columns, empty="no device has been admitted yet")


@app.command("start")
def start_now(context: typer.Context, rollout: str) -> None:
    """Start a draft, or a scheduled rollout before its time."""
    _act(context, rollout, "start")


@app.command("pause")
def pause(context: typer.Context, rollout: str, *, reason: Reason = "") -> None:
    """Stop going forward; failing gates still roll back."""
    _act(context, rollout, "pause", {"reason": reason})


@app.command("resume")
def resume(context: typer.Context, rollout: str) -> None:
    """Go on."""
    _act(context, rollout, "resume")


@app.command("rollback")
def roll_back(context: typer.Context, rollout: str, *, reason: Reason = "") -> None:
    """Return every device to what it ran before, also after success."""
    _act(context, rollout, "rollback", {"reason": reason})


@app.command("cancel")
def cancel(context: typer.Context, rollout: str) -> None:
    """Drop a rollout that has not begun."""
    _act(context, rollout, "cancel")


def _act(context: typer.Context, rollout: str, action: str, body: dict[str, Any] | None = None) -> None:
    item = api(context).post(f"/v1/rollouts/{rollout}:{action}", body)
    show.note(f"{item['id']} is {item['state']}")
