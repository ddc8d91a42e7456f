"""Seven shoulder exercises from a wrist-worn motion sensor; one person is one device.

The data (Burns et al., "Shoulder physiotherapy exercise recognition: machine learning the inertial signals from a
smartwatch", Physiological Measurement, 2018) comes with the package ``seglearn``, whose file is read in place.

Three of the ten people never train. Two, recorded together, stand for new users: nothing is chosen by their data. The
third is the cloud's volunteer: he chooses between models and calibrates quantization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from fogline_recipes.classifier import Classifier
from fogline_recipes.options import whole_number
from fogline_recipes.smartwatch import data as recordings
from fogline_recipes.smartwatch.data import CLASSES, HOP, PEOPLE, WIDTH
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import Dataset, Options, TrainPlan

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

# Who is never trained on. Fixed before anything was tried on them.
UNSEEN_PEOPLE = (7, 10)
VOLUNTEER = 3
# Test windows overlap more than training windows: more of them, the same recordings.
TEST_HOP = 32


class Smartwatch(Classifier):
    """Input: 128 samples at 50 Hz of acceleration (g) and rotation rate (rad/s), three axes each.

    ``light`` is a student of depthwise-separable convolutions, for the smallest devices.
    ``unseen`` and ``volunteer`` move the split, for studies over all pairs of people; as installed it is fixed.
    """

    name = "smartwatch"
    classes = CLASSES
    input_shape = (6, WIDTH)
    sizes = ("teacher", "student", "light")
    noise = 0.05
    personal = True
    plans: ClassVar[Mapping[str, TrainPlan]] = {
        "teacher": TrainPlan(epochs=2, batch_size=32, learning_rate=2e-3),
        "student": TrainPlan(epochs=2, batch_size=32, learning_rate=3e-3),
        "light": TrainPlan(epochs=2, batch_size=32, learning_rate=3e-3),
    }
    rounds: ClassVar[Mapping[str, int]] = {"teacher": 8, "student": 16, "light": 16}
    device_options: ClassVar[Mapping[str, str]] = {"person": "whose recordings the device holds: 1 … 10"}

    def __init__(self, *, unseen: Sequence[int] = UNSEEN_PEOPLE, volunteer: int | None = VOLUNTEER) -> None:
        self.unseen_people = tuple(unseen)
        self.volunteer = volunteer

    @property
    def training_people(self) -> tuple[int, ...]:
        """Whose devices may train."""
        return tuple(p for p in PEOPLE if p not in self.unseen_people and p != self.volunteer)

    def build(self, size: str) -> Module:
        from fogline_recipes.smartwatch.models import build

        return build(size)

    def device_data(self, options: Options) -> Dataset:
        """Option ``person``. Raises InvalidInput ``invalid_option``, or ``person_held_out`` for the three."""
        person = whole_number(options, "person", PEOPLE)
        if person not in self.training_people:
            raise InvalidInput("person_held_out", f"person {person} is never trained on", field="person")
        return recordings.windows([person], hop=HOP)

    def fleet(self) -> Sequence[Options]:
        """A device for each person who trains."""
        return [{"person": str(person)} for person in self.training_people]

    def sample(self, data: Dataset, indices: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Windows at random places and speeds of the recording, as another person might wear and move the watch."""
        from fogline_recipes.smartwatch.augment import augmented

        return augmented(data, indices, generator)

    def holdout(self) -> Dataset | None:
        """The volunteer's windows."""
        return None if self.volunteer is None else recordings.windows([self.volunteer], hop=TEST_HOP)

    def unseen(self) -> Dataset:
        """The new users' windows."""
        return recordings.windows(self.unseen_people, hop=TEST_HOP)
