"""Pages by cursor: a page begins after the id the one before ended with, so inserts between two pages shift nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from fogline_server.api.schemas import Page

Row = TypeVar("Row")
Item = TypeVar("Item")


def page_of(
    rows: Sequence[Row], limit: int, *, cursor: Callable[[Row], str], show: Callable[[Row], Item]
) -> Page[Item]:
    """A page from ``limit + 1`` rows at most; the one too many says that there is more."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Page[Item](items=[show(row) for row in shown], next_cursor=cursor(shown[-1]) if more else None)
