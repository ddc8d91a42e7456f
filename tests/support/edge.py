"""A device that speaks the raw protocol, without the agent: tests say exactly which frames travel."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fogline_server.db.base import new_id, utc_now
from fogline_server.db.database import Database
from fogline_server.devices import service as devices
from fogline_server.devices.tables import Device
from fogline_server.gateway.server import GatewayServer
from fogline_server.training.tables import Run, Task
from fogline_shared.enrollment import PrintableToken, build_csr
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.proto.edge_pb2_grpc import EdgeStub, EnrollmentStub
from fogline_shared.protocol import Certificate, CloudFrame, DeviceFrame, Hello, TaskReply
from fogline_shared.states import RunState
from fogline_shared.wire import certificate_from_pb, cloud_frame_from_pb, device_frame_to_pb, reply_to_pb


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def code_of(error: grpc.aio.AioRpcError) -> str:
    """The stable code in the trailing metadata."""
    return dict(error.trailing_metadata() or ()).get("fogline-code", "")


def printed_token(db: Database, gateway: GatewayServer, ca_pem: bytes, **options) -> str:
    """A fresh token's text."""
    options = {"ttl": timedelta(hours=1), "now": utc_now(), "actor": "test", **options}
    with db.transaction() as session:
        return devices.create_token(session, ca_pem, enroll_target=gateway.enroll_target, **options)[1]


async def enroll(token: str, name: str, key: ec.EllipticCurvePrivateKey, csr_pem: bytes = b"") -> Certificate:
    """One Enroll call, knowing nothing but the token."""
    printable = PrintableToken.decode(token)
    credentials = grpc.ssl_channel_credentials(printable.ca_pem)
    async with grpc.aio.secure_channel(printable.enroll_target, credentials) as channel:
        request = pb.EnrollRequest(token=token, device_name=name, csr_pem=csr_pem or build_csr(key, name))
        return certificate_from_pb(await EnrollmentStub(channel).Enroll(request, timeout=10))


@dataclass
class RawDevice:
    """An enrolled identity and its channel."""

    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: Certificate
    running: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.certificate.device_id

    @asynccontextmanager
    async def edge(self, target: str = "") -> AsyncIterator[EdgeStub]:
        """The gateway's stub over mutual TLS."""
        credentials = grpc.ssl_channel_credentials(
            self.certificate.ca_pem, key_pem(self.key), self.certificate.certificate_pem
        )
        async with grpc.aio.secure_channel(target or self.certificate.gateway_target, credentials) as channel:
            yield EdgeStub(channel)

    @asynccontextmanager
    async def sync(self, *, boot_id: str = "boot-1", **hello) -> AsyncIterator[SyncCall]:
        """A sync stream whose hello has been sent."""
        async with self.edge() as stub:
            call = SyncCall(stub.Sync())
            await call.send(
                Hello(boot_id=boot_id, agent_version="test", recipes=("tiny",), running_tasks=self.running, **hello)
            )
            try:
                yield call
            finally:
                call.raw.cancel()

    async def fetch(self, digest: str, offset: int = 0, *, stop_after: int | None = None) -> bytes:
        """A blob's bytes; ``stop_after`` breaks the download off after so many chunks."""
        got = b""
        async with self.edge() as stub:
            call, chunks = stub.Fetch(pb.FetchRequest(digest=digest, offset=offset), timeout=20), 0
            async for chunk in call:
                got, chunks = got + chunk.data, chunks + 1
                if chunks == stop_after:
                    break
        return got

    async def upload(
        self, task_id: str, chunks: Iterable[bytes] = (), *, inline: bool = False, **header
    ) -> pb.UploadReceipt:
        """One Upload call; header fields not given describe the chunks truthfully. ``inline``: these go with the header."""
        chunks = list(chunks)
        data = b"".join(chunks)
        fields = {
            "task_id": task_id,
            "digest": hashlib.sha256(data).hexdigest() if data else "",
            "size": len(data),
            "records_json": "{}",
            **header,
        }

        async def messages() -> AsyncIterator[pb.UploadMessage]:
            yield pb.UploadMessage(header=reply_to_pb(TaskReply(**fields), data if inline else b""))
            for chunk in () if inline else chunks:
                yield pb.UploadMessage(data=chunk)

        async with self.edge() as stub:
            return await stub.Upload(messages(), timeout=20)


class SyncCall:
    """One sync stream, in values."""

    def __init__(self, raw) -> None:
        self.raw = raw
        self._kept: list[CloudFrame] = []

    async def send(self, frame: DeviceFrame) -> None:
        await self.raw.write(device_frame_to_pb(frame))

    async def receive(self, kind: type[CloudFrame], *, within_s: float = 5.0) -> CloudFrame:
        """The next frame of that kind; others that come before it are kept for later."""
        for frame in self._kept:
            if isinstance(frame, kind):
                self._kept.remove(frame)
                return frame
        async with asyncio.timeout(within_s):
            while True:
                message = await self.raw.read()
                if message is grpc.aio.EOF:
                    # Raises the error the call ended with; EOF alone is a clean end.
                    if (code := await self.raw.code()) != grpc.StatusCode.OK:
                        raise grpc.aio.AioRpcError(
                            code, None, await self.raw.trailing_metadata(), await self.raw.details()
                        )
                    raise EOFError
                if isinstance(frame := cloud_frame_from_pb(message), kind):
                    return frame
                self._kept.append(frame)

    async def ended_with(self, *, within_s: float = 5.0) -> str:
        """Read to the end of the stream; the fogline code it ended with, empty for a clean end."""
        try:
            await self.receive(type(None), within_s=within_s)
        except grpc.aio.AioRpcError as error:
            return code_of(error)
        except EOFError:
            return ""
        raise AssertionError


def add_run(db: Database, *, state: RunState = RunState.RUNNING) -> str:
    """A run row, as its trainer would have made it."""
    run_id = new_id("run")
    with db.transaction() as session:
        session.add(
            Run(id=run_id, recipe="tiny", size="student", state=state, spec={}, rounds_total=1, created_at=utc_now())
        )
    return run_id


def add_task(db: Database, run_id: str, device_id: str, *, number: int = 1, blobs=(), limit: int = 1 << 20) -> str:
    """An open task for the device, as a grid would have pushed it."""
    now = utc_now()
    with db.transaction() as session:
        node_id = session.get(Device, device_id).node_id
        task = Task(
            id=f"{run_id}-{number}-train-{node_id}",
            run_id=run_id,
            round=number,
            kind="train",
            device_id=device_id,
            recipe="tiny",
            records={},
            blobs=list(blobs),
            message_type="train",
            group_id=str(number),
            node_id=node_id,
            max_reply_bytes=limit,
            deadline=now + timedelta(minutes=5),
            created_at=now,
        )
        session.add(task)
        return task.id
