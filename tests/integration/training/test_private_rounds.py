"""Private rounds over rows, as the trainer runs them: what is refused is spent, and what was finished may cost more."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from training_fleet import Agents, add_devices, create_run, engine

from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.training import lifecycle, service
from fogline_server.training.gate import Gate
from fogline_server.training.privacy import ledger
from fogline_server.training.privacy.local import LocalPrivacy
from fogline_server.training.privacy.spec import Privacy
from fogline_server.training.tables import PrivacyAccount, Task, Update
from fogline_shared import tensors
from fogline_shared.errors import Conflict
from fogline_shared.privacy.accountant import Releases, epsilon

NOISE, DELTA = 2.0, 1e-5


def cost(rounds: int) -> float:
    return epsilon([Releases(noise_multiplier=NOISE, rounds=rounds)], DELTA)


def everybody(database: Database, rounds: int) -> None:
    """All devices may pay so many rounds."""
    budget = {"epsilon": cost(rounds), "delta": DELTA}
    with database.transaction() as session:
        ledger.create(session, name="all", recipe="tiny", tags=[], **budget, now=utc_now())


def test_a_refused_round_is_spent_and_leaves_the_clip_and_an_extension_is_charged_before_it_starts(
    sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell
) -> None:
    database = sqlite_database
    add_devices(database, 2)
    with Agents(database, blobs, doorbell, 2):
        # So well trained that no noise comes within the gate by chance, as it did once where the run began at 36 %.
        first_id, job_id = create_run(database, rounds=24)
        engine(database, blobs, doorbell).execute(job_id)
        with database.read() as session:
            trained = service.get_run(session, first_id).params_digest
        everybody(database, 3)
        # Noise of such length undoes what was learned: the gate refuses every round.
        privacy = Privacy(population="all", noise_multiplier=NOISE, clip=100.0, clip_quantile=0.5)
        gate = Gate(max_drop=5.0, patience=9)
        run_id, job_id = create_run(database, rounds=2, privacy=privacy, gate=gate, init_from=trained)
        engine(database, blobs, doorbell).execute(job_id)
        with database.read() as session:
            run, rounds = service.get_run(session, run_id), service.rounds_of(session, run_id)
            account = session.get_one(PrivacyAccount, run_id)
        assert (run.state, run.params_digest, account.rounds_spent) == ("SUCCEEDED", trained, 2)
        told = [(each.state, each.metrics["clip"]) for each in rounds]
        assert told == [("REFUSED", 100.0)] * 2, "the clip goes with the model that was kept"
        with pytest.raises(Conflict, match="privacy_budget_exceeded"), database.transaction() as session:
            lifecycle.extend_run(session, run_id, 2, now=utc_now())
        with database.transaction() as session:
            assert service.get_run(session, run_id).state == "SUCCEEDED", "what is refused changes nothing"
            job_id = lifecycle.extend_run(session, run_id, 1, now=utc_now()).job_id
            assert ledger.get(session, "all").committed == cost(3)
        engine(database, blobs, doorbell).execute(job_id)
    with database.read() as session:
        assert ledger.get(session, "all").spent == cost(3)
        assert service.get_run(session, run_id).rounds_done == 3


def test_devices_add_their_own_noise_and_one_that_does_not_is_refused(
    sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell
) -> None:
    database, seen = sqlite_database, {}
    add_devices(database, 3)

    def keep(metrics: dict, arrays: dict) -> tuple[dict, dict]:
        seen[len(seen)] = metrics, arrays
        return metrics, arrays

    class Old(Agents):
        """The last device has never heard of local privacy."""

        def reply(self, index: int, offer: Any) -> Any:
            if index == 2:
                records = json.loads(offer.records_json)
                values = records["config"]["values"]
                records["config"]["values"] = {k: v for k, v in values.items() if not k.startswith("local_")}
                object.__setattr__(offer, "records_json", json.dumps(records))
            return super().reply(index, offer)

    spec = {"rounds": 1, "local_privacy": LocalPrivacy(epsilon=8.0, clip=0.1), "quorum": 0.5, "codec": "fp16"}
    run_id, job_id = create_run(database, **spec)
    with Old(database, blobs, doorbell, 3, tamper={0: keep, 1: keep}):
        engine(database, blobs, doorbell).execute(job_id)
    with database.read() as session:
        (only,) = service.rounds_of(session, run_id)
        codes = session.scalars(select(Update.code).join(Task).order_by(Task.node_id)).all()
    assert (only.number, only.state, codes) == (1, "COMMITTED", ["", "", "not_private"])
    assert "loss" not in only.metrics
    assert [metrics for metrics, _ in seen.values()] == [{"num-examples": 1, "loss": 0.0}] * 2
    # What came in is nearly all noise, of the deviation that was asked for; the model is the mean of two such.
    deviation = spec["local_privacy"].mechanism.deviation
    out, into = (tensors.decode(blobs.read(digest)) for digest in (only.params_out, only.params_in))
    moved = np.concatenate([(out[name] - into[name]).ravel() for name in into if not name.endswith("running_var")])
    assert moved.std() == pytest.approx(deviation / 2**0.5, rel=0.15)
