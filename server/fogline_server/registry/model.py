"""Values of the registry. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fogline_server.compression.chain import Chain, Link, needs_of
from fogline_server.compression.examples import examples_of
from fogline_server.distillation.teaching import Teaching
from fogline_server.registry.limits import ReleaseLimits
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import Recipe

TEACHER = "teacher_fp32"
STUDENT = "student_fp32"
STUDENT_INT8 = "student_int8"
VARIANTS = (TEACHER, STUDENT, STUDENT_INT8)
MOST_CHAINS = 8
# What makes STUDENT_INT8.
INT8 = Chain(links=(Link(method="int8_static"),))

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def check_name(value: str, *, what: str, limit: int) -> str:
    """Return ``value``; raise InvalidInput ``invalid_name`` unless it is lower-case letters, digits and ``._-``."""
    if len(value) > limit or not _NAME.fullmatch(value):
        raise InvalidInput(
            "invalid_name",
            f"a {what} is at most {limit} of a-z, 0-9, '.', '_', '-' and starts with a letter or digit",
            what=what,
        )
    return value


@dataclass(frozen=True, kw_only=True)
class ReleaseSpec:
    """What to build a release from. Raises InvalidInput ``invalid_name`` or ``invalid_release_spec``.

    ``student_run`` is the control, trained without a teacher; ``distilled_run`` the same student and budget with one, which
    is released instead if it is better by more than chance. ``max_accuracy_drop``: share of the holdout that int8 and
    every chain may lose against float. ``chains``: further variants of the student, name → the methods that make it, as
    :class:`~fogline_server.compression.chain.Chain` reads them; also raises what that raises. ``teaching``: the student is
    taught at the cloud, as :class:`~fogline_server.distillation.teaching.Teaching` reads it, by the teacher's run, by
    ``teacher_releases`` (ids), or by all of them; what comes of it is judged as a ``distilled_run`` is. ``limits``: what int8
    and every chain must keep beside accuracy, as :class:`~fogline_server.registry.limits.ReleaseLimits` reads them.
    """

    name: str
    recipe: str
    student_run: str
    teacher_run: str | None = None
    distilled_run: str | None = None
    default_variant: str = STUDENT_INT8
    max_accuracy_drop: float = 0.02
    chains: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    teaching: Mapping[str, Any] | None = None
    teacher_releases: Sequence[str] = ()
    limits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name, what="release name", limit=80)
        self._check_chains()
        self._check_teaching()
        ReleaseLimits.from_json(self.limits)
        if self.default_variant not in self.variants:
            listed = ", ".join(self.variants)
            raise InvalidInput(
                "invalid_release_spec", f"default_variant is one of {listed}, not {self.default_variant!r}"
            )
        if not 0 <= self.max_accuracy_drop <= 1:
            raise InvalidInput("invalid_release_spec", "max_accuracy_drop is a share between 0 and 1")

    def _check_chains(self) -> None:
        if len(self.chains) > MOST_CHAINS:
            raise InvalidInput("invalid_release_spec", f"at most {MOST_CHAINS} chains, not {len(self.chains)}")
        for name, links in self.chains.items():
            check_name(name, what="variant name", limit=40)
            if name in VARIANTS:
                raise InvalidInput(
                    "invalid_release_spec", f"every release has a variant {name!r}: name the chain otherwise"
                )
            Chain.from_json(links)

    def _check_teaching(self) -> None:
        if self.teaching is None:
            if self.teacher_releases:
                raise InvalidInput("invalid_release_spec", "teacher_releases teach only where there is teaching")
            return
        asked = Teaching.from_json(self.teaching)
        if self.distilled_run:
            message = "teaching or distilled_run, not both: each would be the distilled student"
            raise InvalidInput("invalid_release_spec", message)
        if not (self.teacher_run or self.teacher_releases):
            raise InvalidInput("invalid_release_spec", "teaching needs teacher_run or teacher_releases: who teaches?")
        if asked.hint and not self.teacher_run:
            raise InvalidInput("invalid_release_spec", "teaching.hint needs teacher_run: a release hides its features")

    @property
    def variants(self) -> tuple[str, ...]:
        """The forms this release will have; without a teacher's run there is no teacher."""
        return (*(VARIANTS if self.teacher_run else VARIANTS[1:]), *sorted(self.chains))

    def check_recipe(self, recipe: Recipe) -> None:
        """Raise what the chains would, for lack of examples of the recipe's.

        InvalidInput ``no_transfer_data``, ``no_calibration_data``, ``one_class_calibration``, ``invalid_dataset``.
        """
        needs = needs_of([INT8, *map(Chain.from_json, self.chains.values())])
        examples_of(recipe, needs).check(needs)

    @property
    def runs(self) -> Mapping[str, str]:
        """Role (``teacher``, ``student``, ``distilled``) → run id, for the runs that are named."""
        roles = {"teacher": self.teacher_run, "student": self.student_run, "distilled": self.distilled_run}
        return {role: run for role, run in roles.items() if run}

    def as_json(self) -> dict[str, Any]:
        """For the release's row and its jobs."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something :func:`~fogline_server.registry.service.verify` found. ``subject``: a variant, run or the release."""

    code: str
    subject: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The answer of ``verify``: how many blobs were hashed again, and what is wrong. No problems means intact."""

    release_id: str
    blobs_checked: int
    bytes_checked: int
    problems: Sequence[Problem] = field(default_factory=tuple)

    @property
    def ok(self) -> bool:
        """Whether every byte is what the sealed release says."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """For the API and the CLI."""
        return {**asdict(self), "problems": [asdict(p) for p in self.problems], "ok": self.ok}
