"""One student learns teachers' answers to examples that nobody labelled, at the cloud. The same seed gives the same bytes.

Teacher and student see the same augmented, possibly blended view (Beyer et al., "Knowledge distillation: a good teacher is
patient and consistent", CVPR 2022). Several teachers' softened predictions are averaged (Hinton, Vinyals, Dean, 2015).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import Linear, Module, functional

from fogline_server.distillation.teaching import Teaching
from fogline_server.training.ensemble.distil import batches, logits_of, one_thread, standardised
from fogline_shared.errors import Conflict
from fogline_shared.recipe import FloatArray, Recipe, Standardisation

EVALUATIONS = 20


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """``answers``: raw examples (n, *input_shape) to logits (n, classes). ``features``: to inner features (n, m), for hints."""

    answers: Callable[[FloatArray], FloatArray]
    features: Callable[[FloatArray], FloatArray] | None = None


@dataclass(frozen=True, kw_only=True)
class Taught:
    """``model`` as it was when the judge liked it best. ``steps`` taken; ``score``: the judge's, ``divergence`` at the end."""

    model: Module
    steps: int
    score: float
    divergence: float


def teach(
    recipe: Recipe,
    student: Module,
    teachers: Sequence[Teacher],
    transfer: FloatArray,
    standardisation: Standardisation,
    teaching: Teaching,
    *,
    seed: int,
    judge: Callable[[Module], float],
    on_step: Callable[[], None] = lambda: None,
) -> Taught:
    """A copy of ``student``, taught. ``judge``: the higher the better; decides when to stop and which state is kept.

    Raises Conflict ``distillation_diverged``, and what ``on_step`` raises.
    """
    model = copy.deepcopy(student)
    generator = torch.Generator().manual_seed(seed)
    every = max(1, teaching.steps // EVALUATIONS)
    best, kept, waited, divergence, step = -math.inf, model.state_dict(), 0, math.nan, 0
    with one_thread(), torch.random.fork_rng(devices=[]), _hinted(recipe, model, teachers, teaching, seed) as hint:
        torch.manual_seed(seed)  # dropout
        parameters = [*model.parameters(), *hint.parameters()]
        optimiser = torch.optim.AdamW(parameters, teaching.learning_rate, weight_decay=1e-4)
        for step, rows in enumerate(batches(len(transfer), teaching.batch_size, generator)):
            optimiser.param_groups[0]["lr"] = _rate(teaching, step)
            raw = _view(recipe, transfer[rows.numpy()], teaching, generator)
            model.train()
            divergence = _step(model, optimiser, raw, teachers, standardisation, teaching, hint)
            on_step()
            if (step + 1) % every == 0 or step + 1 == teaching.steps:
                score = judge(model.eval())
                waited = 0 if score > best else waited + 1
                if score > best:
                    best, kept = score, copy.deepcopy(model.state_dict())
            if step + 1 == teaching.steps or waited >= teaching.patience:
                break
    model.load_state_dict(kept)
    if not all(torch.isfinite(tensor).all() for tensor in kept.values() if tensor.is_floating_point()):
        message = f"teaching left weights that are not finite; is learning_rate {teaching.learning_rate:g} too high?"
        raise Conflict("distillation_diverged", message)
    return Taught(model=model.eval(), steps=step + 1, score=best, divergence=divergence)


def _rate(teaching: Teaching, step: int) -> float:
    return teaching.learning_rate * 0.5 * (1 + math.cos(math.pi * step / teaching.steps))


def _view(recipe: Recipe, x: FloatArray, teaching: Teaching, generator: torch.Generator) -> FloatArray:
    """Augmented, and blended with each other (mixup: Zhang et al., ICLR 2018; here the teacher labels the blend)."""
    view = recipe.augment(torch.from_numpy(np.ascontiguousarray(x)), generator)
    if teaching.mixup:
        chance = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        share = float(chance.beta(teaching.mixup, teaching.mixup))
        view = share * view + (1 - share) * view[torch.randperm(len(view), generator=generator)]
    return np.asarray(view.numpy(), dtype=np.float32)


def _step(
    model: Module,
    optimiser: torch.optim.Optimizer,
    raw: FloatArray,
    teachers: Sequence[Teacher],
    standardisation: Standardisation,
    teaching: Teaching,
    hint: _Hint,
) -> float:
    """One step towards the teachers; the divergence before it. The square of the temperature keeps the gradients' size."""
    temperature = teaching.temperature
    answers = [torch.from_numpy(teacher.answers(raw)).float() for teacher in teachers]
    soft = torch.stack([functional.softmax(logits / temperature, 1) for logits in answers]).mean(0)
    logits = model(standardised(raw, standardisation))
    loss = functional.kl_div(functional.log_softmax(logits / temperature, 1), soft, reduction="batchmean")
    divergence = loss * temperature**2
    total = divergence + teaching.hint * hint.distance(raw) if teaching.hint else divergence
    optimiser.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return divergence.item()


class _Hint:
    """What the student's inner features lack of the first teacher's, by a linear map of them that is learned alongside.

    FitNets (Romero et al., ICLR 2015), over features averaged over positions: teacher and student need not be alike.
    """

    def __init__(self, teacher: Teacher | None, width: int) -> None:
        self._teacher, self._width = teacher, width
        self.seen: Tensor | None = None
        self._map: Linear | None = None

    def prepare(self, features: int) -> None:
        """Make the map, from so many features to the teacher's."""
        self._map = Linear(features, self._width)

    def parameters(self) -> Iterator[Tensor]:
        """Of the map, if there is one."""
        yield from self._map.parameters() if self._map else ()

    def distance(self, raw: FloatArray) -> Tensor:
        """Mean squared error of the mapped features that the student's last call has left, (n, m)."""
        assert self._map is not None
        assert self._teacher is not None
        assert self._teacher.features is not None
        assert self.seen is not None
        return functional.mse_loss(self._map(self.seen), torch.from_numpy(self._teacher.features(raw)))


@contextmanager
def _hinted(
    recipe: Recipe, model: Module, teachers: Sequence[Teacher], teaching: Teaching, seed: int
) -> Iterator[_Hint]:
    """While inside, the student's calls leave their features in what is given."""
    able = [teacher for teacher in teachers if teacher.features is not None]
    if not teaching.hint or not able:
        yield _Hint(None, 0)
        return
    probe = np.zeros((1, *recipe.input_shape), np.float32)
    assert able[0].features is not None
    hint = _Hint(able[0], able[0].features(probe).shape[1])
    inner = model.get_submodule(recipe.hints["student"])

    def keep(_module: Module, _inputs: object, output: Tensor) -> None:
        hint.seen = pooled(output)

    handle = inner.register_forward_hook(keep)
    try:
        with torch.no_grad():
            model.eval()(torch.from_numpy(probe))
        assert hint.seen is not None
        torch.manual_seed(seed)
        hint.prepare(hint.seen.shape[1])
        yield hint
    finally:
        handle.remove()


def pooled(features: Tensor) -> Tensor:
    """Averaged over positions: (n, channels, …) to (n, channels)."""
    return features.flatten(2).mean(2) if features.ndim > 2 else features


def features_of(model: Module, name: str, standardisation: Standardisation) -> Callable[[FloatArray], FloatArray]:
    """Raw examples (n, *input_shape) to what submodule ``name`` gives, averaged over positions: (n, m)."""
    seen: list[Tensor] = []
    inner = model.get_submodule(name)

    def features(x: FloatArray) -> FloatArray:
        handle = inner.register_forward_hook(lambda _module, _inputs, output: seen.append(pooled(output)))
        try:
            logits_of(model, x, standardisation)
        finally:
            handle.remove()
        found = torch.cat(seen).numpy()
        seen.clear()
        return np.asarray(found, dtype=np.float32)

    return features
