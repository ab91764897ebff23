"""The admission server: HTTPS for the API server's reviews, and a plain port for whoever watches over it.

One process, one thread, one decision at a time: what scales is the number of replicas. Nothing is called, nothing is
written but log lines; the answer is a function of the review and the settings.
Whatever goes wrong, the answer is no: a refusal with the review's uid where that can be read, else a status that the
API server, told to fail closed, takes for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import gc
import json
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

# Reviews are read with it (quickjson): a server that lacks it does not start.
import orjson  # noqa: F401

from sealflow import strictjson
from sealflow.errors import EvidenceError, UsageError
from sealflow_kfp.admission.certificates import INTERVAL, Certificates
from sealflow_kfp.admission.http import Answer, Limits, Listener, Request
from sealflow_kfp.admission.metrics import CONTENT_TYPE, Metrics

if TYPE_CHECKING:
    from sealflow_kfp.admission.decide import Decision

#: Where reviews are sent, and whether a validating webhook asks there, which may change nothing.
PATHS: Final = {"/mutate": False, "/validate": True}
#: Seconds after which nobody waits for an answer: a little less than the manifests' ``timeoutSeconds``.
GIVEN_UP: Final = 9.0
#: Probes and scrapes are small and few.
STATUS_LIMITS: Final = Limits(head=8 << 10, body=0, buffered=0, connections=32, each=16, idle=30.0)


@dataclass(frozen=True)
class Addresses:
    """Where to listen; port 0 is any free one.

    Attributes:
        host: Address of both ports.
        port: Of reviews, over TLS.
        status_port: Of health and metrics, in clear: they hold no secret.
    """

    host: str = "0.0.0.0"  # noqa: S104 - a pod's
    port: int = 8443
    status_port: int = 8080


class AdmissionServer:
    """Answers reviews.

    Args:
        decide: Judges the body of a review under the settings, see :func:`sealflow_kfp.admission.decide.decide`.
        settings: The admin's settings; handed to ``decide``.
        certificates: Certificate and key.
        enforcing: Whether refusals are meant; for the metrics.
        limits: Bounds of a client of the review port.
        log: Where log lines go, one JSON object each.
    """

    def __init__(
        self,
        decide: Callable[..., Decision],
        settings: Any,
        certificates: Certificates,
        *,
        enforcing: bool,
        limits: Limits | None = None,
        log: TextIO | None = None,
    ) -> None:
        self._decide = decide
        self._settings = settings
        self._certificates = certificates
        self._log = log or sys.stdout
        self._turn = asyncio.Lock()
        self._draining = False
        self.metrics = Metrics()
        self.metrics.mode(enforcing)
        self._listener = Listener(self._review, limits or Limits(), self._dropped)
        self._status = Listener(self._show, STATUS_LIMITS, lambda _reason: None)
        self.metrics.watch(lambda: self._listener.connections, lambda: self._listener.buffered)
        self._watching: asyncio.Task[None] | None = None
        self._told = -1.0

    @property
    def ports(self) -> tuple[int, int]:
        """The ports of reviews and of the status."""
        return self._listener.port, self._status.port

    async def start(self, addresses: Addresses, interval: float = INTERVAL) -> None:
        """Listen.

        Raises:
            UsageError: An address is taken, or not this machine's.
        """
        reviews = _bound(addresses.host, addresses.port)
        try:
            status = _bound(addresses.host, addresses.status_port)
        except UsageError:
            reviews.close()
            raise
        self._certificate_changed()
        asyncio.get_running_loop().set_exception_handler(self._trouble)
        await self._listener.start(reviews, self._certificates.context)
        await self._status.start(status, None)
        self._watching = asyncio.ensure_future(self._certificates.watch(self._certificate_changed, interval))
        self._say("listening", port=self.ports[0], status_port=self.ports[1])

    async def stop(self, drain: float = 0.0, grace: float = 10.0) -> None:
        """Say that we go, serve for ``drain`` more seconds, then finish what has begun within ``grace`` seconds."""
        self._draining = True
        self._say("draining")
        await asyncio.sleep(drain)
        await self._listener.stop(grace)
        await self._status.stop(0)
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        self._say("stopped")

    # --- reviews ---

    async def _review(self, request: Request) -> Answer:
        refusal = _not_a_review(request)
        if refusal is not None:
            self._dropped("not_a_review")
            return refusal
        began = time.monotonic()
        # First come, first served; others are read from and written to between two decisions.
        async with self._turn:
            waited = time.monotonic() - began
            if waited > GIVEN_UP:
                self._dropped("given_up")
                return Answer(503, b"")
            answer = self._decided(request, waited)
            await asyncio.sleep(0)
        return answer

    def _decided(self, request: Request, waited: float) -> Answer:
        began = time.perf_counter()
        try:
            decision = self._decide(request.body, self._settings, validate=PATHS[request.path])
            codes = [finding.code for finding in decision.findings]
            verdict = _verdict(decision)
            fields = {
                "uid": decision.uid,
                "kind": decision.kind,
                "operation": decision.operation,
                "namespace": decision.namespace,
                "name": decision.name,
                "verdict": verdict,
                "codes": sorted(set(codes)),
            }
            answer = Answer(decision.status, decision.response)
            kind = decision.kind
        except Exception as error:
            # No message: it may hold what an author wrote. The place is ours.
            uid = _uid(request.body)
            fields = {"uid": uid, "verdict": "error", "error": type(error).__name__, "at": _place(error)}
            answer, kind, verdict, codes = _defect(uid), "", "error", []
        seconds = time.perf_counter() - began
        self.metrics.decided(kind, verdict, codes, seconds, waited)
        self._say("review", **fields, ms=round(seconds * 1000, 2))
        return answer

    def _dropped(self, reason: str) -> None:
        self.metrics.dropped(reason)

    # --- health and metrics ---

    async def _show(self, request: Request) -> Answer:
        if request.method != "GET":
            return _text(405, "Method Not Allowed")
        if request.path == "/healthz":
            return _text(200, "ok")
        if request.path == "/readyz":
            problem = self._not_ready()
            if problem:
                return _text(503, problem)
            if self._certificates.problem:
                return _text(200, f"ok, with the certificate from before: {self._certificates.problem}")
            return _text(200, "ok")
        if request.path == "/metrics":
            return Answer(200, self.metrics.render(), CONTENT_TYPE)
        return _text(404, "Not Found")

    def _not_ready(self) -> str:
        if self._draining:
            return "draining"
        return "the certificate has ended" if self._certificates.expired else ""

    def _certificate_changed(self) -> None:
        not_after, problem = self._certificates.not_after, self._certificates.problem
        self.metrics.certificate(not_after.timestamp(), not problem)
        self._say("certificate", not_after=f"{not_after:%Y-%m-%dT%H:%M:%SZ}", problem=problem)

    def _trouble(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Tell what concerns no request, such as that no more connections can be taken; once a second is enough."""
        self._dropped("trouble")
        error = context.get("exception")
        if time.monotonic() - self._told > 1.0:
            self._told = time.monotonic()
            self._say("trouble", what=str(context.get("message", ""))[:200], error=type(error).__name__)

    def _say(self, event: str, **fields: Any) -> None:
        now = datetime.datetime.now(datetime.timezone.utc)
        line = {"time": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z", "event": event, **fields}
        # ASCII only, so that nothing in a name can look like another line. Who reads it may be gone.
        with contextlib.suppress(OSError, ValueError):
            self._log.write(json.dumps(line) + "\n")
            self._log.flush()


def run(
    settings_file: str, certificate: str, key: str, addresses: Addresses, *, audit: bool = False, drain: float = 5.0
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings_file: The admin's settings.
        certificate: PEM chain, leaf first.
        key: Its PEM key.
        addresses: Where to listen.
        audit: Judge, and refuse nothing, whatever the settings say.
        drain: Seconds in which we go on serving after the signal, because not everybody knows yet that we go.

    Raises:
        UsageError: Settings, certificate or an address cannot be used.
    """
    from sealflow_kfp.admission.decide import decide
    from sealflow_kfp.admission.memo import Memo
    from sealflow_kfp.admission.settings import load_settings

    settings = load_settings(settings_file)
    if audit:
        settings = settings.model_copy(update={"mode": "audit"})
    certificates = Certificates(certificate, key)
    _bound_descriptors()
    # What is there by now stays: the collector of cycles need not look at it again with every few reviews.
    gc.collect()
    gc.freeze()
    judge = functools.partial(decide, memo=Memo(settings))
    asyncio.run(
        serve(lambda: AdmissionServer(judge, settings, certificates, enforcing=settings.enforced), addresses, drain)
    )


async def serve(make: Callable[[], AdmissionServer], addresses: Addresses, drain: float) -> None:
    """Serve until SIGTERM or SIGINT; a second one does not wait."""
    loop = asyncio.get_running_loop()
    first, second = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: second.set() if first.is_set() else first.set())
    server = make()
    await server.start(addresses)
    await first.wait()
    stopping = asyncio.ensure_future(server.stop(drain))
    hurry = asyncio.ensure_future(second.wait())
    await asyncio.wait((stopping, hurry), return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, hurry):
        task.cancel()
    await asyncio.gather(stopping, hurry, return_exceptions=True)


def _bound_descriptors() -> None:
    # Connections are counted once their handshake is done; before that, this is what bounds them and their memory.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2 * Limits.connections
    if soft == resource.RLIM_INFINITY or soft > most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _bound(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"Cannot listen on {host!r}, port {port}: {reason}.", code="ADDRESS_UNUSABLE") from None


def _not_a_review(request: Request) -> Answer | None:
    if request.path not in PATHS:
        return _text(404, "Not Found")
    if request.method != "POST":
        return _text(405, "Method Not Allowed")
    if request.content_type.split(";")[0].strip().lower() != "application/json":
        return _text(415, "Unsupported Media Type")
    return None


def _verdict(decision: Decision) -> str:
    if decision.status != 200:
        return "error"
    if not decision.allowed:
        return "refused"
    # Audit: what is allowed although something refuses it.
    return "would_refuse" if any(finding.severity == "refusal" for finding in decision.findings) else "allowed"


def _uid(body: bytes) -> str:
    """Return the uid of a review that made us fail, empty where none can be read."""
    try:
        review = strictjson.loads(body, limit=Limits.body, what="The review")
        uid = strictjson.member(strictjson.member(review, "request", dict, "It"), "uid", str, "It")
    except (EvidenceError, MemoryError, RecursionError):
        return ""
    return uid if len(uid) <= 128 else ""


def _defect(uid: str) -> Answer:
    if not uid:
        return Answer(500, b"")
    status = {
        "code": 500,
        "message": "sealflow could not judge this object, and refuses what it cannot judge. The log of the admission "
        f"server says more, beside the uid {uid}.",
    }
    response = {"uid": uid, "allowed": False, "status": status}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
    return Answer(200, json.dumps(review).encode())


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_globals.get('__name__', '')}:{trace.tb_lineno}"


def _text(status: int, text: str) -> Answer:
    return Answer(status, f"{text}\n".encode(), "text/plain; charset=utf-8")
