"""A run from start to end over virtual devices: the trainer's loop without a database, in virtual time.

A round that fails (no quorum, too few usable updates, a rule that cannot work) leaves the model as it was, and the next one
begins: a simulation is there to count such rounds. The same spec gives the same facts to the last byte.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from fogline_recipes import parameters
from fogline_server.simulation import attacks
from fogline_server.simulation.asynchronous import Air, BufferedGrid
from fogline_server.simulation.grid import Site, VirtualGrid
from fogline_server.simulation.pacer import Attempt, Pacer
from fogline_server.simulation.population import Population
from fogline_server.simulation.private import NOBODY_ASKED, Ledger
from fogline_server.simulation.spec import SimulationSpec
from fogline_server.simulation.workers import Workers
from fogline_server.training import beginning, rounds
from fogline_server.training.admission import Judgement
from fogline_server.training.ensemble.report import comparison
from fogline_server.training.ensemble.rounds import Sizes
from fogline_server.training.pacing import worth_another
from fogline_server.training.statistics import Statistics, TooFewAccepted
from fogline_server.training.strategies import base as strategies
from fogline_shared import __version__, flower, tensors
from fogline_shared.errors import Conflict
from fogline_shared.flower import ArrayRecord
from fogline_shared.recipe import Dataset, Evaluation, Recipe
from fogline_shared.states import RoundState, UpdateVerdict

# A round's facts, as they go into the report.
Facts = dict[str, Any]
# Called with the round's number and what is known of it: at its start with nothing, at each answer, and at its end.
OnProgress = Callable[[int, Facts | None], None]


def simulate(recipe: Recipe, spec: SimulationSpec, *, processes: int, on_progress: OnProgress) -> Facts:
    """The report's facts, JSON-able. ``spec.run`` is resolved.

    Raises Conflict when round 0 fails or no devices are ever there, InvalidInput for data that do not fit the recipe, and
    Unavailable ``simulation_process_died``.
    """
    with (
        tempfile.TemporaryDirectory(prefix="fogline-simulation-") as folder,
        Workers(recipe, spec, processes) as workers,
    ):
        return _Simulation(recipe, spec, workers, Path(folder), on_progress).run()


class _Simulation:
    def __init__(
        self, recipe: Recipe, spec: SimulationSpec, workers: Workers, folder: Path, on_progress: OnProgress
    ) -> None:
        self._recipe, self._spec, self._on_progress = recipe, spec, on_progress
        self._round = 0
        self._population = Population(recipe, spec)
        self._site = Site(
            spec=spec,
            population=self._population,
            workers=workers,
            folder=folder,
            on_answer=lambda: on_progress(self._round, None),
        )
        self._rule = spec.run.rule()
        self._strategy = self._rule.build(recipe)
        self._model = recipe.model(spec.run.size, seed=spec.run.seed)
        self._sizes = Sizes(recipe, spec.run) if spec.run.ensemble else None
        self._ledger = Ledger(spec)
        self._holdout, self._unseen = recipe.holdout(), recipe.unseen()
        spec.run.gate.check_holdout(recipe.name, self._holdout)
        self._air = Air.of(self._rule, spec.asked, self._model) if self._rule.asynchronous else None
        self._pacer = Pacer(spec.run, spec.devices)
        # How the present model does on the holdout, once the gate has asked.
        self._present: Evaluation | None = None

    def run(self) -> Facts:
        arrays = flower.to_record(parameters.read(self._model))
        statistics, first = self._statistics()
        told = [first]
        for number in range(1, self._spec.run.total_rounds + 1):
            arrays, facts = self._tried(number, arrays, statistics)
            told.append(facts)
            self._on_progress(number, facts)
            refused = list(takewhile(lambda facts: facts["state"] == RoundState.REFUSED, reversed(told)))
            try:
                self._spec.run.gate.check_patience(len(refused), facts.get("reason", ""))
            except Conflict as error:
                return self._report(arrays, statistics, told) | {
                    "error": {"code": error.code, "message": error.message}
                }
        return self._report(arrays, statistics, told)

    def _tried(self, number: int, arrays: ArrayRecord, statistics: Statistics) -> tuple[ArrayRecord, Facts]:
        """A round, with one cohort after another as often as the run's pacing allows; of the failed ones ``attempts`` tells."""
        failed: list[Facts] = []
        while True:
            before = self._state()
            new, facts = self._train(number, len(failed) + 1, arrays, statistics)
            if facts["state"] != RoundState.COMMITTED:
                self._restore(before)
            if facts["state"] != RoundState.ABANDONED or not worth_another(
                self._spec.run.pacing, len(failed) + 1, facts["code"]
            ):
                return new, facts | {"attempts": failed}
            failed.append(facts)

    def _state(self) -> Mapping[str, Any]:
        state = strategies.read_state(self._rule, self._strategy) | (self._sizes.state() if self._sizes else {})
        state |= self._ledger.state()
        return {name: array.copy() for name, array in state.items()}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._strategy = self._rule.build(self._recipe)
        strategies.write_state(self._rule, self._strategy, state)
        if self._sizes is not None:
            self._sizes.restore(state)
        self._ledger.restore(state)

    def _statistics(self) -> tuple[Statistics, Facts]:
        if self._spec.run.hides_losses:
            return beginning.by_holdout(self._recipe), dict(NOBODY_ASKED)
        needed, failed = self._spec.run.fewest_updates, 0
        while True:
            grid, facts = self._open(self._pacer.attempt(0, failed + 1, self._site.now_s), "query")
            try:
                statistics, judgements = rounds.gather_statistics(grid, self._recipe, needed=needed)
            except Conflict as error:
                failed += 1
                if not worth_another(self._spec.run.pacing, failed, error.code):
                    raise
                continue
            finally:
                grid.release()
            self._on_progress(0, facts)
            return statistics, facts | _closed(grid) | self._judged(judgements)

    def _train(self, number: int, tried: int, arrays: ArrayRecord, statistics: Statistics) -> tuple[ArrayRecord, Facts]:
        self._round = number
        run = self._spec.run
        plan = run.train_plan(self._recipe, number)
        attempt = self._pacer.attempt(number, tried, self._site.now_s)
        grid, facts = self._open(attempt, "train")
        if self._air is not None:
            idle = self._air.free(list(grid.get_node_ids()), self._spec.asked)
            grid, facts["asked"] = BufferedGrid(self._site, attempt, idle, arrays, self._air), len(idle)
        facts["learning_rate"] = plan.learning_rate
        try:
            if self._sizes is not None:
                classes = {node: self._population.device_class(node) for node in grid.get_node_ids()}
                trained = self._sizes.train(
                    grid, self._strategy, arrays, number, statistics=statistics, classes=classes
                )
                facts["ensemble"] = {name: _number(value) for name, value in trained.further.items()}
            else:
                trained = rounds.train(
                    grid,
                    self._strategy,
                    arrays,
                    number,
                    size=run.size,
                    plan=plan,
                    statistics=statistics,
                    max_norm_ratio=run.max_norm_ratio,
                    needed=run.fewest_updates,
                    running=[name for name, _ in self._model.named_buffers() if name in arrays],
                    adaptive=self._rule.adaptive,
                    private=self._ledger.round(number, asked=facts["asked"]),
                    local=run.local_privacy.mechanism,
                )
        except Conflict as error:
            closed = _closed(grid)
            self._note(attempt, grid, facts, error.judgements if isinstance(error, TooFewAccepted) else ())
            why = {"code": error.code, "reason": error.message, "wasted_s": closed["device_s"]}
            return arrays, facts | closed | why | {"state": RoundState.ABANDONED, "accepted": 0, "left_out": {}}
        finally:
            grid.release()
        self._note(attempt, grid, facts, trained.judgements)
        loss = None if run.hides_losses else _number(trained.loss)
        facts |= _closed(grid) | self._judged(trained.judgements) | {"loss": loss}
        if (released := self._ledger.released(trained.further)) is not None:
            facts["privacy"] = released
        if self._holdout is not None:
            measured = self._evaluate(trained.arrays, statistics, self._holdout)
            facts["holdout"] = _scored(measured)
            if run.gate.on:
                old = self._present or self._evaluate(arrays, statistics, self._holdout)
                refusal = run.gate.refuses(number, old, measured, flower.arrays_of(trained.arrays).values())
                self._present = measured if refusal is None else old
                if refusal is not None:
                    told = {"code": refusal["code"], "reason": refusal["message"], "wasted_s": facts["device_s"]}
                    return arrays, facts | told | {"state": RoundState.REFUSED}
        # Devices that are at work across steps are left to it.
        nodes = list(grid.staleness if isinstance(grid, BufferedGrid) else grid.get_node_ids())
        if nodes and run.evaluate_every and number % run.evaluate_every == 0:
            facts |= self._evaluated(attempt, nodes, trained.arrays, statistics)
        return trained.arrays, facts

    def _note(self, attempt: Attempt, grid: VirtualGrid, facts: Facts, judgements: Sequence[Judgement]) -> None:
        assert grid.closing is not None, "the exchange has been closed"
        refused = {j.node_id for j in judgements if j.verdict != UpdateVerdict.ACCEPTED}
        self._pacer.note(attempt, facts["began_s"], grid.closing, refused)

    def _evaluated(
        self, attempt: Attempt, nodes: list[int], arrays: ArrayRecord, statistics: Statistics
    ) -> Mapping[str, Any]:
        """The devices' own judgement of the new model; a round in which too few give one has been committed all the same."""
        grid, number = VirtualGrid(self._site, attempt, "evaluate", nodes), attempt.round
        try:
            size = self._spec.run.size
            told = rounds.evaluate(grid, self._strategy, arrays, number, size=size, statistics=statistics)
        except Conflict as error:
            return {"evaluation": {"code": error.code, "reason": error.message}}
        finally:
            grid.release()
        return {"evaluation": {"accuracy": _number(told.accuracy), "loss": _number(told.loss)}}

    def _open(self, attempt: Attempt, kind: str) -> tuple[VirtualGrid, Facts]:
        resting = self._pacer.resting(attempt.asked or self._spec.asked)
        nodes, self._site.now_s = self._population.cohort(
            attempt.turn, self._site.now_s, asked=attempt.asked, resting=resting
        )
        facts = {
            "number": attempt.round,
            "state": RoundState.COMMITTED,
            "began_s": self._site.now_s,
            "asked": len(nodes),
        }
        facts["deadline_s"] = attempt.deadline_s
        return VirtualGrid(self._site, attempt, kind, nodes), facts

    def _judged(self, judgements: Sequence[Judgement]) -> Facts:
        bad = [j for j in judgements if j.verdict != UpdateVerdict.ACCEPTED]
        attackers = [j for j in judgements if self._population.attack(j.node_id) is not None]
        return {
            "accepted": len(judgements) - len(bad),
            "left_out": dict(sorted(Counter(j.code for j in bad).items())),
            "attackers": {
                "answered": len(attackers),
                "accepted": sum(j.verdict == UpdateVerdict.ACCEPTED for j in attackers),
            },
        }

    def _score(self, arrays: ArrayRecord, statistics: Statistics, data: Any) -> Facts:
        return _scored(self._evaluate(arrays, statistics, data))

    def _evaluate(self, arrays: ArrayRecord, statistics: Statistics, data: Dataset) -> Evaluation:
        parameters.write(self._model, flower.arrays_of(arrays))
        return self._recipe.evaluate(self._model, data, statistics.standardisation)

    def _backdoor_success(self, arrays: ArrayRecord, statistics: Statistics) -> float | None:
        """Share of the labelled examples of other classes that the trigger turns into the attack's; None without such an attack."""
        data = self._holdout if self._unseen is None else self._unseen
        if data is None or self._spec.attack_by is None or not self._spec.attack_by.has_trigger:
            return None
        parameters.write(self._model, flower.arrays_of(arrays))
        others = data.y != attacks.TARGET
        marked = Dataset(x=attacks.stamp(data.x[others]), y=data.y[others])
        called = np.asarray(self._recipe.evaluate(self._model, marked, statistics.standardisation).confusion)
        return float(called[:, attacks.TARGET].sum() / max(1, len(marked)))

    def _compared(self, told: Sequence[Facts]) -> Facts | None:
        """The last committed round's student against its control; None without an ensemble."""
        last: Facts = next((facts for facts in reversed(told) if "ensemble" in facts), {})
        if self._sizes is None:
            return None
        after = {"holdout_accuracy": last["holdout"]["accuracy"]} if "holdout" in last else {}
        return comparison(last.get("ensemble", {}) | after)

    def _report(self, arrays: ArrayRecord, statistics: Statistics, told: Sequence[Facts]) -> Facts:
        trained = told[1:]
        committed = sum(facts["state"] == RoundState.COMMITTED for facts in trained)
        worked = [*trained, *(failed for facts in trained for failed in facts["attempts"])]
        spent = sum(facts["device_s"] for facts in worked)
        return {
            "fogline": __version__,
            "recipe": self._recipe.name,
            "spec": self._spec.as_json(),
            "rounds": list(told),
            "committed": committed,
            "abandoned": sum(facts["state"] == RoundState.ABANDONED for facts in trained),
            "refused": sum(facts["state"] == RoundState.REFUSED for facts in trained),
            "retried": len(worked) - len(trained),
            "virtual_s": self._site.now_s,
            "device_s": spent,
            "wasted_share": sum(facts["wasted_s"] for facts in worked) / spent if spent else 0.0,
            "holdout": None if self._holdout is None else self._score(arrays, statistics, self._holdout),
            "unseen": None if self._unseen is None else self._score(arrays, statistics, self._unseen),
            "backdoor_success": self._backdoor_success(arrays, statistics),
            "distillation": self._compared(trained),
            "epsilon": next((each["privacy"]["epsilon"] for each in reversed(trained) if "privacy" in each), None),
            "params_digest": tensors.digest(tensors.encode(flower.arrays_of(arrays))),
        }


def _closed(grid: VirtualGrid) -> Facts:
    closing = grid.closing
    assert closing is not None, "the exchange has been closed"
    return {
        "seconds": closing.seconds,
        "answered": len(closing.in_time),
        "late": len(closing.late),
        "lost": len(closing.lost),
        "device_s": closing.device_s,
        "wasted_s": closing.wasted_s,
    }


def _scored(evaluation: Evaluation) -> Facts:
    return {
        "examples": evaluation.examples,
        "accuracy": _number(evaluation.accuracy),
        "worst_class_accuracy": _number(evaluation.worst_class_accuracy),
        "loss": _number(evaluation.loss),
    }


def _number(value: float | None) -> float | None:
    """For JSON, which has no NaN: an attack may have made the model's loss one."""
    return value if value is not None and math.isfinite(value) else None
