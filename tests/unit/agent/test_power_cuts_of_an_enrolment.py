"""A power cut while a device takes its identity: it has the old one with its root of trust, or the new one with that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from disk import watched

from fogline_client import acceptance, identity
from fogline_client import config as settings
from fogline_client.config import AgentConfig, StateDir
from fogline_client.identity import Identity


def of(name: str) -> tuple[Identity, bytes]:
    """An identity, and a root that goes with it."""
    fields = dict.fromkeys(Identity.__dataclass_fields__, name) | {"issued_at": 1.0, "expires_at": 2.0}
    return Identity(**fields), f"root of {name}, ü".encode()


def found(state: StateDir) -> tuple[Identity | None, bytes | None]:
    pinned = state.trust.pinned
    return (
        identity.load(state.identity) if state.identity.exists() else None,
        pinned.read_bytes() if pinned.exists() else None,
    )


def enrol(state: StateDir, name: str) -> None:
    state.create()
    settings.save(AgentConfig(name="watch-1"), state.config)
    acceptance.accept(state, *of(name))


@pytest.mark.parametrize("had", [False, True], ids=["new", "again"])
def test_power_cut_at_each_write_of_an_enrolment(tmp_path: Path, monkeypatch, *, had: bool) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what is flushed is told apart from what is not
    origin = tmp_path / "origin"
    origin.mkdir()
    state = StateDir(root=origin / "devices" / "watch-1")
    if had:
        enrol(state, "old")
        state.journal.write_bytes(b"what the old coordinator wanted")
    with watched(origin) as disk:
        enrol(state, "new")
        disk.say()
    for number, left in enumerate(disk.left):
        state = StateDir(root=left.put(tmp_path / str(number)) / "devices" / "watch-1")
        acceptance.finish(state)
        assert found(state) in ([of("new")] if left.done else [of("old") if had else (None, None), of("new")]), left
        assert not (state.journal.exists() and found(state) == of("new")), left
        assert not state.enrolled.exists(), left
    assert len(disk.left) > 15
