"""A simulation's facts as a page, and as the few lines that a person wants at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fogline_server.reporting import page

Facts = Mapping[str, Any]


def html(facts: Facts) -> str:
    """The whole report."""
    return page.render("fogline_server.simulation", facts=facts, charts=_charts(facts), fleet=fleet(facts["spec"]))


def fleet(spec: Facts) -> Sequence[tuple[str, str]]:
    """What was simulated, in words."""
    samples = "as the recipe's own devices" if spec["samples"] is None else f"{spec['samples']} examples a device"
    attack = f"{spec['attackers']:.0%} {spec['attack']}" if spec["attack"] else "none"
    run = spec["run"]
    options = ", ".join(f"{name}={value}" for name, value in run["strategy_options"].items())
    return (
        ("strategy", f"{run['strategy']} {options}".strip()),
        ("data", f"split {spec['split']} of {len(spec['keys'])} keys, {samples}"),
        ("attackers", attack),
        ("availability", spec["availability"]),
        ("dropout", f"{spec['dropout']:.0%}"),
        ("speed", f"median {spec['speed']:g} examples a second, spread {spec['spread']:g}"),
        ("privacy", privacy(run)),
        ("quorum and deadline", f"{run['quorum']:.0%} of the asked in {run['round_deadline_s']:g} s"),
    )


def privacy(run: Facts) -> str:
    """Who adds which noise, in words."""
    own, central = run["local_privacy"], run["privacy"]
    if own["epsilon"] is not None:
        return f"local: each update ε {own['epsilon']:g} at δ {own['delta']:g}, clipped to {own['clip']:g}"
    if central["population"] is None:
        return "none"
    to = f"clipped to {central['clip']:g}"
    if central["clip_quantile"] is not None:
        to += f" at first, then to the quantile {central['clip_quantile']:g} of lengths"
    return f"central: noise multiplier {central['noise_multiplier']:g}, {to}"


def summary(facts: Facts) -> dict[str, object]:
    """One record for a terminal."""
    run, told = facts["spec"]["run"], facts["rounds"][1:]
    record: dict[str, object] = {
        "devices": facts["spec"]["devices"],
        "strategy": run["strategy"],
        "rounds committed": f"{facts['committed']} of {len(told)}",
        "virtual hours": round(facts["virtual_s"] / 3600, 2),
        "wasted device time": f"{facts['wasted_share']:.1%}",
    }
    for name in ("holdout", "unseen"):
        if facts[name] is not None:
            record[f"{name} accuracy"] = f"{facts[name]['accuracy']:.1%}"
    if facts["epsilon"] is not None:
        whose = "of a device in every round " if run["local_privacy"]["epsilon"] is not None else ""
        delta = run["local_privacy"]["delta"] if whose else facts["spec"]["delta"]
        record["ε spent"] = f"{facts['epsilon']:.3f} {whose}at δ {delta:g}"
        clips = [r["privacy"]["clip"] for r in told if "privacy" in r]
        record["clip"] = (
            f"{clips[0]:.3g}" if clips[0] == clips[-1] else f"{clips[0]:.3g} at first, {clips[-1]:.3g} at last"
        )
    if facts["distillation"] is not None:
        record["distillation"] = facts["distillation"]["sentence"]
    if facts["spec"]["attack"]:
        answered, accepted = (sum(r.get("attackers", {}).get(k, 0) for r in told) for k in ("answered", "accepted"))
        record["attackers' updates accepted"] = f"{accepted} of {answered}"
    return {**record, "parameters": facts["params_digest"]}


def _charts(facts: Facts) -> dict[str, Any]:
    told = facts["rounds"][1:]
    measured = {
        "holdout": [(r["number"], r["holdout"]["accuracy"]) for r in told if "holdout" in r],
        "devices": [
            (r["number"], r["evaluation"]["accuracy"])
            for r in told
            if r.get("evaluation", {}).get("accuracy") is not None
        ],
    }
    longest = len(told)
    return {
        "curves": {name: page.points(curve, longest=longest) for name, curve in measured.items() if curve},
        "longest": longest,
    }
