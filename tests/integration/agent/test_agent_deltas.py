"""A real agent updates by deltas over a real gateway, and by the whole artifact where a delta does not help."""

from __future__ import annotations

from agent_process import digest
from artifacts import artifact

from fogline_server.db.base import utc_now
from fogline_server.registry.deltas import service
from fogline_server.registry.deltas.build import build, pack
from fogline_server.registry.deltas.service import Pair
from fogline_server.rollouts.tables import Assignment
from fogline_shared.delta import NOTHING
from fogline_shared.states import AssignmentState

V1, V2, V3, V4 = (artifact(scale=scale, shape=(3, 64)) for scale in (5.0, 5.5, 6.0, 6.5))


async def test_agent_takes_the_cheapest_way_and_falls_back_from_a_bad_one(
    enrolled, cloud, sqlite_database, blobs
) -> None:
    agent = await enrolled()
    agent.start()

    def add(base: bytes, target: bytes, made: bytes | None = None) -> int:
        blob = blobs.put([made or (build(base, target) if base else pack(target))])
        pair = Pair(variant="student_fp32", base=digest(base) if base else NOTHING, target=digest(target))
        with sqlite_database.transaction() as session:
            service.add(session, pair, digest=blob.digest, size=blob.size, target_size=len(target), now=utc_now())
        return blob.size

    async def update(content: bytes) -> int:
        """Bytes over the wire of a successful update."""
        assignment = cloud.roll_out(agent.device_id, cloud.publish(content))
        assert await cloud.ends(assignment, AssignmentState.SUCCEEDED) == ""
        await agent.serves(digest(content))
        with sqlite_database.read() as session:
            return session.get_one(Assignment, assignment).wire_bytes

    compressed = add(b"", V1)
    assert compressed < len(V1)
    assert await update(V1) == compressed

    add(b"", V2)
    direct = add(V1, V2)
    assert await update(V2) == direct < compressed

    # The active slot is damaged: what the other holds is two deltas away.
    add(b"", V3)
    last = add(V2, V3)
    (agent.state_dir / "slots" / "B" / "model.onnx").write_bytes(b"a dead flash cell")
    assert await update(V3) == direct + last

    # A delta that was built from other bytes than it says.
    lying = add(V3, V4, build(V2, V4))
    assert await update(V4) == lying + len(V4)
