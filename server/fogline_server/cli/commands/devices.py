"""``fogline device`` and ``fogline token``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fogline_server.cli import show
from fogline_server.cli.options import AsJson, Limit, Tags, api, group

devices = group("The fleet.")
tokens = group("Single-use rights to enrol.")

_COLUMNS = (
    ("name", "name"),
    ("id", "id"),
    ("state", "state"),
    ("online", lambda d: "online" if d["online"] else "offline"),
    ("class", "device_class"),
    ("tags", "tags"),
    ("runs", lambda d: d["active_digest"][:12] or None),
    ("seen", show.when("last_seen_at")),
)


def _drift(device: dict[str, Any]) -> str | None:
    """The features with the largest indices; the others are in the JSON."""
    if device["drift"] is None:
        return None
    largest = sorted(device["drift"]["psi"].items(), key=lambda pair: -pair[1])[:3]
    return f"{', '.join(f'{name} {psi:.2f}' for name, psi in largest)} over {device['drift']['inputs']} inputs"


@devices.command("list")
def list_devices(
    context: typer.Context,
    *,
    online: Annotated[bool | None, typer.Option("--online/--offline", help="Only these.")] = None,
    state: str | None = None,
    tag: str | None = None,
    limit: Limit = 200,
    as_json: AsJson = False,
) -> None:
    """Devices, newest first."""
    items = api(context).items("/v1/devices", limit=limit, online=online, state=state, tag=tag)
    if as_json:
        return show.json_out(items)
    return show.table(items, _COLUMNS, empty="no devices; `fogline token create` makes a token to enrol one")


@devices.command("show")
def show_device(context: typer.Context, device: str, *, as_json: AsJson = False) -> None:
    """One device."""
    item = api(context).get(f"/v1/devices/{device}")
    if as_json:
        return show.json_out(item)
    more = ("recipes", "agent_version", "attributes", "active_digest", "active_generation", "certificate_until")
    fields: tuple[show.Column, ...] = (
        *_COLUMNS,
        *((name.replace("_", " "), name) for name in more),
        ("trained", show.when("last_trained_at")),
        ("drift", _drift),
        ("drifting", show.when("drifting_since")),
    )
    return show.record(item, fields)


@devices.command("why-not")
def why_not(
    context: typer.Context,
    device: str,
    *,
    run: Annotated[str, typer.Option(help="The run's id.")],
    as_json: AsJson = False,
) -> None:
    """Why a device does not take part in a run: a line a reason."""
    answer = api(context).get(f"/v1/devices/{device}/why-not", run=run)
    if as_json:
        return show.json_out(answer)
    reasons = [f"{reason['code']}: {reason['text']}" for reason in answer["reasons"]]
    sys.stdout.write("\n".join([*reasons, *answer["notes"]]) + "\n")
    return None


@devices.command("tag")
def set_tags(context: typer.Context, device: str, tags: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Replace a device's tags; none removes them all."""
    api(context).put(f"/v1/devices/{device}/tags", {"tags": tags or []})


@devices.command("revoke")
def revoke(context: typer.Context, device: str, *, reason: str = "") -> None:
    """End a device's right to connect, for good."""
    item = api(context).post(f"/v1/devices/{device}:revoke", {"reason": reason})
    show.note(f"{item['name']} is REVOKED")


@tokens.command("create")
def create_token(
    context: typer.Context,
    *,
    name: Annotated[str | None, typer.Option(help="Reserve it for a device of this name.")] = None,
    tag: Tags = None,
    ttl_s: Annotated[float, typer.Option(help="How long it is good, in seconds.")] = 3600.0,
    output: Annotated[Path | None, typer.Option(help="Write the token there (mode 0600), not to the screen.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token; on the device: fogline-agent enroll TOKEN."""
    item = api(context).post("/v1/enrollment-tokens", {"device_name": name, "tags": tag or [], "ttl_s": ttl_s})
    if output is not None:
        output.touch(mode=0o600)
        output.write_text(item["token"] + "\n")
    elif as_json:
        show.json_out(item)
    else:
        sys.stdout.write(item["token"] + "\n")


@tokens.command("list")
def list_tokens(context: typer.Context, *, limit: Limit = 50, as_json: AsJson = False) -> None:
    """Tokens, newest first. The tokens themselves are not kept."""
    items = api(context).items("/v1/enrollment-tokens", limit=limit)
    if as_json:
        return show.json_out(items)
    columns = (
        ("id", "id"),
        ("for", "device_name"),
        ("tags", "tags"),
        ("expires", show.when("expires_at")),
        ("used", show.when("used_at")),
        ("by", "used_by"),
    )
    return show.table(items, columns, empty="no tokens")


@tokens.command("delete")
def delete_token(context: typer.Context, token: str) -> None:
    """Withdraw a token; a device that enrolled with it stays."""
    api(context).delete(f"/v1/enrollment-tokens/{token}")
