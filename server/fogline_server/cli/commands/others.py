"""``fogline schedule``, ``event`` and ``key``."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from fogline_server.cli import show
from fogline_server.cli.options import AsJson, Limit, api, group, json_argument

schedules = group("What starts by itself.")
events = group("What happened.")
keys = group("API keys, for admins.")

_EVENTS = (
    ("no.", "seq"),
    ("when", show.when("at")),
    ("event", "kind"),
    ("subject", "subject_id"),
    ("by", "actor"),
    ("facts", lambda e: ", ".join(f"{k}={v}" for k, v in e["data"].items()) or None),
)


@schedules.command("create")
def create_schedule(
    context: typer.Context,
    name: str,
    action: Annotated[str, typer.Argument(help="run, rollout or job")],
    *,
    spec: Annotated[str, typer.Option(help="What to start, as JSON or @file.")],
    cron: Annotated[str | None, typer.Option(help="'0 3 * * *', say.")] = None,
    at: Annotated[datetime | None, typer.Option(help="Once, then (UTC unless it has an offset).")] = None,
    time_zone: str = "UTC",
    misfire: Annotated[str, typer.Option(help="fire_once or skip")] = "fire_once",
    overlap: Annotated[str, typer.Option(help="skip or allow")] = "skip",
    as_json: AsJson = False,
) -> None:
    """Start a run, rollout or job by cron or at a time; prints the schedule's id."""
    body = {
        "name": name,
        "action": action,
        "spec": json_argument(spec, "--spec"),
        "cron": cron,
        "at": None if at is None else (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat(),
        "time_zone": time_zone,
        "misfire": misfire,
        "overlap": overlap,
    }
    show.identified(api(context).post("/v1/schedules", body), as_json=as_json)


@schedules.command("list")
def list_schedules(context: typer.Context, *, limit: Limit = 50, as_json: AsJson = False) -> None:
    """Schedules, newest first."""
    items = api(context).items("/v1/schedules", limit=limit)
    if as_json:
        return show.json_out(items)
    columns = (
        ("name", "name"),
        ("id", "id"),
        ("starts", "action"),
        ("when", lambda s: f"{s['cron']} {s['time_zone']}" if s["cron"] else s["at"]),
        ("enabled", "enabled"),
        ("next", show.when("next_at")),
        ("last", show.when("last_at")),
        ("result", "last_result"),
    )
    return show.table(items, columns, empty="no schedules")


@schedules.command("enable")
def enable(context: typer.Context, schedule: str) -> None:
    """Let a schedule fire."""
    api(context).patch(f"/v1/schedules/{schedule}", {"enabled": True})


@schedules.command("disable")
def disable(context: typer.Context, schedule: str) -> None:
    """Keep a schedule from firing."""
    api(context).patch(f"/v1/schedules/{schedule}", {"enabled": False})


@schedules.command("delete")
def delete_schedule(context: typer.Context, schedule: str) -> None:
    """Remove a schedule; what it started goes on."""
    api(context).delete(f"/v1/schedules/{schedule}")


@events.command("list")
def list_events(
    context: typer.Context,
    *,
    subject: Annotated[str | None, typer.Option(help="Id of what they are about.")] = None,
    kind: str | None = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Events, newest first."""
    items = api(context).items("/v1/events", limit=limit, subject_id=subject, kind=kind)
    if as_json:
        return show.json_out(items)
    return show.table(items, _EVENTS, empty="nothing has happened")


@events.command("follow")
def follow_events(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Events as they happen, one a line, until Ctrl-C."""
    for event in api(context).events():
        facts = " ".join(f"{k}={v}" for k, v in event["data"].items())
        line = f"{event['at']}  {event['kind']}  {event['subject_id']}  {event['actor']}  {facts}"
        sys.stdout.write((json.dumps(event) if as_json else line.rstrip()) + "\n")
        sys.stdout.flush()


@keys.command("create")
def create_key(
    context: typer.Context,
    name: str,
    *,
    role: Annotated[str, typer.Option(help="viewer, operator or admin")] = "viewer",
    as_json: AsJson = False,
) -> None:
    """Make a key; it is printed once."""
    item = api(context).post("/v1/api-keys", {"name": name, "role": role})
    if as_json:
        return show.json_out(item)
    sys.stdout.write(item["key"] + "\n")
    return None


@keys.command("list")
def list_keys(context: typer.Context, *, limit: Limit = 50, as_json: AsJson = False) -> None:
    """Keys, newest first."""
    items = api(context).items("/v1/api-keys", limit=limit)
    if as_json:
        return show.json_out(items)
    columns = (
        ("name", "name"),
        ("id", "id"),
        ("role", "role"),
        ("created", show.when("created_at")),
        ("revoked", show.when("revoked_at")),
    )
    return show.table(items, columns, empty="no keys")


@keys.command("revoke")
def revoke_key(context: typer.Context, key: str) -> None:
    """End a key at once."""
    api(context).post(f"/v1/api-keys/{key}:revoke")
