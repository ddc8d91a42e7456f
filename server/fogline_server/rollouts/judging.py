"""What speaks against the present stage, and what its gates say. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.orm import Session

from fogline_server.rollouts import store
from fogline_server.rollouts.gates.base import GateResult
from fogline_server.rollouts.plan import RolloutPlan
from fogline_server.rollouts.reports import FAILED
from fogline_server.rollouts.tables import Assignment, Rollout, Stage
from fogline_server.telemetry.evidence import Evidence, balanced, by_device
from fogline_shared.states import Verdict


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """``against``: why the stage must fail, if it must. ``results``: one a gate, in the plan's order."""

    against: str
    results: Sequence[tuple[str, GateResult]]

    @property
    def passed(self) -> bool:
        """Whether every gate passes; true without gates."""
        return all(result.verdict == Verdict.PASS for _, result in self.results)

    @property
    def holding(self) -> str:
        """The gates that cannot tell, for a person."""
        return "; ".join(f"{name}: {r.reason}" for name, r in self.results if r.verdict == Verdict.HOLD)


def judge(session: Session, rollout: Rollout, plan: RolloutPlan, stage: Stage) -> Judgement:
    """Count the devices that went back from the artifact, in this stage or since the one before it, and ask the gates."""
    everyone = store.assignments(session, rollout.id)
    mine = [a for a in everyone if a.stage == stage.number]
    before = session.get(Stage, (rollout.id, stage.number - 1))
    since = before.finished_at if before is not None else rollout.started_at
    failed = [
        a for a in everyone if a.state in FAILED and (a.stage == stage.number or since is None or a.updated_at >= since)
    ]
    results = _ask(session, rollout, plan, stage, mine)
    against = [f"{name}: {r.reason}" for name, r in results if r.verdict == Verdict.FAIL]
    if len(failed) > plan.max_failures:
        first = failed[0]
        against.insert(0, f"{len(failed)} of {len(everyone)} devices went back ({first.code}: {first.message})")
    return Judgement(against="; ".join(against), results=results)


def _ask(
    session: Session, rollout: Rollout, plan: RolloutPlan, stage: Stage, mine: Sequence[Assignment]
) -> list[tuple[str, GateResult]]:
    """The candidate's evidence is that of the stage's own devices since the stage began.

    What speaks against the candidate is heard in full; what speaks for it is weighed, so that no device alone lets it
    pass, by mistake or on purpose.


    The baseline is what the same devices measured of the artifact they had before, since people and places differ more
    than models do; without any, what the whole fleet measured of it. A stage that takes no new device looks at all.
    """
    if not plan.gates or stage.started_at is None or rollout.started_at is None:
        return []
    watched = mine or store.assignments(session, rollout.id)
    devices = [a.device_id for a in watched]
    candidate = by_device(session, digests=[rollout.artifact_digest], devices=devices, since=stage.started_at)
    earlier = {a.previous_digest for a in watched} - {"", rollout.artifact_digest}
    since = rollout.started_at - timedelta(seconds=plan.baseline_s)
    baseline = balanced(by_device(session, digests=earlier, devices=devices, since=since))
    if not baseline.predictions:
        baseline = balanced(by_device(session, digests=earlier, devices=None, since=since))
    heard, weighed = sum(candidate, Evidence()), balanced(candidate)
    results = []
    for spec in plan.gates:
        gate = spec.build()
        result = gate.judge(heard, baseline)
        results.append((spec.gate, result if result.verdict == Verdict.FAIL else gate.judge(weighed, baseline)))
    return results
