"""The gate as an ASGI middleware: what passes it, byte for byte, and what does not."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from sealflow_airflow.gate import middleware
from sealflow_airflow.gate.messages import MAX_BODY, Success, Unknown
from sealflow_airflow.gate.middleware import Gate
from sealflow_airflow.gate.ruling import Refusal
from sealflow_airflow.gate.settings import GateSettings

pytestmark = pytest.mark.airflow

ID = "01a2019c-0000-7000-8000-000000000001"
PATH = f"/execution/task-instances/{ID}/state"
SUCCESS = json.dumps({"state": "success", "end_date": "2026-11-23T00:00:00Z"}).encode()
TOKEN = (b"authorization", b"Bearer a.b.c")
TELLING = json.dumps(
    {
        "state": "success",
        "end_date": "2026-11-23T00:00:00Z",
        "task_outlets": [{"name": "model", "uri": "s3://models/model", "type": "Asset"}],
    }
).encode()
REFUSAL = Refusal("OUTLET_UNSIGNED", "No.")


class App:
    """Stands behind the gate, and keeps what it was given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.bodies: list[bytes] = []
        self.types: list[str] = []
        self.after: list[str] = []
        self.error = error

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.types.append(scope["type"])
        if scope["type"] != "http":
            return
        if self.error:
            raise self.error
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.after.append("disconnect")
                return
            body += message["body"]
            more = message.get("more_body", False)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        self.after.append((await receive())["type"])


class Asked:
    """Decides as it is told, and keeps what it was asked."""

    def __init__(self, answer: Refusal | Exception | None = None, wait: float = 0) -> None:
        self.answer, self.wait = answer, wait
        self.reports: list[Success | Unknown] = []
        self.threads: list[str] = []

    def __call__(self, instance: Any, report: Success | Unknown) -> Refusal | None:
        assert str(instance) == ID
        self.reports.append(report)
        self.threads.append(threading.current_thread().name)
        time.sleep(self.wait)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def gate(app: App, asked: Asked, mode: str = "enforce", authentic: bool = True) -> Gate:
    made = Gate(app, GateSettings(mode), asked)

    async def is_authentic(token: str, instance: Any) -> bool:
        return authentic

    made._is_authentic = is_authentic  # type: ignore[method-assign]
    return made


def request(
    made: Gate, *chunks: bytes, method: str = "PATCH", path: str = PATH, headers: Any = (), end: bool = True
) -> tuple[int, dict[str, Any]]:
    """Send one request, its body in these chunks; return status and decoded answer."""
    chunks = chunks or (b"",)
    waiting = [
        {"type": "http.request", "body": chunk, "more_body": index < len(chunks) - 1 or not end}
        for index, chunk in enumerate(chunks)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [TOKEN, *headers], "root_path": ""}
    asyncio.run(made(scope, receive, send))
    status = next((item["status"] for item in sent if item["type"] == "http.response.start"), 0)
    data = b"".join(item.get("body", b"") for item in sent if item["type"] == "http.response.body")
    return status, json.loads(data) if data else {}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", PATH), ("PATCH", "/execution/x"), ("POST", "/api/v2/dags"), ("PUT", PATH), ("GET", "/execution/health")],
)
def test_other_requests_are_not_looked_at(method: str, path: str) -> None:
    app, asked = App(), Asked(REFUSAL)
    assert request(gate(app, asked), SUCCESS, method=method, path=path)[0] == 204
    assert app.bodies == [SUCCESS]
    assert not asked.reports


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_what_is_no_http_passes(kind: str) -> None:
    app = App()
    asyncio.run(gate(app, Asked(REFUSAL))({"type": kind}, None, None))  # type: ignore[arg-type]
    assert app.types == [kind]


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param((SUCCESS,), id="at-once"),
        pytest.param(tuple(SUCCESS[i : i + 1] for i in range(len(SUCCESS))), id="byte-by-byte"),
        pytest.param((b"", SUCCESS, b""), id="with-empty-chunks"),
    ],
)
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="no-headers"),
        pytest.param([(b"content-length", b"1")], id="content-length-that-lies"),
        pytest.param([(b"transfer-encoding", b"chunked")], id="chunked"),
        pytest.param([(b"content-type", b"text/plain")], id="content-type-that-lies"),
        pytest.param([(b"airflow-api-version", b"2025-04-28")], id="older-version"),
        pytest.param([(b"airflow-api-version", b"2999-01-01")], id="unknown-version"),
        pytest.param([(b"content-encoding", b"gzip")], id="encoding-that-lies"),
        pytest.param([(b"x-http-method-override", b"GET")], id="method-that-lies"),
    ],
)
def test_success_is_judged_however_it_is_sent(chunks: tuple[bytes, ...], headers: Any) -> None:
    app, asked = App(), Asked()
    assert request(gate(app, asked), *chunks, headers=headers)[0] == 204
    assert app.bodies == [SUCCESS]
    assert app.after == ["http.disconnect"]
    assert asked.reports == [Success((), ())]
    refusing = App()
    status, answer = request(gate(refusing, Asked(REFUSAL)), *chunks, headers=headers)
    assert (status, answer["detail"]["code"], answer["detail"]["message"]) == (403, "OUTLET_UNSIGNED", "No.")
    assert not refusing.types


