"""Two fleets enrolled from nothing, with real agents: one seed gives one model and one int8 artifact, to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from live_fleet import DEVICES, RUN, LiveFleet
from simulation import simulate

pytestmark = pytest.mark.slow


@contextmanager
def fresh(folder: Path) -> Iterator[LiveFleet]:
    folder.mkdir()
    fleet = LiveFleet(folder)
    try:
        fleet.start_devices()
        yield fleet
    finally:
        fleet.stop()


def trained(fleet: LiveFleet, seed: int) -> tuple[str, str]:
    """Digests of the parameters a run ends with, and of the int8 artifact made of them."""
    run = fleet.begin_run(seed=seed)
    fleet.finish_run(run)
    params = fleet.check_run(run)
    body = {"name": f"seed-{seed}", "recipe": RUN["recipe"], "student_run": run, "max_accuracy_drop": 1.0}
    made = fleet.rest().post("/v1/releases", body)
    release = fleet.rest().wait(f"/v1/releases/{made['id']}", timeout_s=120)
    assert release["state"] == "READY", release
    return params, {variant["name"]: variant["digest"] for variant in release["variants"]}["student_int8"]


def test_two_fleets_and_a_simulation_agree_to_the_byte(tmp_path: Path) -> None:
    with fresh(tmp_path / "one") as fleet:
        params, artifact = trained(fleet, seed=3)
    with fresh(tmp_path / "two") as fleet:
        assert trained(fleet, seed=3) == (params, artifact)
        other_params, other_artifact = trained(fleet, seed=4)
    assert params != other_params
    assert artifact != other_artifact
    assert simulate(DEVICES, **RUN) == params
