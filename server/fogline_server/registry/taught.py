"""The student of a release that is taught at the cloud: by the teacher's run, by other releases, or by all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from fogline_recipes import parameters
from fogline_server.compression.engine import open_session, run
from fogline_server.compression.export import load_model
from fogline_server.distillation.teaching import Teaching
from fogline_server.registry.model import STUDENT, TEACHER
from fogline_server.registry.tables import Release, Variant
from fogline_shared import tensors
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import Recipe, Standardisation


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a run left behind: a safetensors blob and the standardisation of its data."""

    params: bytes
    standardisation: Standardisation


@dataclass(frozen=True, kw_only=True)
class TaughtStudent:
    """``source``: as a run would have left it; ``report``: a study's."""

    source: Source
    report: Mapping[str, Any]


def teachers_of(session: Session, releases: Sequence[Release], recipe: str) -> list[dict[str, str]]:
    """The artifacts that teach for READY releases: the teacher of each, else its float student.

    Raises InvalidInput ``release_of_other_recipe`` and, for one that has neither, ``no_float_variant``.
    """
    found = []
    for release in releases:
        if release.recipe != recipe:
            message = f"release {release.name} is of recipe {release.recipe!r}, not {recipe!r}"
            raise InvalidInput("release_of_other_recipe", message, release=release.name)
        variant = session.get(Variant, (release.id, TEACHER)) or session.get(Variant, (release.id, STUDENT))
        if variant is None:
            message = f"release {release.name} has neither {TEACHER} nor {STUDENT} to teach with"
            raise InvalidInput("no_float_variant", message, release=release.name)
        found.append({"release": release.id, "variant": variant.name, "digest": variant.digest})
    return found


def teach_student(
    recipe: Recipe,
    sources: Mapping[str, Source],
    artifacts: Sequence[bytes],
    teaching: Teaching,
    *,
    on_step: Callable[[], None],
) -> TaughtStudent:
    """Teach the student of ``sources`` by ``artifacts``, the first of which is the teacher run's if there is one.

    Raises what :func:`~fogline_server.distillation.study.study` raises.
    """
    from fogline_server.distillation.lesson import Teacher, features_of
    from fogline_server.distillation.study import study

    student = sources["student"]
    teachers = [Teacher(answers=partial(run, open_session(model))) for model in artifacts]
    if teaching.hint:
        own = sources["teacher"]
        module = load_model(recipe, "teacher", own.params)
        features = features_of(module, recipe.hints["teacher"], own.standardisation)
        teachers[0] = Teacher(answers=teachers[0].answers, features=features)
    told = study(
        recipe,
        load_model(recipe, "student", student.params),
        teachers,
        student.standardisation,
        teaching,
        on_step=on_step,
    )
    params = b"".join(map(bytes, tensors.encode(parameters.read(told.model))))
    source = Source(params=params, standardisation=student.standardisation)
    return TaughtStudent(source=source, report=told.as_json())
