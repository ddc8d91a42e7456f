"""The service of the gateway port: each call finds out who speaks, hands over, and translates errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc

from fogline_server.gateway.deltas import offered
from fogline_server.gateway.enrollment import renew
from fogline_server.gateway.infer import Teacher
from fogline_server.gateway.parts import Parts
from fogline_server.gateway.status import device_id_of, translated
from fogline_server.gateway.sync import SyncStream
from fogline_server.gateway.transfer import Transfer, UploadPart, metadata
from fogline_server.jobs.doorbell import EVENTS
from fogline_shared import bulk
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.proto.edge_pb2_grpc import EdgeServicer
from fogline_shared.wire import certificate_to_pb


def handlers(edge: Edge) -> grpc.GenericRpcHandler:
    """What the generated code would register, but for the calls that carry blobs: see :mod:`fogline_shared.bulk`."""
    return grpc.method_handlers_generic_handler(
        bulk.EDGE,
        {
            "Renew": grpc.unary_unary_rpc_method_handler(
                edge.Renew,
                request_deserializer=pb.RenewRequest.FromString,
                response_serializer=pb.Certificate.SerializeToString,
            ),
            "Sync": grpc.stream_stream_rpc_method_handler(
                edge.Sync,
                request_deserializer=pb.DeviceFrame.FromString,
                response_serializer=pb.CloudFrame.SerializeToString,
            ),
            "Fetch": grpc.unary_stream_rpc_method_handler(
                edge.Fetch,
                request_deserializer=pb.FetchRequest.FromString,
                response_serializer=bulk.chunk_to_bytes,
            ),
            "Deltas": grpc.unary_unary_rpc_method_handler(
                edge.Deltas,
                request_deserializer=pb.DeltasRequest.FromString,
                response_serializer=pb.DeltasReply.SerializeToString,
            ),
            "Upload": grpc.stream_unary_rpc_method_handler(
                edge.Upload,
                request_deserializer=bulk.upload_from_bytes,
                response_serializer=pb.UploadReceipt.SerializeToString,
            ),
            "Metadata": grpc.unary_unary_rpc_method_handler(
                edge.Metadata,
                request_deserializer=pb.MetadataRequest.FromString,
                response_serializer=pb.MetadataReply.SerializeToString,
            ),
            "Infer": grpc.unary_unary_rpc_method_handler(
                edge.Infer,
                request_deserializer=pb.InferRequest.FromString,
                response_serializer=pb.InferReply.SerializeToString,
            ),
        },
    )


class Edge(EdgeServicer):
    """Decides nothing. The method names are the protocol's."""

    def __init__(
        self, parts: Parts, gateway_target: str, *, sync: SyncStream, transfer: Transfer, teacher: Teacher
    ) -> None:
        self._parts = parts
        self._gateway_target = gateway_target
        self._sync = sync
        self._transfer = transfer
        self._teacher = teacher

    async def Renew(self, request: pb.RenewRequest, context: Any) -> pb.Certificate:  # noqa: N802
        async with translated(context, "Renew"):
            device_id = device_id_of(context)
            use_case = partial(renew, self._parts, self._gateway_target, device_id, request.csr_pem)
            return certificate_to_pb(await self._parts.write(use_case, EVENTS))

    async def Sync(self, request_iterator: AsyncIterator[pb.DeviceFrame], context: Any) -> None:  # noqa: N802
        async with translated(context, "Sync"):
            await self._sync.serve(device_id_of(context), aiter(request_iterator), context)

    async def Fetch(self, request: pb.FetchRequest, context: Any) -> None:  # noqa: N802
        async with translated(context, "Fetch"):
            await self._transfer.fetch(device_id_of(context), request, context)

    async def Deltas(self, request: pb.DeltasRequest, context: Any) -> pb.DeltasReply:  # noqa: N802
        async with translated(context, "Deltas"):
            return await self._parts.read(partial(offered, device_id_of(context), request))

    async def Upload(  # noqa: N802
        self, request_iterator: AsyncIterator[UploadPart], context: Any
    ) -> pb.UploadReceipt:
        async with translated(context, "Upload"):
            return await self._transfer.upload(device_id_of(context), aiter(request_iterator))

    async def Metadata(self, request: pb.MetadataRequest, context: Any) -> pb.MetadataReply:  # noqa: N802
        async with translated(context, "Metadata"):
            query = partial(metadata, device_id_of(context), request.name)
            return pb.MetadataReply(data=await self._parts.read(query))

    async def Infer(self, request: pb.InferRequest, context: Any) -> pb.InferReply:  # noqa: N802
        async with translated(context, "Infer"):
            return await self._teacher.infer(device_id_of(context), request)
