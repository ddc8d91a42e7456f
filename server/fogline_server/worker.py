"""One worker process group: Celery's prefork pool around the job engine."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from celery import Celery, bootsteps
from celery.signals import worker_process_init

from fogline_server.children import die_with

log = structlog.get_logger()


# How often a worker says that it is alive, seconds.
_ALIVE_EVERY_S = 3.0


def run_worker(
    app: Celery,
    *,
    queues: Sequence[str],
    concurrency: int,
    preload: Sequence[str] = (),
    alive_file: Path | None = None,
) -> None:
    """Work until SIGTERM (finish what runs) or SIGQUIT (drop it; leases bring it back).

    ``preload`` names modules to import before the fork, if they are installed: the pool shares their memory, and no
    job waits for them. ``alive_file`` is touched every three seconds as long as the worker takes messages from Redis.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    worker_process_init.connect(_in_pool_process)
    for name in preload:
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
    if alive_file is not None:
        alive_file.unlink(missing_ok=True)
        app.steps["consumer"].add(_alive_step(alive_file))
    log.info("worker_started", queues=list(queues), concurrency=concurrency)
    arguments = ["--quiet", "worker", "--pool=prefork", f"--concurrency={concurrency}", f"--queues={','.join(queues)}"]
    arguments += ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"]
    app.worker_main(arguments)


def _alive_step(file: Path) -> type[bootsteps.StartStopStep]:
    """Touch ``file`` from the consumer's own loop: a loop that hangs, or has lost Redis, does not get round to it."""

    class Alive(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.consumer.tasks:Tasks",)
        _entry: Any = None

        def start(self, consumer: Any) -> None:
            file.touch()
            self._entry = consumer.timer.call_repeatedly(_ALIVE_EVERY_S, file.touch)

        def stop(self, consumer: Any) -> None:  # noqa: ARG002 - Celery's signature
            if self._entry is not None:
                self._entry.cancel()
            file.unlink(missing_ok=True)

    return Alive


def _in_pool_process(**_kwargs: Any) -> None:
    """A pool process does not outlive its worker: what it did would be fenced off anyway."""
    die_with(os.getppid())
