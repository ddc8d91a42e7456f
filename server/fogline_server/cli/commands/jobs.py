"""``fogline job``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fogline_server.cli import follow, show
from fogline_server.cli.api import Api
from fogline_server.cli.options import AsJson, Limit, Wait, api, group

app = group("Offline work.")
submit = group("Submit offline work.")
app.add_typer(submit, name="submit")

_COLUMNS = (
    ("id", "id"),
    ("kind", "kind"),
    ("state", "state"),
    ("progress", lambda j: f"{j['done']}/{j['total']}" if j["total"] else None),
    ("left", lambda j: show.duration(j["eta_s"]) if j["eta_s"] is not None else None),
    ("created", show.when("created_at")),
    ("message", lambda j: (j["error"] or {}).get("message") or j["message"] or None),
)


@submit.command("batch")
def submit_batch(
    context: typer.Context,
    *,
    release: Annotated[str, typer.Option(help="Id, name or alias.")],
    source: Annotated[str, typer.Option("--input", help="Parquet file: path or URL.")],
    output: Annotated[str, typer.Option(help="Parquet file to write.")],
    variant: Annotated[str | None, typer.Option(help="Default: the release's.")] = None,
    id_column: Annotated[str, typer.Option(help="Column to copy to the output.")] = "",
    batch_size: int = 256,
    shard_rows: Annotated[int, typer.Option(help="Rows a shard; 0: measured.")] = 0,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Score every row of a file; prints the job's id.

    Files lie below the coordinator's data folder (FOGLINE_DATA_DIR, FOGLINE_DATA_ALLOW); for `fogline up`, also below
    the folder it was started in.
    """
    connection = api(context)
    body = {
        "kind": "batch",
        "release": release,
        "input": connection.file(source),
        "output": connection.file(output),
        "variant": variant,
        "id_column": id_column,
        "batch_size": batch_size,
        "shard_rows": shard_rows,
    }
    _finish(connection, connection.post("/v1/jobs", body), wait=wait, as_json=as_json)


@app.command("wait")
def wait_for(context: typer.Context, job: str, *, as_json: AsJson = False) -> None:
    """Show progress until a job has ended; exit 7 if it fails."""
    connection = api(context)
    _finish(connection, connection.get(f"/v1/jobs/{job}"), wait=True, as_json=as_json)


def _finish(connection: Api, job: dict[str, Any], *, wait: bool, as_json: bool) -> None:
    if wait:
        job = follow.wait(connection, f"/v1/jobs/{job['id']}", follow.job, title=f"job {job['kind']}")
    show.identified(job, as_json=as_json)


@app.command("list")
def list_jobs(
    context: typer.Context,
    *,
    kind: str | None = None,
    state: str | None = None,
    parent: str | None = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Jobs, newest first."""
    items = api(context).items("/v1/jobs", limit=limit, kind=kind, state=state, parent_id=parent)
    if as_json:
        return show.json_out(items)
    return show.table(items, _COLUMNS, empty="no jobs")


@app.command("show")
def show_job(context: typer.Context, job: str, *, as_json: AsJson = False) -> None:
    """One job."""
    item = api(context).get(f"/v1/jobs/{job}")
    if as_json:
        return show.json_out(item)
    more = ("queue", "priority", "attempts", "max_attempts", "parent_id", "spec", "result", "error")
    return show.record(item, (*_COLUMNS, *((name.replace("_", " "), name) for name in more)))


@app.command("cancel")
def cancel(context: typer.Context, job: str) -> None:
    """Ask for the end of a job and of its children."""
    api(context).post(f"/v1/jobs/{job}:cancel")


@app.command("retry")
def retry(context: typer.Context, job: str) -> None:
    """Queue a failed job again."""
    api(context).post(f"/v1/jobs/{job}:retry")
