"""A populated coordinator's API and console over real HTTP, on both databases."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from admin_server import admin_app, serving
from fastapi import FastAPI
from population import Population, populate

from fogline_server.access import service
from fogline_server.access.keys import Role
from fogline_server.cli import main
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.settings import Settings
from fogline_server.trust.ceremony import Folder, Plan
from fogline_server.trust.development import ensure_root, folder_of
from fogline_server.trust.keys import OnlineKeys

# Of the OpenAPI document. To write it takes longer than most tests; all applications here have the same.
_PATHS: dict[str, Any] = {}


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A served coordinator, what is in it, and a key of each role."""

    app: FastAPI
    db: Database
    url: str
    ids: Population
    keys: dict[str, str]
    state_dir: Path

    def client(self, role: str | None = "admin") -> httpx.Client:
        """A client with the key of a role, or with none."""
        headers = {"Authorization": f"Bearer {self.keys[role]}"} if role else {}
        hooks = {"response": [self._check_documented]}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, event_hooks=hooks)

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Method, route and description of every operation in the OpenAPI document."""
        if not _PATHS:
            _PATHS.update(self.app.openapi()["paths"])
        for route, methods in _PATHS.items():
            for method, operation in methods.items():
                yield method.upper(), route, operation

    def _check_documented(self, response: httpx.Response) -> None:
        """Whatever any test asks: an answer that the OpenAPI document does not know of is a defect."""
        method, path = response.request.method, response.request.url.path
        for known, route, operation in self.operations():
            if known == method and re.fullmatch(re.sub(r"{\w+}", "[^/:]+", route), path):
                documented = operation["responses"]
                assert str(response.status_code) in documented, f"{method} {route}: {response.status_code}"


def strange_root(folder: Path) -> str:
    """A root that is in order, and not the one that is trusted."""
    online = {role: signer.public_key for role, signer in OnlineKeys(folder / "online").offered().items()}
    Folder(folder).init(online, Plan(), passphrase=None, now=utc_now())
    return Folder(folder).documents()[0].decode()


def plant_over(db: Database, state_dir: Path, redis_url: str) -> Iterator[Plant]:
    app = admin_app(Settings(state_dir=state_dir, redis_url=redis_url), db)
    with serving(app) as url:
        ids = populate(db, app.state.services.blobs, app.state.key_ring)
        keys_of_trust = app.state.services.online_keys
        ensure_root(db, keys_of_trust, trust_dir=keys_of_trust.folder, allowed=True, now=utc_now())
        ids = replace(
            ids,
            trusted=[data.decode() for data in Folder(folder_of(keys_of_trust.folder)).documents()],
            strange_root=[strange_root(state_dir.parent / "strangers")],
        )
        keys = {}
        with db.transaction() as session:
            for role in Role:
                _, key = service.create_key(session, app.state.key_ring, name=role, role=role, now=utc_now())
                keys[str(role)] = str(key)
        yield Plant(app=app, db=db, url=url, ids=ids, keys=keys, state_dir=state_dir)


@pytest.fixture
def plant(database: Database, tmp_path: Path, redis_url: str) -> Iterator[Plant]:
    """On SQLite and on PostgreSQL."""
    yield from plant_over(database, tmp_path / "state", redis_url)


@pytest.fixture
def sqlite_plant(sqlite_database: Database, tmp_path: Path, redis_url: str) -> Iterator[Plant]:
    """On SQLite only, where the database does not matter."""
    yield from plant_over(sqlite_database, tmp_path / "state", redis_url)


@pytest.fixture
def plants(sqlite_plant: Plant, postgres_url: str, tmp_path: Path, redis_url: str) -> Iterator[tuple[Plant, Plant]]:
    """Both at the same time: on SQLite, and on PostgreSQL."""
    db = Database(postgres_url)
    for plant in plant_over(db, tmp_path / "postgresql" / "state", redis_url):
        yield sqlite_plant, plant
    db.dispose()


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def fogline(sqlite_plant, monkeypatch, capsys):
    """Run a command as its console script does, with the admin's key."""
    monkeypatch.setenv("FOGLINE_URL", sqlite_plant.url)
    monkeypatch.setenv("FOGLINE_API_KEY", sqlite_plant.keys["admin"])

    def call(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["fogline", *map(str, words)])
        with pytest.raises(SystemExit) as exited:
            main.run()
        captured = capsys.readouterr()
        return Said(int(exited.value.code or 0), captured.out, captured.err)

    return call
