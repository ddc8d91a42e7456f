"""What a round costs beyond training: four devices, a client that does nothing, ours against stock Flower.

Ours: ``fogline up`` and four agents over mutual TLS, each with its training child; a round is the time from one round's
commit to the next. Stock Flower: its SuperLink and four SuperNodes with their defaults, without TLS; a round is the time from
configuring it to its aggregate. The first round of each, where processes start, is left out.
"""

from __future__ import annotations

import itertools
import statistics
from datetime import datetime

import stock_flower
from fleet import Cloud, fogline_up
from harness import Figure, Options, progress

NODES = 4
# size of the recipe, floats, rounds of ours, rounds of the peer's, largest share of the peer's seconds
CASES = (("student", 25_000, 21, 5, 1 / 100), ("teacher", 5_000_000, 11, 5, 1 / 12))


def measure(options: Options) -> list[Figure]:
    """Median seconds a round, at 0.1 and 20 MB."""
    cases = [
        (size, floats, 3, 2, share) if options.quick else (size, floats, ours, peer, share)
        for size, floats, ours, peer, share in CASES
    ]
    with fogline_up() as cloud:
        for i in range(NODES):
            cloud.agent(f"device-{i}", "--recipe", "overhead")
        ours = [_our_seconds(cloud, size, rounds) for size, _, rounds, _, _ in cases]
    figures = []
    for (_, floats, _, rounds, share), seconds in zip(cases, ours, strict=True):
        peer = stock_flower.seconds_a_round(floats=floats, rounds=rounds, nodes=NODES, timeout_s=120 * rounds)[1:]
        figures.append(
            Figure(
                name=f"round overhead, {NODES} devices, {floats * 4 / 1e6:g} MB",
                unit="s",
                ours=statistics.median(seconds),
                peer=statistics.median(peer),
                peer_name="stock Flower",
                target=share,
                detail={"ours": seconds, "peer": peer},
            )
        )
    return figures


def _our_seconds(cloud: Cloud, size: str, rounds: int) -> list[float]:
    run = cloud.post("/runs", recipe="overhead", size=size, rounds=rounds, min_devices=NODES, quorum=1.0)
    cloud.until_ended(f"/runs/{run['id']}", "SUCCEEDED", timeout_s=60 + 20 * rounds)
    closed = [datetime.fromisoformat(row["closed_at"]) for row in cloud.get(f"/runs/{run['id']}/rounds")["items"]]
    # closed[0] is round 0 (statistics), closed[1] the first round of training
    seconds = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(closed[1:])]
    progress(f"fogline, {size}: median {statistics.median(seconds):.3f} s a round")
    return seconds
