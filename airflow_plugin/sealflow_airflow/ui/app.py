"""The routes of the pages. All of them only read; who may ask is settled before any of them is looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from sealflow.errors import SealflowError
from sealflow_airflow.ui import access
from sealflow_airflow.ui.pages import World, render, style

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: On every answer. No script, nothing from elsewhere, nobody else's frame.
HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        b"frame-ancestors 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_ERRORS: Final = {
    401: ("Not signed in", "Sign in to Airflow, then open this page again."),
    403: (
        "Not allowed",
        "Your role in Airflow does not let you see the pages of plugins. Ask whoever gives out roles.",
    ),
    404: ("Not found", "There is no such page, or it is about a DAG that you may not see."),
    405: ("Not possible", "These pages can only be read."),
    503: ("Not to be had", "Try again; if it stays so, look at the API server's log."),
}


def make_app(world: World | None = None) -> ASGIApp:
    """Return the application.

    Args:
        world: What the pages look at, by default this process's Airflow.
    """
    world = world or World()
    app = FastAPI(title="sealflow", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)

    @app.get("/")
    def root() -> Response:
        # Relative, since only the browser knows under which prefix it reads.
        return RedirectResponse("trust", 307)

    @app.get("/trust")
    def trust(request: Request) -> Response:
        return _html(world.trust(_sight(request)))

    @app.get("/verdicts")
    def verdicts(request: Request) -> Response:
        return _html(world.verdicts(_sight(request), dict(request.query_params)))

    @app.get("/dags")
    def dags(request: Request) -> Response:
        return _html(world.dags(_sight(request), dict(request.query_params)))

    @app.get("/evidence")
    def evidence(request: Request) -> Response:
        given = request.query_params
        dag = given.get("dag_id", "")
        if not access.may_see_dag(_user(request), dag):
            raise HTTPException(404)
        audit = access.may_see_dag(_user(request), dag, audit=True)
        return _html(world.evidence(_sight(request), dict(given), proofs=audit))

    @app.get("/proof")
    def proof(request: Request) -> Response:
        index = request.query_params.get("index", "")
        if not (index.isascii() and index.isdecimal() and len(index) < 19):
            raise HTTPException(404)
        row = world.row_at(int(index))
        sight = _sight(request)
        if row is None or not sight.sees(row):
            raise HTTPException(404)
        if row.owner in sight.dags and not access.may_see_dag(_user(request), row.owner, audit=True):
            raise HTTPException(403)
        name = f"{row.idx}.tlog-proof"
        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
        return Response(world.proof(row.idx), media_type="application/octet-stream", headers=headers)

    @app.get("/style.css")
    def css() -> Response:
        return Response(style(), media_type="text/css", headers={"cache-control": "private, max-age=3600"})

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: Any) -> Response:
        return _error(error.status_code)

    @app.exception_handler(SealflowError)
    async def unavailable(request: Request, error: Any) -> Response:
        return _error(404 if error.code == "LOG_MISSING" else 503, f"{error.message} {error.next_step}")

    return _SignedIn(app)


class _SignedIn:
    """Lets nobody through who is not signed in, whatever he asks for, and puts our headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(item for item in HEADERS if item[0] not in names)]
            await send(message)

        request = Request(scope, receive)
        try:
            user = await access.user_of(request)
            if not await run_in_threadpool(access.may_see_pages, user):
                raise HTTPException(403)
        except HTTPException as error:
            # Whatever is wrong with a token: nobody is signed in with it.
            status = 403 if error.status_code == 403 and error.detail != "Invalid JWT token" else 401
            await _error(status)(scope, receive, headed)
            return
        scope.setdefault("state", {})["sealflow_user"] = user
        await self._app(scope, receive, headed)


def _user(request: Request) -> Any:
    return request.state.sealflow_user


def _sight(request: Request) -> Any:
    return access.sight_of(_user(request))


def _html(text: str, status: int = 200) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(text, status, media_type="text/html; charset=utf-8", headers=headers)


def _error(status: int, message: str = "") -> Response:
    title, usual = _ERRORS.get(status, ("Something went wrong", "Look at the API server's log."))
    return _html(render("error.html", title=title, message=message or usual, status=status), status)
