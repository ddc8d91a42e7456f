"""The local protocol over real sockets: conformance, bad input, limits, swaps."""

from __future__ import annotations

import asyncio
import json
import os
import socket

import httpx
import numpy as np
import pytest
import pytest_asyncio
from artifacts import CLASSES, SHAPE, artifact, example
from local_endpoint import request, serving

from fogline_client import Observation, Predictor
from fogline_client.serving.server import serve
from fogline_client.serving.sockets import open_sockets
from fogline_shared.errors import Conflict, InvalidInput, Unavailable

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "model.onnx").write_bytes(artifact())
    observed: list[Observation] = []
    predictor = Predictor.from_file(folder / "model.onnx", observe=observed.append)
    async with serving(predictor, observed, folder, max_body_mb=1) as s:
        yield s


@pytest.fixture
def served(server):
    model = server.predictor.model
    warm_us = model.warm_us
    server.observed.clear()
    yield server
    model.warm_us = warm_us
    server.predictor.swap(model)


async def test_health_and_metadata(served):
    get = served.client.get
    assert (await get("/v2/health/live")).json() == {"live": True}
    assert (await get("/v2/health/ready")).json() == {"ready": True}
    assert "binary_tensor_data" in (await get("/v2")).json()["extensions"]
    model = (await get("/v2/models/toy")).json()
    assert model["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, *SHAPE]}]
    assert model["outputs"][0] == {"name": "logits", "datatype": "FP32", "shape": [-1, len(CLASSES)]}
    assert model["versions"] == [served.predictor.active_digest]
    assert (await get("/v2/models/toy/ready")).json() == {"name": "toy", "ready": True}
    version = f"/v2/models/toy/versions/{served.predictor.active_digest}"
    assert (await get(f"{version}/ready")).status_code == 200
    assert (await served.client.post(f"{version}/infer", json=request())).status_code == 200
    head = await served.client.head("/v2/health/ready")
    assert (head.status_code, head.content) == (200, b"")


async def test_json_inference_answers_every_output(served):
    answer = (await served.infer(label=3)).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("toy", served.predictor.active_digest, "a")
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["logits"]["shape"] == [1, 4]
    assert int(np.argmax(outputs["logits"]["data"])) == 3
    assert (outputs["label"]["data"], outputs["class"]["data"]) == ([3], [CLASSES[3]])
    assert outputs["confidence"]["data"][0] > 0.9


async def test_nested_data_a_missing_batch_axis_and_a_batch_are_taken(served):
    nested = await served.infer(data=example(1)[None].tolist(), outputs=[{"name": "label"}])
    assert nested.json()["outputs"] == [{"name": "label", "shape": [1], "datatype": "INT64", "data": [1]}]
    assert (await served.infer(shape=list(SHAPE))).status_code == 200
    batch = np.stack([example(i) for i in (3, 1, 0)])
    many = await served.infer(shape=[3, *SHAPE], data=batch.ravel().tolist(), outputs=[{"name": "class"}])
    assert many.json()["outputs"][0]["data"] == [CLASSES[i] for i in (3, 1, 0)]


async def test_raw_tensors_go_in_and_come_out(served):
    batch = np.stack([example(i) for i in (0, 2)]).astype("<f4")
    tensor = {"name": "input", "shape": [2, *SHAPE], "datatype": "FP32"}
    tensor["parameters"] = {"binary_data_size": batch.nbytes}
    wanted = [
        {"name": "logits", "parameters": {"binary_data": True}},
        {"name": "label"},
        {"name": "class", "parameters": {"binary_data": True}},
    ]
    header = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    response = await served.client.post(
        "/v2/models/toy/infer",
        content=header + batch.tobytes(),
        headers={"inference-header-content-length": str(len(header)), "content-type": "application/octet-stream"},
    )
    length = int(response.headers["inference-header-content-length"])
    logits, label, names = json.loads(response.content[:length])["outputs"]
    raw = response.content[length:]
    assert label["data"] == [0, 2]
    size = logits["parameters"]["binary_data_size"]
    assert np.frombuffer(raw[:size], "<f4").reshape(2, 4).argmax(1).tolist() == [0, 2]
    assert raw[size:] == b"".join(len(n).to_bytes(4, "little") + n for n in (b"walk", b"rest"))
    assert len(raw) == size + names["parameters"]["binary_data_size"]


async def test_truth_reaches_telemetry(served):
    assert (await served.infer(label=1, parameters={"truth": 3})).status_code == 200
    batch = {"shape": [2, *SHAPE], "data": np.stack([example(0)] * 2).ravel().tolist()}
    assert (await served.infer(**batch, parameters={"truth": [0, 1]})).status_code == 200
    assert [(o.label, o.truth) for o in served.observed] == [(1, 3), (0, 0), (0, 1)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"shape": [1, 8, 3]}, "bad_input"),
        ({"shape": [2, *SHAPE]}, "bad_input"),
        ({"shape": [0, *SHAPE]}, "bad_input"),
        ({"shape": [-1, *SHAPE]}, "bad_input"),
        ({"shape": [10**30, *SHAPE]}, "bad_input"),
        ({"shape": [True, *SHAPE]}, "bad_input"),
        ({"shape": "1,3,8"}, "bad_input"),
        ({"shape": None}, "bad_input"),
        ({"datatype": "INT8"}, "bad_input"),
        ({"datatype": ["FP32"]}, "bad_input"),
        ({"name": "x"}, "bad_input"),
        ({"data": ["a"] * 24}, "bad_input"),
        ({"data": [True] * 24}, "bad_input"),
        ({"data": [[1, 2], [3]]}, "bad_input"),
        ({"data": [float("nan")] * 24}, "bad_input"),
        ({"data": [1e300] * 24}, "bad_input"),
        ({"data": [10**400] * 24}, "bad_input"),
        ({"data": {}}, "bad_input"),
        ({"inputs": []}, "bad_input"),
        ({"inputs": [1]}, "bad_input"),
        ({"inputs": None}, "bad_input"),
        ({"outputs": [{"name": "mood"}]}, "unknown_output"),
        ({"outputs": [{"name": ["label"]}]}, "unknown_output"),
        ({"outputs": []}, "bad_request"),
        ({"outputs": "label"}, "bad_request"),
        ({"parameters": []}, "bad_request"),
        ({"parameters": {"truth": 4}}, "bad_truth"),
        ({"parameters": {"truth": True}}, "bad_truth"),
        ({"parameters": {"truth": [0, 1]}}, "bad_truth"),
        ({"parameters": {"truth": "1"}}, "bad_truth"),
        ({"id": 7}, "bad_request"),
    ],
)
async def test_a_bad_request_is_refused_with_its_reason_and_counts_against_nobody(served, changes, code):
    response = await served.infer(**changes)
    assert (response.status_code, response.json()["code"]) == (400, code)
    assert isinstance(response.json()["error"], str)
    assert served.observed == []
    assert (await served.infer()).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 20_000, b'{"inputs": ' + b"9" * 9000])
