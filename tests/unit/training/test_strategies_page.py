"""docs/strategies.md has a row for each strategy, with each option's default."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from fogline_server.training.strategies import base

PAGE = (Path(__file__).resolve().parents[3] / "docs/strategies.md").read_text()
ROWS = {line.split("`")[1]: line for line in PAGE.splitlines() if line.startswith("| `")}


def test_page_lists_the_strategies_there_are() -> None:
    assert sorted(ROWS) == base.names()


@pytest.mark.parametrize("name", base.names())
def test_row_tells_each_option_with_its_default(name: str) -> None:
    options = asdict(base.load(name, {}).options)
    told = ROWS["fedadam"] if name == "fedyogi" else ROWS[name]
    for option, default in options.items():
        assert f"`{option}`" in ROWS[name]
        assert f"`{option}` {default:g}," in told
