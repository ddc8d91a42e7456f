from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fogline_server.access.files import create_admin_key_in, open_key_ring
from fogline_server.access.keys import KeyRing, PrintedKey, Role
from fogline_shared.errors import InvalidInput, Unauthenticated

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RING = KeyRing(b"secret")


def test_a_printed_key_is_read_back():
    key = PrintedKey.new()
    assert PrintedKey.parse(f" {key}\n") == key
    assert str(key).startswith("fl_")


@pytest.mark.parametrize(
    "text", ["", "fl_", "fl_zz_0123456789abcdef", "xx_01234567_0123456789abcdef", "fl_01234567_short"]
)
def test_what_is_no_key_is_refused(text):
    with pytest.raises(InvalidInput, match="malformed_api_key"):
        PrintedKey.parse(text)


def test_a_hash_is_of_this_key_under_this_secret():
    key = PrintedKey.new()
    assert RING.matches(key, RING.hash(key))
    assert not RING.matches(PrintedKey(key_id=key.key_id, secret="x" * 43), RING.hash(key))
    assert not KeyRing(b"other").matches(key, RING.hash(key))


def test_roles_are_ordered():
    assert Role.ADMIN.covers(Role.VIEWER)
    assert Role.OPERATOR.covers(Role.OPERATOR)
    assert not Role.VIEWER.covers(Role.OPERATOR)


def test_a_session_holds_until_its_end_and_no_longer():
    session = RING.session("key_0123456789ab", until=NOW + timedelta(hours=1))
    assert RING.open_session(session, now=NOW) == "key_0123456789ab"
    with pytest.raises(Unauthenticated, match="session_expired"):
        RING.open_session(session, now=NOW + timedelta(hours=1))


@pytest.mark.parametrize(
    "forge", [lambda s: s[:-1] + ("0" if s[-1] != "0" else "1"), lambda s: s.replace(".", ".9", 1), str.upper]
)
def test_a_forged_session_opens_nothing(forge):
    session = RING.session("key_0123456789ab", until=NOW + timedelta(hours=1))
    with pytest.raises(Unauthenticated, match="session_invalid"):
        RING.open_session(forge(session), now=NOW)
    with pytest.raises(Unauthenticated, match="session_invalid"):
        KeyRing(b"other").open_session(session, now=NOW)


def test_a_hash_is_no_session_signature():
    # The same HMAC key serves both; the purpose keeps them apart.
    assert RING.hash(PrintedKey(key_id="k", secret="key_01.9")) not in RING.session(
        "key_01", until=datetime.fromtimestamp(9, UTC)
    )


def test_files_of_the_first_start_are_private_and_stay(tmp_path):
    folder = tmp_path / "keys"
    ring, key = open_key_ring(folder, ""), create_admin_key_in(folder)
    assert (open_key_ring(folder, ""), create_admin_key_in(folder)) == (ring, key)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert open_key_ring(folder, "configured") == KeyRing(b"configured")
