"""Who is asking, and whether they may. Denied by default: every route under /v1 passes through :func:`authorise`."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPBearer

from fogline_server.access import service
from fogline_server.access.keys import KeyRing, Role
from fogline_server.access.service import SESSION_COOKIE, Principal
from fogline_server.api.services import services_of
from fogline_server.db.base import utc_now
from fogline_shared.errors import Forbidden, Unauthenticated

SAFE_METHODS = frozenset({"GET", "HEAD"})

# These two only describe the schemes in the OpenAPI document; the request itself is read below.
_bearer = HTTPBearer(auto_error=False, scheme_name="api_key", description="An API key, fl_…")
_cookie = APIKeyCookie(name=SESSION_COOKIE, auto_error=False, scheme_name="console_session", description="Reads only")


def ring_of(request: Request) -> KeyRing:
    """The key ring of the application that answers this request."""
    return cast("KeyRing", request.app.state.key_ring)


def identify(request: Request) -> Principal:
    """Who sends this request: by its bearer key, or for reads by the console's cookie.

    A cookie never changes anything, so that no other site can make a browser do so.
    Raises Unauthenticated ``missing_api_key`` and as :mod:`fogline_server.access.service` does.
    """
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    cookie = request.cookies.get(SESSION_COOKIE, "") if request.method in SAFE_METHODS else ""
    with services_of(request).db.read() as session:
        if scheme.lower() == "bearer" and given:
            return service.authenticate(session, ring_of(request), given)
        if cookie:
            return service.authenticate_session(session, ring_of(request), cookie, now=utc_now())
    raise Unauthenticated("missing_api_key", "send an API key: Authorization: Bearer fl_…")


def authorise(
    request: Request, _key: Annotated[object, Security(_bearer)], _session: Annotated[object, Security(_cookie)]
) -> Principal:
    """Reads need a viewer, everything else an operator; raises Forbidden ``role_too_low``."""
    who = identify(request)
    _need(who, Role.VIEWER if request.method in SAFE_METHODS else Role.OPERATOR)
    return who


Caller = Annotated[Principal, Depends(authorise)]


def administer(who: Caller) -> Principal:
    """For routes that only an admin may use."""
    _need(who, Role.ADMIN)
    return who


def _need(who: Principal, role: Role) -> None:
    if not who.role.covers(role):
        raise Forbidden("role_too_low", f"this needs the role {role}, the key is a {who.role}", needed=str(role))
