"""Blobs over the gateway: resumed downloads, uploads that are capped, checked and counted once."""

from __future__ import annotations

import asyncio
import hashlib
import os

import grpc
import pytest
from edge import add_run, add_task, code_of

from fogline_server.jobs.doorbell import RUN
from fogline_server.training.tables import Update
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.protocol import INLINE_BYTES, Pace, TaskReply
from fogline_shared.wire import reply_to_pb

MB = 1 << 20


async def failing(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), code_of(caught.value)


def leftovers(blobs) -> list[str]:
    return [path.name for path in blobs._incoming.iterdir()]


@pytest.fixture
async def watch(device):
    return await device("watch-1")


@pytest.fixture
def task(sqlite_database, watch):
    """Makes a task of the device, in a run of its own."""
    return lambda **options: add_task(sqlite_database, add_run(sqlite_database), watch.id, **options)


async def test_a_broken_download_resumes_where_it_broke(watch, task, blobs):
    data = os.urandom(3 * MB + 123)
    blob = blobs.put([data])
    task(blobs=[{"record": "arrays", "digest": blob.digest, "size": blob.size}])
    first = await watch.fetch(blob.digest, stop_after=1)
    assert len(first) == MB
    assert first + await watch.fetch(blob.digest, len(first)) == data
    assert await watch.fetch(blob.digest, len(data)) == b""
    assert await failing(watch.fetch(blob.digest, len(data) + 1)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "bad_offset",
    )


async def test_a_device_reads_only_what_it_was_given(watch, device, task, blobs):
    blob = blobs.put([b"parameters"])
    task(blobs=[{"record": "arrays", "digest": blob.digest, "size": blob.size}])
    other = await device("watch-2")
    missing = (grpc.StatusCode.NOT_FOUND, "blob_not_found")
    assert await watch.fetch(blob.digest) == b"parameters"
    assert await failing(other.fetch(blob.digest)) == missing
    assert await failing(watch.fetch("0" * 64)) == missing
    assert await failing(watch.fetch("../../keys/ca.key")) == missing


async def test_a_reply_is_stored_before_it_is_acknowledged_and_rings_its_run(
    watch, task, blobs, sqlite_database, doorbell
):
    task_id, data = task(limit=4 * MB), os.urandom(2 * MB)
    waiter = doorbell.waiter(RUN + task_id.split("-")[0])
    await asyncio.to_thread(waiter.wait, 0.2)
    receipt = await watch.upload(task_id, [data[:MB], data[MB:]], records_json='{"metrics": {"loss": 0.5}}')
    assert (receipt.duplicate, receipt.status) == (False, "ACCEPTED")
    digest = hashlib.sha256(data).hexdigest()
    assert blobs.read(digest) == data
    with sqlite_database.read() as session:
        update = session.get(Update, task_id)
    assert (update.digest, update.size, update.records) == (digest, 2 * MB, {"metrics": {"loss": 0.5}})
    async with asyncio.timeout(3):
        await asyncio.to_thread(waiter.wait, 10)


@pytest.fixture(params=[False, True], ids=["in chunks", "inline"])
def inline(request) -> bool:
    """Whether a small reply goes with the header of its upload."""
    return request.param


async def test_a_reply_sent_twice_counts_once(watch, task, sqlite_database, blobs, inline):
    task_id = task()
    assert not (await watch.upload(task_id, [b"first"], inline=inline)).duplicate
    assert (await watch.upload(task_id, [b"first"], inline=inline)).duplicate
    with sqlite_database.read() as session:
        update = session.query(Update).one()
    assert update.duplicates == 1
    assert blobs.read(update.digest) == b"first"


async def test_replies_racing_for_one_task_count_once(watch, task, inline):
    task_id = task()
    receipts = await asyncio.gather(*(watch.upload(task_id, [b"same"], inline=inline) for _ in range(4)))
    assert sorted(receipt.duplicate for receipt in receipts) == [False, True, True, True]


async def test_an_error_reply_needs_no_blob(watch, task, sqlite_database):
    task_id = task()
    await watch.upload(task_id, error_code="out_of_memory", error_message="no memory left")
    with sqlite_database.read() as session:
        assert session.get(Update, task_id).code == "out_of_memory"


async def test_an_oversized_upload_is_refused_before_it_is_read(watch, task, blobs, inline):
    task_id = task(limit=100)
    expected = (grpc.StatusCode.RESOURCE_EXHAUSTED, "reply_too_large")
    assert await failing(watch.upload(task_id, [b"x" * 101], inline=inline)) == expected
    assert leftovers(blobs) == []
    assert not blobs.exists(hashlib.sha256(b"x" * 101).hexdigest())
    assert not (await watch.upload(task_id, [b"x" * 100], inline=inline)).duplicate


