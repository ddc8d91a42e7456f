"""Successive halving: all candidates get a little training, the best third three times as much, and so on. Pure.

Jamieson, Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016; a third in place of
a half, as in Li et al., "Hyperband", JMLR 18(185), 2018, §3.6. There each round costs the same; here each is a whole training anew,
since a schedule that ends early has ended, and cannot be continued.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fogline_server.compression.front import Limits, Measured, rank

ETA = 3
MOST_RUNGS = 3


def shares(candidates: int) -> list[float]:
    """Of the training, what each rung gives; the last gives all. As many rungs as leave somebody to the last: 1, 3 or 9."""
    rungs = 1
    while rungs < MOST_RUNGS and candidates >= ETA**rungs:
        rungs += 1
    return [float(ETA) ** (i + 1 - rungs) for i in range(rungs)]


def expected(candidates: int) -> int:
    """How many trainings all rungs come to, if none fails."""
    total, left = 0, candidates
    for _ in shares(candidates):
        total += left
        left = math.ceil(left / ETA)
    return total


def survivors(forms: Sequence[Measured], limits: Limits, *, parent: Measured) -> list[str]:
    """The names of the best third: those within the limits of bytes and latency first, then by :func:`rank`.

    Limits of accuracy wait for the end, since training wins accuracy and nothing else. The first of this order is never
    beaten by another form: one that beats it would be within these limits as well, and before it. So some of the Pareto
    front always survives.
    """
    fixed = Limits(max_bytes=limits.max_bytes, max_p50_us=limits.max_p50_us)
    order = sorted(forms, key=lambda form: (bool(fixed.broken_by(form, parent)), rank(form)))
    return [form.name for form in order[: math.ceil(len(order) / ETA)]]
