"""Who is let in, who is told to come back, and when: over HTTP and gRPC, before a model that takes as long as the test wants."""

from __future__ import annotations

import asyncio
import contextlib
import json

import grpc
import numpy as np
import pytest
from artifacts import SHAPE, artifact, example
from local_endpoint import Held, request, serving

from fogline_client.serving import batching
from fogline_client.serving.options import ServingOptions
from fogline_shared.errors import InvalidInput
from fogline_shared.proto import open_inference_pb2 as pb


@contextlib.asynccontextmanager
async def held(tmp_path, *, warm_us=1e6, **options):
    """An endpoint with one worker, whose model is thought to take a second for an example."""
    (tmp_path / "model.onnx").write_bytes(artifact())
    predictor = Held()
    predictor.swap(predictor.load(tmp_path / "model.onnx"))
    predictor.model.warm_us = warm_us
    async with serving(predictor, [], tmp_path, **{"grpc_port": 0, "workers": 1, "batch": False, **options}) as served:
        try:
            yield served
        finally:
            predictor.go.set()


def ask(served, count, **changes):
    """So many requests under way, each on a connection of its own."""
    content = json.dumps(request(**changes))
    return [asyncio.create_task(served.client.post("/v2/models/toy/infer", content=content)) for _ in range(count)]


async def metrics(served):
    """Samples by name, labels and all."""
    lines = (await served.client.get("/metrics")).text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


async def until_waiting(served, number):
    async with asyncio.timeout(10):
        while (await metrics(served))["fogline_serving_waiting"] != number:
            pass


async def in_line(served, requests):
    """These, in their order: the first is being answered, the others wait, and batches have been measured."""
    waiting = ask(served, 1, **requests[0])
    assert await asyncio.to_thread(served.predictor.begun.wait, 10)
    for number, changes in enumerate(requests[1:], 1):
        waiting += ask(served, 1, **changes)
        await until_waiting(served, number)
    return waiting


async def infer(target, *, timeout=None, timeout_us=None, content=None):
    message = pb.ModelInferRequest(model_name="toy", raw_input_contents=[example(2).tobytes()])
    message.inputs.add(name="input", datatype="FP32", shape=[1, *SHAPE])
    message.outputs.add(name="label")
    if timeout_us:
        message.parameters["timeout"].int64_param = timeout_us
    async with grpc.aio.insecure_channel(target) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        answer = await call(content or message.SerializeToString(), timeout=timeout)
    return np.frombuffer(pb.ModelInferResponse.FromString(answer).raw_output_contents[0], "<i8").tolist()


