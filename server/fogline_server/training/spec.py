"""What a run is asked to do: one frozen, validated value, stored as JSON on its row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from fogline_server.training.admission import quorum_of
from fogline_server.training.ensemble.spec import Ensemble
from fogline_server.training.gate import Gate
from fogline_server.training.pacing import Pacing
from fogline_server.training.privacy.local import LocalPrivacy
from fogline_server.training.privacy.spec import Privacy
from fogline_server.training.strategies import base as strategies
from fogline_shared.checks import number
from fogline_shared.codecs import base as codecs
from fogline_shared.codecs.base import Codec
from fogline_shared.eligibility import Eligibility
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import Recipe, TrainPlan

# Fields of a TrainPlan that a run may set, with their ranges. Seeds come from the run's own.
PLAN_RANGES: Mapping[str, tuple[float, float]] = {
    "epochs": (1, 1000),
    "batch_size": (1, 4096),
    "learning_rate": (1e-7, 10.0),
    "proximal_mu": (0.0, 100.0),
    "distil_temperature": (0.1, 100.0),
    "distil_weight": (0.0, 1.0),
}
_WHOLE = {"epochs", "batch_size"}
_DIGEST = set("0123456789abcdef")


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One federated training of one model size.

    ``rounds`` None takes the recipe's default. ``plan`` overrides the recipe's hyper-parameters. A round starts when
    ``min_devices`` eligible devices are online and takes at most ``max_devices`` of them. It closes when all have
    answered, or at ``round_deadline_s`` if at least the share ``quorum`` has; without a quorum it waits on, and the run
    fails at four times the deadline. It commits if that share of ``min_devices`` gave updates
    that are accepted: a device that errs or is refused is left out, and the run fails only when too few remain. An update
    that moves ``max_norm_ratio`` times as far as the cohort's median is refused. ``evaluate_every`` n asks the devices to
    evaluate after each n-th round (0: never). ``distil_from`` names the run whose model the devices learn soft labels
    from; ``init_from`` a parameter blob to start at. ``codec`` is how devices that can encode their updates.
    ``extensions``: rounds that were added to the run later, one number each time.
    ``eligibility`` are the conditions a device must meet, beside its tags. ``pacing``: how many are asked and what a round that
    failed comes to; ``gate``: which new models are refused; ``ensemble``: which device classes
    train other sizes, whose ensemble teaches ``size``.
    Raises InvalidInput ``invalid_run``, ``invalid_eligibility``, ``unknown_strategy``, ``unknown_codec`` or
    ``invalid_option``, naming the field and its range.
    """

    recipe: str
    size: str = "student"
    rounds: int | None = None
    strategy: str = "fedavg"
    strategy_options: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    privacy: Privacy = field(default_factory=Privacy)
    local_privacy: LocalPrivacy = field(default_factory=LocalPrivacy)
    tags: Sequence[str] = ()
    exclude_tags: Sequence[str] = ()
    eligibility: Eligibility = field(default_factory=Eligibility)
    min_devices: int = 2
    max_devices: int | None = None
    quorum: float = 0.8
    round_deadline_s: float = 300.0
    max_norm_ratio: float = 5.0
    evaluate_every: int = 0
    distil_from: str | None = None
    init_from: str | None = None
    extensions: Sequence[int] = ()
    codec: str = codecs.NONE
    codec_options: Mapping[str, Any] = field(default_factory=dict)
    pacing: Pacing = field(default_factory=Pacing)
    gate: Gate = field(default_factory=Gate)
    ensemble: Ensemble = field(default_factory=Ensemble)

    def __post_init__(self) -> None:
        if self.rounds is not None:
            number("rounds", self.rounds, low=1, high=100_000, whole=True)
        number("seed", self.seed, low=0, high=2**31 - 1, whole=True)
        number("min_devices", self.min_devices, low=1, high=100_000, whole=True)
        if self.max_devices is not None:
            number("max_devices", self.max_devices, low=self.min_devices, high=100_000, whole=True)
        number("quorum", self.quorum, low=0.01, high=1.0)
        number("round_deadline_s", self.round_deadline_s, low=1.0, high=30 * 86_400.0)
        number("max_norm_ratio", self.max_norm_ratio, low=1.0, high=1e6)
        number("evaluate_every", self.evaluate_every, low=0, high=100_000, whole=True)
        for rounds in self.extensions:
            number("extensions", rounds, low=1, high=100_000, whole=True)
        self._check_plan()
        self._check_target()
        self._check_privacy()
        if self.init_from is not None and (len(self.init_from) != 64 or not set(self.init_from) <= _DIGEST):
            raise InvalidInput("invalid_run", "init_from must be a digest: 64 lower-case hexadecimal digits")
        if self.ensemble and self.distil_from is not None:
            raise InvalidInput("invalid_run", "a run has either an ensemble or distil_from", field="ensemble")
        if self.rule().asynchronous:
            self._check_asynchronous()
        self.update_codec()

    def _check_plan(self) -> None:
        for name, value in self.plan.items():
            if name not in PLAN_RANGES:
                known = ", ".join(PLAN_RANGES)
                raise InvalidInput("invalid_run", f"plan has no field {name!r}; fields: {known}", field=f"plan.{name}")
            low, high = PLAN_RANGES[name]
            number(f"plan.{name}", value, low=low, high=high, whole=name in _WHOLE)

    def _check_target(self) -> None:
        if self.pacing.target is not None:
            high = 10_000 if self.max_devices is None else self.max_devices
            number("pacing.target", self.pacing.target, low=self.min_devices, high=high, whole=True)

    def _check_asynchronous(self) -> None:
        if self.ensemble:
            message = f"{self.strategy} has no rounds, which an ensemble needs"
            raise InvalidInput("invalid_run", message, field="ensemble")
        if self.pacing != Pacing():
            message = (
                f"{self.strategy} has no rounds, which pacing is about: its steps go by buffer_size and max_devices"
            )
            raise InvalidInput("invalid_run", message, field="pacing")

    def _check_privacy(self) -> None:
        self.privacy.check(
            strategy=self.strategy,
            evaluate_every=self.evaluate_every,
            distil_from=self.distil_from,
            ensemble=self.ensemble,
            min_samples=self.eligibility.min_samples,
        )
        self.local_privacy.check(
            strategy=self.strategy,
            privacy=self.privacy,
            evaluate_every=self.evaluate_every,
            ensemble=self.ensemble,
            min_samples=self.eligibility.min_samples,
        )

    @property
    def hides_losses(self) -> bool:
        """Whether nothing of the devices' training losses is known, and nothing is asked of them before the first round."""
        return bool(self.privacy or self.local_privacy)

    def rule(self) -> strategies.Rule:
        """The strategy, validated."""
        return strategies.load(self.strategy, self.strategy_options)

    def update_codec(self) -> Codec:
        """The codec of updates, validated."""
        return codecs.load(self.codec, self.codec_options)

    def resolved(self, recipe: Recipe) -> RunSpec:
        """With the recipe's defaults filled in.

        Raises InvalidInput ``unknown_size``, ``invalid_run``, ``no_transfer_set`` and, when the recipe lacks what the strategy or
        the gate needs, ``no_root_data``, ``root_overlaps`` or ``gate_without_holdout``.
        """
        if self.size not in recipe.sizes:
            known = ", ".join(recipe.sizes)
            raise InvalidInput("unknown_size", f"recipe {recipe.name} has no size {self.size!r}; sizes: {known}")
        self.ensemble.check_recipe(recipe)
        self.rule().check(recipe)
        self.gate.check_recipe(recipe)
        rounds = self.rounds if self.rounds is not None else recipe.rounds.get(self.size, 10)
        return replace(
            self,
            rounds=rounds,
            strategy_options=self.rule().options_json(),
            codec_options=self.update_codec().options_json(),
        )

    def extended(self, rounds: int) -> RunSpec:
        """With that many more rounds; raises InvalidInput ``invalid_run``."""
        number("rounds", rounds, low=1, high=100_000, whole=True)
        return replace(self, extensions=(*self.extensions, rounds))

    def train_plan(self, recipe: Recipe, round_number: int) -> TrainPlan:
        """The plan of one round (from 1): learning rate by half a cosine, a seed of its own.

        The cosine falls over the rounds that were asked for at first, and once more from the top over each extension (warm
        restarts: Loshchilov, Hutter, ICLR 2017). So what a round does depends on its number, not on when the run was extended.

        Order: the recipe's defaults for the size, then what the strategy decides, then what the run asks for.
        """
        merged = {**asdict(recipe.plans.get(self.size, TrainPlan())), **self.rule().plan, **self.plan}
        first, length = self._leg(round_number)
        decay = 0.5 * (1 + math.cos(math.pi * (round_number - first) / length))
        merged["learning_rate"] *= decay
        merged["seed"] = self.seed * 1_000_003 + round_number
        return TrainPlan(**merged)

    def _leg(self, round_number: int) -> tuple[int, int]:
        """The first round, and the number of rounds, of the part of the run that a round belongs to."""
        assert self.rounds is not None, "the spec was not resolved against its recipe"
        first = 1
        for length in (self.rounds, *self.extensions):
            if round_number < first + length:
                break
            first += length
        return first, length

    @property
    def total_rounds(self) -> int:
        """The number of training rounds of a resolved spec, extensions included."""
        assert self.rounds is not None, "the spec was not resolved against its recipe"
        return self.rounds + sum(self.extensions)

    @property
    def fewest_updates(self) -> int:
        """How many updates must be accepted for a round to commit."""
        rule = self.rule()
        usual = min(self.min_devices, rule.options.buffer_size) if rule.asynchronous else self.min_devices
        return quorum_of(self.quorum, usual)

    def as_json(self) -> dict[str, Any]:
        """For the run's row."""
        lists = {name: list(getattr(self, name)) for name in ("tags", "exclude_tags", "extensions")}
        return {**asdict(self), **lists}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RunSpec:
        """Inverse of :meth:`as_json`; raises InvalidInput ``invalid_run`` for unknown or missing fields.

        A run stored before there were conditions, pacing or a gate has none.
        """
        if unknown := sorted(set(value) - {f.name for f in fields(cls)}):
            raise InvalidInput("invalid_run", f"a run has no field {unknown[0]!r}", field=unknown[0])
        if "recipe" not in value:
            raise InvalidInput("invalid_run", "a run names its recipe", field="recipe")
        parts: dict[str, Any] = {"eligibility": Eligibility, "pacing": Pacing, "gate": Gate, "privacy": Privacy}
        parts |= {"ensemble": Ensemble, "local_privacy": LocalPrivacy}
        return cls(**{**value, **{name: part.from_json(value.get(name, {})) for name, part in parts.items()}})
