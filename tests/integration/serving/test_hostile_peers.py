"""Peers that send too much, too slowly, nothing, or never read: bounded, refused with a code, and others go on being served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import grpc
import pytest
from artifacts import artifact
from local_endpoint import Held, request, serving

from fogline_client import Predictor
from fogline_client.serving import connection
from fogline_client.serving.refusals import Refusals

INFER = b"POST /v2/models/toy/infer HTTP/1.1\r\nhost: x\r\n"
READY = b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\n\r\n"


@contextlib.asynccontextmanager
async def endpoint(tmp_path, *, kind=Predictor, **options):
    (tmp_path / "model.onnx").write_bytes(artifact())
    predictor = kind()
    predictor.swap(predictor.load(tmp_path / "model.onnx"))
    async with serving(predictor, [], tmp_path, **{"max_body_mb": 1, **options}) as served:
        yield served
        assert (await served.infer()).status_code == 200


async def peer(served, said=b""):
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(said)
    await writer.drain()
    return reader, writer


async def answer(reader):
    """Status and body of the next one."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return int(head.split()[1]), await asyncio.wait_for(reader.readexactly(length), 10)


async def code(reader):
    status, body = await answer(reader)
    return status, json.loads(body)["code"]


async def send_for_ever(writer, said):
    async with asyncio.timeout(10):
        while True:
            writer.write(said)
            await writer.drain()
            await asyncio.sleep(0)


def whole(**changes):
    body = json.dumps(request(**changes)).encode()
    return INFER + b"content-length: %d\r\n\r\n" % len(body) + body


async def test_a_gigabyte_is_refused_before_any_of_it_is_read(tmp_path):
    async with endpoint(tmp_path) as served:
        reader, writer = await peer(served, INFER + b"content-length: 1073741824\r\n\r\n")
        assert await code(reader) == (413, "body_too_large")
        with pytest.raises(ConnectionError):  # whoever sends it all the same is cut off
            await send_for_ever(writer, b"x" * (1 << 20))


