"""The training loop, as a job. It is meant to be killed: each round continues where its rows say it stands.

    begin            RUNNING; parameters of the last committed round, or initial ones
    round 0          devices send sums → standardisation (a distilled run takes its teacher's)
    round 1 … n      cohort → Flower strategy configures → tasks → replies → admission → strategy aggregates
                     → holdout accuracy → gate → (devices evaluate) → commit; a cohort that fails makes way for another
    end              SUCCEEDED, in the transaction that ends the job; a paused run's job ends before its next round

The parameters after each round depend on the run's seed and the replies alone, so an interrupted run ends with the very
bytes of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from fogline_recipes import parameters
from fogline_server.db.base import utc_now
from fogline_server.devices.queries import classes_of
from fogline_server.jobs.doorbell import EVENTS, RUN
from fogline_server.jobs.runner import JobContext, Outcome
from fogline_server.training import attempts, beginning, checkpoint, lifecycle, rounds
from fogline_server.training.asynchronous import buffer
from fogline_server.training.asynchronous.grid import AsynchronousGatewayGrid, Step
from fogline_server.training.attempts import Attempt
from fogline_server.training.checkpoint import RoundEnd, RunPaused
from fogline_server.training.ensemble.rounds import Sizes
from fogline_server.training.ensemble.rows import compared
from fogline_server.training.grid import GatewayGrid, Parts, Phase
from fogline_server.training.judge import Judge
from fogline_server.training.privacy import ledger
from fogline_server.training.privacy.run import PrivateRun
from fogline_server.training.rounds import Teacher, Trained
from fogline_server.training.spec import RunSpec
from fogline_server.training.statistics import Statistics
from fogline_server.training.strategies import base as strategies
from fogline_server.training.tables import Run
from fogline_shared import flower, tensors
from fogline_shared.errors import Conflict
from fogline_shared.flower import ArrayRecord
from fogline_shared.recipe import load_recipe

_SMALL_REPLY = 64 * 1024
# What a reply may weigh beyond the parameters it was sent: its header's own spelling.
_SLACK = 64 * 1024
_WAIT_FOR_DEVICES_S = 0.5

T = TypeVar("T")


class Trainer:
    """One attempt at a run. Raises what ends the job: FoglineError, JobCanceled, LeaseLost."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._db, self._blobs, self._lease = context.db, context.blobs, context.lease
        self._waiter = context.doorbell.waiter(RUN + context.spec["run_id"])
        with self._db.transaction() as session:
            self._run = checkpoint.begin(session, self._lease, context.spec["run_id"])
        self._spec = RunSpec.from_json(self._run.spec)
        self._recipe = load_recipe(self._run.recipe)
        self._rule = self._spec.rule()
        self._strategy = self._rule.build(self._recipe)
        # Gives a new run its parameters, and tells which arrays are running statistics.
        self._model = self._recipe.model(self._run.size, seed=self._spec.seed)
        self._judge = Judge(self._recipe, self._run.size, self._spec.gate)
        self._sizes = Sizes(self._recipe, self._spec) if self._spec.ensemble else None
        self._private = self._private_run()

    def run(self) -> Outcome:
        """Train to the end, or to the round at which the run was paused; the outcome marks the run."""
        try:
            arrays = self._restore()
            statistics = self._statistics()
            with self._db.read() as session:
                teacher = beginning.teacher(session, self._blobs, self._spec)
            self._check_patience()
            for number in range(self._run.rounds_done + 1, self._spec.total_rounds + 1):
                work = partial(self._round, arrays=arrays, statistics=statistics, teacher=teacher)
                arrays = self._tried(number, work)
        except RunPaused:
            pass  # what is committed stays; to resume is a job of its own
        finally:
            self._waiter.close()
        result = {"run_id": self._run.id, "params_digest": self._run.params_digest}
        with self._db.read() as session:
            told = {} if self._sizes is None else {"distillation": compared(session, self._run.id)}
        return Outcome(
            result={**result, **told},
            commit=lambda session: lifecycle.end_stint(session, self._run.id, now=utc_now()),
        )

    def _restore(self) -> ArrayRecord:
        """The parameters and the strategy's state as the last committed round left them."""
        if self._run.params_digest is None:
            self._initialise()
        self._strategy = self._rule.build(self._recipe)
        state: Mapping[str, Any] = {}
        if self._run.strategy_state_digest is not None:
            kept = tensors.decode(self._blobs.read(self._run.strategy_state_digest))
            state = {name: array.copy() for name, array in kept.items()}
            strategies.write_state(self._rule, self._strategy, state)
        if self._sizes is not None:
            self._sizes.restore(state)
        if self._private is not None:
            self._private.restore(state)
        assert self._run.params_digest is not None
        return flower.read_arrays(self._blobs.path(self._run.params_digest))

    def _initialise(self) -> None:
        digest = beginning.first_parameters(self._blobs, self._spec, self._model)
        with self._db.transaction() as session:
            self._lease.check(session)
            session.get_one(Run, self._run.id).params_digest = digest
        self._run.params_digest = digest

    def _statistics(self) -> Statistics:
        """What the run or the coordinator knows, or a round 0."""
        if self._run.statistics is not None:
            return Statistics.from_json(self._run.statistics)
        with self._db.read() as session:
            known = beginning.known_statistics(session, self._spec, self._recipe)
        if known is None:
            return self._tried(0, self._gather)
        with self._db.transaction() as session:
            self._lease.check(session)
            session.get_one(Run, self._run.id).statistics = known.as_json()
        return known

    def _gather(self, attempt: Attempt) -> Statistics:
        grid = self._grid(attempt, "query", _SMALL_REPLY)
        statistics, judgements = rounds.gather_statistics(grid, self._recipe, needed=self._spec.fewest_updates)
        self._commit(0, RoundEnd(judgements={"query": judgements}, metrics={}, statistics=statistics))
        return statistics

    def _tried(self, number: int, work: Callable[[Attempt], T]) -> T:
        """Work on a round with one cohort after another, as often as the run's pacing allows."""
        while True:
            attempt = self._cohort(number)
            try:
                return work(attempt)
            except Conflict as error:
                if not attempts.may_retry(self._spec.pacing, attempt, error):
                    raise
                self._commit(number, RoundEnd(failure=error))
                self._restore()

    def _round(
        self, attempt: Attempt, arrays: ArrayRecord, statistics: Statistics, teacher: Teacher | None
    ) -> ArrayRecord:
        number = attempt.round
        plan = self._spec.train_plan(self._recipe, number)
        assert self._run.params_digest is not None
        largest = max(self._blobs.size(self._run.params_digest), self._sizes.largest() if self._sizes else 0)
        training = self._grid(attempt, "train", largest + _SLACK)
        trained = self._train(training, attempt.nodes, number, arrays, statistics, teacher)
        if self._private is not None:
            self._private.follow(trained.further)
        judgements = {"train": trained.judgements}
        metrics: dict[str, Any] = {
            "loss": None if self._spec.hides_losses else trained.loss,
            "learning_rate": plan.learning_rate,
        }
        metrics |= {"bytes_sent": trained.bytes_sent, "bytes_plain": trained.bytes_plain}
        if isinstance(training, AsynchronousGatewayGrid):
            metrics |= buffer.mean_and_most(training.staleness)
            # Devices that are still at work are left to it.
            attempt = replace(attempt, nodes=training.devices)
        params = self._blobs.put(tensors.encode(flower.arrays_of(trained.arrays))).digest
        new = flower.read_arrays(self._blobs.path(params))
        metrics |= {**trained.further, **self._judge.measure(new, statistics)}
        if (refusal := self._judge.refusal(number, arrays, new, statistics)) is not None:
            return self._refuse(number, RoundEnd(judgements=judgements, metrics=metrics, refusal=refusal))
        if self._spec.evaluate_every and number % self._spec.evaluate_every == 0:
            grid = self._grid(attempt, "evaluate", _SMALL_REPLY)
            evaluated = rounds.evaluate(grid, self._strategy, new, number, size=self._run.size, statistics=statistics)
            judgements["evaluate"] = evaluated.judgements
            metrics |= {"accuracy": evaluated.accuracy, "evaluation_loss": evaluated.loss}
        end = RoundEnd(judgements=judgements, metrics=metrics, params=params, strategy_state=self._strategy_state())
        self._commit(number, end)
        training.release()
        self._run.params_digest, self._run.strategy_state_digest = params, end.strategy_state
        self._judge.keep()
        return new

    def _refuse(self, number: int, end: RoundEnd) -> ArrayRecord:
        """Go on from the old parameters and the strategy's old state."""
        self._commit(number, end)
        self._check_patience()
        return self._restore()

    def _check_patience(self) -> None:
        with self._db.read() as session:
            count, why = attempts.refusals(session, self._run.id)
        self._spec.gate.check_patience(count, why)

    def _train(
        self,
        grid: GatewayGrid,
        nodes: Mapping[int, str],
        number: int,
        arrays: ArrayRecord,
        statistics: Statistics,
        teacher: Teacher | None,
    ) -> Trained:
        if self._sizes is not None:
            with self._db.read() as session:
                classes = classes_of(session, nodes.values())
            return self._sizes.train(
                grid,
                self._strategy,
                arrays,
                number,
                statistics=statistics,
                classes=classes,
                on_step=lambda: self._lease.progress(
                    self._progress(number), self._spec.total_rounds, f"round {number}: the ensemble teaches"
                ),
            )
        return rounds.train(
            grid,
            self._strategy,
            arrays,
            number,
            size=self._run.size,
            plan=self._spec.train_plan(self._recipe, number),
            statistics=statistics,
            max_norm_ratio=self._spec.max_norm_ratio,
            needed=self._spec.fewest_updates,
            teacher=teacher,
            running=self._running(),
            adaptive=self._rule.adaptive,
            codec=self._spec.update_codec(),
            private=None if self._private is None else self._private.round(number, asked=len(nodes)),
            local=self._spec.local_privacy.mechanism,
        )

    def _private_run(self) -> PrivateRun | None:
        if not self._spec.privacy:
            return None
        with self._db.read() as session:
            return PrivateRun(self._spec.privacy, ledger.secret(session, self._run.id))

    def _strategy_state(self) -> str | None:
        state = strategies.read_state(self._rule, self._strategy) | (self._sizes.state() if self._sizes else {})
        state |= self._private.state() if self._private is not None else {}
        return self._blobs.put(tensors.encode(state)).digest if state else None

    def _cohort(self, number: int) -> Attempt:
        """A round's cohort: as it was opened, or of the devices that are there now, waiting for enough of them."""
        while True:
            with self._db.transaction() as session:
                row = checkpoint.open_round(session, self._run.id, number)
                if row is not None and checkpoint.has_cohort(row):
                    return attempts.attempt_of(row, self._spec, checkpoint.nodes_of(session, row.cohort))
                checkpoint.check_not_paused(session, self._lease, self._run.id)
                now, tried = utc_now(), attempts.number_of(row)
                cohort = checkpoint.choose_cohort(session, self._run.id, self._spec, number, attempt=tried, now=now)
                if not isinstance(cohort, int):
                    row = checkpoint.start_round(session, self._lease, self._run, number, cohort, now=now)
                    nodes = {device.node_id: device.id for device in cohort.devices}
                    return attempts.attempt_of(row, self._spec, nodes)
            message = f"round {number} waits for devices: {cohort} of {self._spec.min_devices} are eligible"
            self._lease.progress(self._progress(number), self._spec.total_rounds, message)
            self._waiter.wait(_WAIT_FOR_DEVICES_S)

    def _grid(self, attempt: Attempt, kind: str, max_reply_bytes: int) -> GatewayGrid:
        number = attempt.round

        def on_wait(answered: int, of: int) -> None:
            message = f"round {number} ({kind}): {answered} of {of} devices have answered"
            self._lease.progress(self._progress(number), self._spec.total_rounds, message)

        phase = Phase(
            run_id=self._run.id,
            recipe=self._run.recipe,
            round=number,
            kind=kind,
            nodes=attempt.nodes,
            quorum=self._spec.quorum,
            deadline_s=attempt.deadline_s,
            max_reply_bytes=max_reply_bytes,
            target=attempt.target,
            attempt=attempt.number,
        )
        parts = Parts(
            db=self._db,
            blobs=self._blobs,
            doorbell=self._context.doorbell,
            waiter=self._waiter,
            lease=self._lease,
            on_wait=on_wait,
        )
        if kind == "train" and self._rule.asynchronous:
            return AsynchronousGatewayGrid(phase, parts, self._step(attempt))
        return GatewayGrid(phase, parts)

    def _step(self, attempt: Attempt) -> Step:
        assert self._run.params_digest is not None, "a run has parameters before its first round"

        def refill(session: Session) -> Mapping[int, str]:
            return checkpoint.refill(session, self._run.id, self._spec, attempt.round, now=utc_now())

        return Step(
            version=self._run.params_digest,
            running=self._running(),
            size=self._rule.options.buffer_size,
            max_staleness=self._rule.options.max_staleness,
            needed=self._spec.fewest_updates,
            opened_at=attempt.opened_at,
            refill=refill,
        )

    def _running(self) -> list[str]:
        """Names of the running statistics among the parameters."""
        learned = parameters.names(self._model)
        return [name for name, _ in self._model.named_buffers() if name in learned]

    @staticmethod
    def _progress(number: int) -> int:
        return max(0, number - 1)

    def _commit(self, number: int, end: RoundEnd) -> None:
        with self._db.transaction() as session:
            checkpoint.commit_round(session, self._lease, self._run.id, number, end, now=utc_now())
        self._context.doorbell.ring(EVENTS)
        total = self._spec.total_rounds
        if end.failure is None:
            self._lease.progress(number, total, f"round {number} of {total} is done")
        else:
            self._lease.progress(self._progress(number), total, f"round {number} is tried again: {end.failure.code}")
