"""API keys and stored answers, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from fogline_server.access import idempotency, service
from fogline_server.access.first_start import ensure_admin_key
from fogline_server.access.idempotency import ABANDONED, StoredAnswer
from fogline_server.access.keys import KeyRing, PrintedKey, Role
from fogline_server.db.base import utc_now
from fogline_shared.errors import Conflict, Unauthenticated

RING = KeyRing(b"secret")


def start(database, tmp_path, configured=""):
    ensure_admin_key(database, RING, key_dir=tmp_path / "keys", configured=configured, now=utc_now())
    return tmp_path / "keys" / "admin.key"


def who(database, text):
    with database.read() as session:
        return service.authenticate(session, RING, str(text))


def test_the_first_start_leaves_one_admin_key_however_often(database, tmp_path):
    key = start(database, tmp_path).read_text()
    assert start(database, tmp_path).read_text() == key
    assert who(database, key).role is Role.ADMIN
    with database.read() as session:
        assert len(service.list_keys(session)) == 1


def test_two_replicas_that_start_at_once_agree(database, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        keys = {f.result().read_text() for f in [pool.submit(start, database, tmp_path) for _ in range(8)]}
    assert len(keys) == 1
    with database.read() as session:
        assert len(service.list_keys(session)) == 1


def test_a_start_killed_between_file_and_row_is_mended_by_the_next(database, tmp_path):
    key = PrintedKey.new()
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "admin.key").write_text(f"{key}\n")
    start(database, tmp_path)
    assert who(database, key).role is Role.ADMIN


def test_a_configured_key_is_enough(database, tmp_path):
    key = PrintedKey.new()
    assert not start(database, tmp_path, configured=str(key)).exists()
    assert who(database, key).name == "bootstrap"
    assert not start(database, tmp_path).exists()  # somebody can administer already


def test_a_revoked_key_is_refused_and_so_is_its_session(database, tmp_path):
    start(database, tmp_path)
    now = utc_now()
    with database.transaction() as session:
        row, key = service.create_key(session, RING, name="ci", role=Role.OPERATOR, now=now)
        cookie = RING.session(row.id, until=now + timedelta(hours=1))
        assert service.authenticate_session(session, RING, cookie, now=now).name == "ci"
        service.revoke_key(session, row.id, now=now, actor="test")
    with pytest.raises(Unauthenticated, match="api_key_revoked"):
        who(database, key)
    with database.read() as session, pytest.raises(Unauthenticated, match="api_key_revoked"):
        service.authenticate_session(session, RING, cookie, now=now)


def test_a_right_id_with_a_wrong_secret_is_refused_like_an_unknown_one(database, tmp_path):
    key = PrintedKey.parse(start(database, tmp_path).read_text())
    for wrong in (PrintedKey(key_id=key.key_id, secret="x" * 43), PrintedKey.new()):
        with pytest.raises(Unauthenticated, match="invalid_api_key: no such API key"):
            who(database, wrong)


def test_the_last_admin_key_cannot_be_revoked(database, tmp_path):
    key = PrintedKey.parse(start(database, tmp_path).read_text())
    with pytest.raises(Conflict, match="last_admin_key"), database.transaction() as session:
        service.revoke_key(session, key.key_id, now=utc_now(), actor="test")
    assert who(database, key).role is Role.ADMIN


def test_of_many_repetitions_one_acts(database):
    def first() -> bool:
        try:
            return idempotency.reserve(database, "k", "f", now=utc_now()) is None
        except Conflict as error:
            assert error.code == "request_in_progress"  # noqa: PT017
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: first(), range(16))) == 1
    answer = StoredAnswer(status=201, body={"id": "x"})
    idempotency.store(database, "k", answer)
    assert idempotency.reserve(database, "k", "f", now=utc_now()) == answer
    with pytest.raises(Conflict, match="idempotency_key_reused"):
        idempotency.reserve(database, "k", "other", now=utc_now())


def test_a_failed_request_gives_its_key_back(database):
    idempotency.reserve(database, "k", "f", now=utc_now())
    idempotency.release(database, "k")
    assert idempotency.reserve(database, "k", "g", now=utc_now()) is None


def test_a_reservation_whose_process_died_is_given_up(database):
    now = utc_now()
    idempotency.reserve(database, "k", "f", now=now)
    assert idempotency.reserve(database, "k", "f", now=now + ABANDONED) is None
