"""What a run begins with: its first parameters, its teacher, and a standardisation that no device needs to be asked for."""

from __future__ import annotations

from sqlalchemy.orm import Session
from torch.nn import Module

from fogline_recipes import parameters
from fogline_server.blobs.store import BlobStore
from fogline_server.training.rounds import Teacher
from fogline_server.training.spec import RunSpec
from fogline_server.training.statistics import Statistics
from fogline_server.training.tables import Run
from fogline_shared import flower, tensors
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import Recipe


def first_parameters(blobs: BlobStore, spec: RunSpec, model: Module) -> str:
    """Digest of the parameters a run starts at: ``init_from``, which must fit the model, or the model's own."""
    if spec.init_from is None:
        return blobs.put(tensors.encode(parameters.read(model))).digest
    parameters.write(model, tensors.decode(blobs.read(spec.init_from)))
    return spec.init_from


def teacher(session: Session, blobs: BlobStore, spec: RunSpec) -> Teacher | None:
    """The model devices learn soft labels from; raises InvalidInput ``teacher_not_ready``."""
    if spec.distil_from is None:
        return None
    run = session.get_one(Run, spec.distil_from)
    if run.params_digest is None:
        raise InvalidInput("teacher_not_ready", f"run {run.id} has no parameters")
    return Teacher(size=run.size, arrays=flower.read_arrays(blobs.path(run.params_digest)))


def by_holdout(recipe: Recipe) -> Statistics:
    """Statistics that tell nothing of devices; raises InvalidInput ``privacy_without_holdout``."""
    holdout = recipe.holdout()
    if holdout is None:
        raise InvalidInput("privacy_without_holdout", f"recipe {recipe.name} has no holdout to standardise by")
    return Statistics(standardisation=recipe.channel_sums(holdout).standardisation(), samples={})


def known_statistics(session: Session, spec: RunSpec, recipe: Recipe) -> Statistics | None:
    """Statistics without a round 0; None: the devices are asked.

    A distilled run takes its teacher's, which expects inputs as it was trained on them. A private one is standardised by
    the holdout, since the devices' sums would tell of them without noise; raises InvalidInput ``privacy_without_holdout``.
    """
    if spec.hides_losses:
        return by_holdout(recipe)
    if spec.distil_from is not None:
        known = session.get_one(Run, spec.distil_from).statistics
        assert known is not None, "create_run asks for a teacher that SUCCEEDED"
        return Statistics.from_json(known)
    return None
