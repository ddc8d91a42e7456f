"""``fogline release``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from fogline_server.cli import follow, show
from fogline_server.cli.api import Api, CliError
from fogline_server.cli.commands import measurements
from fogline_server.cli.exits import Exit
from fogline_server.cli.exporting import export
from fogline_server.cli.options import AsJson, Limit, Wait, api, group, pairs
from fogline_server.cli.picked import check_pick, show_pick
from fogline_shared.errors import InvalidInput

app = group("Model versions.")
app.command("measure")(measurements.measure)
app.command("measurements")(measurements.list_measurements)

_COLUMNS = (
    ("name", "name"),
    ("id", "id"),
    ("recipe", "recipe"),
    ("state", "state"),
    ("default variant", "default_variant"),
    ("created", show.when("created_at")),
    ("error", lambda r: (r["error"] or {}).get("message")),
)
_REPORT = (
    ("choice", lambda r: r["report"].get("choice", {}).get("sentence")),
    ("parity", lambda r: [_parity(name, each) for name, each in r["report"].get("parity", {}).items()]),
    ("teaching", lambda r: r["report"].get("teaching", {}).get("sentence")),
    ("gates", lambda r: [f"{g['gate']} {g['verdict']}: {g['reason']}" for g in r["report"].get("gates", ())]),
    ("imported", lambda r: r["report"].get("imported")),
)
_VARIANTS = (
    ("variant", "name"),
    ("size", show.size("size")),
    ("accuracy", show.share("accuracy")),
    ("worst class", show.share("worst_class_accuracy")),
    ("p50 µs", lambda v: (v["metrics"] or {}).get("p50_us")),
    ("sha-256", lambda v: v["digest"][:12]),
)
_LEFT_OUT = (
    ("left out", "name"),
    ("size", lambda v: None if v["size"] is None else f"{v['size']:,}"),
    ("accuracy", show.share("accuracy")),
    ("because", lambda v: f"{v['code']}: {v['message']}"),
)
_NOTES = (("noted", show.when("at")), ("by", "actor"), ("note", "text"))
_DELTAS = (
    ("variant", "variant"),
    ("from", lambda d: d["base_release"] or (d["base_digest"] or "nothing (compressed)")[:20]),
    ("size", show.size("size")),
    ("whole", show.size("target_size")),
    ("created", show.when("created_at")),
)
_MEASURED = (
    ("variant", "variant"),
    ("full", lambda m: f"{m['full_bytes']:,} bytes"),
    ("full, zstd 19", lambda m: f"{m['zstd_bytes']:,} bytes"),
    ("delta", lambda m: f"{m['delta_bytes']:,} bytes, 1/{m['zstd_bytes'] / m['delta_bytes']:.1f} of zstd 19"),
    ("apply", lambda m: f"{m['apply_s'] * 1e3:.2f} ms; copy and hash {m['copy_s'] * 1e3:.2f} ms"),
    ("peak memory", lambda m: None if m["peak_bytes"] is None else f"{m['peak_bytes'] / 1024:,.0f} KiB more"),
)


def _parity(variant: str, found: dict[str, Any]) -> str:
    return (
        f"{variant} differs from torch by {found['max_abs_diff']:.1e} at most on {found['samples']} examples, "
        f"{found['label_agreement']:.1%} labelled alike"
    )


@app.command("create")
def create(
    context: typer.Context,
    name: str,
    *,
    student_run: Annotated[str, typer.Option(help="The control: trained without a teacher.")],
    teacher_run: Annotated[str | None, typer.Option(help="Released beside it, for hard examples.")] = None,
    distilled_run: Annotated[
        str | None, typer.Option(help="Released instead of the control if it is better by more than chance.")
    ] = None,
    taught: Annotated[
        bool, typer.Option("--taught", help="Teach the student at the cloud, on the recipe's unlabelled transfer set.")
    ] = False,
    teaching: Annotated[
        list[str] | None,
        typer.Option(help="Of --taught: steps=5000, temperature=4, mixup=0.2, trials=8 …; may be repeated."),
    ] = None,
    teacher_release: Annotated[
        list[str] | None, typer.Option(help="A release that teaches too, or alone; may be repeated.")
    ] = None,
    default_variant: str = "student_int8",
    max_accuracy_drop: Annotated[
        float, typer.Option(help="Share that int8 and every --variant may lose against float.")
    ] = 0.02,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=CHAIN",
            help="A further form of the student, by compression methods: small=prune_channels:share=0.5,int8_static",
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="What int8 and every --variant must keep: max_worst_class_drop=0.05, min_agreement=0.98, "
            "max_calibration_error=0.1, max_bytes=40000, max_p50_ratio=1; may be repeated."
        ),
    ] = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Export, quantize, measure and seal what runs have trained; prints the release's id."""
    connection = api(context)
    body = {
        "name": name,
        "recipe": connection.get(f"/v1/runs/{student_run}")["recipe"],
        "student_run": student_run,
        "teacher_run": teacher_run,
        "distilled_run": distilled_run,
        "default_variant": default_variant,
        "max_accuracy_drop": max_accuracy_drop,
        "chains": _chains(variant or []),
        "teaching": pairs(teaching, "--teaching") if taught or teaching or teacher_release else None,
        "teacher_releases": teacher_release or [],
        "limits": pairs(limit, "--limit"),
    }
    _finish(connection, connection.post("/v1/releases", body), wait=wait, as_json=as_json)


