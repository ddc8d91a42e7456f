"""Values of trust: roles, lifetimes, names of metadata. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from fogline_shared.errors import InvalidInput

ROOT, TARGETS, RELEASE, SNAPSHOT, TIMESTAMP = "root", "targets", "release", "snapshot", "timestamp"
# Signed at the coordinator, in this order: each names the one before it.
ONLINE = (RELEASE, SNAPSHOT, TIMESTAMP)
# Above so many artifacts ``release`` delegates to bins by the hash of the target's path (TAP 15), in its own key's name: what a
# device reads and verifies then grows with a bin, not with the list. Once it does, it stays so: TUF lets no role disappear.
LISTED_WHOLE = 64
BIN_BITS = 5
# What the offline targets role lets ``release`` name: "<release id>/<variant>.onnx".
RELEASED_PATHS = ("*/*.onnx",)
MAX_DOCUMENT_BYTES = 512_000

# How long an online role's signature holds. A device that is kept from news for longer installs nothing new.
LIFETIMES: Mapping[str, timedelta] = {
    RELEASE: timedelta(days=30),
    SNAPSHOT: timedelta(days=7),
    TIMESTAMP: timedelta(days=1),
}
# An online role is signed anew when less than this share of its life is left.
RENEW_BELOW = 0.5

_NAME = re.compile(r"(?:(\d{1,18})\.)?(root|targets|release(?:-[0-9a-f]{2})?|snapshot|timestamp)\.json")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """An artifact that devices may install. ``size`` in bytes; ``digest``: lower-case SHA-256."""

    release_id: str
    variant: str
    digest: str
    size: int
    recipe: str

    @property
    def path(self) -> str:
        """Its name as a target."""
        return f"{self.release_id}/{self.variant}.onnx"

    @property
    def custom(self) -> dict[str, str]:
        """What is signed beside digest and length."""
        return {"release": self.release_id, "recipe": self.recipe, "variant": self.variant}


def parse_name(name: str) -> tuple[str, int | None]:
    """``7.root.json`` → (role, version), ``timestamp.json`` → (role, None); raises InvalidInput ``bad_metadata_name``."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise InvalidInput("bad_metadata_name", "metadata is named timestamp.json or <version>.<role>.json")
    version, role = match.groups()
    return role, None if version is None else int(version)


def parse_document(data: bytes) -> Metadata[Any]:
    """A root or top-level targets document; raises InvalidInput ``bad_trust_metadata``."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidInput("bad_trust_metadata", f"a document has at most {MAX_DOCUMENT_BYTES} bytes")
    try:
        document: Metadata[Any] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise InvalidInput("bad_trust_metadata", f"not TUF metadata: {error}") from error
    if not isinstance(document.signed, Root | Targets):
        raise InvalidInput("bad_trust_metadata", f"only root and targets are made offline, not {document.signed.type}")
    return document
