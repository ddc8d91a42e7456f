"""What the demo measured, as one JSON-able mapping, and that mapping as a self-contained page."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fogline_server.demo.story import VARIANTS
from fogline_server.reporting import page as reporting
from fogline_server.reporting.scatter import Form, Scatter, kind_of, scatter
from fogline_shared import __version__

Row = Mapping[str, Any]


def facts(told: Row) -> dict[str, Any]:
    """Everything the tables, report.json and report.html show."""
    release, unseen = told["release"], told["unseen"]
    shown = {variant["name"]: variant for variant in release["variants"]}
    return {
        "fogline": __version__,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "release": release["name"],
        "choice": release["report"]["choice"],
        "gates": release["report"]["gates"],
        "accuracy": _accuracy(told["yardsticks"], unseen),
        "personal": told["personal"],
        "curves": {name: _curve(run["rounds"]) for name, run in told["runs"].items()},
        "variants": [_variant(shown[name], unseen) for name in VARIANTS],
        "search": _search(told["search"]["result"]),
        "rollouts": [
            _rollout(told["good"], "good", len(told["fleet"])),
            _rollout(told["broken"], "broken", len(told["fleet"])),
        ],
        "checked": {name: told["checked"][name] for name in ("name", "trusted_root", "active_digest")},
        "batch": _batch(told["batch"]),
        "fleet": [{k: d[k] for k in ("name", "state", "online", "tags", "active_digest")} for d in told["fleet"]],
    }


def _accuracy(yards: Row, unseen: Row) -> dict[str, Any]:
    federated = unseen["student_fp32"]["accuracy"]
    return {
        "devices": len(yards["local"]["by_person"]),
        "local_mean": yards["local"]["mean"],
        "local_best": yards["local"]["best"],
        "local_by_person": yards["local"]["by_person"],
        "federated": federated,
        "teacher": unseen["teacher_fp32"]["accuracy"],
        "central": yards["central"]["accuracy"],
        "margin_points": 100 * (federated - yards["local"]["mean"]),
    }


def _curve(rounds: Sequence[Row]) -> list[dict[str, float]]:
    return [
        {"round": r["number"], "accuracy": r["metrics"]["holdout_accuracy"]}
        for r in rounds
        if "holdout_accuracy" in r["metrics"]
    ]


def _variant(variant: Row, unseen: Row) -> dict[str, Any]:
    metrics = variant["metrics"]
    return {
        "name": variant["name"],
        "digest": variant["digest"],
        "unseen": unseen[variant["name"]]["accuracy"],
        "worst_class": unseen[variant["name"]]["worst_class_accuracy"],
        "holdout": metrics["accuracy"],
        **{name: metrics[name] for name in ("bytes", "bytes_zstd", "p50_us", "p99_us")},
    }


def _search(result: Row) -> dict[str, Any]:
    """The forms that were measured, smallest first, with the pick; ``accuracy`` is of the half that chose."""
    return {
        **{name: result[name] for name in ("pick", "sentence", "best_single_sentence", "evidence", "trials", "cached")},
        "forms": sorted(
            (
                {
                    "name": row["name"],
                    "chain": row["chain"],
                    "accuracy": row["metrics"]["choosing"]["accuracy"],
                    "judged": row["metrics"]["judging"]["accuracy"],
                    "worst_class": row["metrics"]["choosing"]["worst_class_accuracy"],
                    "size": row["metrics"]["bytes_zstd"],
                    "p50_us": row["metrics"]["p50_us"],
                    "front": row["front"],
                    "why_not": row["why_not"],
                }
                for row in result["candidates"]
                if row["final"]
            ),
            key=lambda form: form["size"],
        ),
        "failed": [
            {name: row[name] for name in ("chain", "why_not")} for row in result["candidates"] if not row["final"]
        ],
    }


def _rollout(told: Row, title: str, devices: int) -> dict[str, Any]:
    rollout = told["rollout"]
    began = datetime.fromisoformat(rollout["started_at"])
    entries = [
        {
            "what": event["kind"].removeprefix("rollout.").replace("_", " ") + _stage(event["data"]),
            "seconds": (datetime.fromisoformat(event["at"]) - began).total_seconds(),
            "why": str(event["data"].get("reason", "")),
        }
        for event in told["events"]
    ]
    return {
        "title": title,
        "state": rollout["state"],
        "reason": rollout["reason"],
        "devices": devices,
        # Assignments are made when a device is offered the release; how far it came before it was called back is not asked.
        "devices_offered": len(told["assignments"]),
        # On their way to all devices that were offered it: as whole files, and as what was sent.
        "whole_bytes": told["artifact"]["size"] * len(told["assignments"]),
        "wire_bytes": rollout["wire_bytes"],
        "timeline": [entry for entry in entries if entry["seconds"] >= 0],
        "stages": [{k: s[k] for k in ("number", "state", "percent", "evidence")} for s in told["stages"]],
    }


def _stage(data: Row) -> str:
    return f" {data['stage'] + 1}" if "stage" in data else ""


def _batch(told: Row) -> dict[str, Any]:
    job, plain = told["job"], told["plain"]
    began, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    rows, seconds = plain["rows"], (ended - began).total_seconds()
    return {
        "rows": rows,
        "ours": {"seconds": seconds, "rows_per_s": rows / seconds},
        "plain": {"seconds": plain["seconds"], "rows_per_s": rows / plain["seconds"]},
        "ratio": seconds / plain["seconds"],
    }


def page(told: Row) -> str:
    """The report as HTML without a script or a link: it can be mailed."""
    return reporting.render("fogline_server.demo", facts=told, charts=_charts(told))


def _charts(told: Row) -> dict[str, Any]:
    """The curves' points, accuracy from 0 to 1 upwards."""
    longest = max((len(curve) for curve in told["curves"].values()), default=1)
    curves = {
        name: reporting.points([(p["round"], p["accuracy"]) for p in curve], longest=longest)
        for name, curve in told["curves"].items()
    }
    return {"curves": curves, "rounds": longest, "forms": _forms(told["search"])}


def _forms(search: Row) -> Scatter | None:
    """Where each form of the student lies."""
    return scatter(
        [
            Form(
                name=form["name"],
                kind=kind_of(form["name"], front=form["front"], pick=search["pick"]),
                size=form["size"],
                accuracy=form["accuracy"],
                title=form["chain"],
            )
            for form in search["forms"]
        ]
    )
