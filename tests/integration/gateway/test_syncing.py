"""The sync stream: what a device is told, when, how often, and what becomes of what it says."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from edge import RawDevice, add_run, add_task, code_of, enroll, key_pem, new_key, printed_token

from fogline_server.db.base import utc_now
from fogline_server.db.events import Event
from fogline_server.devices import service as devices
from fogline_server.devices.tables import Device
from fogline_server.gateway.server import GatewayServer
from fogline_server.jobs.doorbell import DEVICES, Doorbell
from fogline_server.rollouts.desired import Target, point
from fogline_server.telemetry.tables import Window
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.protocol import Ack, DesiredState, Hello, Pace, Report, TaskOffer, TelemetryWindow
from fogline_shared.sketch import Sketch
from fogline_shared.wire import device_frame_to_pb


def report(seq: int, **changes) -> Report:
    fields = {
        "assignment_id": "asg_1",
        "attempt": 1,
        "seq": seq,
        "boot_id": "boot-1",
        "state": "STAGED",
        "generation": 1,
    }
    return Report(**{**fields, **changes})


def window(seq: int, **changes) -> TelemetryWindow:
    fields = {
        "boot_id": "boot-1",
        "seq": seq,
        "artifact_digest": "a" * 64,
        "start": 1.0,
        "end": 2.0,
        "predictions": 5,
        "errors": 0,
        "latency_us": Sketch(),
        "confidence_pct": Sketch(),
    }
    return TelemetryWindow(**{**fields, **changes})


def point_at(db, device_id: str, digest: str) -> None:
    with db.transaction() as session:
        point(
            session,
            session.get(Device, device_id),
            Target(digest=digest, size=1),
            assignment_id="",
            attempt=1,
            probation_s=1,
            now=utc_now(),
        )


def stored(db, device_id: str) -> Device:
    with db.read() as session:
        return session.get(Device, device_id)


async def eventually(condition, *, within_s: float = 4.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - the other side is no coroutine of ours
            await asyncio.sleep(0.02)


async def nothing_more(sync, kind, *, for_s: float = 0.8) -> None:
    with pytest.raises(TimeoutError):
        await sync.receive(kind, within_s=for_s)


async def test_a_hello_makes_a_device_active_and_online_until_its_stream_ends(device, sqlite_database):
    watch = await device()
    async with watch.sync(attributes={"cores": 4}) as sync:
        await sync.receive(Pace)
        row = stored(sqlite_database, watch.id)
        assert (row.state, row.recipes, row.attributes, row.boot_id) == ("ACTIVE", ["tiny"], {"cores": 4}, "boot-1")
        assert devices.is_online(row, utc_now())
        await sync.send({"battery_percent": 80})
        await eventually(lambda: stored(sqlite_database, watch.id).attributes == {"cores": 4, "battery_percent": 80})
    await eventually(lambda: not devices.is_online(stored(sqlite_database, watch.id), utc_now()))


async def test_a_ring_brings_tasks_and_desired_state_to_the_device_it_names(device, sqlite_database, doorbell):
    watch, other = await device("watch-1"), await device("watch-2")
    run_id = add_run(sqlite_database)
    async with watch.sync() as sync, other.sync() as quiet:
        await sync.receive(Pace)
        task_id = add_task(sqlite_database, run_id, watch.id)
        point_at(sqlite_database, watch.id, "b" * 64)
        doorbell.ring(DEVICES, watch.id)
        assert (await sync.receive(DesiredState)).artifact_digest == "b" * 64
        assert (await sync.receive(TaskOffer)).task_id == task_id
        doorbell.ring(DEVICES)
        await nothing_more(sync, TaskOffer)
        await nothing_more(quiet, TaskOffer, for_s=0.1)


@pytest.mark.parametrize(("takes", "comes"), [({}, False), ({"inline_bytes": 4}, False), ({"inline_bytes": 5}, True)])
async def test_a_small_blob_comes_with_its_task_to_a_device_that_takes_it_so(
    device, sqlite_database, blobs, takes, comes
):
    watch, blob = await device(), blobs.put([b"small"])
    refs = [{"record": "arrays", "digest": digest, "size": 5} for digest in (blob.digest, "0" * 64)]
    add_task(sqlite_database, add_run(sqlite_database), watch.id, blobs=refs)
    async with watch.sync(**takes) as sync:
        offer = await sync.receive(TaskOffer)
    assert offer.contents == ({blob.digest: b"small"} if comes else {}), "one that is not here is left to be asked for"
    assert [ref.digest for ref in offer.blobs] == [blob.digest, "0" * 64]


async def test_a_lost_ring_costs_a_poll_and_nothing_else(device, sqlite_database):
    watch = await device()
    async with watch.sync() as sync:
        await sync.receive(Pace)
        task_id = add_task(sqlite_database, add_run(sqlite_database), watch.id)
        point_at(sqlite_database, watch.id, "c" * 64)
        assert (await sync.receive(DesiredState)).artifact_digest == "c" * 64
        assert (await sync.receive(TaskOffer)).task_id == task_id


async def test_without_redis_devices_are_still_told(sqlite_database, blobs, authority, options):
    nobody = Doorbell("redis://127.0.0.1:1/0")
    gateway = GatewayServer(db=sqlite_database, blobs=blobs, doorbell=nobody, authority=authority, options=options)
    await gateway.start()
    try:
        key = new_key()
        text = printed_token(sqlite_database, gateway, authority.ca_pem)
        watch = RawDevice(name="watch-1", key=key, certificate=await enroll(text, "watch-1", key))
        async with watch.sync() as sync:
            await sync.receive(Pace)
            task_id = add_task(sqlite_database, add_run(sqlite_database), watch.id)
            assert (await sync.receive(TaskOffer)).task_id == task_id
    finally:
        await gateway.stop(grace=0.2)


async def test_an_open_task_is_offered_again_on_reconnect_unless_the_device_still_works_on_it(device, sqlite_database):
    watch = await device()
    run_id = add_run(sqlite_database)
    first, second = (add_task(sqlite_database, run_id, watch.id, number=n) for n in (1, 2))
    async with watch.sync() as sync:
        assert {(await sync.receive(TaskOffer)).task_id for _ in range(2)} == {first, second}
    watch.running = [first]
    async with watch.sync() as sync:
        assert (await sync.receive(TaskOffer)).task_id == second
        await nothing_more(sync, TaskOffer)


async def test_telemetry_sent_twice_is_stored_once_and_acknowledged_twice(device, sqlite_database):
    watch = await device()
    async with watch.sync() as sync:
        for seq in (7, 7, 8):
            await sync.send(window(seq))
            assert (await sync.receive(Ack)).seq == seq
    with sqlite_database.read() as session:
        assert sorted(w.seq for w in session.query(Window).filter_by(device_id=watch.id)) == [7, 8]


async def test_drift_reaches_the_device_and_the_event_log(device, sqlite_database):
    watch = await device()
    async with watch.sync() as sync:
        for seq, psi in ((1, 0.3), (2, 0.5), (3, 0.7)):
            await sync.send(window(seq, drift={"mean_0": psi, "spread_0": 0.1}, drift_inputs=200))
            await sync.receive(Ack)
        # An agent of before, or inputs that are too few: nothing is said.
        await sync.send(window(4))
        await sync.receive(Ack)
    with sqlite_database.read() as session:
        row = session.get(Device, watch.id)
        assert (row.drift["psi"]["mean_0"], row.drift["above"], row.drifting_since is None) == (0.7, 3, False)
        (event,) = session.query(Event).filter_by(kind="device.drifting")
        assert (event.subject_id, event.data["feature"]) == (watch.id, "mean_0")


@pytest.mark.parametrize(
    "hopeless",
    [
        report(4, assignment_id="asg_of_nobody"),
        report(4, state="NONSENSE"),
        window(4, artifact_digest="no digest"),
        window(4, end=0.5),
        window(4, errors=2**63),
    ],
    ids=["foreign-assignment", "unknown-state", "no-digest", "ends-before-it-starts", "impossible-count"],
)
async def test_a_frame_that_can_never_be_taken_is_acknowledged_so_that_it_blocks_nothing(device, hopeless):
    watch = await device()
    async with watch.sync() as sync:
        await sync.send(hopeless)
        assert (await sync.receive(Ack)).seq == 4
        await sync.send(window(5))
        assert (await sync.receive(Ack)).seq == 5


@pytest.mark.parametrize(
    "frame",
    [
        pb.DeviceFrame(),
        pb.DeviceFrame(attributes=pb.Attributes(json="{")),
        pb.DeviceFrame(attributes=pb.Attributes(json='{"a": NaN}')),
        pb.DeviceFrame(attributes=pb.Attributes(json='{"a": "\\u0000"}')),
        device_frame_to_pb(Hello(boot_id="again", agent_version="test")),
    ],
    ids=["empty", "no-json", "nan", "nul", "second-hello"],
)
async def test_a_malformed_frame_ends_its_own_stream_and_no_other(device, frame):
    bad, good = await device("watch-1"), await device("watch-2")
    async with good.sync() as healthy:
        await healthy.receive(Pace)
        async with bad.sync() as sync:
            await sync.receive(Pace)
            await sync.raw.write(frame)
            assert await sync.ended_with() in {"malformed_frame", "bad_attributes"}
        await healthy.send(window(1))
        assert (await healthy.receive(Ack)).seq == 1
        async with bad.sync() as sync:
            await sync.receive(Pace)


async def test_bytes_that_are_no_protobuf_end_their_call_only(device, gateway):
    watch = await device()
    credentials = grpc.ssl_channel_credentials(
        watch.certificate.ca_pem, key_pem(watch.key), watch.certificate.certificate_pem
    )
    async with watch.sync() as healthy:
        await healthy.receive(Pace)
        async with grpc.aio.secure_channel(gateway.gateway_target, credentials) as channel:
            call = channel.stream_stream("/fogline.edge.v1.Edge/Sync")()
            await call.write(b"\xff\xff\xff not protobuf")
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
        await healthy.send(window(1))
        assert (await healthy.receive(Ack)).seq == 1


async def test_a_stream_that_does_not_begin_with_hello_is_refused(device):
    watch = await device()
    async with watch.edge() as stub:
        call = stub.Sync()
        await call.write(device_frame_to_pb(window(1)))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert (caught.value.code(), code_of(caught.value)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "malformed_frame",
    )


async def test_a_device_that_never_says_hello_is_let_go(device):
    watch = await device()
    async with watch.edge() as stub:
        call = stub.Sync()
        await call.wait_for_connection()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(call.read(), 5)
    assert (caught.value.code(), code_of(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "device_silent")


async def test_a_newer_stream_replaces_the_older_one_and_the_device_stays_online(device, sqlite_database):
    watch = await device()
    async with watch.sync() as older:
        await older.receive(Pace)
        async with watch.sync() as newer:
            await newer.receive(Pace)
            assert await older.ended_with() == "sync_superseded"
            await newer.send(window(1))
            await newer.receive(Ack)
            assert devices.is_online(stored(sqlite_database, watch.id), utc_now())


async def test_a_stopping_gateway_tells_its_devices_and_keeps_their_leases(device, gateway, sqlite_database):
    watch = await device()
    async with watch.sync() as sync:
        await sync.receive(Pace)
        await gateway.stop(grace=0.2)
        assert await sync.ended_with() == "coordinator_stopping"
    assert devices.is_online(stored(sqlite_database, watch.id), utc_now())
