"""What every candidate of a search begins from: the student that the release has chosen, and what there is to judge it by."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version

from fogline_server.blobs.store import BlobStore
from fogline_server.compression.chain import Chain
from fogline_server.compression.methods.base import Parent
from fogline_server.compression.parent import parent_of
from fogline_server.db.database import Database
from fogline_server.registry.lineage import fingerprint
from fogline_server.registry.model import STUDENT
from fogline_server.registry.service import get_release, get_variant
from fogline_server.registry.students import ChosenStudent, chosen_student
from fogline_server.search.evidence import Evidence, evidence_of, fingerprint_of
from fogline_server.search.model import SearchSpec
from fogline_server.search.tables import Search
from fogline_shared.recipe import Recipe, Standardisation, load_recipe

# What a chain computes with: another version may give other bytes or other figures.
_COMPUTES = ("fogline", "numpy", "onnx", "onnxruntime", "torch", "torch-pruning")


@dataclass(frozen=True, kw_only=True)
class Source:
    """``params``: the student's parameters; ``model``: its float artifact, ``model_digest`` by name."""

    recipe: Recipe
    student: ChosenStudent
    params: bytes
    model: bytes
    model_digest: str
    seed: int

    def parent(self, chain: Chain) -> Parent:
        """What it starts from; raises as :func:`~fogline_server.compression.parent.parent_of`."""
        standardisation = Standardisation.from_json(self.student.statistics)
        made = parent_of(self.recipe, "student", self.params, standardisation, self.model, needs=chain.needs)
        return replace(made, seed=self.seed)

    @cached_property
    def evidence(self) -> Evidence:
        """Raises as :func:`~fogline_server.search.evidence.evidence_of`."""
        return evidence_of(self.recipe, self.model)

    @cached_property
    def _everything_else(self) -> str:
        return fingerprint(
            {
                "params": self.student.params_digest,
                "standardisation": dict(self.student.statistics),
                "model": self.model_digest,
                "recipe": self.recipe.name,
                "examples": fingerprint_of(self.recipe, self.evidence),
                "seed": self.seed,
                "versions": {name: _version(name) for name in _COMPUTES},
                "machine": platform.machine(),
            }
        )

    def key(self, chain: Chain, name: str) -> str:
        """Digest of all that decides what a chain gives, by which a candidate is found again."""
        return fingerprint({"chain": chain.as_json(), "name": name, "of": self._everything_else})


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def open_source(db: Database, blobs: BlobStore, search: Search) -> Source:
    """Read what a search works on; raises what the blob store and :func:`chosen_student` raise."""
    with db.read() as session:
        release = get_release(session, search.release_id)
        student = chosen_student(session, release)
        digest = get_variant(session, release.id, STUDENT).digest
    return Source(
        recipe=load_recipe(release.recipe),
        student=student,
        params=blobs.read(student.params_digest),
        model=blobs.read(digest),
        model_digest=digest,
        seed=SearchSpec.from_json(search.spec).seed,
    )
