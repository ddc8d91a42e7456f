"""The agent's side of training: a child process that is started for a task, kept warm between rounds, and gone when idle.

The agent needs neither torch nor flwr and stays small; a recipe that crashes, leaks or is killed by the kernel takes only
the child with it. This module, unlike the rest of the package, may be imported by the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog

from fogline_client.config import AgentConfig, StateDir
from fogline_client.training import exchange
from fogline_client.training.exchange import Done, Order, Start
from fogline_shared.protocol import TaskOffer, TaskReply

log = structlog.get_logger()

# A line of the child holds a reply's records; the coordinator takes at most a quarter of this.
_LONGEST_LINE = 1 << 20
# A process that has closed its pipes is about to end.
_DYING_S = 1.0


class TrainingHost:
    """Runs tasks one at a time. ``idle_s``: the child ends after so long without one, and gives its memory back.

    ``local_epsilon``, at ``local_delta``: what all answers of this device together may tell of its data; None: no bound.
    """

    def __init__(
        self,
        recipe: str,
        options: Mapping[str, str],
        work_dir: Path,
        *,
        idle_s: float = 60.0,
        local_epsilon: float | None = None,
        local_delta: float = 1e-5,
    ) -> None:
        self._start = Start(
            recipe=recipe,
            options=dict(options),
            memory=str((work_dir / "memory").absolute()),
            ledger=str((work_dir / "local-privacy.json").absolute()),
            local_epsilon=local_epsilon,
            local_delta=local_delta,
        )
        self._replies = work_dir / "replies"
        self._idle_s = idle_s
        self._child: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._busy = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The child's process id while there is one."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    async def run(self, offer: TaskOffer, blobs: Mapping[str, Path]) -> tuple[Path | None, TaskReply]:
        """Work on a task; ``blobs`` by record name. Returns where the reply's arrays lie, and the reply's header.

        Whatever goes wrong is a reply with an error code: ``training_child_died``, ``training_failed``, or the
        recipe's own. Cancelling kills the child: half a training is of no use, and its answer would be taken for the
        next task's.
        """
        async with self._busy:
            self._stop_timer()
            try:
                done = await self._ask(self._order(offer, blobs))
            except asyncio.CancelledError:
                await self._kill()
                raise
            except (OSError, ValueError, TypeError, asyncio.IncompleteReadError) as error:
                # The pipe broke, or what came was no answer: either way that child is of no more use.
                code = await self._kill(grace_s=_DYING_S)
                log.warning("training child died", task=offer.task_id, exit_code=code, error=repr(error))
                message = f"the training process ended with exit code {code} during the task"
                done = Done(task_id=offer.task_id, error_code="training_child_died", error_message=message)
            self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._on_idle)
        path = self._reply_path(offer.task_id) if done.digest else None
        return path, TaskReply(
            task_id=offer.task_id,
            digest=done.digest,
            size=done.size,
            records_json=done.records_json,
            error_code=done.error_code,
            error_message=done.error_message,
        )

    async def close(self) -> None:
        """End the child."""
        self._stop_timer()
        await self._kill()

    def _order(self, offer: TaskOffer, blobs: Mapping[str, Path]) -> Order:
        return Order(
            task_id=offer.task_id,
            run_id=offer.run_id,
            round=offer.round,
            group_id=offer.group_id,
            message_type=offer.message_type,
            node_id=offer.node_id,
            records_json=offer.records_json,
            blobs={record: str(path.absolute()) for record, path in blobs.items()},
            reply_path=str(self._reply_path(offer.task_id).absolute()),
        )

    def _reply_path(self, task_id: str) -> Path:
        # A task id is another machine's text; a digest of it is a safe file name.
        return self._replies / f"{hashlib.sha256(task_id.encode()).hexdigest()[:32]}.safetensors"

    async def _ask(self, order: Order) -> Done:
        child = self._child
        if child is None or child.returncode is not None:
            child = self._child = await self._spawn()
        assert child.stdin is not None, "both pipes were asked for"
        assert child.stdout is not None, "both pipes were asked for"
        child.stdin.write(exchange.line(order))
        await child.stdin.drain()
        done = Done(**exchange.parse(await child.stdout.readuntil(b"\n")))
        if done.task_id != order.task_id:
            raise ValueError(f"the child answered task {done.task_id}")
        return done

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._replies.mkdir(parents=True, exist_ok=True)
        # Replies nobody took before the agent or its child died: their tasks are offered again.
        for path in self._replies.iterdir():
            path.unlink()
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "fogline_client.training.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            # One thread a device: OpenMP would otherwise take every core before torch is told not to.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert child.stdin is not None, "it was asked for"
        child.stdin.write(exchange.line(self._start))
        log.info("training child started", pid=child.pid)
        return child

    def _on_idle(self) -> None:
        # It waits for the next line, so it can go at once: closing its input is what ends it.
        if not self._busy.locked() and self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()
            self._child = None

    def _stop_timer(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    async def _kill(self, *, grace_s: float = 0.0) -> int | None:
        """End the child; its exit code, negative for a signal.

        ``grace_s`` lets one that is dying by itself end: killing it then takes its exit code from asyncio, which says 255.
        """
        child, self._child = self._child, None
        if child is None:
            return None
        # Not in a canceled task: there, Python 3.11.2 takes this time-out for another cancellation.
        if grace_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    return await child.wait()
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        return await child.wait()


def host_of(state: StateDir, config: AgentConfig) -> TrainingHost | None:
    """What trains on this device; None: it does not."""
    if not config.recipe:
        return None
    return TrainingHost(
        config.recipe,
        config.recipe_options,
        state.training,
        local_epsilon=config.local_epsilon,
        local_delta=config.local_delta,
    )
