"""The engine and the unit of work. A use case runs in one :meth:`Database.transaction`; nothing else commits."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import stamina
from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from fogline_shared.errors import Unavailable

_IDLE_IN_TRANSACTION_MS = 60_000
# PostgreSQL's codes for a lost connection and for a server that shuts down, has crashed or starts; None: nobody answered.
_AWAY = {None, "08000", "08001", "08003", "08004", "08006", "57P01", "57P02", "57P03"}


class Database:
    """SQLite (embedded) or PostgreSQL behind one interface. Create one a process, after a fork, never before."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _engine(url)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        self._readers = sessionmaker(self.engine.execution_options(read_only=True), expire_on_commit=False)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction: commits at the end, rolls back on an exception."""
        with self._sessions.begin() as session:
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view without the write lock; writing in it is a bug."""
        with self._readers.begin() as session:
            yield session

    def ping(self) -> None:
        """Ask the database anything at all; raises Unavailable ``database_unavailable``."""
        try:
            with self.read() as session:
                session.execute(text("SELECT 1"))
        except OperationalError as error:
            raise unreachable(error) from error

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def unreachable(error: OperationalError) -> Unavailable:
    """What a driver says when there is no connection to be had, as an error with a code. It names no password."""
    return Unavailable("database_unavailable", f"the database does not answer: {error.orig}")


def is_outage(error: BaseException) -> bool:
    """Whether the database went away or cannot be reached, rather than refused what it was asked; SQLite's never does."""
    return isinstance(error, OperationalError) and getattr(error.orig, "sqlstate", "") in _AWAY


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        # A frozen process must not hold its row locks for ever: other replicas skip locked rows.
        arguments = {"options": f"-c idle_in_transaction_session_timeout={_IDLE_IN_TRANSACTION_MS}"}
        return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20, connect_args=arguments)
    engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False}, pool_size=20, max_overflow=60)

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        # The driver must not begin by itself: its deferred transactions let two writers claim one row.
        connection.isolation_level = None
        for pragma in ("synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        # SQLite does not wait when two processes turn a new file to WAL: it answers at once that the file is locked.
        for attempt in stamina.retry_context(
            on=sqlite3.OperationalError, attempts=None, timeout=30.0, wait_initial=0.01, wait_max=0.2, wait_jitter=0.02
        ):
            with attempt:
                connection.execute("PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Any) -> None:
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine
