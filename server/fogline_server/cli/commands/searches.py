"""``fogline compress`` and ``fogline search``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fogline_server.cli import follow, show
from fogline_server.cli.api import Api, CliError
from fogline_server.cli.commands import measurements
from fogline_server.cli.exits import Exit
from fogline_server.cli.options import AsJson, Limit, Wait, api, group
from fogline_server.cli.picked import check_pick, show_pick
from fogline_server.cli.quantities import bytes_of, microseconds_of, share_of

app = group("Searches that `fogline compress` has started.")

_COLUMNS = (
    ("id", "id"),
    ("release", "release_id"),
    ("state", "state"),
    ("done", lambda s: f"{s['done']}/{s['total']}"),
    ("pick", "pick"),
    ("job", "job_id"),
    ("created", show.when("created_at")),
    ("error", lambda s: (s["error"] or {}).get("message")),
)


def _asked(search: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in search["spec"]["limits"].items() if value is not None)


_RESULT = (
    ("limits", _asked),
    ("judged by", lambda s: _evidence((s["result"] or {}).get("evidence"))),
    ("pick", lambda s: (s["result"] or {}).get("sentence")),
    ("best single method", lambda s: (s["result"] or {}).get("best_single_sentence")),
    ("found in the cache", lambda s: s["result"] and f"{s['result']['cached']} of {s['result']['trials']}"),
    ("new release", lambda s: ((s["result"] or {}).get("release") or {}).get("name")),
)


def _evidence(evidence: dict[str, Any] | None) -> str | None:
    if evidence is None:
        return None
    kind = "the holdout" if evidence["kind"] == "holdout" else "the float parent's answers"
    return f"{kind}: {evidence['choosing']} examples choose, {evidence['judging']} judge"


def _half(name: str) -> show.Column:
    def cell(candidate: dict[str, Any]) -> str | None:
        metrics = candidate["metrics"]
        return None if metrics is None else f"{metrics[name]['accuracy']:.1%}"

    return (name, cell)


_CANDIDATES = (
    ("candidate", "name"),
    ("chain", "chain"),
    _half("choosing"),
    _half("judging"),
    ("worst class", lambda c: c["metrics"] and f"{c['metrics']['choosing']['worst_class_accuracy']:.1%}"),
    ("bytes sent", lambda c: c["metrics"] and c["metrics"]["bytes_zstd"]),
    ("p50 µs", lambda c: c["metrics"] and c["metrics"]["p50_us"]),
    ("front", lambda c: "yes" if c["front"] else "no"),
    ("not taken because", lambda c: "; ".join(c["why_not"])),
)


def compress(
    context: typer.Context,
    release: str,
    *,
    name: Annotated[
        str | None, typer.Option(help="Make a release of this name: the front's forms, the pick as its default.")
    ] = None,
    max_bytes: Annotated[str | None, typer.Option(help="As sent, compressed: 40kB.")] = None,
    max_p50: Annotated[str | None, typer.Option(help="Median latency where it is measured: 2ms, 500us.")] = None,
    max_drop: Annotated[
        str | None, typer.Option(help="Percentage points of accuracy below the float student; default: the release's.")
    ] = None,
    max_worst_class_drop: Annotated[
        str | None, typer.Option(help="The same of the worst class; default: the release's.")
    ] = None,
    device_class: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="Have online devices of this class measure the release of --name; --max-p50 is theirs then.",
        ),
    ] = None,
    chain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHAIN",
            help="Try this instead of the default space: prune_channels,finetune,int8_static; repeat it.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Batches that each method which trains sees in all.")] = 900,
    seed: int = 0,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Search the compressed forms of a release's student for the best within limits; prints the search's id.

    With --wait it ends when the search has, the release of --name, and the devices of --class; with exit 7 if no form is
    within the limits.
    """
    from fogline_server.compression.chain import Chain

    if device_class is not None and not (name and wait):
        raise CliError(Exit.INVALID, "invalid_option", "--class needs --name and --wait: devices measure a release")
    limits = {
        "max_bytes": bytes_of(max_bytes, "--max-bytes"),
        "max_p50_us": microseconds_of(max_p50, "--max-p50"),
        "max_drop": share_of(max_drop, "--max-drop"),
        "max_worst_class_drop": share_of(max_worst_class_drop, "--max-worst-class-drop"),
    }
    body = {
        "release": release,
        "name": name,
        # What is too slow here may be fast enough on a device of the class, which only it can tell.
        "limits": {**limits, "max_p50_us": None} if device_class else limits,
        "chains": [Chain.parse(text).as_json() for text in chain or ()],
        "steps": steps,
        "seed": seed,
    }
    connection = api(context)
    search = connection.post("/v1/compression-searches", body)
    if wait:
        path = f"/v1/compression-searches/{search['id']}"
        search = follow.wait(connection, path, follow.job, title=f"search {search['id']}")
        if made := (search["result"] or {}).get("release"):
            follow.wait(connection, f"/v1/releases/{made['id']}", follow.release, title=f"release {made['name']}")
    on_devices = None
    if device_class is not None and search["pick"] is not None:
        on_devices = _pick_on_devices(connection, search["result"]["release"]["name"], device_class, limits)
    _tell(search, on_devices, device_class, as_json=as_json)


def _tell(
    search: dict[str, Any], on_devices: dict[str, Any] | None, device_class: str | None, *, as_json: bool
) -> None:
    """Print what was found; raises CliError ``nothing_fits``."""
    if as_json:
        show.json_out(search if on_devices is None else {"search": search, "pick": on_devices})
    else:
        show.identified(search, as_json=False)
        if search["result"] is not None:
            show.note(search["result"]["sentence"])
        if on_devices is not None:
            show_pick(on_devices, device_class)
    if search["result"] is not None and search["pick"] is None:
        raise CliError(Exit.FAILED, "nothing_fits", search["result"]["sentence"])
    if on_devices is not None:
        check_pick(on_devices)


def _pick_on_devices(connection: Api, release: str, device_class: str, limits: dict[str, Any]) -> dict[str, Any]:
    """Have devices measure the release; which variant is theirs."""
    asked = connection.post(f"/v1/releases/{release}/measurements", {"device_class": device_class})["items"]
    measurements.wait_for(connection, release, asked)
    fixed = {name: limits[name] for name in ("max_bytes", "max_p50_us", "max_drop")}
    return connection.get(f"/v1/releases/{release}/pick", **fixed, device_class=device_class)


@app.command("list")
def list_searches(context: typer.Context, *, limit: Limit = 50, as_json: AsJson = False) -> None:
    """Searches, newest first."""
    items = api(context).items("/v1/compression-searches", limit=limit)
    if as_json:
        return show.json_out(items)
    return show.table(items, _COLUMNS, empty="no searches; `fogline compress RELEASE` starts one")


@app.command("show")
def show_search(context: typer.Context, search: str, *, as_json: AsJson = False) -> None:
    """One search: its pick, and every candidate with the reason why it is not the pick."""
    item = api(context).get(f"/v1/compression-searches/{search}")
    if as_json:
        return show.json_out(item)
    show.record(item, (*_COLUMNS[:4], *_COLUMNS[5:], *_RESULT))
    if item["result"] is not None:
        show.table(item["result"]["candidates"], _CANDIDATES, empty="no candidates")
    return None
