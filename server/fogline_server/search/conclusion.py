"""What a search comes to: the front, the pick and the best single method, with the reasons against every other candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fogline_server.compression.evaluate import latencies
from fogline_server.compression.front import Limits, Measured, Pick, front, pick
from fogline_server.registry.model import MOST_CHAINS
from fogline_server.search.evidence import HOLDOUT, Evidence
from fogline_server.search.model import SearchSpec
from fogline_server.search.outcomes import Tried
from fogline_server.search.source import Source
from fogline_server.search.space import Entry
from fogline_shared.errors import FoglineError

_PARENT = "float parent"
_FIGURES = ("accuracy", "worst_class_accuracy", "calibration_error")


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """``finalists``: measured with their whole training, by name; ``shipped``: names for a release, the pick first."""

    limits: Limits
    parent: Mapping[str, Any]
    finalists: Mapping[str, Tried]
    front: Sequence[str]
    pick: str | None
    sentence: str
    best_single: str | None
    single_sentence: str
    shipped: Sequence[str]
    evidence: Mapping[str, Any]
    candidates: Sequence[Mapping[str, Any]]

    def summary(self) -> dict[str, Any]:
        """For the job."""
        trials = [rung for each in self.candidates for rung in each["rungs"]]
        return {
            "candidates": len(self.candidates),
            "trials": len(trials),
            "cached": sum(rung["cached"] for rung in trials),
            "front": len(self.front),
            "pick": self.pick,
            "sentence": self.sentence,
        }

    def as_json(self) -> dict[str, Any]:
        """For the search's row."""
        return {
            **self.summary(),
            "front": list(self.front),
            "best_single": self.best_single,
            "best_single_sentence": self.single_sentence,
            "evidence": dict(self.evidence),
            "parent": _figures(self.parent),
            "candidates": list(self.candidates),
        }


def conclude(
    spec: SearchSpec,
    source: Source,
    rungs: Sequence[Sequence[Tried]],
    left_out: Sequence[tuple[Entry, FoglineError]],
    *,
    parent: Mapping[str, Any],
    read: Callable[[str], bytes],
) -> Conclusion:
    """Pick among the finalists. Raises what ``read``, of an artifact by digest, raises."""
    last = len(rungs) - 1
    ended = [e for i, rung in enumerate(rungs) for e in rung if e.digest and (i == last or not e.entry.trains)]
    parent, finalists = _timed(source, parent, {each.entry.name: each for each in ended}, rungs, read)
    parents = {half: Measured.of(_PARENT, {**parent[half], **parent}) for half in ("choosing", "judging")}
    forms = [each.form() for each in finalists.values()]
    # The half that chooses ranks. Both halves must keep the limits: the best of many on one half is partly the luckiest.
    judged = {
        name: [
            f"on the judging half: {reason}" for reason in spec.limits.lost_by(each.form("judging"), parents["judging"])
        ]
        for name, each in finalists.items()
    }
    chosen = pick(forms, spec.limits, parent=parents["choosing"], also=judged)
    singles = [form for form in forms if finalists[form.name].entry.single]
    single = pick(singles, spec.limits, parent=parents["choosing"], also=judged)
    best = [form.name for form in front(forms)]
    taken = chosen.taken.name if chosen.taken else None
    within = [name for name in best if name not in chosen.refused and name != taken]
    return Conclusion(
        limits=spec.limits,
        parent=parent,
        finalists=finalists,
        front=best,
        pick=taken,
        sentence=_sentence(chosen, finalists, parent, source.evidence),
        best_single=single.taken.name if single.taken else None,
        single_sentence="it is the pick"
        if single.taken is not None and single.taken.name == taken
        else _sentence(single, finalists, parent, source.evidence),
        shipped=[taken, *within][:MOST_CHAINS] if taken else [],
        evidence=_evidence(source.evidence),
        candidates=_candidates(rungs, left_out, finalists, chosen, best),
    )


def _timed(
    source: Source,
    parent: Mapping[str, Any],
    finalists: Mapping[str, Tried],
    rungs: Sequence[Sequence[Tried]],
    read: Callable[[str], bytes],
) -> tuple[Mapping[str, Any], Mapping[str, Tried]]:
    """The latency of finalists and parent side by side: what was measured at different times does not compare.

    If everything was found, they were compared before: the same search has the same result.
    """
    if all(each.cached for rung in rungs for each in rung):
        return parent, finalists
    models = {name: read(str(each.digest)) for name, each in finalists.items()}
    times = latencies({_PARENT: source.model, **models}, source.evidence.example)
    timed = {name: replace(each, metrics={**(each.metrics or {}), **times[name]}) for name, each in finalists.items()}
    return {**parent, **times[_PARENT]}, timed


