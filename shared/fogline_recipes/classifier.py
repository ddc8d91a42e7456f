"""Base of recipes that classify: training with AdamW or SGD, soft labels and a proximal term; evaluation; channel sums.

A recipe derived from it supplies :meth:`Classifier.build` and ``device_data``; it may override :meth:`Classifier.sample`
to augment.
Everything random comes from ``TrainPlan.seed``: the same call on the same machine gives the same weights. Only the CPU's
generator is seeded: ``torch.manual_seed`` keeps a traceback for each absent accelerator, for ever, every time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fogline_recipes.optimisers import optimiser_of
from fogline_shared.recipe import ChannelSums, Dataset, Evaluation, Recipe, Standardisation, TrainPlan, TrainResult

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

_EVALUATION_BATCH = 512


class Classifier(Recipe):
    """See the module. Subclasses stay abstract in ``build`` and ``device_data``."""

    # Standard deviation of Gaussian noise added to standardised inputs while training.
    noise: ClassVar[float] = 0.0
    weight_decay: ClassVar[float] = 1e-4

    @abstractmethod
    def build(self, size: str) -> Module:
        """A model of one of ``sizes``, as torch initialises it. Input and output as :meth:`Recipe.model` says."""

    def model(self, size: str, *, seed: int) -> Module:
        """What :meth:`build` makes; the same seed gives the same weights, whatever was drawn before."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.build(size)

    def sample(self, data: Dataset, indices: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """One training batch in raw units: x (n, *input_shape) float32, y (n,) int64.

        Override it for an augmentation that needs more than the examples themselves, else :meth:`augment`.
        """
        chosen = indices.numpy()
        return self.augment(_tensor(data.x[chosen]), generator), _tensor(data.y[chosen])

    def channel_sums(self, data: Dataset) -> ChannelSums:
        """Sums over examples and positions, in float64."""
        x = data.x.astype(np.float64)
        axes = (0, *range(2, x.ndim))
        return ChannelSums(count=float(x[:, 0].size), total=x.sum(axes), squares=(x**2).sum(axes))

    def train(
        self,
        model: Module,
        data: Dataset,
        standardisation: Standardisation,
        plan: TrainPlan,
        *,
        teacher: Module | None = None,
    ) -> TrainResult:
        """Local epochs of AdamW, or of the plan's SGD. A last batch of fewer than half the batch size is dropped (BatchNorm)."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(plan.seed)  # dropout
            return self._train(model, data, standardisation, plan, teacher)

    def _train(
        self, model: Module, data: Dataset, standardisation: Standardisation, plan: TrainPlan, teacher: Module | None
    ) -> TrainResult:
        import torch

        generator = torch.Generator().manual_seed(plan.seed)
        optimiser = optimiser_of(plan, model.parameters(), weight_decay=self.weight_decay)
        anchor = [p.detach().clone() for p in model.parameters()] if plan.proximal_mu > 0 else []
        mean, scale = _per_channel(standardisation, len(self.input_shape))
        model.train()
        if teacher is not None:
            teacher.eval()
        losses: list[float] = []
        for _ in range(plan.epochs):
            losses = []
            for indices in _batches(len(data), plan.batch_size, generator):
                x, y = self.sample(data, indices, generator)
                x = (x - mean) / scale
                if self.noise:
                    x = x + self.noise * torch.randn(x.shape, generator=generator)
                loss = self.loss(model(x), y, plan, soft=_soft_labels(teacher, x, plan))
                if anchor:
                    loss = loss + plan.proximal_mu / 2 * _distance(model, anchor)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                losses.append(loss.item())
        return TrainResult(examples=len(data), loss=float(np.mean(losses)))

    def loss(self, logits: Tensor, y: Tensor, plan: TrainPlan, *, soft: Tensor | None) -> Tensor:
        """Cross-entropy, mixed with the divergence from soft labels (n, classes) when there are any.

        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015; the square of the temperature keeps
        the gradients' size.
        """
        from torch.nn import functional

        hard = functional.cross_entropy(logits, y)
        if soft is None:
            return hard
        student = functional.log_softmax(logits / plan.distil_temperature, 1)
        divergence = functional.kl_div(student, soft, reduction="batchmean") * plan.distil_temperature**2
        return (1 - plan.distil_weight) * hard + plan.distil_weight * divergence

    def evaluate(self, model: Module, data: Dataset, standardisation: Standardisation) -> Evaluation:
        """Accuracy, mean cross-entropy and confusion, in batches."""
        import torch
        from torch.nn import functional

        mean, scale = _per_channel(standardisation, len(self.input_shape))
        was_training = model.training
        model.eval()
        confusion = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        total_loss = 0.0
        with torch.no_grad():
            for start in range(0, len(data), _EVALUATION_BATCH):
                y = data.y[start : start + _EVALUATION_BATCH]
                logits = model((_tensor(data.x[start : start + _EVALUATION_BATCH]) - mean) / scale)
                np.add.at(confusion, (y, logits.argmax(1).numpy()), 1)
                total_loss += functional.cross_entropy(logits, _tensor(y), reduction="sum").item()
        model.train(was_training)
        examples = max(1, len(data))
        return Evaluation(
            examples=len(data),
            accuracy=float(np.trace(confusion)) / examples,
            loss=total_loss / examples,
            confusion=confusion.tolist(),
        )


def _tensor(array: Any) -> Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def _per_channel(standardisation: Standardisation, dimensions: int) -> tuple[Tensor, Tensor]:
    """Mean and scale shaped to broadcast over a batch of examples with that many dimensions."""
    import torch

    def shaped(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).reshape(-1, *[1] * (dimensions - 1))

    return shaped(standardisation.mean), shaped(standardisation.scale)


def _batches(n: int, size: int, generator: Generator) -> Sequence[Tensor]:
    import torch

    batches = torch.split(torch.randperm(n, generator=generator), size)
    return list(batches[:-1] if len(batches) > 1 and len(batches[-1]) < size / 2 else batches)


def _soft_labels(teacher: Module | None, x: Tensor, plan: TrainPlan) -> Tensor | None:
    import torch
    from torch.nn import functional

    if teacher is None:
        return None
    with torch.no_grad():
        return functional.softmax(teacher(x) / plan.distil_temperature, 1)


def _distance(model: Module, anchor: Sequence[Tensor]) -> Tensor:
    """Squared distance from where the round began (FedProx)."""
    import torch

    terms = [((p - a) ** 2).sum() for p, a in zip(model.parameters(), anchor, strict=True)]
    return torch.stack(terms).sum()