def test_judging_blocks_no_other_request() -> None:
    asked = Asked()
    request(gate(App(), asked), SUCCESS)
    assert asked.threads[0].startswith("sealflow-gate")


def test_other_state_is_not_judged() -> None:
    app, asked = App(), Asked(REFUSAL)
    data = b'{"state": "failed", "end_date": "x", "note": "no success"}'
    assert request(gate(app, asked), data)[0] == 204
    assert app.bodies == [data]
    assert not asked.reports


def test_escaped_success_is_judged() -> None:
    status, _ = request(gate(App(), Asked(REFUSAL)), b'{"state": "\\u0073uccess", "end_date": "x"}')
    assert status == 403


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_success_in_another_encoding_is_judged(encoding: str) -> None:
    app = App()
    status, answer = request(gate(app, Asked()), SUCCESS.decode().encode(encoding))
    assert (status, answer["detail"]["code"]) == (403, "MESSAGE_UNREADABLE")
    assert not app.types


def test_body_beyond_the_limit_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    data = b'{"state": "success", "x": "' + b"a" * MAX_BODY + b'"}'
    status, answer = request(gate(app, Asked()), data)
    assert (status, answer["detail"]["code"]) == (403, "MESSAGE_UNREADABLE")
    monkeypatch.setattr(middleware, "MAX_BUFFERED", 1 << 20)
    status, answer = request(gate(app, Asked()), data[: 1 << 20], data[1 << 20 :], b"never read")
    assert (status, answer["detail"]["code"]) == (403, "MESSAGE_TOO_LARGE")
    assert not app.types


def test_large_body_that_is_no_success_passes() -> None:
    """A task that defers sends along what it needs when it comes back."""
    app = App()
    data = b'{"state": "deferred", "next_kwargs": "' + b"a" * (2 * MAX_BODY) + b'"}'
    assert request(gate(app, Asked(REFUSAL)), data)[0] == 204
    assert app.bodies == [data]


def test_body_beyond_the_limit_passes_whole_where_the_gate_only_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "MAX_BUFFERED", 1 << 20)
    app, asked = App(), Asked()
    data = b'{"state": "success", "x": "' + b"a" * MAX_BODY + b'"}'
    chunks = [data[i : i + (1 << 20)] for i in range(0, len(data), 1 << 20)]
    assert request(gate(app, asked, "audit"), *chunks, b"tail")[0] == 204
    assert app.bodies == [data + b"tail"]


