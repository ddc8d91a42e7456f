"""Print which variant of a release is the best within limits, and why not each other."""

from __future__ import annotations

from typing import Any

from fogline_server.cli import show
from fogline_server.cli.api import CliError
from fogline_server.cli.exits import Exit

_COLUMNS = (
    ("variant", "name"),
    ("accuracy", lambda v: f"{v['accuracy']:.1%}"),
    ("worst class", lambda v: f"{v['worst_class']:.1%}"),
    ("bytes sent", "size"),
    ("p50 µs", "p50_us"),
    ("beaten by none", lambda v: "yes" if v["front"] else "no"),
    ("out because", lambda v: "; ".join(v["refused"])),
)


def show_pick(answer: dict[str, Any], device_class: str | None) -> None:
    """``answer``: of ``GET /v1/releases/{release}/pick``."""
    show.table(answer["variants"], _COLUMNS, empty="no variants")
    for name in (each["name"] for each in answer["variants"] if each["p50_us"] is None):
        show.note(f"no device of class {device_class} has measured {name}")
    for name, reason in answer["left_out"].items():
        show.note(f"{name} was left out of the release: {reason}")
    show.note(answer["sentence"])


def check_pick(answer: dict[str, Any]) -> None:
    """Raise CliError ``nothing_fits`` if no variant is within the limits."""
    if answer["taken"] is None:
        raise CliError(Exit.FAILED, "nothing_fits", answer["sentence"])
