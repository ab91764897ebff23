"""The gate as an ASGI middleware: pure, so that a request which is not of its concern costs a look at its path.

Airflow puts it around the whole API server (``fastapi_root_middlewares``). It never raises into Airflow: what goes
wrong here ends as a refusal, where managed artifacts may be concerned, and otherwise as if it were not there.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from sealflow_airflow.gate.messages import (
    Success,
    Unknown,
    UnreadableError,
    may_succeed,
    parse_instance,
    parse_report,
    reported_instance,
)
from sealflow_airflow.gate.settings import GateSettings
from sealflow_airflow.metrics import count

if TYPE_CHECKING:
    from sealflow_airflow.gate.access import AccessAudit
    from sealflow_airflow.gate.ruling import Refusal, Stage

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Look = Callable[[uuid.UUID, "Success | Unknown"], "Refusal | Stage | None"]

#: Seconds within which an answer must be there. A worker waits for 5 by default (``[workers] execution_api_timeout``)
#: and asks again; what is being judged goes on meanwhile.
PATIENCE: Final = 4.0
#: Looks into Airflow's database and the policy at the same time.
_LOOKERS: Final = 4
#: Judgements at the same time; each may hold 64 MiB of evidence.
_JUDGES: Final = 4
#: Judgements that wait or are kept for a worker who asks again.
_MOST_KEPT: Final = 1000
#: Largest body that is taken at all, in bytes. Tasks that defer send what they need again later, and no success.
MAX_BUFFERED: Final = 64 << 20
#: Seconds for which a judgement is kept.
_KEEP: Final = 60.0
#: Larger bodies are parsed in a thread.
_INLINE: Final = 16 << 10

_log = logging.getLogger(__name__)


class Gate:
    """The middleware.

    Args:
        app: What stands behind it.
        settings: The gate's settings.
        look: Looks at one success, as :meth:`~sealflow_airflow.gate.ruling.Ruling.look` does; for tests.
        accesses: Takes what tasks read; for tests.
    """

    def __init__(
        self,
        app: App,
        settings: GateSettings,
        look: Look | None = None,
        accesses: AccessAudit | None = None,
    ) -> None:
        self.app = app
        self._settings = settings
        self._look = look
        self._accesses = accesses
        # Apart, so that stores which do not answer hold nobody up who has nothing to do with them.
        self._lookers = ThreadPoolExecutor(_LOOKERS, thread_name_prefix="sealflow-gate")
        self._deciders = ThreadPoolExecutor(_LOOKERS, thread_name_prefix="sealflow-policy")
        self._judges = ThreadPoolExecutor(_JUDGES, thread_name_prefix="sealflow-judge")
        self._recorders = ThreadPoolExecutor(1, thread_name_prefix="sealflow-record")
        self._judgements = _Judgements()
        self._validator: Any = None
        if settings.problem:
            _log.error("sealflow: %s.", settings.problem)
        if settings.access_audit and accesses is None:
            with contextlib.suppress(Exception):
                from sealflow_airflow.gate.access import AccessAudit

                self._accesses = AccessAudit()
            if self._accesses is None:
                _log.error("sealflow: accesses are not recorded, since the installation is broken.")
        if settings.mode != "off":
            _log.info("sealflow: the gate stands before task successes, mode %s.", settings.mode)
            self._lookers.submit(_load_ahead)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        if self._accesses is not None and "/execution/" in path:
            access = self._accesses.of(method, path)
            if access is not None:
                await self._watched(access, scope, receive, send)
                return
        instance = reported_instance(method, path) if self._settings.mode != "off" else None
        if instance is None:
            await self.app(scope, receive, send)
            return
        replay = _Replay(receive)
        try:
            refusal = await self._ask(instance, scope, replay)
        except Exception:
            refusal = self._broken()
        if refusal is None:
            await self.app(scope, replay, send)
        else:
            await _answer(send, *refusal)

    async def _ask(self, instance: str, scope: Scope, replay: _Replay) -> tuple[int, str, str] | None:
        """Return status, code and sentence of a refusal, ``None`` where the request may pass."""
        enforce = self._settings.mode == "enforce"
        found, token = parse_instance(instance), _token(scope)
        if not token:
            # Airflow answers the same; by who answers, the doctor sees whether the gate is there.
            return 403, "TOKEN_REFUSED", "sealflow refuses this message: it comes without a token."
        # First, so that nobody else makes the gate work, or speak in the audit log about a task that is not his.
        if found is None or not await self._is_authentic(token, found):
            text = "sealflow refuses this message: its token is not valid, or not this task's."
            return (403, "TOKEN_REFUSED", text) if enforce else None
        data = await replay.read(MAX_BUFFERED)
        if data is None:
            if replay.gone or not enforce:
                return None
            text = f"sealflow refuses this message: it is larger than {MAX_BUFFERED >> 20} MiB."
            return 403, "MESSAGE_TOO_LARGE", text
        try:
            if len(data) > _INLINE and may_succeed(data):
                report = await asyncio.get_running_loop().run_in_executor(self._lookers, parse_report, data)
            else:
                report = parse_report(data)
        except UnreadableError as error:
            return self._unreadable(found, error)
        if report is None:
            return None
        # Whatever keeps it from being judged: where nothing is told of any asset, nobody can be misled.
        tells = isinstance(report, Unknown) or any(report.texts())
        future = self._judgements.of(found, data, lambda: self._begin(found, report))
        try:
            refusal = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), PATIENCE)
        except (TimeoutError, asyncio.TimeoutError):
            if not enforce:
                return None
            text = f"sealflow is not done judging this success within {PATIENCE:g} s; ask again."
            count("sealflow.gate.unavailable", server=True, code="GATE_BUSY")
            return 503, "GATE_BUSY", text
        except Exception:
            return self._broken() if tells else self._broken(refuse=False)
        finally:
            if future.done():
                self._judgements.told(found, data)
        if refusal is None:
            return None
        return 503 if refusal.again else 403, refusal.code, refusal.message

    def _unreadable(self, instance: uuid.UUID, error: UnreadableError) -> tuple[int, str, str] | None:
        text = f"sealflow refuses this message, which may report a success: {error}"
        if self._settings.mode != "enforce":
            count("sealflow.gate.audited", server=True, code="MESSAGE_UNREADABLE")
            _log.warning("%s It is only audited. Task instance %s.", text, instance)
            return None
        count("sealflow.gate.refused", server=True, code="MESSAGE_UNREADABLE")
        return 403, "MESSAGE_UNREADABLE", text

    def _begin(self, instance: uuid.UUID, report: Success | Unknown) -> Future[Refusal | None]:
        """Begin to look at a success, and go on as far as it needs, each stage among its like.

        What waits for Airflow's database waits for nothing slower, nor does what waits for the policy.
        """
        whole: Future[Refusal | None] = Future()
        stages = [self._deciders, self._judges, self._judges]

        def done(before: Future[Any]) -> None:
            try:
                if (error := before.exception()) is not None:
                    whole.set_exception(error)
                elif callable(found := before.result()):
                    stages.pop(0).submit(found).add_done_callback(done)
                else:
                    whole.set_result(found)
            except Exception as error:  # the process is ending
                whole.set_exception(error)

        self._lookers.submit(self._look_at, instance, report).add_done_callback(done)
        return whole

    def _look_at(self, instance: uuid.UUID, report: Success | Unknown) -> Refusal | Stage | None:
        if self._look is None:
            from sealflow_airflow.gate.ruling import Ruling

            enforce, stores = self._settings.mode == "enforce", self._settings.stores
            self._look = Ruling(enforce, stores, _dag_bag(), record=self._recorders.submit).look
        return self._look(instance, report)

    async def _is_authentic(self, token: str, instance: uuid.UUID) -> bool:
        """Tell whether a token is a task's of Airflow's, and this task's.

        Airflow itself checks both, behind us; where our own check cannot be made, what a token says of itself counts.
        """
        try:
            if self._validator is None:
                from airflow.api_fastapi.execution_api.app import _jwt_validator

                self._validator = _jwt_validator()
        except Exception:
            _log.warning("sealflow: the gate cannot check tokens before it judges.", exc_info=True)
            return _subject(token) == str(instance)
        try:
            claims = await self._validator.avalidated_claims(token, {})
        except Exception:
            return False
        return (
            parse_instance(str(claims.get("sub", ""))) == instance and claims.get("scope", "execution") == "execution"
        )

    def _broken(self, *, refuse: bool = True) -> tuple[int, str, str] | None:
        _log.exception("sealflow: the gate failed.")
        count("sealflow.gate.broken", server=True)
        if self._settings.mode != "enforce" or not refuse:
            return None
        return 503, "GATE_BROKEN", "The gate of sealflow failed; the API server's log says why."

    async def _watched(self, access: Any, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._accesses is not None  # noqa: S101
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Before the answer leaves: a task that was told must not be unrecorded because it hung up.
                self._accesses.record(access, status, scope)  # type: ignore[union-attr]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            if not status:
                self._accesses.record(access, 500, scope)


class _Replay:
    """The body of a request, read once and given to the application again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []
        #: Whether the client hung up before all was there.
        self.gone = False

    async def read(self, limit: int) -> bytes | None:
        """Return the whole body; ``None`` where it is larger, or the client hung up."""
        size, more = 0, True
        while more:
            message = await self._receive()
            self._kept.append(message)
            if message["type"] != "http.request":
                self.gone = True
                return None
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size > limit:
                return None
        data = b"".join(message.get("body", b"") for message in self._kept)
        self._kept = [{"type": "http.request", "body": data, "more_body": False}]
        return data

    async def __call__(self) -> Message:
        return self._kept.pop(0) if self._kept else await self._receive()


