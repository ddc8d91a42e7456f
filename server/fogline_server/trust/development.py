"""Throwaway keys, so that one machine needs no ceremony: root and targets keys lie beside the online ones, unencrypted."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import structlog
from sqlalchemy.exc import IntegrityError

from fogline_server.db.database import Database
from fogline_server.trust import service, store
from fogline_server.trust.ceremony import Folder, Plan
from fogline_server.trust.keys import OnlineKeys
from fogline_server.trust.model import ROOT

log = structlog.get_logger()

_DAYS = 3650


def folder_of(trust_dir: Path) -> Path:
    """Where throwaway keys lie: a ceremony's folder, so that a real ceremony can rotate out of it."""
    return trust_dir / "throwaway"


def throwaway_keys(trust_dir: Path) -> frozenset[str]:
    """Ids of the offline keys that lie at the coordinator."""
    return frozenset(Folder(folder_of(trust_dir)).private_keys())


def ensure_root(db: Database, keys: OnlineKeys, *, trust_dir: Path, allowed: bool, now: datetime) -> None:
    """Make throwaway keys and a root of them while there is no root and they are ``allowed``; safe to repeat.

    Whoever comes second, after a crash too, imports what the first has made.
    """
    with db.read() as session:
        have_root = store.newest(session, ROOT) is not None
    if have_root or not allowed:
        if not have_root:
            log.warning("no root of trust: devices install nothing until a ceremony is imported", see="docs/trust.md")
        elif throwaway_keys(trust_dir):
            _warn(trust_dir)
        return
    trust_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(trust_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        folder = _made(folder_of(trust_dir), keys, now=now)
    finally:
        os.close(handle)
    # Another replica may have imported them between our look and our insert; then they are there.
    with suppress(IntegrityError), db.transaction() as session:
        service.import_documents(session, keys, folder.documents(), now=now, actor="first-start")
    _warn(trust_dir)


def _made(path: Path, keys: OnlineKeys, *, now: datetime) -> Folder:
    if not path.exists():
        online = {role: signer.public_key for role, signer in keys.offered().items()}
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        plan = Plan(root_days=_DAYS, targets_days=_DAYS)
        Folder(draft).init(online, plan, passphrase=None, now=now)
        draft.rename(path)
    return Folder(path)


def _warn(trust_dir: Path) -> None:
    log.warning(
        "development trust: the root keys lie at the coordinator, whoever takes it over can sign anything",
        keys=str(folder_of(trust_dir)),
        see="docs/trust.md",
    )
