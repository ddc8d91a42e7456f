"""A run is repeated by its seed: the same devices by name, with the same data, end with the same bytes in any fleet.

Enrolment draws node ids anew, so the fleets here differ in them and in the order in which they sort.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from simulation import simulate
from training_fleet import Agents, Tamper, add_devices, create_run, engine

from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.schema import create_all
from fogline_server.training import service

NODES = (11, 12, 13, 14)


class Fleets:
    """Each :meth:`train` is a run on a fleet, a database and a blob store of its own."""

    def __init__(self, folder: Path, doorbell: Doorbell) -> None:
        self._folder, self._doorbell = folder, doorbell
        self._made = 0

    def train(self, nodes: Sequence[int], *, tamper: Tamper | None = None, **spec: object) -> str:
        """The digest of the parameters the run ends with."""
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        db, blobs = Database(f"sqlite:///{folder / 'fogline.db'}"), BlobStore(folder / "blobs")
        create_all(db)
        add_devices(db, len(nodes), nodes=nodes)
        tampered = {} if tamper is None else dict.fromkeys(range(len(nodes)), tamper)
        run_id, job_id = create_run(db, **{"rounds": 3, "min_devices": 2, "quorum": 1.0, **spec})
        with Agents(db, blobs, self._doorbell, len(nodes), tamper=tampered, nodes=nodes):
            engine(db, blobs, self._doorbell).execute(job_id)
        with db.read() as session:
            run = service.get_run(session, run_id)
        db.dispose()
        assert run.state == "SUCCEEDED", run.error
        assert run.params_digest is not None
        return run.params_digest


@pytest.fixture
def fleets(tmp_path: Path, doorbell: Doorbell) -> Fleets:
    return Fleets(tmp_path, doorbell)


def test_node_ids_do_not_matter_and_the_seed_does(fleets: Fleets) -> None:
    digest = fleets.train(NODES)
    assert fleets.train(NODES[::-1]) == digest
    assert fleets.train(NODES[::-1], seed=1) != digest


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedprox", "multikrum"])
def test_a_simulation_gives_the_bytes_of_the_fleet(fleets: Fleets, strategy: str) -> None:
    assert fleets.train(NODES[::-1], strategy=strategy) == simulate(len(NODES), rounds=3, strategy=strategy)


def test_a_part_of_the_fleet_is_drawn_by_names(fleets: Fleets) -> None:
    digest = fleets.train(NODES, max_devices=2)
    assert fleets.train(NODES[::-1], max_devices=2) == digest
    assert fleets.train(NODES[::-1], max_devices=3) != digest


def test_replies_that_say_the_same_are_added_up_in_the_order_of_names(fleets: Fleets) -> None:
    def silent_about_loss(metrics, arrays):
        return metrics | {"loss": 0.0}, arrays

    digest = fleets.train(NODES, tamper=silent_about_loss)
    assert fleets.train(NODES[::-1], tamper=silent_about_loss) == digest
