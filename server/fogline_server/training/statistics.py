"""Round 0: how to standardise, and how much data each device has, from sums that the devices add up locally."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from fogline_server.training.admission import Candidate, Judgement, Limits, judge_metrics
from fogline_shared.errors import Conflict
from fogline_shared.recipe import ChannelSums, Standardisation
from fogline_shared.states import UpdateVerdict

COUNT, TOTAL, SQUARES = "count", "total", "squares"
# A device that claims this many times the cohort's median of examples would alone decide how all are standardised.
_LARGEST_SHARE = 100


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """``samples``: examples by Flower node id."""

    standardisation: Standardisation
    samples: Mapping[int, int]

    def as_json(self) -> dict[str, Any]:
        """``{"mean": […], "scale": […], "samples": {"<node id>": n}}``: also a Standardisation's own JSON."""
        return {**self.standardisation.as_json(), "samples": {str(node): n for node, n in self.samples.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Statistics:
        """Inverse of :meth:`as_json`."""
        return cls(
            standardisation=Standardisation.from_json(value),
            samples={int(node): n for node, n in value["samples"].items()},
        )


def gather(candidates: Sequence[Candidate], *, channels: int, needed: int = 1) -> tuple[Statistics, list[Judgement]]:
    """Judge the devices' sums and add up the good ones.

    Raises Conflict ``no_update_accepted`` when there is none, ``quorum_not_reached`` when fewer than ``needed``.
    """
    judged = judge_metrics(candidates, Limits(enrolled={}, max_norm_ratio=1.0))
    judged = [
        _check_sums(judgement, candidate.metrics or {}, channels)
        for judgement, candidate in zip(judged, candidates, strict=True)
    ]
    counts = [j.samples for j in judged if j.verdict == UpdateVerdict.ACCEPTED]
    limit = _LARGEST_SHARE * (median(counts) if counts else 0)
    judged = [_compare_count(judgement, limit) for judgement in judged]
    sums = [
        _sums(candidate.metrics or {})
        for judgement, candidate in zip(judged, candidates, strict=True)
        if judgement.verdict == UpdateVerdict.ACCEPTED
    ]
    if len(sums) < needed:
        raise too_few_accepted(0, judged, needed)
    total = sum(sums[1:], sums[0])
    samples = {j.node_id: j.samples for j in judged if j.verdict == UpdateVerdict.ACCEPTED}
    return Statistics(standardisation=total.standardisation(), samples=samples), judged


class TooFewAccepted(Conflict):
    """Conflict ``no_update_accepted`` or ``quorum_not_reached``, with what became of each reply."""

    judgements: Sequence[Judgement] = ()


def too_few_accepted(round_number: int, judged: Sequence[Judgement], needed: int) -> TooFewAccepted:
    """The error that fails a round when too few of its replies are usable; names the first reason."""
    told = _too_few(round_number, judged, needed)
    error = TooFewAccepted(told.code, told.message)
    error.judgements = judged
    return error


def _too_few(round_number: int, judged: Sequence[Judgement], needed: int) -> Conflict:
    bad = [j for j in judged if j.verdict != UpdateVerdict.ACCEPTED]
    why = f"; node {bad[0].node_id}: {bad[0].code}: {bad[0].reason}" if bad else ""
    if not judged or len(bad) == len(judged):
        text = f"none of {len(judged)} replies of round {round_number} is usable{why or '; no device replied'}"
        return Conflict("no_update_accepted", text[:400])
    usable = f"{len(judged) - len(bad)} of {len(judged)} updates of round {round_number} are usable"
    return Conflict("quorum_not_reached", f"{usable}, {needed} are needed{why}"[:400])


def _check_sums(judgement: Judgement, metrics: Mapping[str, Any], channels: int) -> Judgement:
    if judgement.verdict != UpdateVerdict.ACCEPTED:
        return judgement
    total, squares = metrics.get(TOTAL), metrics.get(SQUARES)
    right = (
        isinstance(total, list)
        and isinstance(squares, list)
        and len(total) == len(squares) == channels
        and isinstance(metrics.get(COUNT), int | float)
        and metrics[COUNT] > 0
        and all(value >= 0 for value in squares)
    )
    if right:
        return judgement
    reason = f"the sums must be of {channels} channels, with a positive count and squares that are not negative"
    return replace(judgement, verdict=UpdateVerdict.REFUSED, code="bad_statistics", reason=reason)


def _compare_count(judgement: Judgement, limit: float) -> Judgement:
    if judgement.verdict != UpdateVerdict.ACCEPTED or judgement.samples <= limit:
        return judgement
    reason = f"claims {judgement.samples:g} examples, more than {_LARGEST_SHARE} times the cohort's median"
    return replace(judgement, verdict=UpdateVerdict.REFUSED, code="implausible_samples", reason=reason)


def _sums(metrics: Mapping[str, Any]) -> ChannelSums:
    return ChannelSums(
        count=float(metrics[COUNT]),
        total=np.asarray(metrics[TOTAL], dtype=np.float64),
        squares=np.asarray(metrics[SQUARES], dtype=np.float64),
    )
