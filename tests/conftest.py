"""Fixtures every test may use. Servers start once a test process and only if a test asks for them."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from parts import PostgresServer, RedisServer

from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.schema import create_all

# Read when torch and numpy are imported, here and in every process that tests start: tests run side by side, and threads
# of one that spin while they wait take the cores of the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read when gRPC is first used. Its fork handlers start a thread in a child that was forked and not yet replaced (a Popen with
# preexec_fn), which now and then aborts on the descriptors that Popen has closed: https://github.com/grpc/grpc/issues/43055.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


def pytest_collection_finish() -> None:
    """What has been imported stays: a full collection of garbage that does not look at it takes a hundredth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis for this test process: a database of REDIS_URL's server, or a server of our own."""
    if given := os.environ.get("REDIS_URL"):
        # Each xdist worker gets a database of its own (8, 9, …), which its tests empty.
        number = 8 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        yield f"{given.rstrip('/').rsplit('/', 1)[0] if given.count('/') > 2 else given}/{number}"
        return
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """An empty Redis database."""
    redis.Redis.from_url(redis_server).flushdb()
    return redis_server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server for one test, which may kill it and start it again."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for this test process."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a database that holds the empty schema."""
    name = postgres_server.create()
    db = Database(postgres_server.url(name))
    create_all(db)
    db.dispose()
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file that holds the empty schema."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    db = Database(f"sqlite:///{path}")
    create_all(db)
    db.dispose()
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """URL of a fresh SQLite database with the schema."""
    path = tmp_path / "fogline.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """URL of a fresh PostgreSQL database with the schema."""
    name = postgres_server.create(template=postgres_template)
    yield postgres_server.url(name)
    postgres_server.drop(name)


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of a PostgreSQL database without any table."""
    name = postgres_server.create()
    yield postgres_server.url(name)
    postgres_server.drop(name)


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Iterator[Database]:
    """A fresh SQLite database with the schema."""
    db = Database(sqlite_url)
    yield db
    db.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of a fresh database with the schema; the test runs on both kinds."""
    return request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh database with the schema; the test runs on both kinds."""
    db = Database(database_url)
    yield db
    db.dispose()


@pytest.fixture
def doorbell(redis_url: str) -> Doorbell:
    """A doorbell on the real Redis."""
    return Doorbell(redis_url)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    """An empty blob store."""
    return BlobStore(tmp_path / "blobs")
