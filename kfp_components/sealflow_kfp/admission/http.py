"""HTTP/1.1 for the two small servers of admission, over h11: every size and every wait has a bound.

Whoever reaches the port can talk to it, and a slow or greedy one must cost the API server nothing. So a body is
counted while it arrives, all bodies together have a budget, each phase of a request has its deadline, and nothing
queues up but connections, of which there are only so many.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import h11

_READ: Final = 64 << 10
#: Connections that the kernel holds for us, and that asyncio takes at a time.
_BACKLOG: Final = 128
#: A body in pieces of a few bytes costs time, not memory.
_MOST_PIECES: Final = 16_384


@dataclass(frozen=True)
class Limits:
    """What a client may take: bytes, connections and seconds.

    Attributes:
        head: Bytes of the request line and the headers.
        body: Bytes of a body. The API server takes requests of 3 MiB; a review of an update holds two objects.
        buffered: Bytes of all bodies that are being read or judged.
        connections: Open connections. When there are so many, the one that said nothing for longest makes room.
        each: Those of one address; the same among these. API servers are few.
        handshake: Seconds for TLS to begin, and to end.
        idle: Seconds between an answer and the next request; longer than the 90 that the API server keeps an idle
            connection, so that it never sends into one that is being closed.
        send: Seconds to the first byte of a connection, from a request's first byte to the last of its head, and again
            to the last of its body.
        take: Seconds for the answer to be taken.
    """

    head: int = 16 << 10
    body: int = 4 << 20
    buffered: int = 64 << 20
    connections: int = 256
    each: int = 128
    handshake: float = 5.0
    idle: float = 120.0
    send: float = 5.0
    take: float = 10.0


@dataclass(frozen=True)
class Request:
    """A request whose body is read whole."""

    method: str
    path: str
    content_type: str
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What goes back."""

    status: int
    body: bytes
    content_type: str = "application/json"


class _RefusedError(Exception):
    """A request that is answered without being looked at; its connection ends."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Listener:
    """Serves one socket.

    Args:
        respond: Answers a request. An exception of it becomes status 500.
        limits: Bounds.
        refused: Told the reason of each request that was not looked at, one of a few words.
    """

    def __init__(
        self,
        respond: Callable[[Request], Awaitable[Answer]],
        limits: Limits,
        refused: Callable[[str], None],
    ) -> None:
        self._respond = respond
        self._limits = limits
        self._refused = refused
        self._open: dict[Any, _Connection] = {}  # by their tasks
        self._closing = False
        self._server: asyncio.Server | None = None
        self.buffered = 0

    @property
    def connections(self) -> int:
        """Open connections, those in their TLS handshake left out."""
        return len(self._open)

    @property
    def port(self) -> int:
        """The port that is listened on, 0 before and after."""
        sockets = () if self._server is None else self._server.sockets
        return int(sockets[0].getsockname()[1]) if sockets else 0

    async def start(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        """Listen; the socket is bound already."""
        wait = None if context is None else self._limits.handshake
        self._server = await asyncio.start_server(
            self._serve, sock=sock, ssl=context, limit=_READ, backlog=_BACKLOG, ssl_handshake_timeout=wait
        )

    async def stop(self, grace: float) -> None:
        """Take no more requests, let those finish that have begun, for so many seconds at most."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._open.values()):
            if connection.idle:
                connection.end(self._limits.handshake)
        if self._open:
            await asyncio.wait(list(self._open), timeout=grace)
        for connection in list(self._open.values()):
            connection.abort()
        if self._open:
            await asyncio.wait(list(self._open), timeout=1)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer, self._limits.head)
        if self._closing or not self._make_room(connection.peer):
            self._refused("connections")
            connection.abort()
            return
        task = asyncio.current_task()
        self._open[task] = connection
        try:
            # A peer that goes away or talks no HTTP is no defect of ours, and concerns nobody else.
            with contextlib.suppress(OSError, EOFError, h11.ProtocolError):
                while await self._one(connection):
                    connection.http.start_next_cycle()
        finally:
            del self._open[task]
            connection.end(self._limits.handshake)

    def _make_room(self, peer: str) -> bool:
        """Return whether one more may come. Whoever is silent or slow for longest goes for it, and keeps nobody out."""
        there = [connection for connection in self._open.values() if not connection.sent_away]
        same = [connection for connection in there if connection.peer == peer]
        if len(same) < self._limits.each and len(there) < self._limits.connections:
            return True
        crowd = same if len(same) >= self._limits.each else there
        # An API server has sent its request in milliseconds, so that it is never the one.
        slow = [connection for connection in crowd if not connection.judged]
        if not slow:
            return False
        self._refused("sent_away")
        longest = min(slow, key=lambda connection: connection.since)
        longest.sent_away = True
        longest.abort()
        return True

    async def _one(self, connection: _Connection) -> bool:
        """Answer one request; return whether another may follow."""
        held = 0
        try:
            connection.deadline(self._limits.idle if connection.served else self._limits.send)
            head = await connection.head(self._limits.send)
            if head is None:
                return False
            connection.deadline(self._limits.send)
            # h11 counts only a head that is not whole yet.
            if len(head.target) + sum(len(name) + len(value) for name, value in head.headers) > self._limits.head:
                raise _RefusedError(431, "head")
            length = next((value for name, value in head.headers if name == b"content-length"), b"0")
            if int(length) > self._limits.body:
                raise _RefusedError(413, "too_large")
            body = bytearray()
            pieces = 0
            async for piece in connection.body():
                pieces += 1
                if pieces > _MOST_PIECES:
                    raise _RefusedError(400, "pieces")
                if len(body) + len(piece) > self._limits.body:
                    raise _RefusedError(413, "too_large")
                if self.buffered + len(piece) > self._limits.buffered:
                    raise _RefusedError(503, "busy")
                held += len(piece)
                self.buffered += len(piece)
                body += piece
            connection.deadline(None)
            connection.judged = True
            request = Request(
                head.method.decode("ascii", "replace"),
                head.target.split(b"?", 1)[0].decode("ascii", "replace"),
                next((value for name, value in head.headers if name == b"content-type"), b"").decode("latin-1"),
                bytes(body),
            )
            del body
            answer = await self._answered(request)
        except _RefusedError as refusal:
            self._refused(refusal.reason)
            self.buffered -= held
            held = 0
            await connection.answer(_plain(refusal.status), self._limits.take, last=True)
            await connection.overhear(self._limits.body)
            return False
        except h11.RemoteProtocolError as error:
            self._refused("slow" if connection.late else "gone" if connection.ended else "not_http")
            if not connection.ended and connection.http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await connection.answer(_plain(error.error_status_hint), self._limits.take, last=True)
                await connection.overhear(self._limits.body)
            return False
        finally:
            self.buffered -= held
        return await connection.answer(answer, self._limits.take, last=self._closing)

    async def _answered(self, request: Request) -> Answer:
        try:
            return await self._respond(request)
        except Exception:
            self._refused("defect")
            return _plain(500)