def test_body_that_is_dear_to_read_is_not_read() -> None:
    """Millions of small values: seconds for each reader, and everybody waits for who holds the interpreter."""
    for dear in (b"[],", b"{},", b"0,"):
        data = b'{"state": "success", "x": [' + dear * ((3 << 20) // len(dear)) + b"0]}"
        start = time.process_time()
        assert request(gate(App(), Asked()), data)[0] == 403
        assert time.process_time() - start < 0.5


def test_client_that_hangs_up_leaves_nothing_behind() -> None:
    app, asked = App(), Asked(REFUSAL)
    request(gate(app, asked), SUCCESS[:10], end=False)
    assert app.after == ["disconnect"]
    assert not asked.reports


@pytest.mark.parametrize(("mode", "status"), [("enforce", 503), ("audit", 204)])
def test_gate_that_breaks_never_raises(mode: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert request(gate(App(), Asked(ValueError("broken")), mode), TELLING)[0] == status
    # Nothing is told of any asset, so nobody can be misled.
    assert request(gate(App(), Asked(ValueError("broken")), mode), SUCCESS)[0] == 204
    monkeypatch.setattr(middleware, "parse_report", lambda data: 1 / 0)
    assert request(gate(App(), Asked(), mode), SUCCESS)[0] == status


def test_error_of_airflow_stays_airflows() -> None:
    with pytest.raises(KeyError, match="airflow"):
        request(gate(App(KeyError("airflow")), Asked()), SUCCESS)


def test_outage_may_be_tried_again() -> None:
    status, answer = request(gate(App(), Asked(Refusal("BACKEND_UNAVAILABLE", "Later.", again=True))), SUCCESS)
    assert (status, answer["detail"]["code"]) == (503, "BACKEND_UNAVAILABLE")


@pytest.mark.parametrize(("mode", "status"), [("enforce", 403), ("audit", 204)])
def test_nobody_without_a_token_makes_the_gate_work(mode: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked()
    assert request(gate(App(), asked, mode, authentic=False), SUCCESS)[0] == status
    assert not asked.reports
    # Not a byte of the body is read for nobody.
    monkeypatch.setattr(middleware, "parse_report", lambda data: 1 / 0)
    assert request(gate(App(), asked, "enforce", authentic=False), SUCCESS)[0] == 403


@pytest.mark.parametrize("mode", ["enforce", "audit"])
def test_message_without_any_token_is_answered_by_the_gate(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "TOKEN", (b"x", b""))
    status, answer = request(gate(App(), Asked(), mode), SUCCESS)
    assert (status, answer["detail"]["reason"], answer["detail"]["code"]) == (403, "sealflow", "TOKEN_REFUSED")


def test_path_that_names_no_task_is_refused() -> None:
    status, answer = request(gate(App(), Asked()), SUCCESS, path="/execution/task-instances/none/state")
    assert (status, answer["detail"]["code"]) == (403, "TOKEN_REFUSED")


def test_slow_judgement_is_answered_in_time_and_given_to_who_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "PATIENCE", 0.05)
    asked = Asked(REFUSAL, wait=0.3)
    made = gate(App(), asked)
    assert request(made, TELLING)[1]["detail"]["code"] == "GATE_BUSY"
    monkeypatch.setattr(middleware, "PATIENCE", 60)
    assert request(made, TELLING)[0] == 403
    assert len(asked.reports) == 1
    # Told, so the next one is judged anew.
    asked.wait = 0
    assert request(made, TELLING)[0] == 403
    assert len(asked.reports) == 2
    # Another message of the same task is another judgement.
    assert request(made, TELLING.replace(b"00:00:00", b"00:00:01"))[0] == 403
    assert len(asked.reports) == 3


def test_judgement_that_is_old_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was believed may be revoked by the time that somebody asks again."""
    monkeypatch.setattr(middleware, "PATIENCE", 0.05)
    monkeypatch.setattr(middleware, "_KEEP", 0.1)
    asked = Asked(None, wait=0.2)
    made = gate(App(), asked)
    assert request(made, TELLING)[1]["detail"]["code"] == "GATE_BUSY"
    time.sleep(1)
    monkeypatch.setattr(middleware, "PATIENCE", 60)
    asked.answer, asked.wait = REFUSAL, 0
    assert request(made, TELLING)[0] == 403
    assert len(asked.reports) == 2


def test_stores_that_do_not_answer_hold_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "PATIENCE", 0.2)
    release = threading.Event()
    made = gate(App(), Asked())

    def look(instance: Any, report: Any) -> Any:
        return (lambda: release.wait(100) and None) if report.outlets else None

    made._look = look
    try:
        # More than are judged at the same time.
        for number in range(8):
            body = TELLING.replace(b"00:00:00", f"00:00:0{number}".encode())
            assert request(made, body)[1]["detail"]["code"] == "GATE_BUSY"
        # Less than until they are released: who waited for them would be told that the gate is busy.
        monkeypatch.setattr(middleware, "PATIENCE", 30)
        assert request(made, SUCCESS)[0] == 204
    finally:
        release.set()


@pytest.mark.parametrize("loop", ["h11", "httptools"])
def test_pipelined_requests_are_judged_one_by_one(loop: str) -> None:
    """Over a real server: two requests in one packet, the first one refused."""
    import socket

    import uvicorn

    app = App()
    asked = Asked()
    answers: list[Refusal | None] = [REFUSAL, None]

    def decide(instance: Any, report: Any) -> Refusal | None:
        asked(instance, report)
        return answers[len(asked.reports) - 1]

    made = gate(app, asked)
    made._look = decide
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(made, http=loop, lifespan="off", log_level="error"))  # type: ignore[arg-type]
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
        thread.start()
        try:
            _until(lambda: server.started)
            text = _pipelined(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(10)
    assert text.count(b"HTTP/1.1 403") == 1
    assert text.count(b"HTTP/1.1 204") == 1
    assert text.index(b" 403 ") < text.index(b" 204 ")
    assert app.bodies == [SUCCESS]


def _pipelined(port: int) -> bytes:
    import socket

    head = f"PATCH {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a.b.c\r\nContent-Type: a/b\r\n".encode()
    whole = head + f"Content-Length: {len(SUCCESS)}\r\n\r\n".encode() + SUCCESS
    chunked = head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunked += f"{len(SUCCESS):x}\r\n".encode() + SUCCESS + b"\r\n0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(whole + chunked)
        found = b""
        while part := client.recv(65536):
            found += part
    return found


def _until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)
