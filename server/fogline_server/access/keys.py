"""API keys and console sessions as strings: how they are made, read and checked. Pure but for randomness.

A key is ``fl_<hex>_<secret>``; ``key_<hex>`` is the public id of its row. The database holds HMAC-SHA256(server secret,
key secret) only, so that a copy of the database opens nothing. A session is what the console's cookie holds:
``<key id>.<expiry>.<HMAC>``; it ends with its key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fogline_server.db.base import new_id
from fogline_shared.errors import InvalidInput, Unauthenticated

_KEY = re.compile(r"fl_(?P<hex>[0-9a-f]{8,48})_(?P<secret>[A-Za-z0-9_-]{16,128})")
_SESSION = re.compile(r"(?P<claim>(?P<id>key_[0-9a-f]{8,48})\.(?P<expires>[0-9]{1,12}))\.(?P<signature>[0-9a-f]{64})")


class Role(StrEnum):
    """Each role may do what the one before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Whether this role is enough for what needs ``needed``."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, kw_only=True)
class PrintedKey:
    """A key as its owner holds it."""

    key_id: str
    secret: str

    @classmethod
    def new(cls) -> PrintedKey:
        """A fresh random key."""
        return cls(key_id=new_id("key"), secret=secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str) -> PrintedKey:
        """Read ``fl_<hex>_<secret>``; raises InvalidInput ``malformed_api_key``."""
        match = _KEY.fullmatch(text.strip())
        if match is None:
            raise InvalidInput("malformed_api_key", "an API key looks like fl_<hexadecimal id>_<secret>")
        return cls(key_id=f"key_{match['hex']}", secret=match["secret"])

    def __str__(self) -> str:
        return f"fl_{self.key_id.removeprefix('key_')}_{self.secret}"


@dataclass(frozen=True)
class KeyRing:
    """The server's secret, and what is computed with it."""

    secret: bytes

    def hash(self, key: PrintedKey) -> str:
        """What the database stores of a key: 64 hexadecimal digits."""
        return self._mac("key", key.secret)

    def matches(self, key: PrintedKey, stored_hash: str) -> bool:
        """Whether the key's secret is the stored one, in constant time."""
        return hmac.compare_digest(self.hash(key), stored_hash)

    def session(self, key_id: str, *, until: datetime) -> str:
        """A signed console session of a key."""
        claim = f"{key_id}.{int(until.timestamp())}"
        return f"{claim}.{self._mac('session', claim)}"

    def open_session(self, text: str, *, now: datetime) -> str:
        """The key id of a session; raises Unauthenticated ``session_invalid``, ``session_expired``."""
        match = _SESSION.fullmatch(text)
        if match is None or not hmac.compare_digest(self._mac("session", match["claim"]), match["signature"]):
            raise Unauthenticated("session_invalid", "this session was not made here: log in again")
        if int(match["expires"]) <= now.timestamp():
            raise Unauthenticated("session_expired", "the session has expired: log in again")
        return match["id"]

    def _mac(self, purpose: str, text: str) -> str:
        return hmac.new(self.secret, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()