@pytest.mark.parametrize(
    ("data", "header", "code"),
    [
        (b"x" * INLINE_BYTES, {}, ""),
        (b"x" * (INLINE_BYTES + 1), {}, "malformed_frame"),
        (b"abc", {"digest": "", "size": 0}, "malformed_frame"),
        (b"abc", {"size": 2}, "size_mismatch"),
        (b"abc", {"size": 4}, "size_mismatch"),
    ],
)
async def test_a_header_holds_a_small_reply_or_none(watch, task, sqlite_database, data, header, code):
    task_id = task()
    upload = watch.upload(task_id, [data], inline=True, **header)
    if not code:
        assert not (await upload).duplicate
        return
    assert (await failing(upload))[1] == code
    with sqlite_database.read() as session:
        assert session.query(Update).count() == 0


async def test_an_upload_that_lies_about_its_size_is_cut_off(watch, task, blobs, sqlite_database):
    task_id = task(limit=2 * MB)
    endless = [os.urandom(MB)] * 30
    expected = (grpc.StatusCode.RESOURCE_EXHAUSTED, "blob_too_large")
    assert await failing(watch.upload(task_id, endless, size=10)) == expected
    assert await failing(watch.upload(task_id, [b"abc"], size=2)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "size_mismatch",
    )
    assert leftovers(blobs) == []
    with sqlite_database.read() as session:
        assert session.query(Update).count() == 0


async def test_an_upload_whose_bytes_changed_on_the_way_is_refused_and_may_be_sent_again(watch, task, blobs, inline):
    task_id = task()
    changed = watch.upload(task_id, [b"chAnged"], inline=inline, digest=hashlib.sha256(b"changed").hexdigest())
    assert await failing(changed) == (grpc.StatusCode.DATA_LOSS, "digest_mismatch")
    assert leftovers(blobs) == []
    assert not (await watch.upload(task_id, [b"changed"], inline=inline)).duplicate


async def test_a_task_of_another_device_or_of_nobody_is_refused(watch, device, task):
    other = await device("watch-2")
    expected = (grpc.StatusCode.NOT_FOUND, "task_unknown")
    assert await failing(other.upload(task(), [b"mine"])) == expected
    assert await failing(watch.upload("run-1-train-9", [b"mine"])) == expected


async def test_an_upload_that_stalls_or_breaks_off_leaves_nothing_and_no_thread_waiting(watch, task, blobs):
    task_id = task(limit=8 * MB)
    header = pb.UploadMessage(header=reply_to_pb(TaskReply(task_id=task_id, digest="a" * 64, size=9, records_json="")))
    async with watch.edge() as stub:
        stalled = stub.Upload()
        await stalled.write(header)
        await stalled.write(pb.UploadMessage(data=b"half"))
        broken = stub.Upload()
        await broken.write(header)
        await broken.write(pb.UploadMessage(data=b"half"))
        await asyncio.sleep(0.2)
        broken.cancel()
        assert await failing(asyncio.wait_for(stalled, 6)) == (grpc.StatusCode.UNAVAILABLE, "device_silent")
    async with asyncio.timeout(3):
        while leftovers(blobs):  # noqa: ASYNC110 - the other side is no coroutine of ours
            await asyncio.sleep(0.02)


async def test_an_upload_without_header_or_with_two_is_refused(watch, task):
    header = pb.UploadMessage(header=reply_to_pb(TaskReply(task_id=task(), digest="a" * 64, size=9, records_json="{}")))
    for messages in ([pb.UploadMessage(data=b"x")], [header, header], [], [pb.UploadMessage()]):
        async with watch.edge() as stub:
            expected = (grpc.StatusCode.INVALID_ARGUMENT, "malformed_frame")
            assert await failing(stub.Upload(iter(messages), timeout=10)) == expected


async def test_a_hundred_stalled_downloads_keep_nobody_waiting(watch, task, blobs):
    blob = blobs.put([os.urandom(8 * MB)])
    task(blobs=[{"record": "arrays", "digest": blob.digest, "size": blob.size}])
    async with watch.edge() as stub:
        calls = [stub.Fetch(pb.FetchRequest(digest=blob.digest)) for _ in range(100)]
        await asyncio.gather(*(call.read() for call in calls))
        async with watch.sync() as sync:
            await sync.receive(Pace, within_s=5)
        for call in calls:
            call.cancel()
