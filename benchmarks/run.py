"""``make bench``: measure the loop's groups (or those named), print one table, write ``results/<group>.json``.

Exit code 0 when every target is met, 1 when one is not, 2 when a group could not be measured. Killed by SIGTERM or Ctrl-C it
leaves no process behind.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback

from harness import Figure, Options, progress, show, write
from processes import nothing_left

# The loop of `make bench`, and the figures of federated training (`make bench-federation`), which take hours.
LOOP = ("edge", "batch", "round_overhead", "smartwatch_margin", "update_codecs", "demo")
FEDERATION = (
    "federation.aggregation",
    "federation.simulation",
    "federation.crowd",
    "federation.dropout",
    "federation.heterogeneous",
    "federation.robustness",
)
# `make bench-compression`: what fits on a device, and what it costs.
COMPRESSION = (
    "compression.shipped",
    "compression.methods",
    "compression.search",
    "compression.distillation",
    "compression.delta",
    "compression.storage",
    "compression.trust",
)
# `make bench-edge`, with the loop's own group `edge`: what a device's predictions cost, in its process and from outside, and its swaps.
EDGE = ("edge.serving", "edge.swap")
UMBRELLAS = {"federation": FEDERATION, "compression": COMPRESSION}
GROUPS = LOOP + FEDERATION + COMPRESSION + EDGE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ", ".join(GROUPS)
    parser.add_argument(
        "groups",
        nargs="*",
        metavar="GROUP",
        help=f"any of {known}; {' or '.join(UMBRELLAS)}: all of its; default: {', '.join(LOOP)}",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to try a benchmark out; writes no results")
    arguments = parser.parse_args()
    groups = [g for name in arguments.groups or LOOP for g in UMBRELLAS.get(name, (name,))]
    if unknown := set(groups) - set(GROUPS):
        parser.error(f"unknown group {min(unknown)!r}; known: {known}, {', '.join(UMBRELLAS)}")
    options = Options(quick=arguments.quick)
    figures: list[Figure] = []
    failed = []
    for group in groups:
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
    with nothing_left():
        sys.exit(main())
