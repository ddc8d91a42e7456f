"""Starts the process that looks at one artifact, and waits for what it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import asdict

from fogline_client.measuring.child import Order


async def said_apart(order: Order) -> tuple[bytes, int | None]:
    """What :mod:`fogline_client.measuring.child` wrote, and how it ended; whoever cancels ends it.

    Raises TimeoutError when it takes far longer than its CPU seconds allow, OSError when it cannot be started.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "fogline_client.measuring.child",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    try:
        # At low priority beside a busy model, CPU seconds may take several of the clock's.
        async with asyncio.timeout(4 * order.cpu_s + 10):
            said, _ = await child.communicate(json.dumps(asdict(order)).encode() + b"\n")
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
    return said, child.returncode
