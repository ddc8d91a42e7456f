"""``make bench``: measure every group (or those named), print one table, write ``results/<group>.json``.

Exit code 0 when every target is met, 1 when one is not, 2 when a group could not be measured.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback

from harness import Figure, Options, progress, show, write

GROUPS = (
    "edge",
    "batch",
    "round_overhead",
    "smartwatch_margin",
    "update_codecs",
    "federation.aggregation",
    "federation.simulation",
    "federation.crowd",
    "federation.dropout",
    "federation.robustness",
    "federation.heterogeneous",
    "demo",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"any of {', '.join(GROUPS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try a benchmark out; writes no results")
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - set(GROUPS):
        parser.error(f"unknown group {min(unknown)!r}; known: {', '.join(GROUPS)}")
    options = Options(quick=arguments.quick)
    figures: list[Figure] = []
    failed = []
    for group in arguments.groups or GROUPS:
        progress(f"measuring {group}")
        try:
            measured = importlib.import_module(group).measure(options)
        except Exception:  # one group that cannot be measured must not hide the others
            traceback.print_exc()
            failed.append(group)
            continue
        figures += measured
        if not options.quick:
            progress(f"wrote {write(group, measured)}")
    show(figures)
    for group in failed:
        print(f"not measured: {group}", file=sys.stderr)
    return 2 if failed else int(not all(figure.met for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
