"""Of full, compressed, direct and chained, the fewest bytes from what is held."""

from __future__ import annotations

import pytest

from fogline_server.registry.deltas.service import LONGEST, cheapest
from fogline_shared.delta import NOTHING
from fogline_shared.protocol import DeltaStep


def step(base: str, target: str, size: int) -> DeltaStep:
    return DeltaStep(digest=f"{base}-{target}", size=size, base=base, target=target, target_size=1000)


PACKED, DIRECT, FIRST, SECOND = (
    step(NOTHING, "v3", 800),
    step("v1", "v3", 500),
    step("v1", "v2", 90),
    step("v2", "v3", 90),
)


@pytest.mark.parametrize(
    ("deltas", "held", "expected"),
    [
        ([PACKED, DIRECT, FIRST, SECOND], ["v1"], [FIRST, SECOND]),
        ([PACKED, DIRECT, FIRST], ["v1"], [DIRECT]),
        ([PACKED, DIRECT, FIRST, SECOND], ["v2", "v1"], [SECOND]),
        ([PACKED, DIRECT, FIRST, SECOND], [], [PACKED]),
        ([DIRECT], ["v0"], []),
        ([step("v3", "v2", 1), step("v2", "v3", 5), PACKED], ["v0"], [PACKED]),
        ([], ["v1"], []),
    ],
)
def test_the_cheapest_way_is_taken(deltas, held, expected) -> None:
    assert cheapest(deltas, "v3", held) == expected


def test_a_chain_is_no_longer_than_a_device_is_asked_to_make() -> None:
    line = [step(f"v{i}", f"v{i + 1}", 1) for i in range(LONGEST + 1)]
    assert cheapest(line, f"v{LONGEST + 1}", ["v1"]) == line[1:]
    assert cheapest(line, f"v{LONGEST + 1}", ["v0"]) == []
