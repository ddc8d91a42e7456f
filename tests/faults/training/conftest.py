"""One nursery for all lives: loading torch and flwr takes longer than some of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from commit_points import Nursery


@pytest.fixture(scope="session")
def nursery(redis_server: str) -> Iterator[Nursery]:
    with Nursery(redis_server) as nursery:
        yield nursery
