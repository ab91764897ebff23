"""One HTTP POST that ends in time, follows no redirect and reads no more than it was told."""

from __future__ import annotations

import http.client
import io
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What a server answered.

    Attributes:
        status: HTTP status.
        kind: Content type, without parameters.
        data: At most one byte more than was asked for; empty where a refusal's text did not come in time.
    """

    status: int
    kind: str
    data: bytes


def post(url: str, body: bytes, headers: Mapping[str, str], *, seconds: float, limit: int) -> Answer:
    """Send a request and return the answer, whatever its status.

    Args:
        url: ``http:`` or ``https:``; the caller has looked at it.
        body: The request's body.
        headers: Its headers.
        seconds: In which all of it must be over.
        limit: Bytes of the answer that are of use.

    Raises:
        OSError, http.client.HTTPException: The server cannot be reached, or does not answer in time.
    """
    deadline = _Deadline(seconds)
    request = urllib.request.Request(url, body, dict(headers))  # noqa: S310 - the caller's duty
    try:
        with urllib.request.build_opener(_NoRedirect, _Handler(deadline)).open(request, timeout=seconds) as answer:
            return Answer(answer.status, answer.headers.get_content_type(), answer.read(limit + 1))
    except urllib.error.HTTPError as error:
        try:
            with error:
                return Answer(error.code, error.headers.get_content_type(), error.read(limit))
        except (OSError, http.client.HTTPException):
            # What it says of its refusal is not worth waiting for.
            return Answer(error.code, "", b"")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    # A redirected POST would go on as a GET, to a place that nobody named.
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class _Deadline:
    """When a request has to be done with. A timeout of a socket is for each wait alone: bytes that drip prolong it."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            TimeoutError: None are.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("it takes too long")
        return left

    def connect(self, address: tuple[str, int], _: Any = None, source: Any = None) -> socket.socket:
        """Connect, in the form of :func:`socket.create_connection`, to the first that answers of all addresses."""
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        for number, (*_, place) in enumerate(found, 1):
            try:
                made = socket.create_connection((str(place[0]), address[1]), self.left(), source)
            except OSError:
                if number == len(found):
                    raise
                continue
            made.settimeout(self.left())
            return made
        raise OSError("its name has no address")


class _Timely(io.RawIOBase):
    """Reads from a socket until a deadline."""

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections that keep a deadline."""

    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._made(http.client.HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._made(http.client.HTTPSConnection), req)

    def _made(self, kind: type[http.client.HTTPConnection]) -> Any:
        deadline = self._deadline

        class Response(http.client.HTTPResponse):
            def __init__(self, sock: socket.socket, *arguments: Any, **more: Any) -> None:
                super().__init__(sock, *arguments, **more)
                self.fp.close()
                self.fp = io.BufferedReader(_Timely(sock, deadline))

        class Connection(kind):  # type: ignore[valid-type, misc]
            response_class = Response

            def __init__(self, *arguments: Any, **more: Any) -> None:
                super().__init__(*arguments, **more)
                self._create_connection = deadline.connect

            def send(self, data: Any) -> None:
                if self.sock is None:
                    self.connect()
                self.sock.settimeout(deadline.left())
                super().send(data)

        return Connection
