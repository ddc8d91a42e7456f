"""An agent that was told to serve gRPC says where, and serves there what is rolled out to it."""

from __future__ import annotations

import asyncio
import json

import grpc
import numpy as np
from agent_process import agent_cli
from artifacts import SHAPE, artifact, example

from fogline_shared.proto import open_inference_pb2 as pb
from fogline_shared.states import AssignmentState


async def test_grpc_serves_on_a_port_and_a_socket(enrolled, cloud, tmp_path) -> None:
    path = tmp_path / "grpc.sock"
    agent = await enrolled("watch", "--serving", "grpc_port=0", "--serving", f"grpc_socket={path}")
    agent.start()
    target = cloud.publish(artifact())
    assert await cloud.ends(cloud.roll_out(agent.device_id, target), AssignmentState.SUCCEEDED) == ""
    await agent.serves(target.digest)
    said = await asyncio.to_thread(agent_cli, "status", "--state-dir", agent.state_dir, "--json")
    addresses = json.loads(said.stdout)["grpc"].split(", ")
    assert addresses[1] == f"unix:{path}"
    request = pb.ModelInferRequest(model_name="toy", raw_input_contents=[example(3).tobytes()])
    request.inputs.add(name="input", datatype="FP32", shape=[1, *SHAPE])
    request.outputs.add(name="label")
    for address in addresses:
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            answer = pb.ModelInferResponse.FromString(await call(request.SerializeToString(), timeout=10))
        assert answer.model_version == target.digest
        assert np.frombuffer(answer.raw_output_contents[0], "<i8").tolist() == [3]


async def test_a_socket_that_cannot_be_is_told_before_anything_starts(enrolled) -> None:
    agent = await enrolled()
    words = ("run", "--state-dir", agent.state_dir, "--port", 0, "--serving", f"grpc_socket=/{'x' * 120}")
    said = await asyncio.to_thread(agent_cli, *words)
    assert said.returncode == 2
    assert "socket_path_too_long" in said.stderr
    assert "Traceback" not in said.stderr
