"""``tritonclient``, unmodified, over HTTP and gRPC: the clients that device developers have already.

The agent's endpoint runs in a thread with a loop of its own, since these clients block.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from artifacts import CLASSES, SHAPE, artifact, example
from tritonclient.utils import InferenceServerException

from fogline_client import Predictor
from fogline_client.serving.options import ServingOptions
from fogline_client.serving.rpc import GrpcEndpoint
from fogline_client.serving.server import serve_sockets
from fogline_client.serving.sockets import open_sockets

PAGE = Path(__file__).resolve().parents[3] / "docs" / "serving.md"
BLOCKS = [block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "tritonclient" in block]


@contextlib.contextmanager
def endpoint(predictor, folder):
    """Addresses by protocol, while it serves."""
    addresses: dict[str, str] = {}
    up, down = threading.Event(), None
    loop = asyncio.new_event_loop()

    async def run():
        nonlocal down
        down = asyncio.current_task()
        listeners = open_sockets(host="127.0.0.1", port=0, uds_path=None)
        options = ServingOptions(grpc_port=0, grpc_socket=str(folder / "grpc.sock"), max_body_mb=1)
        grpc, ready = GrpcEndpoint("127.0.0.1", options), asyncio.Event()
        addresses.update(http=f"127.0.0.1:{listeners[0].getsockname()[1]}")
        addresses.update(grpc=grpc.targets[0], unix=grpc.targets[1])
        serving = asyncio.create_task(serve_sockets(predictor, listeners, ready=ready, options=options, grpc=grpc))
        await ready.wait()
        up.set()
        await serving

    def thread():
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(run())
        loop.close()

    running = threading.Thread(target=thread)
    running.start()
    assert up.wait(10)
    yield addresses
    loop.call_soon_threadsafe(down.cancel)
    running.join(10)
    assert not running.is_alive()
    assert not (folder / "grpc.sock").exists()


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(artifact())
    return Predictor.from_file(path)


@pytest.fixture(scope="module")
def addresses(predictor, tmp_path_factory):
    with endpoint(predictor, tmp_path_factory.mktemp("sockets")) as named:
        yield named


@pytest.fixture(scope="module", params=["http", "grpc", "unix"])
def client(request, addresses):
    module = tritonclient.http if request.param == "http" else tritonclient.grpc
    with contextlib.closing(module.InferenceServerClient(addresses[request.param])) as connected:
        connected.module = module
        connected.status = {"http": ("400", "404")}.get(
            request.param, ("StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND")
        )
        yield connected


def tensor(client, x, *, name="input", datatype="FP32", **options):
    made = client.module.InferInput(name, list(x.shape), datatype)
    made.set_data_from_numpy(x, **options)
    return made


def ask(client, x, **options):
    return client.infer("toy", [tensor(client, x)], **options)


def as_dict(metadata):
    """HTTP gives a dict, gRPC a message."""
    if isinstance(metadata, dict):
        return metadata
    return {
        "name": metadata.name,
        "versions": list(metadata.versions),
        "inputs": [{"name": i.name, "datatype": i.datatype, "shape": list(i.shape)} for i in metadata.inputs],
        "outputs": [{"name": o.name, "datatype": o.datatype, "shape": list(o.shape)} for o in metadata.outputs],
    }


def test_health(client, predictor):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("toy")
    assert client.is_model_ready("toy", predictor.active_digest)
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("toy", "1")


def test_metadata(client, predictor):
    server = client.get_server_metadata()
    name = server["name"] if isinstance(server, dict) else server.name
    assert name == "fogline-agent"
    model = as_dict(client.get_model_metadata("toy"))
    assert (model["name"], model["versions"]) == ("toy", [predictor.active_digest])
    assert model["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, *SHAPE]}]
    assert {"name": "logits", "datatype": "FP32", "shape": [-1, len(CLASSES)]} in model["outputs"]


def test_every_output_of_a_batch(client, predictor):
    x = np.stack([example(label) for label in (3, 0, 2)])
    answer = ask(client, x)
    direct = predictor.predict_many(x)
    np.testing.assert_array_equal(answer.as_numpy("logits"), np.stack([d.logits for d in direct]))
    assert answer.as_numpy("label").tolist() == [3, 0, 2]
    assert answer.as_numpy("class").tolist() == [CLASSES[i].encode() for i in (3, 0, 2)]
    np.testing.assert_allclose(answer.as_numpy("confidence"), [d.confidence for d in direct], rtol=1e-6)


def test_requested_outputs_and_an_id_come_back(client):
    wanted = [client.module.InferRequestedOutput("label")]
    answer = ask(client, example(1)[None], outputs=wanted, request_id="request-7")
    assert answer.as_numpy("label").tolist() == [1]
    assert answer.as_numpy("logits") is None
    response = answer.get_response()
    told = response["id"] if isinstance(response, dict) else response.id
    assert told == "request-7"


def test_a_version_and_a_deadline_are_taken(client, predictor):
    answer = ask(client, example(2)[None], model_version=predictor.active_digest, timeout=5_000_000)
    assert answer.as_numpy("label").tolist() == [2]


def test_json_tensors_over_http(addresses):
    with contextlib.closing(tritonclient.http.InferenceServerClient(addresses["http"])) as client:
        client.module = tritonclient.http
        given = tensor(client, example(3)[None], binary_data=False)
        wanted = [tritonclient.http.InferRequestedOutput(name, binary_data=False) for name in ("logits", "class")]
        answer = client.infer("toy", [given], outputs=wanted)
    assert answer.as_numpy("logits").argmax() == 3
    assert answer.get_output("class")["data"] == [CLASSES[3]]


def test_typed_contents_over_grpc(addresses):
    """Other clients of the protocol send ``fp32_contents``; tritonclient itself only knows raw tensors."""
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    request = service_pb2.ModelInferRequest(model_name="toy")
    given = request.inputs.add(name="input", datatype="FP32", shape=[1, *SHAPE])
    given.contents.fp32_contents.extend(example(1).ravel().tolist())
    with grpc.insecure_channel(addresses["grpc"]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request, timeout=5)
        assert [output.name for output in answer.outputs] == ["logits", "label", "confidence", "class"]
        assert np.frombuffer(answer.raw_output_contents[1], "<i8").tolist() == [1]
        request.raw_input_contents.append(example(1).tobytes())
        with pytest.raises(grpc.RpcError) as both:
            stub.ModelInfer(request, timeout=5)
        assert dict(both.value.trailing_metadata())["fogline-code"] == "bad_input"


@pytest.mark.parametrize(
    ("x", "changes", "code"),
    [
        (np.zeros((1, 8, 3), np.float32), {}, "shape"),
        (np.zeros((5000, *SHAPE), np.float32), {}, "shape"),
        (np.zeros((1, *SHAPE), np.int64), {"datatype": "INT64"}, "datatype"),
        (np.zeros((1, *SHAPE), np.float32), {"name": "picture"}, "named"),
        (np.full((1, *SHAPE), np.nan, np.float32), {}, "NaN"),
    ],
)
def test_wrong_inputs_are_refused_with_their_reason(client, x, changes, code):
    with pytest.raises(InferenceServerException, match=code) as refused:
        client.infer("toy", [tensor(client, x, **changes)])
    assert refused.value.status() == client.status[0]
    assert ask(client, example(0)[None]).as_numpy("label").tolist() == [0]


def test_an_unknown_output_model_or_version_is_refused(client):
    with pytest.raises(InferenceServerException, match="no output 'mood'") as output:
        ask(client, example(0)[None], outputs=[client.module.InferRequestedOutput("mood")])
    assert output.value.status() == client.status[0]
    given = [tensor(client, example(0)[None])]
    for unknown in ({"model_name": "other"}, {"model_name": "toy", "model_version": "1"}):
        with pytest.raises(InferenceServerException, match="this device serves 'toy'") as refused:
            client.infer(inputs=given, **unknown)
        assert refused.value.status() == client.status[1]


def test_without_a_model_it_is_live_and_not_ready(client, predictor):
    model = predictor.swap(None)
    try:
        assert client.is_server_live()
        assert not client.is_server_ready()
        assert not client.is_model_ready("toy")
        with pytest.raises(InferenceServerException, match="no model is active"):
            ask(client, example(0)[None])
    finally:
        predictor.swap(model)
    assert ask(client, example(0)[None]).as_numpy("label").tolist() == [0]


@pytest.mark.parametrize("block", BLOCKS, ids=["http", "grpc"])
def test_the_documents_examples_work(tmp_path, capsys, block):
    path = tmp_path / "model.onnx"
    path.write_bytes(artifact(recipe="smartwatch", shape=(6, 128)))
    with endpoint(Predictor.from_file(path), tmp_path) as named:
        for said, protocol in (("127.0.0.1:8480", "http"), ("127.0.0.1:8481", "grpc")):
            block = block.replace(said, named[protocol])
        exec(block, {})
    (told,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(CLASSES))
    assert 0 < float(told.split()[1]) <= 1
