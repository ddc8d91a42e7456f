"""One worker process group: Celery's prefork pool around the job engine."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import structlog
from celery import Celery
from celery.signals import worker_process_init

from fogline_server.children import die_with

log = structlog.get_logger()


def run_worker(app: Celery, *, queues: Sequence[str], concurrency: int, preload: Sequence[str] = ()) -> None:
    """Work until SIGTERM (finish what runs) or SIGQUIT (drop it; leases bring it back).

    ``preload`` names modules to import before the fork, if they are installed: the pool shares their memory, and no
    job waits for them.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    worker_process_init.connect(_in_pool_process)
    for name in preload:
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
    log.info("worker_started", queues=list(queues), concurrency=concurrency)
    arguments = ["--quiet", "worker", "--pool=prefork", f"--concurrency={concurrency}", f"--queues={','.join(queues)}"]
    arguments += ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"]
    app.worker_main(arguments)


def _in_pool_process(**_kwargs: Any) -> None:
    """A pool process does not outlive its worker: what it did would be fenced off anyway."""
    die_with(os.getppid())
