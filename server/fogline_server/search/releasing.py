"""The release that a search ends with: the source's own variants as they are, and the front's forms as they were found."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from fogline_server.registry.deriving import Form, derive_release
from fogline_server.registry.tables import Release
from fogline_server.search.conclusion import Conclusion
from fogline_server.search.tables import Search


def create(session: Session, search: Search, name: str, found: Conclusion, *, now: datetime) -> dict[str, Any]:
    """A BUILDING release whose default is the pick; its id and name. Raises Conflict ``release_name_taken``."""
    forms = {}
    for shipped in found.shipped:
        tried = found.finalists[shipped]
        assert tried.digest is not None
        assert tried.size is not None
        forms[shipped] = Form(digest=tried.digest, size=tried.size, chain=tried.entry.chain)
    assert found.pick is not None
    release = derive_release(
        session,
        session.get_one(Release, search.release_id),
        name,
        forms,
        default_variant=found.pick,
        max_accuracy_drop=found.limits.max_drop,
        searched={"search": search.id, "pick": found.pick, "sentence": found.sentence},
        now=now,
    )
    return {"id": release.id, "name": release.name}
