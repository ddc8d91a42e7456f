"""Celery as muscle: a message carries a job's id and nothing else, and may be lost or doubled without harm."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from celery import Celery
from kombu.exceptions import OperationalError

from fogline_server.jobs.engine import Ring
from fogline_server.jobs.service import MAX_PRIORITY
from fogline_shared.errors import Unavailable

if TYPE_CHECKING:
    from fogline_server.jobs.engine import Engine

TASK = "fogline.run_job"
QUEUES = ("train", "compute")


def make_celery(broker_url: str) -> Celery:
    """A client and worker application on ``broker_url``; connects when first used."""
    app = Celery("fogline", broker=broker_url)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        result_backend=None,
        broker_transport="fogline_server.jobs.transport:Transport",
        # A worker counts a message while it works on it, so it never hoards one that an idle worker could take.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        task_default_queue=QUEUES[-1],
        task_create_missing_queues=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "priority_steps": list(range(MAX_PRIORITY + 1)),
            "queue_order_strategy": "priority",
            "socket_connect_timeout": 2,
            "socket_timeout": 30,
            "socket_keepalive": True,
        },
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # Signals are the supervisor's way to end a worker; leases bring its jobs back.
        worker_soft_shutdown_timeout=0,
    )
    return app


def make_ring(app: Celery) -> Ring:
    """The bell of an engine. It raises Unavailable ``broker_unavailable`` at once instead of waiting for Redis."""

    def ring(job_id: str, queue: str, priority: int) -> None:
        # For Celery's Redis transport 0 is the most urgent.
        try:
            app.send_task(TASK, (job_id,), queue=queue, priority=MAX_PRIORITY - priority, retry=False)
        except OperationalError as error:
            raise Unavailable("broker_unavailable", f"Redis does not take messages: {error}") from error

    return ring


def add_run_job(app: Celery, build_engine: Callable[[], Engine]) -> None:
    """Make ``app`` a worker. Each pool process builds its own engine at its first job: none crosses a fork."""
    engine = functools.cache(build_engine)

    @app.task(name=TASK, ignore_result=True)  # type: ignore[untyped-decorator]
    def run_job(job_id: str) -> None:
        engine().execute(job_id)
