"""A real agent that trains nothing measures what it is asked for, over a real gateway, beside the model it serves."""

from __future__ import annotations

from datetime import timedelta

import pytest
from agent_process import until
from artifacts import artifact

from fogline_server.db.base import utc_now
from fogline_server.registry.measurements import asking, summary
from fogline_server.registry.measurements.model import MeasurementState, Request
from fogline_server.registry.tables import Measurement, Variant
from fogline_shared.states import AssignmentState


@pytest.fixture
def ask(sqlite_database):
    """Ask a device to measure a published artifact; the measurement's id."""

    def ask_(device_id: str, target) -> str:
        with sqlite_database.transaction() as session:
            if session.get(Variant, (target.release_id, target.variant)) is None:
                session.add(
                    Variant(release_id=target.release_id, name=target.variant, digest=target.digest, size=target.size)
                )
                session.flush()
            request = Request(devices=[device_id])
            return asking.ask(session, target.release_id, request, now=utc_now(), actor="test")[0].id

    return ask_


@pytest.fixture
def answered(sqlite_database):
    """Wait for the answer to a measurement."""

    async def answered_(measurement_id: str) -> Measurement:
        def look() -> Measurement | None:
            with sqlite_database.read() as session:
                row = session.get_one(Measurement, measurement_id)
                return row if row.state != MeasurementState.ASKED else None

        return await until(look, within_s=40)

    return answered_


async def test_an_agent_measures_beside_the_model_it_serves(enrolled, cloud, ask, answered, sqlite_database) -> None:
    agent = await enrolled("watch-1", "--device-class", "pi4")
    sound, other = cloud.publish(artifact()), cloud.publish(artifact(shift=1))
    first = ask(agent.device_id, other)  # before it was ever online
    agent.start()
    await cloud.ends(cloud.roll_out(agent.device_id, sound), AssignmentState.SUCCEEDED)
    done = await answered(first)
    assert (done.state, done.error, done.device_class) == (MeasurementState.DONE, None, "pi4"), done.error
    assert 0 < done.metrics["p50_us"] <= done.metrics["p99_us"]
    assert (done.metrics["size"], done.metrics["cached"]) == (other.size, False)

    unsigned = ask(agent.device_id, cloud.publish(artifact(shift=2), signed=False))
    again = await answered(ask(agent.device_id, other))
    assert (again.state, again.metrics) == (MeasurementState.DONE, {**done.metrics, "cached": True})
    refused = await answered(unsigned)
    assert (refused.state, refused.error["code"]) == (MeasurementState.FAILED, "target_not_listed")

    assert agent.status()["active_digest"] == sound.digest
    assert sorted(path.name for path in (agent.state_dir / "measuring").iterdir()) == ["results.json"]
    with sqlite_database.read() as session:
        figures = summary.of_release(session, other.release_id, now=utc_now() + timedelta(days=1))
    assert [(each.device_class, each.devices, each.p50_us) for each in figures] == [("pi4", 1, done.metrics["p50_us"])]
