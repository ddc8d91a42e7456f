"""The console: one live page behind a login by API key. It reads; changes are for the CLI and the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path as FilePath
from typing import Annotated, Any, cast
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Path, Request, Response
from fastapi.responses import RedirectResponse
from jinja2 import ChoiceLoader, Environment, PackageLoader
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from fogline_server.access import service
from fogline_server.access.keys import KeyRing
from fogline_server.access.service import SESSION_COOKIE, Principal
from fogline_server.console import charts, run_view, search_view, view
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_shared.errors import Unauthenticated

SESSION_LIFE = timedelta(hours=12)
# Nothing from elsewhere, nothing inline: markup that got into the page could not run.
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
_templates = Environment(
    loader=ChoiceLoader([PackageLoader("fogline_server.console"), PackageLoader("fogline_server.reporting", ".")]),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_templates.globals.update(job_share=view.job_share, WIDTH=charts.WIDTH, HEIGHT=charts.HEIGHT)


def mount(app: FastAPI) -> None:
    """Add the console to ``app``, whose state has ``services`` (with ``db``) and ``key_ring``."""
    app.include_router(router)
    static = FilePath(__file__).parent / "static"
    app.mount("/console/static", StaticFiles(directory=static), name="console_static")

    @app.middleware("http")
    async def _secure(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        if response.headers.get("content-type", "").startswith("text/html"):
            response.headers.update(SECURITY_HEADERS)
        return response


@router.get("/", name="console_page")
def page(request: Request) -> Response:
    """The page, or the way to the login."""
    who = _visitor(request)
    if who is None:
        return RedirectResponse("/login", 303)
    return _html("page.html", who=who, **_look(request))


@router.get("/console/live", name="console_live")
def live(request: Request) -> Response:
    """The page's changing part, which its script asks for when something has happened."""
    if _visitor(request) is None:
        return HTMLResponse("", 401)
    return _html("live.html", **_look(request))


@router.get("/console/runs/{run_id}", name="console_run")
def run(request: Request, run_id: Annotated[str, Path(pattern=r"^run_[0-9a-z]{1,50}$")]) -> Response:
    """One run: updates that were not counted, and why devices are left out."""
    who = _visitor(request)
    if who is None:
        return RedirectResponse("/login", 303)
    with _db(request).read() as session:
        return _html("run.html", who=who, p=run_view.run_page(session, run_id, now=utc_now()))


@router.get("/console/searches/{search_id}", name="console_search")
def search(request: Request, search_id: Annotated[str, Path(pattern=r"^search_[0-9a-z]{1,50}$")]) -> Response:
    """One compression search: where its forms lie, the pick, and why not the others."""
    who = _visitor(request)
    if who is None:
        return RedirectResponse("/login", 303)
    with _db(request).read() as session:
        return _html("search.html", who=who, p=search_view.search_page(session, search_id, now=utc_now()))


@router.get("/login", name="console_login_form")
def login_form() -> Response:
    """Asks for a key."""
    return _html("login.html", error="")


@router.post("/login", name="console_login")
async def login(request: Request) -> Response:
    """A session for a key. The cookie holds no key, is out of scripts' reach, and ends with the key."""
    fields = parse_qs((await request.body()).decode(errors="replace"))
    return await run_in_threadpool(_log_in, request, fields.get("api_key", [""])[0])


def _log_in(request: Request, api_key: str) -> Response:
    ring, now = _ring(request), utc_now()
    try:
        with _db(request).read() as session:
            who = service.authenticate(session, ring, api_key)
    except Unauthenticated as error:
        response = _html("login.html", error=error.message)
        response.status_code = 401
        return response
    redirect = RedirectResponse("/", 303)
    redirect.set_cookie(
        SESSION_COOKIE,
        ring.session(who.key_id, until=now + SESSION_LIFE),
        max_age=int(SESSION_LIFE.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return redirect


@router.post("/logout", name="console_logout")
def logout() -> Response:
    """Forget the session."""
    redirect = RedirectResponse("/login", 303)
    redirect.delete_cookie(SESSION_COOKIE)
    return redirect


def _visitor(request: Request) -> Principal | None:
    try:
        with _db(request).read() as session:
            cookie = request.cookies.get(SESSION_COOKIE, "")
            return service.authenticate_session(session, _ring(request), cookie, now=utc_now())
    except Unauthenticated:
        return None


def _look(request: Request) -> dict[str, Any]:
    now = utc_now()
    with _db(request).read() as session:
        return {"o": view.overview(session, now=now)}


def _html(template: str, **values: Any) -> HTMLResponse:
    return HTMLResponse(_templates.get_template(template).render(**values))


def _db(request: Request) -> Database:
    return cast("Database", request.app.state.services.db)


def _ring(request: Request) -> KeyRing:
    return cast("KeyRing", request.app.state.key_ring)


def _ago(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "never"
    seconds = max((now - moment).total_seconds(), 0.0)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


_templates.filters.update(ago=_ago)
