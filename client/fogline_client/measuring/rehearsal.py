"""A model's first load and answers, in a process with limits: one that loops or allocates without end ends that process alone."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fogline_client.inference.engines.base import DEFAULT_ENGINE
from fogline_client.limits import Limits
from fogline_client.measuring.apart import said_apart
from fogline_client.measuring.child import Order
from fogline_client.trust.child import from_json
from fogline_shared.errors import Corrupt, Exhausted, FoglineError, Unavailable
from fogline_shared.protocol import Scalar


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """``memory_bytes``: at most, beside the engine, and never more than half of what is free."""

    engine: str = ""
    options: Mapping[str, Scalar] = field(default_factory=dict)
    memory_bytes: int = 1 << 30
    cpu_s: float = 20.0
    free_bytes: Callable[[], int] = lambda: Limits().free_memory_bytes()

    async def __call__(self, path: Path, digest: str) -> None:
        """Load, give the known answers, predict a few times.

        Raises what loading raises; Corrupt ``model_hangs``, ``model_kills``; Exhausted ``measuring_out_of_memory``, which may pass;
        Unavailable ``io_failed`` when no process can be started.
        """
        order = Order(
            path=str(path.absolute()),
            digest=digest,
            engine=self.engine or DEFAULT_ENGINE,
            options=dict(self.options),
            memory_bytes=min(self.memory_bytes, self.free_bytes() // 2),
            cpu_s=self.cpu_s,
            runs=1,
        )
        try:
            said, code = await said_apart(order)
        except TimeoutError as error:
            raise self._hangs() from error
        except OSError as error:
            raise Unavailable("io_failed", str(error)) from error
        if code == -signal.SIGXCPU:
            raise self._hangs()
        if code == -signal.SIGKILL:
            raise Exhausted("measuring_out_of_memory", "the system ended the rehearsal: most likely for want of memory")
        try:
            answer = json.loads(said)
        except ValueError as error:
            how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
            raise Corrupt("model_kills", f"the model ended the process that loaded it ({how})") from error
        if "code" in answer:
            failure: FoglineError = from_json(answer)
            raise failure

    def _hangs(self) -> Corrupt:
        return Corrupt("model_hangs", f"the model has not loaded and answered within {self.cpu_s:g} s of CPU time")