class _Connection:
    """One connection: h11's state, and a clock that ends it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: int) -> None:
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=head)
        self.idle = True
        self.since = asyncio.get_running_loop().time()
        self.served = False
        self.judged = False
        self.sent_away = False
        self.late = False
        self.ended = False
        self._reader = reader
        self._writer = writer
        self._timer: asyncio.TimerHandle | None = None
        self.peer = str((writer.get_extra_info("peername") or ("",))[0])
        # What was written is with the kernel before we go on. Not 0: asyncio's TLS would pause with nothing to send.
        writer.transport.set_write_buffer_limits(high=1)

    def deadline(self, seconds: float | None) -> None:
        """End the connection after so many seconds, unless told otherwise before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._expire)

    def abort(self) -> None:
        """End it at once; whoever reads from it sees its end."""
        self._writer.transport.abort()

    def _expire(self) -> None:
        self.late = True
        self.abort()

    async def _receive(self) -> bytes:
        data = await self._reader.read(_READ)
        self.ended = not data
        return data

    def end(self, seconds: float) -> None:
        """End it as TLS has it, and at once when that takes too long."""
        self.deadline(seconds)
        self._writer.close()

    async def head(self, seconds: float) -> h11.Request | None:
        """Return the next request's head, ``None`` when there is none."""
        self.judged = False
        self.idle, self.since = True, asyncio.get_running_loop().time()
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                data = await self._receive()
                if data and self.idle:
                    self.idle = False
                    self.deadline(seconds)
                self.http.receive_data(data)
            elif type(event) is h11.Request:
                self.idle = False
                return event
            else:
                return None

    async def body(self) -> Any:
        """Yield the pieces of the body."""
        if self.http.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            self._writer.write(self.http.send(go_on) or b"")
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                self.http.receive_data(await self._receive())
            elif type(event) is h11.Data:
                yield event.data
            elif type(event) is h11.EndOfMessage:
                return
            else:
                raise EOFError

    async def answer(self, answer: Answer, seconds: float, *, last: bool) -> bool:
        """Send an answer; return whether the connection goes on."""
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            ("Cache-Control", "no-store"),
        ]
        if last:
            headers.append(("Connection", "close"))
        self.deadline(seconds)
        sent = [
            self.http.send(h11.Response(status_code=answer.status, headers=headers, reason=_phrase(answer.status))),
            self.http.send(h11.Data(data=answer.body)),
            self.http.send(h11.EndOfMessage()),
        ]
        self._writer.write(b"".join(filter(None, sent)))
        await self._writer.drain()
        self.served = True
        return self.http.our_state is h11.DONE and self.http.their_state is h11.DONE

    async def overhear(self, most: int) -> None:
        """Take what is still on its way and forget it: closing before that may destroy the answer."""
        self.deadline(1.0)
        while most > 0 and (data := await self._receive()):
            most -= len(data)


def _plain(status: int) -> Answer:
    return Answer(status, f"{_phrase(status)}\n".encode(), "text/plain; charset=utf-8")


def _phrase(status: int) -> str:
    return http.HTTPStatus(status).phrase
