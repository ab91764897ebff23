"""An HTTP proxy between a client and a real server, which fails on demand.

    with FaultProxy(server.endpoint_url) as proxy:
        client = replace(server, endpoint_url=proxy.endpoint).client()
        proxy.add(Fault("slow_down", when="UploadPart", times=2))
        ...
        assert [seen.fault for seen in proxy.seen("UploadPart")] == ["slow_down", "slow_down", None]

Each request is read whole, then the first fault that fits is used up once; without one the request is forwarded and the
answer passed on. Requests are handled by one thread each, and may come at the same time. What came is recorded in the
order of arrival, with the digest of its body: ``proxy.requests``, ``proxy.seen(operation)``.

Kinds of faults:

============== =======================================================================================
kind           what the client sees
============== =======================================================================================
error          an answer ``status`` (500) with the S3 error ``code`` (InternalError); never forwarded
slow_down      503 SlowDown; never forwarded
reset          the connection is reset before any answer; never forwarded
lost           the request is forwarded and done, and the connection reset instead of the answer
lost_error     the request is forwarded and done, and the answer replaced by 500 InternalError
stall          nothing for ``seconds``, then the connection is reset; never forwarded
slow           nothing for ``seconds``, then the true answer
truncate       the true answer's head, and its body only up to byte ``after``; then the connection is reset
corrupt        the true answer, one bit of its body flipped at byte ``after``
corrupt_upload the request is forwarded with one bit of its body flipped at byte ``after``
call           the true answer, after ``action(request)`` was called (say, to replace the object meanwhile)
============== =======================================================================================

Operations are named as S3 names them (``GetObject``, ``UploadPart`` …); ``when`` is such a name, or a function of the
:class:`Seen` request. The signature of a request covers its Host header, which is passed on as it came.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import http.server
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


@dataclass
class Seen:
    """One request that arrived.

    Attributes:
        operation: The name that S3 gives it, or its method where that says nothing.
        path: With the query.
        headers: Names in lower case.
        length: Bytes of the body.
        digest: SHA-256 of the body, in hex.
        fault: Kind of the fault that it met.
        status: Of the server's answer; ``None`` where the request was not forwarded.
    """

    operation: str
    method: str
    path: str
    headers: dict[str, str]
    length: int
    digest: str
    fault: str | None = None
    status: int | None = None

    @property
    def query(self) -> dict[str, str]:
        return {name: texts[0] for name, texts in parse_qs(urlsplit(self.path).query, keep_blank_values=True).items()}


@dataclass
class Fault:
    """What shall go wrong, with which requests, and how often. See the module."""

    kind: str
    when: str | Callable[[Seen], bool] = field(default=lambda seen: True)
    times: int = 1
    status: int = 500
    code: str = "InternalError"
    after: int = 0
    seconds: float = 1.0
    action: Callable[[Seen], object] | None = None

    def fits(self, seen: Seen) -> bool:
        return self.times > 0 and (self.when == seen.operation if isinstance(self.when, str) else self.when(seen))


class FaultProxy:
    """See the module. A context manager.

    Attributes:
        endpoint: URL of the proxy.
        requests: All that arrived.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        assert parts.scheme == "http", "only plain HTTP can be looked into"
        self.target = (parts.hostname or "", parts.port or 80)
        self.requests: list[Seen] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, *faults: Fault) -> None:
        """Let these faults happen, too; the first that fits a request comes first."""
        with self._lock:
            self._faults += faults

    def clear(self) -> None:
        """Let nothing go wrong any more, and forget what was seen."""
        with self._lock:
            self._faults = []
            self.requests = []

    def left(self) -> int:
        """How many faults did not happen yet. A test that ends with some has not tried what it says."""
        return sum(fault.times for fault in self._faults)

    def seen(self, operation: str) -> list[Seen]:
        """The requests of one operation, in the order of arrival."""
        return [seen for seen in self.requests if seen.operation == operation]

    def take(self, seen: Seen) -> Fault | None:
        with self._lock:
            self.requests.append(seen)
            fault = next((fault for fault in self._faults if fault.fits(seen)), None)
            if fault is not None:
                fault.times -= 1
                seen.fault = fault.kind
            return fault


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nothing to speak of."""


class _Handler(http.server.BaseHTTPRequestHandler):
    owner: FaultProxy
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *_: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): text for name, text in self.headers.items()}
        seen = Seen(
            _operation(self.command, self.path, headers),
            self.command,
            self.path,
            headers,
            len(body),
            hashlib.sha256(body).hexdigest(),
        )
        fault = self.owner.take(seen)
        if fault is None:
            self._forward(seen, body)
        elif fault.kind in ("error", "slow_down"):
            self._refuse(*((503, "SlowDown") if fault.kind == "slow_down" else (fault.status, fault.code)))
        elif fault.kind == "reset":
            self._reset()
        elif fault.kind == "stall":
            time.sleep(fault.seconds)
            self._reset()
        elif fault.kind == "slow":
            time.sleep(fault.seconds)
            self._forward(seen, body)
        elif fault.kind == "corrupt_upload":
            changed = bytearray(body)
            changed[fault.after] ^= 1
            self._forward(seen, bytes(changed))
        elif fault.kind == "lost":
            self._ask(seen, body)[2].close()
            self._reset()
        elif fault.kind == "lost_error":
            self._ask(seen, body)[2].close()
            self._refuse(500, "InternalError")
        elif fault.kind == "call":
            assert fault.action is not None
            fault.action(seen)
            self._forward(seen, body)
        elif fault.kind in ("truncate", "corrupt"):
            self._forward(seen, body, fault)
        else:
            raise ValueError(fault.kind)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815

    def _ask(self, seen: Seen, body: bytes) -> tuple[http.client.HTTPResponse, bytes, http.client.HTTPConnection]:
        """Forward a request; return the answer and, unless it is long, its body."""
        connection = http.client.HTTPConnection(*self.owner.target, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, text in self.headers.items():
            if name.lower() not in _HOP:
                connection.putheader(name, text)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        seen.status = answer.status
        return answer, b"" if self.command == "HEAD" else answer.read(), connection

    def _forward(self, seen: Seen, body: bytes, fault: Fault | None = None) -> None:
        answer, content, connection = self._ask(seen, body)
        connection.close()
        self.send_response_only(answer.status, answer.reason)
        length = answer.getheader("Content-Length")
        for name, text in answer.getheaders():
            if name.lower() not in _HOP | {"content-length"}:
                self.send_header(name, text)
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(content)))
        self.end_headers()
        if fault is not None and fault.kind == "corrupt":
            content = content[: fault.after] + bytes([content[fault.after] ^ 1]) + content[fault.after + 1 :]
        if fault is not None and fault.kind == "truncate":
            self.wfile.write(content[: fault.after])
            self._reset(linger=bool(fault.after))
            return
        self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        content = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>on demand</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _reset(self, *, linger: bool = False) -> None:
        """End the connection without an orderly end, after what was sent had time to arrive."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            if linger:
                time.sleep(0.05)
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Both files refer to the socket, which is closed with the last of them.
            self.rfile.close()
            self.wfile.close()
            self.request.close()


def _operation(method: str, path: str, headers: dict[str, str]) -> str:
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    of_object = "/" in parts.path.strip("/")
    if "uploads" in query:
        return "CreateMultipartUpload" if method == "POST" else "ListMultipartUploads"
    if "uploadId" in query:
        return {
            "PUT": "UploadPart",
            "POST": "CompleteMultipartUpload",
            "DELETE": "AbortMultipartUpload",
            "GET": "ListParts",
        }.get(method, method)
    if not of_object:
        return "ListObjectsV2" if query.get("list-type") == ["2"] else method
    if method == "PUT" and "x-amz-copy-source" in headers:
        return "CopyObject"
    return {"GET": "GetObject", "PUT": "PutObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}.get(method, method)
