"""``fogline storage``."""

from __future__ import annotations

from typing import Annotated

import typer

from fogline_server.cli import show
from fogline_server.cli.options import AsJson, api, group

app = group("What the blob store holds, and the removal of what nobody needs.")

_COLUMNS: tuple[show.Column, ...] = (
    ("kind", "kind"),
    ("blobs", "blobs"),
    ("hot bytes", lambda s: f"{s['hot_bytes']:,}"),
    ("cold bytes", lambda s: f"{s['cold_bytes']:,}"),
    ("not needed", "free_blobs"),
    ("hot bytes", lambda s: f"{s['free_hot_bytes']:,}"),
    ("cold bytes", lambda s: f"{s['free_cold_bytes']:,}"),
)


@app.command("show")
def show_storage(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Bytes by kind and tier, and what nobody needs. Pieces that blobs of the cold tier share are counted apart."""
    item = api(context).get("/v1/storage")
    if as_json:
        return show.json_out(item)
    show.table(item["shares"], _COLUMNS, empty="no blobs yet")
    if "cold" in item["tiers"]:
        show.note(f"pieces in the cold tier: {item['chunk_bytes']:,} bytes")
    return None


@app.command("collect")
def collect(
    context: typer.Context,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    grace: Annotated[
        float | None,
        typer.Option(
            help="Hours for which a blob is left alone after it was written, at least 1; default: FOGLINE_COLLECT_GRACE_S."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove blobs that nothing needs: no release, rollout, device, run or job, nor a delta between artifacts."""
    body = {"dry_run": dry_run, "grace_s": None if grace is None else grace * 3600}
    item = api(context).post("/v1/storage:collect", body)
    if as_json:
        return show.json_out(item)
    done = "would remove" if dry_run else "removed"
    more = "; there are more: run it again" if item["more"] else ""
    pieces = f" and {item['chunk_bytes']:,} of pieces" if item["chunk_bytes"] else ""
    show.note(
        f"{done} {item['blobs']} blobs: {item['hot_bytes']:,} bytes hot, {item['cold_bytes']:,} cold{pieces}{more}"
    )
    return None
