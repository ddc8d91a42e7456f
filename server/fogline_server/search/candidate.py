"""Make and measure one candidate of a search. A job's body."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from fogline_server.blobs.store import BlobStore
from fogline_server.compression.chain import Chain
from fogline_server.db.base import utc_now
from fogline_server.jobs.runner import JobContext, Outcome
from fogline_server.registry.forms import form_of
from fogline_server.search.evidence import measure
from fogline_server.search.source import Source, open_source
from fogline_server.search.tables import Candidate, Search
from fogline_shared.errors import Corrupt, InvalidInput


def usable(candidate: Candidate | None, blobs: BlobStore) -> bool:
    """Whether there is nothing left to do: it failed as it would again, or its artifact is still there."""
    return candidate is not None and (candidate.digest is None or blobs.exists(candidate.digest))


def run_candidate(ctx: JobContext) -> Outcome:
    """Its row, with what the chain gave or why it gave nothing. A chain that fails has not failed the job."""
    key, name = str(ctx.spec["key"]), str(ctx.spec["name"])
    with ctx.db.read() as session:
        known = session.get(Candidate, key)
        search = session.get_one(Search, ctx.spec["search_id"])
    if usable(known, ctx.blobs):
        return Outcome(result={"name": name, "known": True})
    chain = Chain.from_json(ctx.spec["chain"])
    found = _tried(open_source(ctx.db, ctx.blobs, search), chain, name, ctx.blobs)

    def commit(session: Session) -> None:
        session.merge(Candidate(key=key, chain=chain.as_json(), created_at=utc_now(), **found))

    return Outcome(result={"name": name, "error": found["error"]}, commit=commit)


def _tried(source: Source, chain: Chain, name: str, blobs: BlobStore) -> dict[str, Any]:
    """The columns of the row."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # how threads share a sum shows in it, and the same chain is to give the same bytes
    try:
        parent = source.parent(chain)
        model = form_of(chain, parent, source.recipe, name)
        metrics = measure(model, source.model, source.evidence)
    except (InvalidInput, Corrupt) as error:
        told = {"code": error.code, "message": error.message}
        return {"digest": None, "size": None, "metrics": None, "error": told}
    finally:
        torch.set_num_threads(threads)
    blob = blobs.put([model])
    return {"digest": blob.digest, "size": blob.size, "metrics": metrics, "error": None}
