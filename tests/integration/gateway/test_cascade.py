"""Infer: a hard example goes to the release's teacher, within a budget."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from artifacts import artifact, example
from edge import code_of

from fogline_server.db.base import utc_now
from fogline_server.registry.tables import Release, Variant
from fogline_shared.proto import edge_pb2 as pb


def add_release(db, blobs, data: bytes, *, state: str = "READY") -> str:
    blob, now = blobs.put([data]), utc_now()
    with db.transaction() as session:
        session.add(Release(id="rel_1", name="toy-1", recipe="toy", state=state, lineage={}, report={}, created_at=now))
        session.flush()
        session.add(Variant(release_id="rel_1", name="teacher_fp32", digest=blob.digest, size=blob.size))
    return "rel_1"


def asking(release_id: str, x: np.ndarray, **changes) -> pb.InferRequest:
    return pb.InferRequest(**{"release_id": release_id, "input": x.tobytes(), "shape": x.shape, **changes})


async def refusal(stub, request: pb.InferRequest) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Infer(request, timeout=10)
    return caught.value.code(), code_of(caught.value)


async def test_the_teacher_answers_until_the_budget_is_spent(device, sqlite_database, blobs):
    release_id = add_release(sqlite_database, blobs, artifact(variant="teacher_fp32"))
    watch, other = await device("watch-1"), await device("watch-2")
    async with watch.edge() as stub, other.edge() as unspent:
        for label in (0, 1, 2):
            reply = await stub.Infer(asking(release_id, example(label)), timeout=10)
            assert int(np.argmax(reply.scores)) == label
            assert sum(reply.scores) == pytest.approx(1.0, abs=1e-5)
        spent = (grpc.StatusCode.RESOURCE_EXHAUSTED, "infer_budget_spent")
        assert await refusal(stub, asking(release_id, example(0))) == spent
        await unspent.Infer(asking(release_id, example(0)), timeout=10)


async def test_what_is_no_example_is_refused_without_spending_budget(device, sqlite_database, blobs):
    release_id = add_release(sqlite_database, blobs, artifact(variant="teacher_fp32"))
    watch, x = await device("watch-1"), example(0)
    bad = (grpc.StatusCode.INVALID_ARGUMENT, "bad_input")
    async with watch.edge() as stub:
        for changes in (
            {"shape": [2, 8]},
            {"shape": []},
            {"shape": [-3, -8]},
            {"shape": [2**62, 2**62]},
            {"input": x.tobytes()[1:]},
            {"input": np.full_like(x, np.nan).tobytes()},
        ):
            assert await refusal(stub, asking(release_id, x, **changes)) == bad
        await stub.Infer(asking(release_id, x), timeout=10)
        # The right number of bytes, but not this model's shape.
        assert await refusal(stub, asking(release_id, x.reshape(8, 3))) == bad


async def test_a_release_that_is_missing_or_unfinished_is_refused(device, sqlite_database, blobs):
    watch, x = await device("watch-1"), example(0)
    async with watch.edge() as stub:
        assert await refusal(stub, asking("rel_9", x)) == (grpc.StatusCode.NOT_FOUND, "release_not_found")
        release_id = add_release(sqlite_database, blobs, artifact(), state="BUILDING")
        assert await refusal(stub, asking(release_id, x)) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "release_not_ready",
        )
