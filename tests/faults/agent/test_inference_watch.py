"""The watch that proves "inference never stopped" is itself proved: it fails a test when it did stop."""

from __future__ import annotations

import pytest
from agent_process import until
from artifacts import artifact, example
from inference_watch import InferenceWatch

from fogline_shared.states import AssignmentState


async def test_an_agent_that_stops_or_answers_wrongly_fails_the_watch(enrolled, cloud) -> None:
    agent = await enrolled()
    agent.start()
    target = cloud.publish(artifact())
    await cloud.ends(cloud.roll_out(agent.device_id, target), AssignmentState.SUCCEEDED)
    await agent.serves(target.digest)
    with InferenceWatch([agent], recipe="toy", x=example(1), answers={target.digest: 1}) as honest:
        assert honest.served(agent) == [target.digest]
    with (
        pytest.raises(AssertionError, match="says 1, expected"),
        InferenceWatch([agent], recipe="toy", x=example(1), answers={target.digest: 2}),
    ):
        pass
    watch = InferenceWatch([agent], recipe="toy", x=example(1), answers={target.digest: 1}).__enter__()
    agent.kill()
    await until(lambda: watch.failures)
    with pytest.raises(AssertionError, match=r"endpoint: .*refused"):
        watch.__exit__(None, None, None)
