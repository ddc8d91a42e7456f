"""The recipe contract: what is learned, from which data, into which models.

A recipe is a class in an installed package, found by its entry point in the group ``fogline.recipes``. Devices run code
that was installed on them; none is shipped. This module needs neither torch nor flwr, so that the coordinator can list
and validate recipes without them; an implementation imports torch inside its methods or in modules of its own.
Most recipes derive from :class:`fogline_recipes.classifier.Classifier`, which supplies the training and evaluation loops.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fogline_shared.errors import InvalidInput
from fogline_shared.plugins import load_entry_point

if TYPE_CHECKING:
    import torch

GROUP = "fogline.recipes"

Options = Mapping[str, str]
FloatArray = NDArray[np.float32]
LabelArray = NDArray[np.int64]
_FEWEST_CLASSES = 2


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labelled examples. ``x``: (n, *input_shape) float32, raw sensor units; ``y``: (n,) int64 class indices.

    ``source`` may carry what augmentation needs beyond the windows themselves (whole recordings, say). ``groups``: (n,)
    int64, which examples belong together (windows of one recording): they resemble each other, so a comparison of models
    counts groups as evidence, not examples. None: every example stands for itself.
    """

    x: FloatArray
    y: LabelArray
    source: Any = None
    groups: LabelArray | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise InvalidInput("invalid_dataset", f"{len(self.x)} examples but {len(self.y)} labels")
        if self.groups is not None and len(self.groups) != len(self.y):
            raise InvalidInput("invalid_dataset", f"{len(self.y)} examples but {len(self.groups)} group numbers")

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, kw_only=True)
class ChannelSums:
    """Sufficient statistics for per-channel standardisation; they add up over devices.

    ``count``: values per channel; ``total`` and ``squares``: (channels,) float64.
    """

    count: float
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    def __add__(self, other: ChannelSums) -> ChannelSums:
        return ChannelSums(
            count=self.count + other.count, total=self.total + other.total, squares=self.squares + other.squares
        )

    def standardisation(self) -> Standardisation:
        """Mean and standard deviation; a constant channel gets a scale of 1."""
        mean = self.total / self.count
        scale = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0.0))
        scale[scale < 1e-8] = 1.0
        return Standardisation(mean=tuple(map(float, mean)), scale=tuple(map(float, scale)))


@dataclass(frozen=True, kw_only=True)
class Standardisation:
    """``(x - mean) / scale`` per channel (axis 1 of a batch). It is fused into the exported graph."""

    mean: Sequence[float]
    scale: Sequence[float]

    def as_json(self) -> dict[str, list[float]]:
        """For run rows, messages and manifests."""
        return {"mean": list(self.mean), "scale": list(self.scale)}

    @classmethod
    def from_json(cls, value: Mapping[str, Sequence[float]]) -> Standardisation:
        """Inverse of :meth:`as_json`."""
        return cls(mean=tuple(value["mean"]), scale=tuple(value["scale"]))


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """One device's share of one round. ``seed`` makes the round reproducible; ``distil_*`` need a teacher.

    ``optimiser``: ``adamw``, or ``sgd`` without momentum, which some strategies need: they read gradients out of an update.
    """

    epochs: int = 2
    batch_size: int = 32
    learning_rate: float = 3e-3
    seed: int = 0
    proximal_mu: float = 0.0
    distil_temperature: float = 2.0
    distil_weight: float = 0.5
    optimiser: str = "adamw"


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What one call of :meth:`Recipe.train` did. ``loss``: mean over the last epoch."""

    examples: int
    loss: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a model did on labelled data. ``confusion[i][j]``: examples of class i called j."""

    examples: int
    accuracy: float
    loss: float
    confusion: Sequence[Sequence[int]]

    @property
    def worst_class_accuracy(self) -> float:
        """Recall of the worst class that has examples."""
        recalls = [row[i] / sum(row) for i, row in enumerate(self.confusion) if sum(row)]
        return min(recalls, default=0.0)


