"""Greedy, slow and broken clients of the admission server: what they get, and that nobody else notices."""

from __future__ import annotations

import asyncio

import pytest

from tests.kubeflow.admission_client import (
    Authority,
    Decided,
    Judge,
    Reply,
    World,
    post,
    review,
    run,
    until,
    world,
)

pytestmark = pytest.mark.slow

UID = "705ab4f5-6393-11e8-b7cc-42010a800002"


def declared(length: int) -> bytes:
    return post(b"").replace(b"Content-Length: 0", b"Content-Length: %d" % length)


def test_a_body_that_is_said_to_be_too_large_is_not_read(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            client = await made.connect()
            answer = await client.ask(declared((4 << 20) + 1))
            assert answer.status == 413
            assert answer.headers["connection"] == "close"
            assert not made.judge.bodies
            assert await made.metric('dropped_total{reason="too_large"}') == 1

    run(scenario())


@pytest.mark.parametrize("length", [0, -1], ids=["at the limit", "one below"])
def test_a_body_of_the_limit_is_taken(authority: Authority, length: int) -> None:
    async def scenario() -> None:
        async with world(authority, Judge(lambda body: Decided(b"{}")), body=200_000) as made:
            body = b"x" * (200_000 + length)
            assert (await made.ask(post(body))).status == 200
            assert made.judge.bodies == [body]

    run(scenario())


def test_a_body_in_chunks_is_counted_while_it_arrives(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority, body=200_000) as made:
            client = await made.connect()
            await client.send(post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
            chunk = b"%x\r\n%s\r\n" % (50_000, b"x" * 50_000)
            for _ in range(5):  # no end
                await client.send(chunk)
            assert (await client.reply()).status == 413
            assert not made.judge.bodies
            assert made.server._listener.buffered == 0

    run(scenario())


def test_a_body_in_crumbs_is_refused(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            client = await made.connect()
            await client.send(post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
            await client.send(b"1\r\nx\r\n" * 16_385)
            assert (await client.reply()).status == 400
            assert await made.metric('dropped_total{reason="pieces"}') == 1

    run(scenario())


def test_all_bodies_together_have_a_budget(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority, buffered=100_000) as made:
            holding = await made.connect()
            body = review(UID, padding=70_000)
            await holding.send(post(body)[:-100])
            await until(lambda: made.server._listener.buffered > 60_000)
            assert (await made.ask(post(review("other", padding=70_000)))).status == 503
            assert await made.metric('dropped_total{reason="busy"}') == 1
            # Who came first is served, and then there is room again.
            assert (await holding.ask(post(body)[-100:])).response["uid"] == UID
            assert (await made.ask(post(review("other", padding=70_000)))).response["uid"] == "other"
            assert made.server._listener.buffered == 0

    run(scenario())


@pytest.mark.parametrize("bound", ["connections", "each"])
def test_connections_are_counted(authority: Authority, bound: str) -> None:
    async def scenario() -> None:
        async with world(authority, **{bound: 2}) as made:
            busy = [await made.connect(), await made.connect()]
            async with made.server._turn:
                for client in busy:
                    await client.send(post(review(UID)))
                await until(lambda: all(one.judged for one in made.server._listener._open.values()))
                assert await (await made.connect()).ended()
                assert await made.metric('dropped_total{reason="connections"}') == 1
            for client in busy:
                assert (await client.reply()).response["uid"] == UID

    run(scenario())


@pytest.mark.parametrize("begun", [b"", post(review())[:40], post(review())[:-5]], ids=["silent", "head", "body"])
@pytest.mark.parametrize("bound", ["connections", "each"])
def test_who_only_waits_keeps_nobody_out(authority: Authority, bound: str, begun: bytes) -> None:
    async def scenario() -> None:
        async with world(authority, send=600.0, **{bound: 4}) as made:
            silent = [await made.connect() for _ in range(4)]
            for client in silent:
                await client.send(begun)
            there = made.server._listener._open
            await until(lambda: len(there) == 4 and all(bool(begun) is not one.idle for one in there.values()))
            # The one that waits for longest makes room, and so for each that follows.
            for number in range(4):
                client = await made.connect()
                assert (await client.ask(post(review(UID)))).response["uid"] == UID
                assert await silent[number].ended()
            assert await made.metric('dropped_total{reason="sent_away"}') == 4

    run(scenario())


def test_probes_come_through_whoever_waits_on_their_port(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            for _ in range(40):
                await made.plain(made.server.ports[1])
            assert (await made.get("/healthz")).status == 200
            assert (await made.get("/readyz")).status == 200

    run(scenario())


def test_the_first_byte_is_not_waited_for_as_long_as_the_next_request(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority, send=0.3, idle=600.0) as made:
            served = await made.connect()
            await served.ask(post(review(UID)))
            assert await (await made.connect()).ended()
            assert (await served.ask(post(review(UID)))).response["uid"] == UID

    run(scenario())


GARBAGE = {
    "bytes": bytes(range(256)) * 8 + b"\r\n\r\n",
    "a newline": b"\r\n\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /mutate\r\n\r\n",
    "two lengths": post(b"{}", "Content-Length: 3"),
    "a length that is none": post(b"").replace(b"Length: 0", b"Length: -1"),
    "a length of many digits": post(b"").replace(b"Length: 0", b"Length: " + b"9" * 10_000),
    "no host": post(b"").replace(b"Host", b"Hast"),
    "a chunk that is none": post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"zz\r\n",
    "another encoding": post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: gzip"),
    "a folded null": post(b"", "X: \0"),
    "a large head": post(b"", "X: " + "y" * 20_000),
    "a head without end": b"POST /mutate HTTP/1.1\r\n" + b"X: y\r\n" * 10_000,
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_http_ends_its_connection_and_nothing_else(authority: Authority, name: str) -> None:
    async def scenario() -> None:
        async with world(authority, send=1.0) as made:
            good, bad = await made.connect(), await made.connect()
            await bad.send(GARBAGE[name])
            bad.writer.write_eof() if bad.writer.can_write_eof() else None
            try:
                answer = await asyncio.wait_for(bad.reply(), 30)
            except (OSError, EOFError):
                answer = Reply(400, {}, b"")
            assert 400 <= answer.status < 600
            assert not made.judge.bodies
            assert (await good.ask(post(review(UID)))).response["uid"] == UID
            await until(lambda: made.server._listener.connections == 1)

    run(scenario())


async def _quiet(made: World) -> None:
    await (await made.plain()).reader.read(1)


async def _no_tls(made: World) -> None:
    client = await made.plain()
    await client.send(post(review()))
    await client.reader.read(1)


async def _no_request(made: World) -> None:
    await (await made.connect()).ended()


async def _half_a_head(made: World) -> None:
    client = await made.connect()
    await client.send(post(review())[:40])
    await client.ended()


async def _half_a_body(made: World) -> None:
    client = await made.connect()
    await client.send(post(review(padding=1000))[:-500])
    await client.ended()


async def _takes_nothing(made: World) -> None:
    client = await made.connect()
    client.writer.transport.pause_reading()
    await client.send(post(review()))
    await until(lambda: made.judge.bodies)


SLOW = {
    "says nothing": _quiet,
    "speaks no TLS": _no_tls,
    "asks for nothing": _no_request,
    "half a head": _half_a_head,
    "half a body": _half_a_body,
    "takes no answer": _takes_nothing,
}


@pytest.mark.parametrize("name", SLOW)
def test_slow_clients_are_left(authority: Authority, name: str) -> None:
    # More than what sockets buffer on the way.
    judge = Judge(lambda body: Decided(b" " * (16 << 20)))

    async def scenario() -> None:
        waits = dict.fromkeys(("handshake", "idle", "send", "take"), 0.2)
        async with world(authority, judge, **waits) as made:
            await asyncio.wait_for(SLOW[name](made), 30)
            await until(lambda: made.server._listener.connections == 0)
            assert made.server._listener.buffered == 0

    run(scenario())


def test_a_head_that_drips_does_not_buy_time(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority, send=0.5) as made:
            client = await made.connect()
            loop = asyncio.get_running_loop()
            for byte in post(review()):
                if client.reader.at_eof():
                    break
                client.writer.write(bytes([byte]))
                await asyncio.sleep(0.05)
            else:
                pytest.fail("a whole head got through")
            assert not made.judge.bodies
            assert loop.time() > 0

    run(scenario())


def test_who_goes_away_before_the_answer_harms_nobody(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            for _ in range(5):
                client = await made.connect()
                await client.send(post(review()))
                await client.close()
            assert (await made.ask(post(review(UID)))).response["uid"] == UID
            await until(lambda: made.server._listener.connections == 0)

    run(scenario())
