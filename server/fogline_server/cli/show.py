"""What commands print: data on standard output, as tables or as JSON; everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]
# A column: its heading, and the field it shows or a function of the item.
Column = tuple[str, str | Callable[[Json], object]]

_GOOD = {"SUCCEEDED", "READY", "PASSED", "PASS", "ACTIVE", "COMMITTED", "ACCEPTED", "online", "yes", "ok"}
_BAD = {
    "FAILED",
    "FAIL",
    "REVOKED",
    "REJECTED",
    "REVERTED",
    "REFUSED",
    "ROLLED_BACK",
    "ROLLING_BACK",
    "TIMED_OUT",
    "ERROR",
}
_BUSY = {"RUNNING", "BUILDING", "ADMITTING", "SOAKING", "EVALUATING", "OPEN", "DOWNLOADING", "ACTIVATING", "PROBATION"}


def json_out(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """A line for the person, on standard error."""
    sys.stderr.write(text + "\n")


def table(items: Sequence[Json], columns: Iterable[Column], *, empty: str) -> None:
    """One row an item. Without items, ``empty`` on standard error."""
    if not items:
        note(empty)
        return
    columns = list(columns)
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading, _ in columns:
        grid.add_column(heading, overflow="fold")
    for item in items:
        grid.add_row(*(_cell(_value(item, of)) for _, of in columns))
    _console().print(grid)


def record(item: Json, fields: Iterable[Column]) -> None:
    """One thing: a line a field; empty fields are left out."""
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for heading, of in fields:
        value = _value(item, of)
        if value not in (None, "", [], {}):
            grid.add_row(heading, _cell(value))
    _console().print(grid)


def _console() -> Console:
    # Piped output is for programs: they get whole lines, not eighty columns.
    return Console(width=None if sys.stdout.isatty() else 400, highlight=False)


def _value(item: Json, of: str | Callable[[Json], object]) -> object:
    return item.get(of) if isinstance(of, str) else of(item)


def _cell(value: object) -> Text:
    text = _plain(value)
    style = "green" if text in _GOOD else "red" if text in _BAD else "cyan" if text in _BUSY else ""
    return Text(text, style=style)


def _plain(value: object) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case list() | tuple():
            return ", ".join(_plain(item) for item in value) or "–"
        case Mapping():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def when(field: str) -> Callable[[Json], str | None]:
    """A time as people say it: how long ago, or until then."""

    def show(item: Json) -> str | None:
        return None if not item.get(field) else ago(datetime.fromisoformat(item[field]), datetime.now(UTC))

    return show


def ago(moment: datetime, now: datetime) -> str:
    """``3 min ago``, ``in 2 h``."""
    seconds = (now - moment).total_seconds()
    size, unit = next(
        (scale for scale in ((86_400, "d"), (3600, "h"), (60, "min")) if abs(seconds) >= scale[0]), (1, "s")
    )
    amount = f"{abs(seconds) / size:.0f} {unit}"
    return f"{amount} ago" if seconds >= 0 else f"in {amount}"


def duration(seconds: float | None) -> str:
    """``1:05`` or ``2:03:00``; a dash when unknown."""
    if seconds is None:
        return "–"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def size(field: str) -> Callable[[Json], str]:
    """Bytes as kB or MB."""

    def show(item: Json) -> str:
        count = float(item[field])
        return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"

    return show


def share(field: str) -> Callable[[Json], str | None]:
    """A metric between 0 and 1 as percent."""

    def show(item: Json) -> str | None:
        value = (item.get("metrics") or {}).get(field)
        return None if value is None else f"{100 * value:.1f} %"

    return show


def identified(item: Json, *, as_json: bool) -> None:
    """What a command made or waited for: its id, or all of it as JSON."""
    if as_json:
        json_out(item)
    else:
        sys.stdout.write(f"{item['id']}\n")
