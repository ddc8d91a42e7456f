"""Write the tables of figures in the documents from ``benchmarks/results/``, or with ``--check`` say whether they are what it says.

A table stands between ``<!-- figures: GROUP GROUP … -->`` and ``<!-- /figures -->``; every result is in one of them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TABLE = re.compile(r"(<!-- figures: (?P<groups>[\w. ]+) -->\n).*?(<!-- /figures -->\n)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a document says otherwise")
    check = parser.parse_args().check
    shown: set[str] = set()
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        before = document.read_text()
        after = TABLE.sub(lambda found: found[1] + _table(found["groups"].split()) + found[3], before)
        shown.update(group for found in TABLE.finditer(before) for group in found["groups"].split())
        if check and after != before:
            sys.exit(f"{document.name} does not say what benchmarks/results do: run scripts/figures.py")
        if after != before:
            document.write_text(after)
    if unseen := {path.stem for path in RESULTS.glob("*.json")} - shown:
        sys.exit(f"no document shows these results: {', '.join(sorted(unseen))}")
    return 0


def _table(groups: Sequence[str]) -> str:
    lines = ["| figure | ours | peer or limit | ratio | target |", "|---|---|---|---|---|"]
    for group in groups:
        result = json.loads((RESULTS / f"{group}.json").read_text())
        lines += [_row(figure) for figure in result["figures"]]
    return "\n".join(lines) + "\n"


def _row(figure: dict[str, Any]) -> str:
    spread = f" ± {figure['spread']:.2g}" if figure["spread"] else ""
    target = f"{'≥' if figure['higher_is_better'] else '≤'} {figure['target']:.3g}"
    cells = (
        figure["name"],
        f"{_short(figure['ours'])}{spread} {figure['unit']}",
        f"{_short(figure['peer'])} {figure['unit']}, {figure['peer_name']}",
        f"{figure['ratio']:.3g}",
        target if figure["met"] else f"{target}: missed",
    )
    return f"| {' | '.join(cells)} |"


def _short(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