async def test_a_body_that_is_no_request_is_refused(served, body):
    response = await served.client.post("/v2/models/toy/infer", content=body)
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize("length", ["-1", "99999", "x", "٣", "1" * 5000, ""])
async def test_a_wrong_header_length_is_refused(served, length):
    headers = {"inference-header-content-length": length.encode()}
    response = await served.client.post("/v2/models/toy/infer", content=json.dumps(request()), headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize("size", [0, 95, 97, -96, "96", 96.0, True, 2**70])
async def test_a_wrong_raw_size_is_refused(served, size):
    tensor = {"name": "input", "shape": [1, *SHAPE], "datatype": "FP32", "parameters": {"binary_data_size": size}}
    header = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(header))}
    body = header + example(0).tobytes()
    response = await served.client.post("/v2/models/toy/infer", content=body, headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "bad_input")


async def test_unknown_routes_models_versions_and_methods(served):
    get, post = served.client.get, served.client.post
    assert (await get("/v2/models/other")).json()["code"] == "model_not_found"
    assert (await get("/v2/models/toy/versions/1")).status_code == 404
    assert (await get("/v3")).json()["code"] == "no_such_route"
    wrong = await get("/v2/models/toy/infer")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert (await post("/v2/health/live")).status_code == 405
    zipped = await post("/v2/models/toy/infer", content=b"x", headers={"content-encoding": "gzip"})
    assert (zipped.status_code, zipped.json()["code"]) == (415, "unsupported_encoding")


