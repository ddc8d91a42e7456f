"""A hundred agents on one gateway: how long a round takes, and what each device costs the coordinator and itself.

The agents live in one process: each has its own certificate, stream, downloads and uploads, by the agent's own modules, and
answers by Flower's ClientApp of the recipe ``overhead`` without a training child. A round is the time between two commits.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

HERE = Path(__file__).resolve()
DEVICES, ROUNDS = 100, 30
QUICK = (10, 3)
ENROL_AT_ONCE = 8
# Our own limit: there is no peer that would be measured for it.
LIMIT_S = 1.0
ROLES = {"agents": "crowd.py", "coordinator": " coordinator", "worker": " worker", "redis": "redis"}


def measure(options) -> list:
    """Median seconds a round, and CPU milliseconds a device and round."""
    from fleet import fogline_up
    from harness import Figure, progress
    from processes import wait_for

    devices, rounds = QUICK if options.quick else (DEVICES, ROUNDS)
    with fogline_up() as cloud:
        tokens = [cloud.post("/enrollment-tokens", device_name=f"device-{i}")["token"] for i in range(devices)]
        (cloud.folder / "tokens.json").write_text(json.dumps(tokens))
        cloud.group.start("crowd", [sys.executable, HERE, cloud.folder / "tokens.json"], env=cloud.env)

        def all_online() -> bool:
            return sum(device["online"] for device in cloud.get("/devices?limit=200")["items"]) == devices

        wait_for("all devices online", all_online, timeout_s=60)
        _train(cloud, devices, 1)
        before = cloud.group.cpu_seconds(ROLES)
        closed = _train(cloud, devices, rounds + 1)
        after = cloud.group.cpu_seconds(ROLES)
    seconds = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(closed[1:])]
    each = {role: 1e3 * (after[role] - before[role]) / (rounds + 1) / devices for role in after}
    progress(f"CPU ms a device and round: {', '.join(f'{role} {ms:.2f}' for role, ms in each.items())}")
    median = statistics.median(seconds)
    progress(f"{devices} devices: {1 / median:.2f} rounds a second")
    return [
        Figure(
            name=f"a round of {devices} agents on one gateway",
            unit="s",
            ours=median,
            peer=LIMIT_S,
            peer_name="limit",
            target=1.0,
            detail={"seconds": seconds, "rounds_per_second": 1 / median, "cpu_ms_a_device_and_round": each},
        )
    ]


def _train(cloud, devices: int, rounds: int) -> list[datetime]:
    run = cloud.post("/runs", recipe="overhead", size="student", rounds=rounds, min_devices=devices, quorum=1.0)
    cloud.until_ended(f"/runs/{run['id']}", "SUCCEEDED", timeout_s=60 + 20 * rounds, every_s=1.0)
    return [datetime.fromisoformat(row["closed_at"]) for row in cloud.get(f"/runs/{run['id']}/rounds")["items"]]


async def crowd(tokens: list[str]) -> None:
    """All of them, until the process is ended."""
    with tempfile.TemporaryDirectory(prefix="fogline-bench-") as folder:
        # The enrolment port answers so many at a time and turns the others away.
        turns = asyncio.Semaphore(ENROL_AT_ONCE)
        await asyncio.gather(*(_agent(token, i, Path(folder) / str(i), turns) for i, token in enumerate(tokens)))


async def _agent(token: str, number: int, folder: Path, turns: asyncio.Semaphore) -> None:
    from flwr.app import Context, RecordDict

    from fogline_client import channel
    from fogline_client.enroll import enroll
    from fogline_client.sync import Sync, SyncParts
    from fogline_client.telemetry.spool import Spool
    from fogline_client.training.app import build_app
    from fogline_shared.protocol import Hello, TaskOffer
    from fogline_shared.recipe import load_recipe

    folder.mkdir()
    async with turns:
        identity, _ = await enroll(token, device_name=f"device-{number}", device_class="generic")
    offers: asyncio.Queue[TaskOffer] = asyncio.Queue()
    parts = SyncParts(
        identity=lambda: identity,
        hello=lambda: Hello(boot_id="boot", agent_version="bench", recipes=("overhead",)),
        facts=dict,
        spool=Spool(folder / "spool", now=time.time()),
        on_desired=lambda _desired: None,
        on_task=offers.put_nowait,
        rng=random.Random(number),
    )
    syncing = asyncio.create_task(Sync(parts).run())
    app, context = build_app(load_recipe("overhead")), Context(1, number, {}, RecordDict(), {})
    known: set[str] = set()
    async with channel.mutual_tls(identity) as open_channel:
        while not syncing.done():
            offer = await offers.get()
            if offer.task_id not in known:
                known.add(offer.task_id)
                await _answer(open_channel, offer, app, context, folder)


async def _answer(open_channel, offer, app, context, folder: Path) -> None:
    from fogline_client import transfer
    from fogline_shared import flower, tensors
    from fogline_shared.protocol import TaskReply

    blobs = {}
    for blob in offer.blobs:
        blobs[blob.record] = folder / blob.digest
        await transfer.fetch(open_channel, blob.digest, blob.size, blobs[blob.record], flush=False)
    address = flower.Address(
        message_id=offer.task_id, node_id=offer.node_id, group_id=offer.group_id, message_type=offer.message_type
    )
    content = flower.decode(json.loads(offer.records_json), blobs)
    encoded = flower.encode(app(flower.instruction(content, address), context).content)
    buffers = [part for record in encoded.arrays.values() for part in tensors.encode(flower.arrays_of(record))]
    reply, path = folder / "reply", None
    if buffers:
        path = reply
        reply.write_bytes(b"".join(buffers))
    await transfer.upload(
        open_channel,
        TaskReply(
            task_id=offer.task_id,
            digest=tensors.digest(buffers) if buffers else "",
            size=sum(map(len, buffers)),
            records_json=json.dumps(encoded.records),
        ),
        path,
    )
    for place in blobs.values():
        place.unlink()


if __name__ == "__main__":
    asyncio.run(crowd(json.loads(Path(sys.argv[1]).read_text())))
