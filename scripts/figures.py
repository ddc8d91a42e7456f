"""Write the tables of figures in the documents from ``benchmarks/results/``, or with ``--check`` say whether they are what it says.

A table stands between ``<!-- figures: GROUP GROUP … -->`` and ``<!-- /figures -->``; every result is in one of them. Between
``<!-- methods: SUBJECT … -->`` and ``<!-- /methods -->`` stands every compression method on these students.
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
METHODS = re.compile(r"(<!-- methods: (?P<subjects>[\w ]+) -->\n).*?(<!-- /methods -->\n)", re.DOTALL)
TABLE = re.compile(r"(<!-- figures: (?P<groups>[\w. ]+) -->\n).*?(<!-- /figures -->\n)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a document says otherwise")
    check = parser.parse_args().check
    shown: set[str] = set()
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        before = document.read_text()
        after = TABLE.sub(lambda found: found[1] + _table(found["groups"].split()) + found[3], before)
        after = METHODS.sub(lambda found: found[1] + _methods(found["subjects"].split()) + found[3], after)
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


def _methods(subjects: Sequence[str]) -> str:
    """Mean ± deviation of accuracy, of the worst class, bytes as sent, time beside the float student's; a column a student."""
    figures = json.loads((RESULTS / "compression.methods.json").read_text())["figures"]
    details = [next(f["detail"] for f in figures if f["name"] == f"{name}: int8 loses") for name in subjects]
    chains = dict.fromkeys(chain for detail in details for chain in (*detail["table"], *detail["refused"]))
    lines = [f"| chain | {' | '.join(subjects)} |", "|---|" + "---|" * len(subjects)]
    lines += [f"| `{chain}` | {' | '.join(_measured(detail, chain) for detail in details)} |" for chain in chains]
    return "\n".join(lines) + "\n"


def _measured(detail: dict[str, Any], chain: str) -> str:
    if chain in detail["refused"]:
        return f"`{detail['refused'][chain]}`"
    (right, spread), (worst, _), (size, _), (time, _) = (
        detail["table"][chain][field] for field in ("accuracy", "worst", "size", "time")
    )
    return f"{100 * right:.1f} ± {100 * spread:.1f} %, {100 * worst:.0f} %, {size / 1000:.1f} kB, × {time:.2f}"


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