async def refused(awaitable):
    """Status, code and metadata of a call that is."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await awaitable
    trailing = dict(failure.value.trailing_metadata())
    return failure.value.code(), trailing.get("fogline-code"), trailing


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(tmp_path):
    async with held(tmp_path, queue=2) as served:
        admitted = await in_line(served, [{}] * 3)
        response = await served.infer()
        assert (response.status_code, response.json()["code"]) == (429, "queue_full")
        assert int(response.headers["retry-after"]) >= 1
        status, code, trailing = await refused(infer(served.grpc))
        assert (status, code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "queue_full")
        assert int(trailing["grpc-retry-pushback-ms"]) > 0
        assert (await served.client.get("/v2/health/ready")).status_code == 200
        served.predictor.go.set()
        assert [response.status_code for response in await asyncio.gather(*admitted)] == [200, 200, 200]
        assert (await served.infer()).status_code == 200
        assert await infer(served.grpc) == [2]
        counted = await metrics(served)
    assert counted['fogline_serving_refused_total{code="queue_full"}'] == 2
    assert counted["fogline_serving_answered_total"] == 5


async def test_a_long_body_is_not_even_read_when_the_queue_is_full(tmp_path):
    async with held(tmp_path, queue=1) as served:
        admitted = await in_line(served, [{}] * 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"POST /v2/models/toy/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        assert (await asyncio.wait_for(reader.readline(), 10)).split()[1] == b"429"
        writer.close()
        served.predictor.go.set()
        await asyncio.gather(*admitted)


async def test_a_deadline_that_the_queue_cannot_keep_is_refused_at_once(tmp_path):
    async with held(tmp_path) as served:
        admitted = await in_line(served, [{}] * 2)
        response = await served.infer(parameters={"timeout": 1_500_000})
        assert (response.status_code, response.json()["code"]) == (503, "deadline_unmeetable")
        assert int(response.headers["retry-after"]) >= 1
        in_parameters = await refused(infer(served.grpc, timeout_us=1_500_000))
        assert in_parameters[:2] == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_unmeetable")
        own = await refused(infer(served.grpc, timeout=1.5))
        assert own[:2] == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_unmeetable")
        patient = ask(served, 1, parameters={"timeout": 60_000_000})
        await until_waiting(served, 2)
        served.predictor.go.set()
        assert [response.status_code for response in await asyncio.gather(*admitted, *patient)] == [200, 200, 200]
    assert len(served.predictor.asked) == 3


async def test_a_request_without_a_deadline_has_the_devices_own(tmp_path):
    async with held(tmp_path, deadline_ms=1500) as served:
        (admitted,) = await in_line(served, [{}])
        assert (await served.infer()).json()["code"] == "deadline_unmeetable"
        served.predictor.go.set()
        assert (await admitted).status_code == 200


async def test_who_waited_in_vain_is_refused_and_costs_no_prediction(tmp_path):
    async with held(tmp_path, warm_us=3_000) as served:
        first, late = await in_line(served, [{}, {"parameters": {"timeout": 100_000}}])
        await asyncio.sleep(0.1)
        served.predictor.go.set()
        assert (await late).json()["code"] == "deadline_unmeetable"
        assert (await first).status_code == 200
    assert len(served.predictor.asked) == 1


async def test_nothing_is_predicted_for_a_client_that_has_gone(tmp_path):
    async with held(tmp_path) as served:
        first, leaving = await in_line(served, [{}] * 2)
        abandoned = asyncio.create_task(infer(served.grpc))
        await until_waiting(served, 2)
        for gone in (leaving, abandoned):
            gone.cancel()
        await asyncio.gather(leaving, abandoned, return_exceptions=True)
        await asyncio.sleep(0.05)  # for the hang-up to arrive
        served.predictor.go.set()
        assert (await first).status_code == 200
        assert (await served.infer()).status_code == 200
    assert len(served.predictor.asked) == 2


async def test_those_who_have_gone_hold_no_place_in_a_queue_that_does_not_move(tmp_path):
    async with held(tmp_path, queue=2) as served:
        first, *leaving = await in_line(served, [{}] * 3)
        for gone in leaving:
            gone.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        await asyncio.sleep(0.05)  # for the hang-up to arrive
        patient = ask(served, 1)
        await until_waiting(served, 1)
        served.predictor.go.set()
        assert [(await first).status_code, (await patient[0]).status_code] == [200, 200]
    assert len(served.predictor.asked) == 2


@pytest.mark.parametrize(("pays", "calls"), [(1, [1] * 6), (4, [1, 4, 1])])
async def test_requests_that_wait_are_answered_together_only_if_that_pays(tmp_path, monkeypatch, pays, calls):
    monkeypatch.setattr(batching, "measure", lambda model: pays)
    async with held(tmp_path, warm_us=3_000, batch=True) as served:
        labels = (0, 1, 2, 3, 0, 1)
        waiting = await in_line(served, [{"label": label, "outputs": [{"name": "logits"}]} for label in labels])
        served.predictor.go.set()
        answers = [response.json()["outputs"][0]["data"] for response in await asyncio.gather(*waiting)]
        alone = [served.predictor.predict(example(label)).logits.tolist() for label in labels]
        counted = await metrics(served)
    assert answers == alone
    assert served.predictor.asked[: len(calls)] == calls
    assert (counted["fogline_serving_batches_total"], counted["fogline_serving_batched_total"]) == (
        (1, 4) if pays > 1 else (0, 0)
    )


async def test_nan_in_one_request_is_not_the_fault_of_those_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(batching, "measure", lambda model: 16)
    async with held(tmp_path, warm_us=3_000, batch=True) as served:
        poisoned = {"data": [float("nan")] * example(0).size}
        waiting = await in_line(served, [{}, {}, poisoned, {}, {}])
        served.predictor.go.set()
        statuses = [response.status_code for response in await asyncio.gather(*waiting)]
    assert statuses == [200, 200, 400, 200, 200]
    assert served.predictor.asked == [1, 1, 1, 2]


async def test_options_are_checked():
    for wrong in (
        {"queue": 0},
        {"grpc_port": 70_000},
        {"deadline_ms": -1},
        {"batch": "no"},
        {"speed": 1},
        {"workers": 1.5},
    ):
        with pytest.raises(InvalidInput) as told:
            ServingOptions.from_json(wrong)
        assert told.value.code == "bad_option"
    with pytest.raises(InvalidInput):
        ServingOptions.from_json([])
    assert ServingOptions.from_json({"queue": 3}).queue == 3


async def test_a_message_that_is_none_is_refused(tmp_path):
    async with held(tmp_path, warm_us=1.0) as served:
        served.predictor.go.set()
        for content in (b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f"):
            status, code, _ = await refused(infer(served.grpc, content=content))
            assert (status, code) == (grpc.StatusCode.INVALID_ARGUMENT, "bad_request")
        assert await infer(served.grpc) == [2]