class _Judgements:
    """What is being judged, so that a worker who asks again does not begin it anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[uuid.UUID, bytes], tuple[float, Future[Any]]] = OrderedDict()

    def of(self, instance: uuid.UUID, data: bytes, begin: Callable[[], Future[Any]]) -> Future[Any]:
        """Return the judgement of a message, begun now unless it goes on already, or has just ended.

        An older one says nothing: the policy may be another by now, or the evidence gone.
        """
        key, now = (instance, hashlib.sha256(data).digest()), time.monotonic()
        with self._lock:
            begun, found = self._kept.get(key, (0.0, None))
            if found is None or now > begun + _KEEP:
                found = begin()
                self._kept[key] = now, found
                while len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
        return found

    def told(self, instance: uuid.UUID, data: bytes) -> None:
        """Forget a judgement whose answer somebody has got."""
        with self._lock:
            self._kept.pop((instance, hashlib.sha256(data).digest()), None)


def _token(scope: Scope) -> str:
    header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    kind, _, token = header.decode("latin-1").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _subject(token: str) -> str:
    """Return whose token it says it is. Nobody has checked that."""
    try:
        part = token.split(".")[1]
        body = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return str(parse_instance(str(body["sub"])))
    except Exception:
        return ""


def _dag_bag() -> Callable[[], Any]:
    made: list[Any] = []

    def dag_bag() -> Any:
        if not made:
            from airflow.api_fastapi.common.dagbag import create_dag_bag

            made.append(create_dag_bag())
        return made[0]

    return dag_bag


def _load_ahead() -> None:
    """Load what the first judgement needs: a worker would wait seconds for it."""
    with contextlib.suppress(Exception):
        for name in (
            "airflow.models.serialized_dag",
            "sealflow.actions.attested",
            "sealflow.keys.file",
            "sealflow.policy.source",
            "sealflow_airflow.aws",
            "sealflow_airflow.gate.ruling",
            "sealflow_airflow.hooks.sealflow",
        ):
            import_module(name)


async def _answer(send: Send, status: int, code: str, text: str) -> None:
    """Answer as Airflow does, so that the task's log shows the sentence."""
    body = json.dumps({"detail": {"reason": "sealflow", "code": code, "message": text}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"5"))
    _log.warning("sealflow: the gate answered %d: %s", status, text)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
