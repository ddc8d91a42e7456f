"""The search's pick beside the best single method within the same limits, on people and images that chose nothing.

A student is trained by its recipe's rounds, released, and searched as a coordinator does it, once for each class of device: those
that take a half, a third or a quarter of the float student's bytes. The single methods (one link of a chain) get their whole
training, none is left on the way, and the best is chosen by the same examples and the same rule as the search's pick. Methods
that train use unlabelled examples: Fashion-MNIST's transfer set; for the smartwatch, whose recipe has none, the devices' data
without its labels, as if it had been given. Fashion-MNIST is left out, by name, where its files are not there.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from unittest.mock import patch

import structlog
from harness import Figure, Options, progress

from compression.shipped import federated
from fogline_server.blobs.store import BlobStore
from fogline_server.compression.evaluate import evaluate
from fogline_server.compression.front import Limits, Measured, pick
from fogline_server.db.base import new_id, utc_now
from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.jobs.engine import Engine
from fogline_server.jobs.tables import Job
from fogline_server.registry import jobs as registry_jobs
from fogline_server.registry.forms import form_of
from fogline_server.registry.model import ReleaseSpec
from fogline_server.registry.service import create_release
from fogline_server.registry.tick import tick
from fogline_server.schema import create_all
from fogline_server.search import jobs as search_jobs
from fogline_server.search import service
from fogline_server.search.evidence import measure as measure_form
from fogline_server.search.model import SearchSpec
from fogline_server.search.source import Source, open_source
from fogline_server.search.space import entries
from fogline_server.training.tables import Run
from fogline_shared.errors import FoglineError, Unavailable
from fogline_shared.recipe import Recipe

SEEDS = (0, 1, 2)
# Share of the float student's bytes as sent → what such a class of devices is called.
CLASSES = {1 / 2: "a half", 1 / 3: "a third", 1 / 4: "a quarter"}
QUICK_STEPS = 9


@dataclass(frozen=True, kw_only=True)
class Row:
    """A class of devices, one seed: the chains that were taken, and their shares of the unseen examples right.

    None: no chain, or no single method, is small enough.
    """

    taken: str | None
    single: str | None
    ours: float | None
    theirs: float | None


def measure(options: Options) -> list[Figure]:
    """A figure a recipe and class."""
    logging.getLogger("flwr").setLevel(logging.WARNING)
    logging.getLogger().setLevel(logging.ERROR)  # the quantizer's advice, once a candidate
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    figures = []
    for name, prepare in {"smartwatch": _smartwatch, "fashion": _fashion}.items():
        try:
            with prepare() as recipe:
                figures += _subject(name, recipe, options)
        except Unavailable as error:
            progress(f"left out {name}: {error.message}")
    return figures


@contextmanager
def _smartwatch() -> Iterator[Recipe]:
    from fogline_recipes.smartwatch import Smartwatch
    from fogline_recipes.smartwatch.data import HOP, windows

    x = windows(Smartwatch().training_people, hop=HOP).x
    with patch.object(Smartwatch, "transfer", lambda _self: x):
        yield Smartwatch()


@contextmanager
def _fashion() -> Iterator[Recipe]:
    from fogline_recipes.fashion import Fashion

    recipe = Fashion()
    recipe.holdout()  # raises where the files are not there
    yield recipe


def _subject(name: str, recipe: Recipe, options: Options) -> list[Figure]:
    rows: dict[str, list[Row]] = {called: [] for called in CLASSES.values()}
    for seed in SEEDS[:1] if options.quick else SEEDS:
        with tempfile.TemporaryDirectory() as folder, _Plant(Path(folder), recipe, seed, options) as plant:
            for share, called in CLASSES.items():
                rows[called].append(plant.row(share))
                progress(f"{name}, seed {seed}, {called}: {rows[called][-1]}")
    return [figure for called, found in rows.items() if (figure := _figure(name, called, found)) is not None]


class _Plant:
    """A coordinator's parts without its processes: jobs run here, one after the other."""

    def __init__(self, folder: Path, recipe: Recipe, seed: int, options: Options) -> None:
        self.recipe = recipe
        self.seed = seed
        self.options = options
        self.db = Database(f"sqlite:///{folder / 'bench.db'}")
        create_all(self.db)
        self.blobs = BlobStore(folder / "blobs")
        kinds = {kind.name: kind for kind in (*registry_jobs.KINDS, *search_jobs.KINDS)}
        self.engine = Engine(
            self.db, self.blobs, Doorbell("redis://127.0.0.1:1/0"), kinds=kinds, lease_s=60, ring=lambda *_: None
        )
        self.steps = QUICK_STEPS if options.quick else SearchSpec().steps

    def __enter__(self) -> Self:
        self.release = self._release()
        self._singles: dict[str, tuple[Measured, bytes]] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self.db.dispose()

    def row(self, share: float) -> Row:
        """Search for forms of that share of the float student's bytes, and compare."""
        first = self._search(SearchSpec(limits=Limits(max_drop=1.0), steps=self.steps, seed=self.seed))
        limits = Limits(max_bytes=int(share * first.result["parent"]["bytes_zstd"]), max_drop=1.0)
        found = self._search(SearchSpec(limits=limits, steps=self.steps, seed=self.seed)).result
        source = open_source(self.db, self.blobs, first)
        ours = next((row for row in found["candidates"] if row["name"] == found["pick"]), None)
        parent = Measured.of("parent", found["parent"] | found["parent"]["choosing"])
        singles = self._measured_singles(source)
        best = pick([form for form, _ in singles.values()], limits, parent=parent).taken
        return Row(
            taken=ours and ours["chain"],
            single=best and best.name,
            ours=ours and self._right(self.blobs.read(ours["digest"])),
            theirs=best and self._right(singles[best.name][1]),
        )

    def _right(self, model: bytes) -> float:
        unseen = self.recipe.unseen()
        assert unseen is not None
        return evaluate(model, unseen).accuracy

    def _measured_singles(self, source: Source) -> dict[str, tuple[Measured, bytes]]:
        """Each method by itself, with its whole training."""
        for entry in entries((), self.steps) if not self._singles else ():
            if entry.single:
                try:
                    model = form_of(entry.chain, source.parent(entry.chain), self.recipe, entry.name)
                except FoglineError as error:
                    progress(f"{entry.chain}: {error}")
                    continue
                found = measure_form(model, source.model, source.evidence)
                form = Measured.of(entry.name, found["choosing"] | found)
                self._singles[str(entry.chain)] = (replace(form, name=str(entry.chain)), model)
        return self._singles

    def _search(self, spec: SearchSpec) -> service.Search:
        with self.db.transaction() as session:
            made = service.start_search(session, self.release, spec, now=utc_now(), actor="bench").id
        self._run_all()
        with self.db.read() as session:
            search, job = service.get_search(session, made)
        assert search.result is not None, job.error
        return search

    def _release(self) -> str:
        trained = federated(self.recipe, "student", self.seed, self.options)
        source = trained.source()
        now, run_id = utc_now(), new_id("run")
        with self.db.transaction() as session:
            session.add(
                Run(
                    id=run_id,
                    recipe=self.recipe.name,
                    size="student",
                    state="SUCCEEDED",
                    spec={},
                    rounds_total=1,
                    rounds_done=1,
                    statistics=source.standardisation.as_json(),
                    params_digest=self.blobs.put([source.params]).digest,
                    created_at=now,
                )
            )
            session.flush()
            # A student that is hardly trained, in a quick run, loses anything.
            spec = ReleaseSpec(name="student", recipe=self.recipe.name, student_run=run_id, max_accuracy_drop=1.0)
            release = create_release(session, spec, now=now, actor="bench").id
        self._run_all()
        tick(self.db, now=utc_now())
        return release

    def _run_all(self) -> None:
        while True:
            with self.db.read() as session:
                queued = [job for (job,) in session.query(Job.id).where(Job.state == "QUEUED").order_by(Job.id)]
            if not queued:
                return
            for job in queued:
                self.engine.execute(job)


def _figure(name: str, called: str, rows: Sequence[Row]) -> Figure | None:
    ours = [100 * row.ours for row in rows if row.ours is not None]
    theirs = [100 * row.theirs for row in rows if row.theirs is not None]
    if len(ours) < len(rows) or len(theirs) < len(rows):
        progress(f"left out {name} within {called} of the bytes: {'no single method' if ours else 'no chain'} fits")
        return None
    return Figure(
        name=f"{name}: the search's pick within {called} of the bytes, unseen",
        unit="%",
        ours=statistics.mean(ours),
        spread=statistics.stdev(ours) if len(ours) > 1 else 0.0,
        peer=statistics.mean(theirs),
        peer_name="the best single method",
        target=1.0,
        higher_is_better=True,
        detail={"pick": [row.taken for row in rows], "single": [row.single for row in rows]},
    )
