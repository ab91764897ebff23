"""Hostile bytes on the admission server's port: they get an answer or an end, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from sealflow_kfp.admission.http import Answer, Limits, Listener, Request

LIMITS = Limits(head=2048, body=4096, buffered=16_384, connections=8, idle=1.0, send=1.0, take=1.0)
GOOD = b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = GOOD.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked")

PIECES = st.sampled_from(
    [
        GOOD, CHUNKED, b"POST", b"/validate", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n", b"\r\n\r\n", b"0\r\n\r\n",
        b"2\r\n{}\r\n", b"ffffffffffffffff\r\n", b"-1\r\n", b"2;x=y\r\n{}\r\n", b"Host: x\r\n",
        b"Content-Length: 2\r\n", b"Content-Length: 99999999999\r\n", b"Content-Length: 2, 2\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Expect: 100-continue\r\n",
        b"Connection: close\r\n", b"Upgrade: h2c\r\n", b"X: y", b"\0", b"\xff", b"{}", b"x" * 5000,
    ]
)  # fmt: skip
STREAMS = st.one_of(
    st.binary(max_size=300),
    st.lists(PIECES, max_size=8).map(b"".join),
    st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=8)).map(
        lambda cut: GOOD[: cut[0]] + cut[1] + GOOD[cut[0] :]
    ),
)


async def send(port: int, data: bytes, cut: int) -> tuple[bytes, bool]:
    """Send bytes in two pieces, then no more; return all that comes back, and whether that is surely all."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received, whole = b"", False
    with contextlib.suppress(OSError):
        writer.write(data[:cut])
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(data[cut:])
        writer.write_eof()
        while piece := await reader.read(65_536):
            received += piece
        whole = True
    writer.close()
    return received, whole


@given(STREAMS, st.integers(0, 400))
@example(GOOD * 3, 0)
@example(CHUNKED.replace(b"{}", b"2\r\n{}\r\n0\r\n\r\n"), 70)
@example(CHUNKED.replace(b"{}", b"fff\r\n" + b"x" * 4095 + b"\r\n2\r\nxx\r\n0\r\n\r\n"), 0)
def test_a_listener_bears_any_bytes(data: bytes, cut: int) -> None:
    seen: list[Request] = []
    troubles: list[Any] = []

    async def respond(request: Request) -> Answer:
        seen.append(request)
        return Answer(200, b"done")

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
        listener = Listener(respond, LIMITS, lambda _: None)
        await listener.start(socket.create_server(("127.0.0.1", 0)), None)
        answer, whole = await send(listener.port, data, cut)
        assert not answer or answer.startswith(b"HTTP/1.1 ")
        assert answer.count(b"HTTP/1.1 200 ") == len(seen) or not whole
        assert all(len(request.body) <= LIMITS.body for request in seen)
        # Whoever comes next is served.
        answer, _ = await send(listener.port, GOOD, 0)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert seen[-1].body == b"{}"
        await listener.stop(grace=5)
        assert listener.buffered == 0
        assert listener.connections == 0

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert not troubles
