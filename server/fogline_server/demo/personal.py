"""What a personal head is worth to the two people nobody trained on, beside a student trained from scratch on the same windows.

Protocol: of each recording the first fifth is the person's own labelled data, the rest is tested; no window lies on both sides
of the border. Each person is a device of their own: it splits what it has by recordings, fits, validates, and keeps the
head only if it wins there; then the artifact it would serve is tested. The table gives the mean over both people's windows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_recipes.personal import personalise
from fogline_recipes.smartwatch import TEST_HOP, Smartwatch
from fogline_recipes.smartwatch.data import WIDTH, windows
from fogline_server.compression.engine import open_session, run
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import Dataset

OWN_SHARE = 0.2
# The budget of a federated student: as many epochs over its own windows as a device trains in the demo's run.
SCRATCH_EPOCHS = 32


def personal(model: str, seed: int) -> dict[str, Any]:
    """Accuracy of the released artifact, of the personal one and of the student from scratch, on the same windows."""
    artifact = Path(model).read_bytes()
    people = [_person(artifact, person, seed) for person in Smartwatch().unseen_people]
    tested = sum(one["tested"] for one in people)
    means = {
        name: sum(one[name] * one["tested"] for one in people) / tested for name in ("released", "personal", "scratch")
    }
    return {**means, "people": people, "tested": tested, "own": sum(one["own"] for one in people)}


def halves(person: int) -> tuple[Dataset, Dataset]:
    """The first fifth of each of a person's recordings, and the rest."""
    everything = windows([person], hop=TEST_HOP)
    source = everything.source
    border = source.first + OWN_SHARE * (source.last + 1 - source.first)
    return _rows(everything, source.start + WIDTH <= border), _rows(everything, source.start >= border)


def _person(artifact: bytes, person: int, seed: int) -> dict[str, Any]:
    own, rest = halves(person)
    try:
        outcome = personalise(artifact, own)
        kept, gain = outcome.artifact or artifact, outcome.gain
    except InvalidInput:
        kept, gain = artifact, 0.0
    return {
        "person": person,
        "own": len(own),
        "tested": len(rest),
        "kept": kept is not artifact,
        "gain_on_validation": gain,
        "released": _accuracy(artifact, rest),
        "personal": _accuracy(kept, rest),
        "scratch": _scratch(own, rest, seed),
    }


def _scratch(own: Dataset, rest: Dataset, seed: int) -> float:
    import torch

    torch.set_num_threads(1)
    recipe = Smartwatch()
    standardisation = recipe.channel_sums(own).standardisation()
    model = recipe.model("student", seed=seed)
    recipe.train(model, own, standardisation, replace(recipe.plans["student"], epochs=SCRATCH_EPOCHS, seed=seed))
    return recipe.evaluate(model, rest, standardisation).accuracy


def _rows(data: Dataset, chosen: NDArray[np.bool_]) -> Dataset:
    rows = np.flatnonzero(chosen)
    groups = None if data.groups is None else data.groups[rows]
    source = data.source.take(rows)
    # Augmentation moves and stretches windows within their recording: not into what is tested.
    ends = {int(f): int(e) for f, e in zip(source.first, source.start + WIDTH - 1, strict=True)}
    source = replace(source, last=np.array([ends[int(f)] for f in source.first]))
    return replace(data, x=data.x[rows], y=data.y[rows], groups=groups, source=source)


def _accuracy(artifact: bytes, data: Dataset) -> float:
    return float((run(open_session(artifact), data.x).argmax(axis=1) == data.y).mean())
