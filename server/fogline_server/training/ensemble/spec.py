"""What a run asks of an ensemble: one frozen, validated value. Needs neither torch nor flwr."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fogline_shared.checks import from_fields, number
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import Recipe, check_examples

MEAN, ENTROPY, MEDIAN, TRIMMED = "mean", "entropy", "median", "trimmed_mean"
FUSIONS = (MEAN, ENTROPY, MEDIAN, TRIMMED)
RANGES: Mapping[str, tuple[float, float]] = {
    "trim": (0.0, 0.45),
    "steps": (1, 100_000),
    "batch_size": (2, 4096),
    "learning_rate": (1e-7, 10.0),
    "temperature": (0.1, 100.0),
}
_WHOLE = {"steps", "batch_size"}


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Ensemble distillation (FedDF: Lin et al., NeurIPS 2020); off while ``sizes`` is empty.

    ``sizes``: the model size that devices of a class train; classes left out train the run's own size, the student.
    ``fusion``: how the devices' logits become the teacher's; ``trim``: share that ``trimmed_mean`` leaves out at either end.
    ``steps`` of Adam with ``batch_size`` examples of the transfer set, ``learning_rate`` falling by half a cosine.
    Raises InvalidInput ``invalid_ensemble``, naming the field and its range.
    """

    sizes: Mapping[str, str] = field(default_factory=dict)
    fusion: str = MEAN
    trim: float = 0.2
    steps: int = 200
    batch_size: int = 64
    learning_rate: float = 1e-3
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.sizes, Mapping) or not all(isinstance(size, str) for size in self.sizes.values()):
            message = "ensemble.sizes is an object of model sizes by device class"
            raise InvalidInput("invalid_ensemble", message, field="ensemble.sizes")
        if self.fusion not in FUSIONS:
            message = f"ensemble.fusion must be one of {', '.join(FUSIONS)}; got {self.fusion!r}"
            raise InvalidInput("invalid_ensemble", message[:400], field="ensemble.fusion")
        for name, (low, high) in RANGES.items():
            whole = name in _WHOLE
            value = getattr(self, name)
            number(f"ensemble.{name}", value, low=low, high=high, whole=whole, code="invalid_ensemble")

    def __bool__(self) -> bool:
        """Whether the run has one."""
        return bool(self.sizes)

    def size_of(self, device_class: str, student: str) -> str:
        """What a device of that class trains."""
        return self.sizes.get(device_class, student)

    def all_sizes(self, recipe: Recipe, student: str) -> tuple[str, ...]:
        """Every size that is trained, the student first, then in the recipe's order."""
        others = set(self.sizes.values()) - {student}
        return (student, *(size for size in recipe.sizes if size in others))

    def check_recipe(self, recipe: Recipe) -> None:
        """Raise InvalidInput ``unknown_size``, ``no_transfer_set`` or ``invalid_dataset`` for a recipe that cannot have it."""
        if not self:
            return
        if unknown := sorted(set(self.sizes.values()) - set(recipe.sizes)):
            known = ", ".join(recipe.sizes)
            message = f"recipe {recipe.name} has no size {unknown[0]!r}; sizes: {known}"
            raise InvalidInput("unknown_size", message[:400], field="ensemble.sizes")
        transfer = recipe.transfer()
        if transfer is None or not len(transfer):
            message = f"recipe {recipe.name} has no transfer set (transfer()), on which an ensemble could teach"
            raise InvalidInput("no_transfer_set", message, field="ensemble")
        check_examples(recipe, transfer, what="the transfer set")

    def check_classes(self, known: Collection[str]) -> None:
        """Raise InvalidInput ``unknown_device_class``, which lists the known ones."""
        if unknown := sorted(set(self.sizes) - set(known)):
            listed = ", ".join(sorted(known)) or "none, no device has enrolled"
            message = f"no device is of class {unknown[0]!r}; classes: {listed}"
            raise InvalidInput("unknown_device_class", message[:400], field="ensemble.sizes")

    @classmethod
    def from_json(cls, value: object) -> Ensemble:
        """Inverse of ``asdict``; fields left out have their defaults. Raises InvalidInput ``invalid_ensemble``."""
        return from_fields(cls, value, name="ensemble", code="invalid_ensemble")

    def as_json(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self)