async def test_a_body_over_the_limit_is_refused_declared_or_not(served):
    declared = await served.client.post("/v2/models/toy/infer", content=b"x" * ((1 << 20) + 1))
    assert (declared.status_code, declared.json()["code"]) == (413, "body_too_large")

    async def chunks():
        for _ in range(60):
            yield b" " * 20_000

    streamed = await served.client.post("/v2/models/toy/infer", content=chunks())
    assert (streamed.status_code, streamed.json()["code"]) == (413, "body_too_large")
    assert (await served.infer()).status_code == 200


async def test_without_a_model_the_device_is_live_but_not_ready(tmp_path):
    async with serving(Predictor(), [], tmp_path) as served:
        assert (await served.client.get("/v2/health/live")).status_code == 200
        for response in (
            await served.client.get("/v2/health/ready"),
            await served.client.get("/v2/models/toy/ready"),
            await served.infer(),
        ):
            assert (response.status_code, response.json()["code"]) == (503, "no_model")


async def test_the_unix_socket_answers_too_and_is_not_for_everybody(served):
    assert served.uds.stat().st_mode & 0o007 == 0
    transport = httpx.AsyncHTTPTransport(uds=str(served.uds))
    async with httpx.AsyncClient(transport=transport, base_url="http://device") as client:
        answer = await client.post("/v2/models/toy/infer", json=request(label=1, outputs=[{"name": "label"}]))
        assert answer.json()["outputs"][0]["data"] == [1]


@pytest.mark.parametrize(
    "noise", [b"\x16\x03\x01\x02\x00", b"GET / HTTP/9\r\n\r\n", b"\x00" * 500, b"POST /v2/models/toy"]
)
async def test_noise_and_half_requests_leave_others_served(served, noise):
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(noise)
    await writer.drain()
    assert (await served.infer()).status_code == 200
    writer.close()
    assert (await served.infer()).status_code == 200


async def test_a_client_that_hangs_up_mid_body_leaves_others_served(served):
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"POST /v2/models/toy/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
    await writer.drain()
    writer.close()
    assert (await served.infer()).status_code == 200


async def test_a_swap_under_load_loses_no_request(served, tmp_path):
    (tmp_path / "b.onnx").write_bytes(artifact(scale=3.0))
    models = [served.predictor.model, served.predictor.load(tmp_path / "b.onnx")]
    done = asyncio.Event()

    async def swapping() -> None:
        for i in range(60):
            served.predictor.swap(models[i % 2])
            await asyncio.sleep(0.005)
        done.set()

    async def asking(label: int) -> list[tuple[int, str]]:
        answers = []
        while not done.is_set():
            response = await served.infer(label=label, outputs=[{"name": "label"}])
            assert response.status_code == 200, response.text
            assert response.json()["outputs"][0]["data"] == [label]
            answers.append(response.json()["model_version"])
        return answers

    *versions, _ = await asyncio.gather(asking(0), asking(1), asking(2), swapping())
    assert {version for answers in versions for version in answers} == {model.digest for model in models}


async def test_no_answer_waits_for_a_delayed_acknowledgement(served):
    started = asyncio.get_running_loop().time()
    for _ in range(50):
        await served.infer()
    assert asyncio.get_running_loop().time() - started < 50 * 0.030


async def test_slow_models_leave_the_loop_free(served):
    served.predictor.model.warm_us = 1e6  # the app believes it is slow, so it goes through a thread
    assert (await served.infer(label=1)).json()["outputs"][1]["data"] == [1]


async def test_a_taken_port_has_a_code(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Conflict) as refused:
        await serve(Predictor(), port=taken.getsockname()[1], uds_path=tmp_path / "s")
    assert refused.value.code == "port_in_use"
    assert not (tmp_path / "s").exists()


async def test_a_socket_that_somebody_serves_is_not_stolen_but_a_dead_one_is_replaced(served, tmp_path):
    with pytest.raises(Conflict):
        open_sockets(host="", port=None, uds_path=served.uds)
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(os.fspath(dead))
    for listener in open_sockets(host="", port=None, uds_path=dead):
        listener.close()


async def test_a_path_that_cannot_be_a_socket_has_a_code(tmp_path):
    with pytest.raises(InvalidInput) as long:
        open_sockets(host="", port=None, uds_path=tmp_path / ("x" * 120))
    assert long.value.code == "socket_path_too_long"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Unavailable) as taken:
        open_sockets(host="", port=None, uds_path=tmp_path / "file")
    assert taken.value.code == "cannot_listen"
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(InvalidInput):
        await serve(Predictor())