def _chains(variants: list[str]) -> dict[str, Any]:
    """The chains of ``NAME=CHAIN`` by name; raises InvalidInput ``invalid_chain`` and what a chain raises."""
    from fogline_server.compression.chain import Chain

    chains = {}
    for text in variants:
        name, equals, chain = text.partition("=")
        if not (name and equals) or name in chains:
            raise InvalidInput("invalid_chain", f"--variant is NAME=CHAIN with a name of its own, not {text!r}")
        chains[name] = Chain.parse(chain).as_json()
    return chains


@app.command("import")
def import_model(
    context: typer.Context,
    name: str,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    *,
    like: Annotated[str | None, typer.Option(help="Release whose manifest describes the file.")] = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Make a release of one variant from an ONNX FILE; prints the release's id."""
    connection = api(context)
    release = connection.upload("/v1/releases:import", _pieces(file), name=name, like=like)
    _finish(connection, release, wait=wait, as_json=as_json)


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while piece := source.read(1 << 20):
            yield piece


def _finish(connection: Api, release: dict[str, Any], *, wait: bool, as_json: bool) -> None:
    if wait:
        path = f"/v1/releases/{release['id']}"
        release = follow.wait(connection, path, follow.release, title=f"release {release['name']}")
    show.identified(release, as_json=as_json)


@app.command("list")
def list_releases(
    context: typer.Context, *, state: str | None = None, limit: Limit = 50, as_json: AsJson = False
) -> None:
    """Releases, newest first."""
    items = api(context).items("/v1/releases", limit=limit, state=state)
    if as_json:
        return show.json_out(items)
    return show.table(items, _COLUMNS, empty="no releases; `fogline release create` makes one from finished runs")


@app.command("show")
def show_release(context: typer.Context, release: str, *, as_json: AsJson = False) -> None:
    """One release, by id, name or alias, and its variants."""
    connection = api(context)
    item = connection.get(f"/v1/releases/{release}")
    if as_json:
        return show.json_out(item)
    show.record(item, (*_COLUMNS, ("aliases", "aliases"), *_REPORT))
    show.table(item["variants"], _VARIANTS, empty="no variants yet")
    if on_devices := measurements.classes_of(connection, item["id"]):
        show.table(on_devices, measurements.CLASSES, empty="")
    if item["left_out"]:
        show.table(item["left_out"], _LEFT_OUT, empty="")
    if item["notes"]:
        show.table(item["notes"], _NOTES, empty="")
    return None


@app.command("note")
def note(context: typer.Context, release: str, text: str) -> None:
    """Write a note on a release, for everyone who looks at it; it cannot be changed."""
    api(context).post(f"/v1/releases/{release}/notes", {"text": text})


@app.command("unlist")
def unlist(context: typer.Context, release: str) -> None:
    """Withdraw a release: no device installs it anew. Refused while an alias, a rollout or a device needs it."""
    withdrawn = api(context).post(f"/v1/releases/{release}:unlist")
    show.note(f"{withdrawn['name']} is {withdrawn['state']}")


@app.command("relist")
def relist(context: typer.Context, release: str) -> None:
    """Let devices install a withdrawn release again."""
    back = api(context).post(f"/v1/releases/{release}:relist")
    show.note(f"{back['name']} is {back['state']}")


@app.command("pick")
def pick(
    context: typer.Context,
    release: str,
    *,
    max_bytes: Annotated[int | None, typer.Option(help="As sent, compressed.")] = None,
    max_p50_us: Annotated[float | None, typer.Option(help="Median microseconds, where it was measured.")] = None,
    max_drop: Annotated[float | None, typer.Option(help="Share of accuracy below the float student's.")] = None,
    device_class: Annotated[
        str | None, typer.Option("--class", help="Latency as devices of this class have measured it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The most accurate variant within limits, and why not each other; exit 7 if there is none."""
    limits = {"max_bytes": max_bytes, "max_p50_us": max_p50_us, "max_drop": max_drop, "device_class": device_class}
    answer = api(context).get(f"/v1/releases/{release}/pick", **limits)
    if as_json:
        show.json_out(answer)
    else:
        show_pick(answer, device_class)
    check_pick(answer)


@app.command("verify")
def verify(context: typer.Context, release: str, *, as_json: AsJson = False) -> None:
    """Hash every byte of a release again; exit 7 if anything has changed."""
    answer = api(context).post(f"/v1/releases/{release}:verify")
    if as_json:
        show.json_out(answer)
    else:
        show.table(answer["problems"], ((n, n) for n in ("code", "subject", "message")), empty="no problems")
        sys.stdout.write(f"{answer['blobs_checked']} blobs, {answer['bytes_checked']} bytes checked\n")
    if not answer["ok"]:
        raise CliError(Exit.FAILED, "release_damaged", f"{release} is not what was sealed")


@app.command("export")
def export_model(
    context: typer.Context,
    release: str,
    *,
    variant: Annotated[str | None, typer.Option(help="Default: the release's default variant.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="Default: RELEASE-VARIANT.onnx in this folder."),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Without Fogline's metadata.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a variant's ONNX file, checked against its digest; prints where it lies."""
    file, size = export(api(context), release, variant, output, plain=plain, force=force)
    sys.stdout.write(f"{file}\n")
    show.note(f"{file}: {size} bytes")


@app.command("deltas")
def list_deltas(context: typer.Context, release: str, *, as_json: AsJson = False) -> None:
    """What devices can be sent in place of a release's artifacts."""
    items = api(context).get(f"/v1/releases/{release}/deltas")["items"]
    if as_json:
        return show.json_out(items)
    return show.table(items, _DELTAS, empty="no deltas; a job builds them when the release is READY")


@app.command("delta")
def measure_delta(
    context: typer.Context,
    base: str,
    target: str,
    *,
    variant: Annotated[str | None, typer.Option(help="Default: the default variant of TARGET.")] = None,
    as_json: AsJson = False,
) -> None:
    """Build the delta from release BASE to release TARGET here, and measure what it saves and what applying it costs."""
    from fogline_server.registry.deltas.measure import measure

    connection = api(context)
    name = variant or connection.get(f"/v1/releases/{target}")["default_variant"]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / place for place in ("base", "target")]
        for release, file in zip((base, target), files, strict=True):
            connection.download(f"/v1/releases/{release}/variants/{name}/artifact", file)
        measured = {"variant": name, **measure(*(file.read_bytes() for file in files)).as_json()}
    if as_json:
        return show.json_out(measured)
    return show.record(measured, _MEASURED)


@app.command("alias")
def set_alias(context: typer.Context, alias: str, release: str) -> None:
    """Move ALIAS (champion, say) to a release, or make it."""
    api(context).put(f"/v1/aliases/{alias}", {"release": release})


@app.command("aliases")
def list_aliases(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Every alias and the release it is on."""
    items = api(context).get("/v1/aliases")["items"]
    if as_json:
        return show.json_out(items)
    columns = (("alias", "name"), ("release", "release_id"), ("moved", show.when("moved_at")))
    return show.table(items, columns, empty="no aliases")
