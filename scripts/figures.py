"""Write the documents' tables of figures from ``benchmarks/results/``, or with ``--check`` say whether they are what it says."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures: make bench, scripts/figures.py -->\n", "<!-- /figures -->\n"
DOCUMENTS = {
    "README.md": ("smartwatch_margin", "demo", "edge", "batch", "round_overhead"),
    "docs/codecs.md": ("update_codecs",),
    "docs/cohorts.md": ("federation.dropout",),
    "docs/deltas.md": ("compression.delta",),
    "docs/storage.md": ("compression.storage",),
    "docs/strategies.md": ("federation.robustness",),
    "docs/trust.md": ("compression.trust",),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the README says otherwise")
    check = parser.parse_args().check
    for document, groups in DOCUMENTS.items():
        before = (ROOT / document).read_text()
        head, begin, rest = before.partition(BEGIN)
        _, end, tail = rest.partition(END)
        if not begin or not end:
            sys.exit(f"{document} lacks the lines {BEGIN.strip()} and {END.strip()}")
        after = head + BEGIN + _table(groups) + END + tail
        if check and after != before:
            sys.exit(f"{document} does not say what benchmarks/results do: run scripts/figures.py")
        if not check:
            (ROOT / document).write_text(after)
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
