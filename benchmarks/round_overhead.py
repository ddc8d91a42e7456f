"""What a round costs beyond training: four devices, a client that adds a number, ours against stock Flower.

Ours: ``fogline up`` and four agents over mutual TLS, each with its training child; a round is the time from one round's
commit to the next. Stock Flower: its SuperLink and four SuperNodes with their defaults, without TLS; a round is the time from
configuring it to its aggregate. The first round of each, where processes start, is left out. One half of our rounds is
measured before the peer and one half after it, so that a machine that slows down or speeds up does not favour either.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import stock_flower
from fleet import Cloud, fogline_up
from harness import Figure, Options, progress

NODES = 4
# The peer's rounds of each case, after the first. It polls every few seconds, so they differ little.
ROUNDS = 12
# Size of the recipe, floats, tensors, how many rounds of ours to one of the peer's, largest share of the peer's seconds.
# Twelve rounds of 0.06 s would be over in less than a second, and tell of that second's machine.
CASES = (
    ("student", 25_000, 1, 20, 1 / 200),
    ("student_in_100", 25_000, 100, 20, 1 / 200),
    ("teacher", 5_000_000, 1, 2, 1 / 16),
    ("teacher_in_100", 5_000_000, 100, 2, 1 / 16),
)
# How much longer a round of ours may take with the same floats in a hundred tensors.
LARGEST_GROWTH = 1.15
# What in a command line tells our processes apart.
ROLES = {
    "training children": "fogline_client.training.child",
    "agents": "fogline-agent",
    "coordinator": " coordinator",
    "worker": " worker",
    "redis": "redis",
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """``seconds`` of each round; ``cpu``: CPU seconds a round by role."""

    seconds: Sequence[float]
    cpu: Mapping[str, float]


def measure(options: Options) -> list[Figure]:
    """Median seconds a round, at 0.1 and 20 MB in one tensor and in a hundred; and how ours grow from one to a hundred."""
    rounds = 4 if options.quick else ROUNDS
    before = _ours(rounds // 2)
    peers = [_peer(floats, tensors, rounds) for _, floats, tensors, _, _ in CASES]
    after = _ours(rounds - rounds // 2)
    figures = []
    for (_, floats, tensors, _, share), one, peer, other in zip(CASES, before, peers, after, strict=True):
        seconds = [*one.seconds, *other.seconds]
        cpu = {role: (one.cpu[role] + other.cpu[role]) / 2 for role in one.cpu}
        name = f"round overhead, {NODES} devices, {floats * 4 / 1e6:g} MB"
        if tensors > 1:
            name += f" in {tensors} tensors"
        _tell(f"{name}, ours", seconds, cpu)
        _tell(f"{name}, stock Flower", peer.seconds, peer.cpu)
        figures.append(
            Figure(
                name=name,
                unit="s",
                ours=statistics.median(seconds),
                peer=statistics.median(peer.seconds),
                peer_name="stock Flower",
                target=share,
                detail={
                    "ours": seconds,
                    "peer": peer.seconds,
                    "cpu_seconds_a_round": cpu,
                    "peer_cpu_seconds_a_round": peer.cpu,
                },
            )
        )
    return figures + [_growth(one, many) for one, many in (figures[:2], figures[2:])]


def _growth(one: Figure, many: Figure) -> Figure:
    return Figure(
        name=f"{many.name}, ours beside 1 tensor",
        unit="s",
        ours=many.ours,
        peer=one.ours,
        peer_name="1 tensor",
        target=LARGEST_GROWTH,
    )


def _ours(rounds: int) -> list[Measured]:
    with fogline_up() as cloud:
        for i in range(NODES):
            cloud.agent(f"device-{i}", "--recipe", "overhead")
        return [_run(cloud, size, times * rounds) for size, _, _, times, _ in CASES]


def _run(cloud: Cloud, size: str, rounds: int) -> Measured:
    _train(cloud, size, 1)  # the children load torch, and each process its first model of this size
    before = cloud.group.cpu_seconds(ROLES)
    closed = _train(cloud, size, rounds + 1)
    after = cloud.group.cpu_seconds(ROLES)
    # closed[0] is round 0 (statistics), closed[1] the first round of training
    seconds = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(closed[1:])]
    return Measured(seconds=seconds, cpu={role: (after[role] - before[role]) / (rounds + 1) for role in after})


def _train(cloud: Cloud, size: str, rounds: int) -> list[datetime]:
    """When each round of a run was committed, round 0 first."""
    run = cloud.post("/runs", recipe="overhead", size=size, rounds=rounds, min_devices=NODES, quorum=1.0)
    cloud.until_ended(f"/runs/{run['id']}", "SUCCEEDED", timeout_s=60 + 20 * rounds, every_s=1.0)
    return [datetime.fromisoformat(row["closed_at"]) for row in cloud.get(f"/runs/{run['id']}/rounds")["items"]]


def _peer(floats: int, tensors: int, rounds: int) -> Measured:
    seconds, cpu_s = stock_flower.measure(
        floats=floats, tensors=tensors, rounds=rounds + 1, nodes=NODES, timeout_s=120 * (rounds + 1)
    )
    return Measured(seconds=seconds[1:], cpu={"all": cpu_s / (rounds + 1)})


def _tell(what: str, seconds: Sequence[float], cpu: Mapping[str, float]) -> None:
    low, middle, high = statistics.quantiles(seconds, n=4)
    spread = f"{min(seconds):.3f} | {low:.3f} {middle:.3f} {high:.3f} | {max(seconds):.3f} s"
    parts = ", ".join(f"{role} {value:.3f}" for role, value in cpu.items() if value >= 0.0005)
    progress(
        f"{what}: {spread} (least, quartiles, most of {len(seconds)}); CPU {sum(cpu.values()):.3f} s a round: {parts}"
    )