class Recipe(ABC):
    """What is learned. Constructed without arguments; holds no state."""

    name: ClassVar[str]
    classes: ClassVar[Sequence[str]]
    input_name: ClassVar[str] = "input"
    # One example, without the batch axis; channels first.
    input_shape: ClassVar[Sequence[int]]
    # Names of the models, biggest first. ``teacher`` and ``student`` are the two that every recipe has.
    sizes: ClassVar[Sequence[str]] = ("teacher", "student")
    # Default hyper-parameters per size, merged under what a run asks for.
    plans: ClassVar[Mapping[str, TrainPlan]] = {}
    # Default number of rounds per size.
    rounds: ClassVar[Mapping[str, int]] = {}
    # Whether a device may fit the head (the last linear layer) to its own data, if its owner wants it.
    personal: ClassVar[bool] = False
    # What compressed variants must keep, unless a release asks otherwise: docs/compression.md lists the limits.
    release_limits: ClassVar[Mapping[str, float]] = {}
    # By size, the submodule whose output stands for what the model has understood: distillation may match it.
    hints: ClassVar[Mapping[str, str]] = {}
    # One sentence on each option of ``device_data``, by name.
    device_options: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def model(self, size: str, *, seed: int) -> torch.nn.Module:
        """A freshly initialised model; the same seed gives the same weights.

        Input (n, *input_shape) standardised float32, output (n, len(classes)) logits.
        """

    @abstractmethod
    def device_data(self, options: Options) -> Dataset:
        """The data of one device, loaded on that device. Raises InvalidInput when an option is missing or wrong."""

    def fleet(self) -> Sequence[Options]:
        """The options of every device that trains, for simulations; empty: only the devices themselves know."""
        return ()

    @abstractmethod
    def channel_sums(self, data: Dataset) -> ChannelSums:
        """This device's contribution to the standardisation."""

    @abstractmethod
    def train(
        self,
        model: torch.nn.Module,
        data: Dataset,
        standardisation: Standardisation,
        plan: TrainPlan,
        *,
        teacher: torch.nn.Module | None = None,
    ) -> TrainResult:
        """Train in place. With a teacher the loss mixes in its soft labels (Hinton, Vinyals, Dean, 2015)."""

    @abstractmethod
    def evaluate(self, model: torch.nn.Module, data: Dataset, standardisation: Standardisation) -> Evaluation:
        """Evaluate without changing the model."""

    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A batch in raw units, (n, *input_shape), altered at random as the world might; labels stay true. Default: as it is."""
        del generator
        return x

    def holdout(self) -> Dataset | None:
        """Labelled data at the cloud: chooses between models and calibrates quantization. Never trained on."""
        return None

    def transfer(self) -> FloatArray | None:
        """Unlabelled data at the cloud, (n, *input_shape) raw units, for distillation there; None: there is none."""
        return None

    def root(self) -> Dataset | None:
        """Labelled data at the cloud that a server may train on itself, to tell good updates from bad; None: there is none.

        A hundred examples will do. None of them is in the holdout or in ``unseen``.
        """
        return None

    def unseen(self) -> Dataset | None:
        """Labelled data of people or places that no device trains on and nothing is chosen by: the final report."""
        return None


def load_recipe(name: str) -> Recipe:
    """The installed recipe of that name; raises InvalidInput ``unknown_recipe`` or ``broken_recipe``."""
    factory = load_entry_point(GROUP, name)
    try:
        recipe = factory()
    except Exception as error:  # third-party constructor
        raise InvalidInput("broken_recipe", f"recipe {name!r} cannot be constructed: {error}", name=name) from error
    if not isinstance(recipe, Recipe):
        raise InvalidInput("broken_recipe", f"recipe {name!r} is not a fogline_shared.recipe.Recipe", name=name)
    if lacking := _lacking(recipe, name):
        raise InvalidInput("broken_recipe", f"recipe {name!r} {lacking}", name=name)
    return recipe


def _lacking(recipe: Recipe, name: str) -> str:
    """What is wrong with the declarations that Python itself does not ask for; empty when nothing is."""
    if missing := [field for field in ("name", "classes", "input_shape") if not hasattr(recipe, field)]:
        return f"does not say its {' and '.join(missing)}"
    if recipe.name != name:
        return f"calls itself {recipe.name!r}: entry point and class must agree"
    if isinstance(recipe.classes, str) or len(recipe.classes) < _FEWEST_CLASSES:
        return "must list at least two classes"
    if not recipe.input_shape or not all(isinstance(n, int) and n > 0 for n in recipe.input_shape):
        return f"must have an input_shape of whole numbers above 0, not {recipe.input_shape!r}"
    if missing := sorted({"teacher", "student"} - set(recipe.sizes)):
        return f"lacks the size {' and '.join(missing)}"
    return ""


def check_data(recipe: Recipe, data: Dataset, *, what: str) -> Dataset:
    """``data``, if it is what the recipe declares; ``what`` names it in the message.

    Raises InvalidInput ``empty_dataset`` or ``invalid_dataset``.
    """
    if not isinstance(data, Dataset):
        raise InvalidInput("invalid_dataset", f"{what} is {type(data).__name__}, not a Dataset")
    if not len(data):
        raise InvalidInput("empty_dataset", f"{what} has no examples")
    check_examples(recipe, data.x, what=what)
    if data.y.dtype != np.int64 or data.y.ndim != 1:
        raise InvalidInput("invalid_dataset", f"labels of {what} must be int64 (n,), not {data.y.dtype} {data.y.shape}")
    if data.y.min() < 0 or data.y.max() >= len(recipe.classes):
        labels = f"from {data.y.min()} to {data.y.max()}"
        raise InvalidInput("invalid_dataset", f"labels of {what} go {labels}; there are {len(recipe.classes)} classes")
    return data


def root_data(recipe: Recipe) -> Dataset:
    """The recipe's root data; raises InvalidInput ``no_root_data``, ``root_overlaps`` and what :func:`check_data` raises."""
    root = recipe.root()
    if root is None:
        raise InvalidInput("no_root_data", f"recipe {recipe.name} has no root(): no data that the server may train on")
    check_data(recipe, root, what="the root data")
    own = {example.tobytes() for example in root.x}
    for what, part in (("holdout", recipe.holdout()), ("unseen", recipe.unseen())):
        if part is not None and (shared := sum(example.tobytes() in own for example in part.x)):
            message = f"{shared} examples of {what} are in the root data too: what is trained on judges nothing"
            raise InvalidInput("root_overlaps", message)
    return root


def check_examples(recipe: Recipe, x: FloatArray, *, what: str) -> None:
    """Raises InvalidInput ``invalid_dataset`` unless x is float32, finite and (n, *input_shape)."""
    shape = tuple(recipe.input_shape)
    if x.dtype != np.float32 or x.shape[1:] != shape:
        wanted = f"float32 (n, {', '.join(map(str, shape))})"
        raise InvalidInput("invalid_dataset", f"examples of {what} must be {wanted}, not {x.dtype} {x.shape}")
    if not np.isfinite(x).all():
        raise InvalidInput("invalid_dataset", f"examples of {what} hold NaN or infinity")
