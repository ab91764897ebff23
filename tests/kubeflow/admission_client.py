"""A server of admission in the test's own event loop, and a client that can also behave badly."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import io
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from sealflow_kfp.admission.certificates import Certificates
from sealflow_kfp.admission.http import Limits
from sealflow_kfp.admission.server import Addresses, AdmissionServer
from tests.pki import Certified, certify, private_pem

LOOPBACK = Addresses("127.0.0.1", 0, 0)


class Authority:
    """A root, and pairs of files under it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = certify("root", ca=True, key_cert_sign=True, digital_signature=False, purposes=None)
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"

    def issue(self, **knobs: Any) -> Certified:
        names = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        purposes = (ExtendedKeyUsageOID.SERVER_AUTH,)
        return certify("admission", self.root, purposes=purposes, alternative=names, **knobs)

    def write(self, pair: Certified | None = None, key: Any = None) -> Certified:
        pair = pair or self.issue()
        self.certificate.write_bytes(pair.pem)
        self.key.write_bytes(private_pem(key or pair.key))
        return pair

    def certificates(self) -> Certificates:
        return Certificates(str(self.certificate), str(self.key))

    def client(self, **options: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.root.pem.decode())
        for name, value in options.items():
            setattr(context, name, value)
        return context


@dataclasses.dataclass(frozen=True)
class Decided:
    """Stands in for what the judge returns."""

    response: bytes
    status: int = 200
    kind: str = "Pod"
    uid: str = "u"
    operation: str = "CREATE"
    namespace: str = "team"
    name: str = "pod"
    allowed: bool = True
    findings: tuple[Any, ...] = ()


class Judge:
    """A judge that answers with the uid it was given, and remembers what it saw."""

    def __init__(self, answer: Callable[[bytes], Decided] | None = None) -> None:
        self.bodies: list[bytes] = []
        self.asked: set[Any] = set()
        self._answer = answer or self._echo

    def __call__(self, body: bytes, settings: Any, *, validate: bool) -> Any:
        self.bodies.append(body)
        self.asked.add((settings, validate))
        return self._answer(body)

    @staticmethod
    def _echo(body: bytes) -> Decided:
        uid = json.loads(body)["request"]["uid"]
        return Decided(json.dumps({"response": {"uid": uid, "allowed": True}}).encode(), uid=uid)


def review(uid: str = "705ab4f5-6393-11e8-b7cc-42010a800002", padding: int = 0) -> bytes:
    """An AdmissionReview."""
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": uid, "x": "y" * padding}}
    return json.dumps(body).encode()


def post(body: bytes, *headers: str, path: str = "/mutate?timeout=10s") -> bytes:
    """A request as the API server makes it."""
    lines = [f"POST {path} HTTP/1.1", "Host: sealflow-admission.sealflow-system.svc", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", *headers, "", ""]).encode() + body


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def response(self) -> Any:
        return json.loads(self.body)["response"]


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> Reply:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await self.reader.readexactly(int(headers["content-length"]))
        return Reply(int(head[0].split()[1]), headers, body)

    async def ask(self, data: bytes) -> Reply:
        await self.send(data)
        return await self.reply()

    async def ended(self) -> bool:
        """Whether the server ended the connection without a word; waits for it."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 30) == b""
        except (TimeoutError, asyncio.TimeoutError):  # of which the first is an OSError
            return False
        except OSError:
            return True

    def certificate(self) -> x509.Certificate:
        der = self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(der)

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class World:
    """A server that runs, and connections to it."""

    def __init__(self, server: AdmissionServer, authority: Authority, judge: Judge, log: io.StringIO) -> None:
        self.server, self.authority, self.judge, self._log = server, authority, judge, log
        self.clients: list[Client] = []

    async def connect(self, context: ssl.SSLContext | None = None) -> Client:
        context = context or self.authority.client()
        pair = await asyncio.open_connection(
            "127.0.0.1", self.server.ports[0], ssl=context, server_hostname="localhost"
        )
        self.clients.append(Client(*pair))
        return self.clients[-1]

    async def plain(self, port: int | None = None) -> Client:
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", port or self.server.ports[0])))
        return self.clients[-1]

    async def ask(self, data: bytes) -> Reply:
        client = await self.connect()
        try:
            return await client.ask(data)
        finally:
            await client.close()

    async def get(self, path: str, method: str = "GET") -> Reply:
        client = await self.plain(self.server.ports[1])
        return await client.ask(f"{method} {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n".encode())

    async def metric(self, name: str) -> float:
        """The value of one series of the metrics; 0 where there is none yet."""
        for line in (await self.get("/metrics")).body.decode().splitlines():
            series, _, value = line.rpartition(" ")
            if series == f"sealflow_admission_{name}":
                return float(value)
        return 0.0

    def log(self, event: str = "review") -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]

    def raw_log(self) -> str:
        return self._log.getvalue()


@contextlib.asynccontextmanager
async def world(
    authority: Authority, judge: Any = None, *, settings: Any = "settings", interval: float = 0.02, **limits: Any
) -> AsyncIterator[World]:
    """Run a server and clean up behind it."""
    log = io.StringIO()
    judge = judge or Judge()
    server = AdmissionServer(
        judge, settings, authority.certificates(), enforcing=True, limits=Limits(**limits), log=log
    )
    await server.start(LOOPBACK, interval)
    made = World(server, authority, judge, log)
    try:
        yield made
    finally:
        for client in made.clients:
            await client.close()
        await server.stop(grace=1.0)


async def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait for something that happens soon."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end, "it did not happen"
        await asyncio.sleep(0.01)


def days(number: float) -> datetime.timedelta:
    return datetime.timedelta(days=number)


def run(scenario: Coroutine[Any, Any, Any]) -> Any:
    """Run a scenario; it does not hang."""
    return asyncio.run(asyncio.wait_for(scenario, 120))
