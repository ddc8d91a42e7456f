"""What the agent and its training child say to each other: one JSON object a line. Arrays go by path, not by pipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Start:
    """First line to the child: which recipe, and the options by which it finds this device's data.

    ``memory``: the folder of what a run's app keeps between tasks. ``ledger``: the file of this device's account of local
    privacy, with the budget of its life, if it has one.
    """

    recipe: str
    options: Mapping[str, str]
    memory: str
    ledger: str
    local_epsilon: float | None
    local_delta: float


@dataclass(frozen=True, kw_only=True)
class Order:
    """One task. ``blobs``: path by record; the reply's arrays are written to ``reply_path``."""

    task_id: str
    run_id: str
    round: int
    group_id: str
    message_type: str
    node_id: int
    records_json: str
    blobs: Mapping[str, str]
    reply_path: str


@dataclass(frozen=True, kw_only=True)
class Done:
    """The child's answer. An empty digest: no arrays were written."""

    task_id: str
    digest: str = ""
    size: int = 0
    records_json: str = "{}"
    error_code: str = ""
    error_message: str = ""


def line(value: Start | Order | Done) -> bytes:
    """One value as a line."""
    return json.dumps(asdict(value), separators=(",", ":")).encode() + b"\n"


def parse(text: bytes) -> dict[str, Any]:
    """The fields of a value; raises ValueError or TypeError when it is not a JSON object."""
    value: dict[str, Any] = dict(json.loads(text))
    return value
