"""Ten kinds of clothes in 28x28 grey values: few labels on the devices, many images without labels at the cloud.

Two thousand labelled images lie on twenty devices, which hold some kinds more than others. The cloud has 57,000 images that
nobody labelled, and a thousand labelled ones to choose by. Here a teacher's knowledge is worth sending on: it labels what
nobody has labelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from fogline_recipes.classifier import Classifier
from fogline_recipes.fashion import data
from fogline_recipes.options import whole_number
from fogline_shared.recipe import Dataset, FloatArray, Options, TrainPlan

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

# How far an image may move, in pixels.
SHIFT = 2


class Fashion(Classifier):
    """Input: grey values 0 to 255, (1, 28, 28). Files: see :mod:`fogline_recipes.fashion.data`.

    Besides ``student`` (MobileNet-style) there is ``shuffle`` (ShuffleNet-style), as small.
    """

    name = "fashion"
    classes = (
        "t_shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle_boot",
    )
    input_shape = (1, data.SIDE, data.SIDE)
    sizes = ("teacher", "student", "shuffle")
    plans: ClassVar[Mapping[str, TrainPlan]] = {
        "teacher": TrainPlan(epochs=4, batch_size=32, learning_rate=2e-3),
        "student": TrainPlan(epochs=4, batch_size=32, learning_rate=5e-3),
        "shuffle": TrainPlan(epochs=4, batch_size=32, learning_rate=5e-3),
    }
    rounds: ClassVar[Mapping[str, int]] = {"teacher": 20, "student": 30, "shuffle": 30}
    # What comes before the average over positions.
    hints: ClassVar[Mapping[str, str]] = {"teacher": "3", "student": "3", "shuffle": "4"}
    device_options: ClassVar[Mapping[str, str]] = {"device": f"whose images: 0 to {data.DEVICES - 1}"}

    def build(self, size: str) -> Module:
        from fogline_recipes.fashion.models import build

        return build(size)

    def device_data(self, options: Options) -> Dataset:
        """Option ``device``. Raises InvalidInput ``invalid_option``, and what :func:`data.holdout` raises."""
        return data.device(whole_number(options, "device", range(data.DEVICES)))

    def fleet(self) -> Sequence[Options]:
        """Twenty devices."""
        return [{"device": str(number)} for number in range(data.DEVICES)]

    def augment(self, x: Tensor, generator: Generator) -> Tensor:
        """Half of the images mirrored, all moved by up to two pixels each way."""
        import torch
        from torch.nn import functional

        n, side = len(x), data.SIDE
        mirrored = torch.rand(n, generator=generator) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        padded = functional.pad(x, (SHIFT,) * 4)
        down, right = torch.randint(0, 2 * SHIFT + 1, (2, n, 1), generator=generator) + torch.arange(side)
        return padded[torch.arange(n)[:, None, None], 0, down[:, :, None], right[:, None, :]][:, None]

    def holdout(self) -> Dataset:
        """A thousand labelled images at the cloud."""
        return data.holdout()

    def transfer(self) -> FloatArray:
        """What nobody labelled."""
        return data.transfer()

    def unseen(self) -> Dataset:
        """Fashion-MNIST's test images."""
        return data.unseen()
