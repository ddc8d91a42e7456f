"""The composition root: the only module that reads settings and builds objects, the one that knows every feature."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from fogline_server.access.keys import PrintedKey
from fogline_server.actions import actions
from fogline_server.batch import jobs as batch_jobs
from fogline_server.batch.places import Places
from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.devices.authority import CertificateAuthority
from fogline_server.jobs.celery_app import add_run_job, make_celery, make_ring
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.jobs.engine import Engine
from fogline_server.jobs.runner import JobKind
from fogline_server.registry import jobs as registry_jobs
from fogline_server.registry import tick as registry_tick
from fogline_server.registry.tables import Release, Variant
from fogline_server.rollouts import tick as rollouts_tick
from fogline_server.schedules import tick as schedules_tick
from fogline_server.schedules.service import Action
from fogline_server.schema import migrate
from fogline_server.search import jobs as search_jobs
from fogline_server.settings import Settings
from fogline_server.storage import service as storage
from fogline_server.telemetry import tick as telemetry_tick
from fogline_server.training import jobs as training_jobs
from fogline_server.trust import development, publish
from fogline_server.trust import tick as trust_tick
from fogline_server.trust.keys import OnlineKeys
from fogline_shared.errors import InvalidInput

if TYPE_CHECKING:
    from celery import Celery

    from fogline_server.coordinator import Coordinator, Tick
    from fogline_server.gateway.server import GatewayServer


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts of one coordinator. Built after a fork, never before."""

    settings: Settings
    db: Database
    blobs: BlobStore
    doorbell: Doorbell
    engine: Engine
    authority: CertificateAuthority
    online_keys: OnlineKeys
    places: Places
    kinds: Mapping[str, JobKind]
    actions: Mapping[str, Action]


def build_services(settings: Settings) -> Services:
    """Open everything a coordinator needs. Nothing connects yet; keys are made on first start."""
    engine, places = build_engine(settings), _places(settings)
    return Services(
        settings=settings,
        db=engine.db,
        blobs=engine.blobs,
        doorbell=engine.doorbell,
        engine=engine,
        authority=CertificateAuthority.open(settings.key_dir, settings.advertised_host),
        online_keys=OnlineKeys(settings.trust_dir),
        places=places,
        kinds=engine.kinds,
        actions=actions(places),
    )


def _places(settings: Settings) -> Places:
    return Places.of(settings.resolved_data_dir, settings.data_allow, private=settings.state_dir)


def _kinds(settings: Settings) -> tuple[JobKind, ...]:
    """Features with work for the job engine: each imports torch inside its runners only."""
    return (*training_jobs.KINDS, *registry_jobs.KINDS, *search_jobs.KINDS, *batch_jobs.kinds(_places(settings)))


def build_engine(settings: Settings) -> Engine:
    """The job engine of a worker or a coordinator, with every kind of job there is."""
    return Engine(
        Database(settings.resolved_database_url),
        build_blobs(settings),
        Doorbell(settings.redis_url),
        kinds={kind.name: kind for kind in _kinds(settings)},
        lease_s=settings.lease_s,
        ring=make_ring(make_celery(settings.redis_url)),
    )


def build_blobs(settings: Settings) -> BlobStore:
    """The blob store, with the cold tier that is set; raises InvalidInput ``invalid_setting``."""
    url = settings.cold_url.get_secret_value()
    if not url:
        return BlobStore(settings.blob_dir, hot_bytes=settings.hot_bytes)
    # Imported here: few coordinators have a cold tier.
    from fogline_server.blobs.cold import ColdTier
    from fogline_server.registry.deltas.tensors import tensors

    cold = ColdTier(url, timeout_s=settings.cold_timeout_s, tensors=tensors)
    return BlobStore(settings.blob_dir, cold=cold, hot_bytes=settings.hot_bytes)


def build_coordinator(settings: Settings) -> Coordinator:
    """Migrate the database and build the process that serves it.

    Raises InvalidInput ``missing_setting`` or ``malformed_api_key``, and as :func:`fogline_server.schema.migrate` does.
    """
    # Imported here: a worker needs neither a web server nor a gateway.
    from fogline_server.api.app import create_app
    from fogline_server.console import pages
    from fogline_server.coordinator import Coordinator

    settings.require("database_url", "redis_url", "secret", "bootstrap_api_key", "advertised_host")
    _check_key(settings.bootstrap_api_key.get_secret_value())
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    services = build_services(settings)
    migrate(services.db)
    development.ensure_root(
        services.db,
        services.online_keys,
        trust_dir=settings.trust_dir,
        allowed=settings.makes_throwaway_keys,
        now=utc_now(),
    )
    app = create_app(services)
    pages.mount(app)
    return Coordinator(
        app=app,
        gateway=build_gateway(services),
        ticks=ticks(services),
        http_host=settings.http_host,
        http_port=settings.http_port,
    )


