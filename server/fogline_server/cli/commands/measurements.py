"""``fogline release measure`` and ``measurements``: what real devices measure of a release's variants."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fogline_server.cli import follow, show
from fogline_server.cli.api import Api
from fogline_server.cli.follow import Standing
from fogline_server.cli.options import AsJson, Limit, Wait, api

CLASSES = (
    ("device class", "device_class"),
    ("variant", "variant"),
    ("devices", "devices"),
    ("p50 µs", "p50_us"),
    ("p99 µs", "p99_us"),
    ("memory", lambda c: None if c["memory_bytes"] is None else f"{c['memory_bytes'] / 2**20:.0f} MiB"),
    ("failed", lambda c: ", ".join(f"{code} ({count})" for code, count in sorted(c["failed"].items()))),
    ("waiting", lambda c: c["waiting"] or ""),
    ("no answer", lambda c: c["expired"] or ""),
)
_MEASUREMENTS = (
    ("device", "device_name"),
    ("device class", "device_class"),
    ("variant", "variant"),
    ("state", "state"),
    ("p50 µs", lambda m: (m["metrics"] or {}).get("p50_us")),
    ("p99 µs", lambda m: (m["metrics"] or {}).get("p99_us")),
    ("load ms", lambda m: (m["metrics"] or {}).get("load_ms")),
    ("engine", lambda m: (m["metrics"] or {}).get("engine")),
    ("asked", show.when("asked_at")),
    ("error", lambda m: f"{m['error']['code']}: {m['error']['message']}" if m["error"] else ""),
)


def measure(
    context: typer.Context,
    release: str,
    *,
    device_class: Annotated[str | None, typer.Option("--class", help="Devices of this class; default: of any.")] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="This device, by id or name, online or not; may be repeated.")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="At most so many of those that are online.")] = 10,
    variant: Annotated[list[str] | None, typer.Option(help="Default: all but the teacher; may be repeated.")] = None,
    expires_s: Annotated[float, typer.Option(help="Wait for no answer after so many seconds.")] = 3600.0,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Have real devices measure a READY release's variants: latency, memory, and whether the known answers hold."""
    connection = api(context)
    path = f"/v1/releases/{release}/measurements"
    body = {
        "device_class": device_class,
        "devices": device or [],
        "variants": variant or [],
        "most": devices,
        "expires_s": expires_s,
    }
    asked = connection.post(path, body)["items"]
    if not wait:
        return show.json_out(asked) if as_json else _list(asked)
    classes = wait_for(connection, release, asked)
    return show.json_out(classes) if as_json else show.table(classes, CLASSES, empty="")


def wait_for(connection: Api, release: str, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The classes and variants of these measurements once all have ended; raises CliError if no device has measured anything."""
    path = f"/v1/releases/{release}/measurements"
    groups = {(each["device_class"], each["variant"]) for each in asked}
    return _of(
        follow.wait(connection, path, lambda page: _standing(page, groups), title=f"measurement of {release}"), groups
    )


def list_measurements(context: typer.Context, release: str, *, limit: Limit = 50, as_json: AsJson = False) -> None:
    """What devices measured of a release, newest first."""
    items = api(context).items(f"/v1/releases/{release}/measurements", limit=limit)
    return show.json_out(items) if as_json else _list(items)


def classes_of(connection: Api, release: str) -> list[dict[str, Any]]:
    """What classes of devices measured of a release."""
    return list(connection.get(f"/v1/releases/{release}/measurements", limit=1)["classes"])


def _list(items: list[dict[str, Any]]) -> None:
    show.table(items, _MEASUREMENTS, empty="no measurements; `fogline release measure` asks devices for some")


def _of(page: dict[str, Any], groups: set[tuple[str, str]]) -> list[dict[str, Any]]:
    return [each for each in page["classes"] if (each["device_class"], each["variant"]) in groups]


def _standing(page: dict[str, Any], groups: set[tuple[str, str]]) -> Standing:
    """How far the devices of these classes are with these variants; ended badly when none has measured anything."""
    classes = _of(page, groups)
    waiting = sum(each["waiting"] for each in classes)
    answered = sum(each["devices"] + sum(each["failed"].values()) + each["expired"] for each in classes)
    measured = any(each["devices"] for each in classes)
    codes = sorted({code for each in classes for code in each["failed"]})
    return Standing(
        text=f"{waiting} asked",
        done=answered,
        total=answered + waiting,
        ended=not waiting,
        failure="" if waiting or measured else f"no device has measured anything: {', '.join(codes) or 'no answer'}",
    )
