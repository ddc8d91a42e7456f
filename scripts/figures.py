"""Write the README's table of figures from ``benchmarks/results/``, or with ``--check`` say whether it is what they say."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures: make bench, scripts/figures.py -->\n", "<!-- /figures -->\n"
GROUPS = ("smartwatch_margin", "demo", "edge", "batch", "round_overhead")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the README says otherwise")
    check = parser.parse_args().check
    before = README.read_text()
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        sys.exit(f"README.md lacks the lines {BEGIN.strip()} and {END.strip()}")
    after = head + BEGIN + _table() + END + tail
    if check:
        if after != before:
            sys.exit("README.md does not say what benchmarks/results do: run scripts/figures.py")
        return 0
    README.write_text(after)
    return 0


def _table() -> str:
    lines = ["| figure | ours | peer or limit | ratio | target |", "|---|---|---|---|---|"]
    for group in GROUPS:
        result = json.loads((RESULTS / f"{group}.json").read_text())
        lines += [_row(figure) for figure in result["figures"]]
    return "\n".join(lines) + "\n"


def _row(figure: dict[str, Any]) -> str:
    spread = f" ± {figure['spread']:.2g}" if figure["spread"] else ""
    target = f"{'≥' if figure['higher_is_better'] else '≤'} {figure['target']:.3g}"
    cells = (
        figure["name"],
        f"{figure['ours']:.3g}{spread} {figure['unit']}",
        f"{figure['peer']:.3g} {figure['unit']}, {figure['peer_name']}",
        f"{figure['ratio']:.3g}",
        target if figure["met"] else f"{target}: missed",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