def build_worker(settings: Settings) -> Celery:
    """The Celery application of a worker; its engine is built in each pool process, after the fork.

    Raises InvalidInput ``missing_setting``, and Unavailable ``database_unavailable`` while jobs could not be read.
    """
    settings.require("database_url", "redis_url")
    db = Database(settings.resolved_database_url)
    db.ping()
    db.dispose()  # no connection crosses the fork
    with suppress(OSError):  # a folder that cannot be made is told by the job that needs it
        settings.resolved_data_dir.mkdir(parents=True, exist_ok=True)
    app = make_celery(settings.redis_url)
    add_run_job(app, functools.partial(build_engine, settings))
    return app


def _check_key(text: str) -> None:
    """A configured key of another form is told before anything starts."""
    try:
        if text:
            PrintedKey.parse(text)
    except InvalidInput as error:
        raise InvalidInput(error.code, f"FOGLINE_BOOTSTRAP_API_KEY: {error.message}") from error


def build_gateway(services: Services) -> GatewayServer:
    """The edge gateway over the coordinator's parts."""
    from fogline_server.gateway.parts import GatewayOptions
    from fogline_server.gateway.server import GatewayServer
    from fogline_server.telemetry.drift import DriftLimit

    settings = services.settings
    return GatewayServer(
        db=services.db,
        blobs=services.blobs,
        doorbell=services.doorbell,
        authority=services.authority,
        options=GatewayOptions(
            host=settings.gateway_host,
            gateway_port=settings.gateway_port,
            enroll_port=settings.enroll_port,
            advertised_host=settings.advertised_host,
            device_lease_s=settings.device_lease_s,
            certificate_days=settings.certificate_days,
            certificate_grace_days=settings.certificate_grace_days,
            telemetry_every_s=settings.telemetry_every_s,
            drift=DriftLimit(psi=settings.drift_psi, reports=settings.drift_reports),
        ),
    )


def ticks(services: Services) -> list[Tick]:
    """Everything that advances by itself."""
    from fogline_server.coordinator import Tick

    every_s, db = services.settings.tick_s, services.db

    def advance_rollouts() -> None:
        rollouts_tick.tick(db, now=utc_now(), doorbell=services.doorbell)

    def seal_releases() -> None:
        """A release is READY and listed in one transaction: no rollout can begin before devices may install it."""
        now = utc_now()

        def sealed(session: Session, release: Release, variants: Sequence[Variant]) -> None:
            publish.publish(session, services.online_keys, publish.listing(release, variants), now=now)

        registry_tick.tick(db, now=now, sealed=sealed)

    def fire_schedules() -> None:
        schedules_tick.tick(db, now=utc_now(), actions=services.actions)

    def collect() -> None:
        grace_s = services.settings.collect_grace_s
        storage.collect(db, services.blobs, now=utc_now().timestamp(), grace_s=grace_s, dry_run=False, limit=10_000)

    # Off unless asked for: a collection cannot be taken back, and without a cold tier everything is at hand.
    optional = []
    if services.settings.collect_every_s:
        optional.append(Tick(name="storage.collect", every_s=services.settings.collect_every_s, run=collect))
    if services.blobs.cold is not None:
        prefetch = functools.partial(storage.prefetch, db, services.blobs)
        optional.append(Tick(name="storage.prefetch", every_s=10.0, run=prefetch))

    return [
        *optional,
        # An empty outbox costs one small read; a job waits for the next look.
        Tick(name="jobs.dispatch", every_s=min(0.1, every_s), run=services.engine.dispatch),
        Tick(name="jobs.reconcile", every_s=every_s, run=services.engine.reconcile),
        Tick(name="registry", every_s=every_s, run=seal_releases),
        Tick(name="rollouts", every_s=every_s, run=advance_rollouts),
        Tick(name="schedules", every_s=every_s, run=fire_schedules),
        Tick(name="trust", every_s=60.0, run=lambda: trust_tick.tick(db, services.online_keys, now=utc_now())),
        Tick(name="telemetry", every_s=60.0, run=lambda: telemetry_tick.tick(db, now=utc_now())),
        Tick(name="blobs", every_s=3600.0, run=lambda: services.blobs.sweep(older_than_s=86_400.0)),
    ]