def _evidence(evidence: Evidence) -> dict[str, Any]:
    return {"kind": evidence.kind, "choosing": len(evidence.choosing), "judging": len(evidence.judging)}


def _sentence(chosen: Pick, finalists: Mapping[str, Tried], parent: Mapping[str, Any], evidence: Evidence) -> str:
    labels = "right" if evidence.kind == HOLDOUT else "labelled as the float parent labels them"
    if chosen.taken is None:
        return chosen.sentence + _nearest(chosen)
    metrics = finalists[chosen.taken.name].metrics or {}
    return (
        f"{chosen.sentence}. That is of the {len(evidence.choosing)} examples that chose; of the {len(evidence.judging)} "
        f"that only judged, {metrics['judging']['accuracy']:.1%} are {labels} (float parent "
        f"{parent['judging']['accuracy']:.1%})"
    )


def _nearest(chosen: Pick) -> str:
    """The candidate with the fewest reasons against it."""
    if not chosen.refused:
        return ": no chain gave a form, see each candidate's error"
    name, reasons = min(chosen.refused.items(), key=lambda item: (len(item[1]), item[0]))
    return f"; nearest is {name}: {'; '.join(reasons)}"


def _candidates(
    rungs: Sequence[Sequence[Tried]],
    left_out: Sequence[tuple[Entry, FoglineError]],
    finalists: Mapping[str, Tried],
    chosen: Pick,
    best: Sequence[str],
) -> list[dict[str, Any]]:
    """Every chain of the space with all that was found of it, in its order."""
    by_number: dict[int, list[Tried]] = {}
    for rung in rungs:
        for each in rung:
            by_number.setdefault(each.entry.number, []).append(each)
    rows = [_candidate(tried, finalists, chosen, best) for tried in by_number.values()]
    rows += [_row(entry, [f"{error.code}: {error.message}"]) for entry, error in left_out]
    return sorted(rows, key=lambda row: int(row["number"]))


def _candidate(
    tried: Sequence[Tried], finalists: Mapping[str, Tried], chosen: Pick, best: Sequence[str]
) -> dict[str, Any]:
    entry, final = tried[0].entry, finalists.get(tried[0].entry.name)
    row = _row(entry, _why_not(tried, final, chosen))
    row["rungs"] = [_rung(each) for each in tried]
    # Cached files that are on no front may be collected: the digest is told where it stays.
    front_digest = final.digest if final is not None and entry.name in best else None
    figures = _figures(final.metrics) if final is not None and final.metrics else None
    return {**row, "final": final is not None, "front": entry.name in best, "digest": front_digest, "metrics": figures}


def _row(entry: Entry, why_not: Sequence[str]) -> dict[str, Any]:
    return {
        "number": entry.number,
        "name": entry.name,
        "chain": str(entry.chain),
        "trains": entry.trains,
        "single": entry.single,
        "final": False,
        "front": False,
        "digest": None,
        "metrics": None,
        "rungs": [],
        "why_not": list(why_not),
    }


def _rung(tried: Tried) -> dict[str, Any]:
    return {
        "share": round(tried.share, 6),
        "cached": tried.cached,
        "accuracy": None if tried.metrics is None else tried.metrics["choosing"]["accuracy"],
        "error": None if tried.error is None else {name: tried.error[name] for name in ("code", "message")},
    }


def _why_not(tried: Sequence[Tried], final: Tried | None, chosen: Pick) -> list[str]:
    """Why it is not the pick; nothing for the pick itself."""
    last = tried[-1]
    if last.error is not None:
        return [f"{last.error['code']}: {last.error['message']}"]
    if final is None:
        return [f"with {last.share:.0%} of its training it was not among the best third of its rung"]
    name, taken = final.entry.name, chosen.taken
    if taken is None or name == taken.name:
        return list(chosen.refused.get(name, ()))
    return list(chosen.refused.get(name, ())) or [_behind(final.form(), taken)]


def _behind(form: Measured, taken: Measured) -> str:
    """What the pick has before a form that is within the limits too."""
    if form.accuracy != taken.accuracy:
        return f"{form.accuracy:.2%} where {taken.name} has {taken.accuracy:.2%}"
    if form.worst_class != taken.worst_class:
        return (
            f"as accurate, but {form.worst_class:.2%} in the worst class where {taken.name} has {taken.worst_class:.2%}"
        )
    return f"as accurate, but {form.p50_us:g} µs and {form.size} bytes"


def _figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Without confusion matrices: a report has a line a candidate."""
    plain = {name: value for name, value in metrics.items() if name not in {"choosing", "judging"}}
    return plain | {half: {name: metrics[half][name] for name in _FIGURES} for half in ("choosing", "judging")}
