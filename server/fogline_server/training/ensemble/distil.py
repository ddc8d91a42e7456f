"""A student learns an ensemble's logits on unlabelled examples, at the cloud. The same seed gives the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.nn import Module, functional

from fogline_server.training.ensemble.fusion import Logits
from fogline_server.training.ensemble.spec import Ensemble
from fogline_shared.errors import Conflict
from fogline_shared.recipe import FloatArray, Standardisation

_BATCH = 512


def draw(transfer: FloatArray, ensemble: Ensemble, seed: int) -> FloatArray:
    """The examples of one round's distillation: all, or as many as its steps can see."""
    most = ensemble.steps * ensemble.batch_size
    if len(transfer) <= most:
        return transfer
    rows = np.random.default_rng(seed).choice(len(transfer), most, replace=False)
    return transfer[np.sort(rows)]


def logits_of(model: Module, x: FloatArray, standardisation: Standardisation) -> Logits:
    """A model's logits for raw examples (n, *input_shape), as it predicts: (n, classes)."""
    model.eval()
    with one_thread(), torch.no_grad():
        parts = [
            model(standardised(x[start : start + _BATCH], standardisation)).numpy().astype(np.float64)
            for start in range(0, len(x), _BATCH)
        ]
    return np.concatenate(parts)


def teach(
    student: Module,
    x: FloatArray,
    teacher: Logits,
    standardisation: Standardisation,
    ensemble: Ensemble,
    *,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> float:
    """Train in place towards the teacher's logits for ``x``; the mean divergence of the last tenth of the steps.

    The loss is KL(teacher || student) of softened predictions, times the square of the temperature (Hinton, Vinyals, Dean,
    2015). Raises Conflict ``distillation_diverged``, and what ``on_step`` raises.
    """
    soft = functional.softmax(torch.from_numpy(teacher / ensemble.temperature), 1).float()
    optimiser = torch.optim.Adam(student.parameters(), ensemble.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    student.train()
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout
        for step, rows in zip(range(ensemble.steps), batches(len(x), ensemble.batch_size, generator), strict=False):
            optimiser.param_groups[0]["lr"] = (
                ensemble.learning_rate * 0.5 * (1 + math.cos(math.pi * step / ensemble.steps))
            )
            logits = student(standardised(x[rows.numpy()], standardisation)) / ensemble.temperature
            loss = functional.kl_div(functional.log_softmax(logits, 1), soft[rows], reduction="batchmean")
            loss = loss * ensemble.temperature**2
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(loss.item())
            on_step()
    if not all(torch.isfinite(tensor).all() for tensor in student.state_dict().values() if tensor.is_floating_point()):
        message = (
            f"distillation left weights that are not finite; is learning_rate {ensemble.learning_rate:g} too high?"
        )
        raise Conflict("distillation_diverged", message)
    return float(np.mean(losses[-max(1, len(losses) // 10) :]))


def batches(n: int, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Shuffled epochs without end; a last batch of fewer than half the size is dropped (BatchNorm), unless it is all."""
    while True:
        for rows in torch.split(torch.randperm(n, generator=generator), size):
            if len(rows) >= size / 2 or n < size:
                yield rows


def standardised(x: FloatArray, standardisation: Standardisation) -> torch.Tensor:
    """Raw examples (n, *input_shape) as a model takes them."""
    shape = (-1, *[1] * (x.ndim - 2))
    mean = np.asarray(standardisation.mean, np.float32).reshape(shape)
    scale = np.asarray(standardisation.scale, np.float32).reshape(shape)
    return torch.from_numpy(np.ascontiguousarray((x - mean) / scale, dtype=np.float32))


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch with one thread: how threads share a sum would show in it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
