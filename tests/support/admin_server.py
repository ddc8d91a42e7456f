"""The admin API and console as a coordinator serves them, without gateway and ticks: nothing moves by itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import uvicorn
from fastapi import FastAPI
from parts import eventually

from fogline_server.actions import actions
from fogline_server.api.app import create_app
from fogline_server.batch import jobs as batch
from fogline_server.batch.places import Places
from fogline_server.blobs.store import BlobStore
from fogline_server.console import pages
from fogline_server.db.database import Database
from fogline_server.devices.authority import CertificateAuthority
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.jobs.runner import JobKind
from fogline_server.registry import jobs as registry
from fogline_server.schedules.service import Action
from fogline_server.settings import Settings
from fogline_server.training import jobs as training
from fogline_server.trust.keys import OnlineKeys


@dataclass(frozen=True, kw_only=True)
class AdminServices:
    """What the application asks of its process."""

    settings: Settings
    db: Database
    blobs: BlobStore
    doorbell: Doorbell
    authority: CertificateAuthority
    online_keys: OnlineKeys
    places: Places
    actions: Mapping[str, Action]
    kinds: Mapping[str, JobKind]


def admin_app(settings: Settings, db: Database) -> FastAPI:
    """The application over a database that exists."""
    places = Places.of(settings.resolved_data_dir, private=settings.state_dir)
    services = AdminServices(
        settings=settings,
        db=db,
        blobs=BlobStore(settings.blob_dir),
        doorbell=Doorbell(settings.redis_url),
        authority=CertificateAuthority.open(settings.key_dir, "127.0.0.1"),
        online_keys=OnlineKeys(settings.trust_dir),
        places=places,
        actions=actions(places),
        kinds={kind.name: kind for kind in (*training.KINDS, *registry.KINDS, *batch.kinds(places))},
    )
    app = create_app(services)
    pages.mount(app)
    return app


@contextmanager
def serving(app: FastAPI, *, lifespan: Literal["auto", "off"] = "auto") -> Iterator[str]:
    """Serve over real HTTP on a free port; yields the URL. Without its lifespan an app makes no first admin key."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1, lifespan=lifespan))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        eventually(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
