"""The hash chain from cohort to artifact: each link's hash covers its facts and the hash before it. Pure.

The last hash (the head) therefore fixes the whole history of a release, as in a transparency log without branches
(Haber, Stornetta, "How to Time-Stamp a Digital Document", 1991).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

GENESIS = "0" * 64

Facts = Mapping[str, Any]


def fingerprint(value: Any) -> str:
    """SHA-256 of canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def chain(facts: Iterable[Facts], *, head: str = GENESIS) -> list[dict[str, Any]]:
    """Link facts in order, continuing from ``head``: ``[{"facts": …, "hash": …}, …]``."""
    links = []
    for each in facts:
        head = fingerprint({"before": head, "facts": each})
        links.append({"facts": dict(each), "hash": head})
    return links


def broken_link(links: Sequence[Mapping[str, Any]]) -> int | None:
    """Index of the first link whose hash does not follow from the ones before it; None: the chain holds."""
    for index, (given, computed) in enumerate(zip(links, chain(link["facts"] for link in links), strict=True)):
        if given["hash"] != computed["hash"]:
            return index
    return None


def head_of(links: Sequence[Mapping[str, Any]]) -> str:
    """The hash that stands for the whole chain."""
    return str(links[-1]["hash"]) if links else GENESIS