async def test_an_endless_body_of_chunks_is_cut_off_where_it_is_too_long(tmp_path):
    async with endpoint(tmp_path) as served:
        reader, writer = await peer(served, INFER + b"transfer-encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        for _ in range(20):
            writer.write(chunk)
        assert await code(reader) == (413, "body_too_large")
        writer.close()


async def test_bodies_of_all_peers_together_are_bounded(tmp_path):
    async with endpoint(tmp_path) as served:
        begun = INFER + b"content-length: 1000000\r\n\r\n" + b" " * 990_000
        peers = [await peer(served, begun) for _ in range(5)]
        refused = [asyncio.create_task(code(reader)) for reader, _ in peers]
        done, others = await asyncio.wait(refused, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        assert [task.result() for task in done] == [(429, "queue_full")]
        for task in others:
            task.cancel()
        for _, writer in peers:
            writer.close()


async def test_a_request_that_comes_too_slowly_is_given_up(tmp_path):
    async with endpoint(tmp_path, read_timeout_s=0.2) as served:
        in_body = await peer(served, INFER + b"content-length: 1000\r\n\r\n{")
        in_head = await peer(served, INFER)
        assert await code(in_body[0]) == (408, "request_timeout")
        assert await code(in_head[0]) == (408, "request_timeout")
        assert await in_body[0].read() == b""


async def test_a_peer_that_says_nothing_is_let_go(tmp_path):
    async with endpoint(tmp_path, read_timeout_s=0.2, idle_timeout_s=0.2) as served:
        never, _ = await peer(served)
        once, _ = await peer(served, READY)
        assert (await answer(once))[0] == 200
        assert await asyncio.wait_for(never.read(), 10) == b""
        assert await asyncio.wait_for(once.read(), 10) == b""


async def test_grpc_too_lets_go_of_peers_that_say_nothing(tmp_path):
    async with endpoint(tmp_path, grpc_port=0, read_timeout_s=0.2, idle_timeout_s=0.2) as served:
        port = int(served.grpc.rsplit(":", 1)[1])
        never, _ = await asyncio.open_connection("127.0.0.1", port)
        once = grpc.aio.insecure_channel(served.grpc)
        live = once.unary_unary("/inference.GRPCInferenceService/ServerLive")
        assert await live(b"", timeout=10)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                while await never.read(4096):  # it greets first
                    pass
            await once.wait_for_state_change(grpc.ChannelConnectivity.READY)
        assert await live(b"", timeout=10)
        await once.close()


async def test_silent_connections_give_way_to_those_that_ask(tmp_path):
    async with endpoint(tmp_path, connections=4) as served:
        silent = [await peer(served) for _ in range(40)]
        assert (await served.infer()).status_code == 200
        counted = (await served.client.get("/metrics")).text.splitlines()
        (connections,) = (line for line in counted if line.startswith("fogline_serving_connections "))
        assert int(connections.split()[1]) <= 4
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(silent[0][0].read(), 10) == b""


async def test_more_connections_than_may_be_at_work_are_refused(tmp_path):
    async with endpoint(tmp_path, kind=Held, connections=2) as served:
        served.predictor.model.warm_us = 1e6
        working = [await peer(served, whole(label=label)) for label in (1, 2)]
        assert await asyncio.to_thread(served.predictor.begun.wait, 10)
        reader, _ = await peer(served)
        assert await code(reader) == (503, "too_many_connections")
        served.predictor.go.set()
        for reader, writer in working:
            assert (await answer(reader))[0] == 200
            writer.close()


async def test_in_a_storm_who_was_refused_and_asks_again_at_once_is_heard_later(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "_LATE_S", -1.0)
    monkeypatch.setattr(Refusals, "rest_s", lambda *_: 0.2)
    async with endpoint(tmp_path, kind=Held, queue=1, workers=1, batch=False) as served:
        served.predictor.model.warm_us = 1e6
        working = await peer(served, whole())
        assert await asyncio.to_thread(served.predictor.begun.wait, 10)
        waiting = await peer(served, whole())
        reader, writer = await peer(served, whole())
        assert await code(reader) == (429, "queue_full")
        began = asyncio.get_running_loop().time()
        writer.write(READY)
        assert (await answer(reader))[0] == 200
        assert asyncio.get_running_loop().time() - began >= 0.15
        served.predictor.go.set()
        for other, _ in (working, waiting):
            assert (await answer(other))[0] == 200
        writer.write(whole())
        assert (await answer(reader))[0] == 200


async def test_a_head_without_end_is_refused(tmp_path):
    async with endpoint(tmp_path) as served:
        reader, writer = await peer(served, INFER + b"a: b\r\n" * 10_000)
        assert await code(reader) == (400, "bad_request")
        writer.close()


async def test_a_peer_that_never_reads_is_cut_off(tmp_path):
    async with endpoint(tmp_path, read_timeout_s=0.2) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            _, writer = await asyncio.open_connection(sock=deaf, limit=1)  # it stops reading at once
            with pytest.raises(ConnectionError):
                await send_for_ever(writer, b"GET /v2/models/toy HTTP/1.1\r\nhost: x\r\n\r\n" * 500)


async def test_requests_in_one_go_are_answered_in_their_order(tmp_path):
    async with endpoint(tmp_path, kind=Held) as served:
        served.predictor.model.warm_us = 1e6
        reader, writer = await peer(served, b"".join(whole(label=label) for label in (3, 0, 2)) + READY)
        served.predictor.go.set()
        for label in (3, 0, 2):
            status, body = await answer(reader)
            assert (status, json.loads(body)["outputs"][1]["data"]) == (200, [label])
        assert json.loads((await answer(reader))[1]) == {"ready": True}
        writer.close()


async def test_who_asks_before_it_sends_is_told(tmp_path):
    async with endpoint(tmp_path) as served:
        body = json.dumps(request()).encode()
        head = INFER + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n"
        reader, writer = await peer(served, head % len(body))
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await answer(reader))[0] == 200
        reader, _ = await peer(served, head % (2 << 20))
        assert await code(reader) == (413, "body_too_large")


async def test_an_offer_of_http_2_is_declined_and_the_request_answered(tmp_path):
    async with endpoint(tmp_path) as served:
        offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n"
        reader, writer = await peer(served, READY.replace(b"\r\n\r\n", b"\r\n" + offer) + READY)
        for _ in range(2):
            assert json.loads((await answer(reader))[1]) == {"ready": True}
        head, body = whole(label=3).split(b"\r\n\r\n", 1)
        asked = head + b"\r\n" + offer + body
        for said in ((asked,), (asked[:-10], asked[-10:])):
            for part in said:
                writer.write(part)
                await asyncio.sleep(0.01)
            status, told = await answer(reader)
            assert (status, json.loads(told)["outputs"][1]["data"]) == (200, [3])
        writer.close()


async def test_a_connection_is_closed_when_its_peer_wants_that(tmp_path):
    async with endpoint(tmp_path) as served:
        for said in (READY.replace(b"/1.1", b"/1.0"), READY.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")):
            reader, _ = await peer(served, said)
            assert (await answer(reader))[0] == 200
            assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_what_is_being_answered_when_the_serving_ends_is_answered(tmp_path):
    (tmp_path / "model.onnx").write_bytes(artifact())
    predictor = Held()
    predictor.swap(predictor.load(tmp_path / "model.onnx"))
    predictor.model.warm_us = 1e6
    async with serving(predictor, [], tmp_path) as served:
        reader, _ = await peer(served, whole(label=3))
        assert await asyncio.to_thread(predictor.begun.wait, 10)
        asyncio.get_running_loop().call_later(0.1, predictor.go.set)
    status, body = await answer(reader)
    assert (status, json.loads(body)["outputs"][1]["data"]) == (200, [3])
