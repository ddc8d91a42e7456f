"""One device behind a very slow line, real agents, a real gateway: nobody waits for it, and its old update counts by its age."""

from __future__ import annotations

from pathlib import Path

import pytest
from buffered_steps import check_steps
from live_fleet import LiveFleet
from parts import eventually

from fogline_server.blobs.store import BlobStore
from fogline_server.training import service

pytestmark = pytest.mark.slow
# Steps that others have taken meanwhile.
AGE = 3


def test_a_device_on_a_slow_line_holds_nobody_up(tmp_path: Path) -> None:
    fleet = LiveFleet(tmp_path)
    try:
        fleet.start_devices()
        options = {"buffer_size": 1, "max_staleness": 1000}
        run_id = fleet.begin_run(strategy="fedbuff", strategy_options=options, rounds=1000)
        eventually(lambda: fleet.run_of(run_id).rounds_done >= 1, 60)
        fleet.proxy.rate = 1000  # four seconds for the parameters, where a step takes a third of one

        def old() -> list[service.UpdateView]:
            with fleet.db.read() as session:
                updates = service.updates_of(session, run_id)
            return [each for each in updates if each.verdict == "ACCEPTED" and (each.staleness or 0) >= AGE]

        eventually(old, 120)
        fleet.rest().post(f"/v1/runs/{run_id}:cancel", {})
        fleet.finish_run(run_id)
        slow = {device["id"] for device in fleet.rest().get("/v1/devices")["items"] if device["name"] == "watch-0"}
        assert {update.device_id for update in old()} == slow
        check_steps(fleet.db, BlobStore(fleet.up.state_dir / "blobs"), run_id, buffer_size=1)
    finally:
        fleet.stop()
