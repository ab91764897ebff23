"""The witness protocol, against a witness written from the rules of C2SP tlog-witness."""

from __future__ import annotations

import base64
import contextlib
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from sealflow.actions.audit_verify import verify_audit_log, witness_log
from sealflow.audit import merkle
from sealflow.audit.checkpoint import open_checkpoint, parse_text
from sealflow.audit.note import COSIGNATURE, Signature, VerifierKey, parse_note
from sealflow.audit.witness import Witness
from sealflow.audit.witness import cosign as cosign_one
from sealflow.errors import EvidenceError, UnavailableError, UsageError
from tests.core.audit.logs import MadeLog, chain_lines
from tests.pki import certify, private_pem


class HonestWitness:
    """Follows the specification, rule by rule, and remembers one checkpoint for each log."""

    def __init__(self, logs: list[VerifierKey], name: str = "witness.example/w1") -> None:
        self.private = Ed25519PrivateKey.generate()
        self.key = VerifierKey(name, COSIGNATURE, self.private.public_key().public_bytes_raw())
        self.logs = {key.name: key for key in logs}
        self.seen: dict[str, tuple[int, bytes]] = {}
        self.time = 1_800_000_000
        self.asked: list[int] = []
        self.answer: tuple[int, bytes] | None = None

    def add_checkpoint(self, body: bytes) -> tuple[int, bytes]:
        if self.answer is not None:
            return self.answer
        head, _, note_bytes = body.partition(b"\n\n")
        lines = head.decode().split("\n")
        if not lines[0].startswith("old ") or len(lines) > 64:
            return 400, b""
        old, proof = int(lines[0][4:]), [base64.b64decode(line) for line in lines[1:]]
        self.asked.append(old)
        note = parse_note(note_bytes)
        checkpoint = parse_text(note.text)
        if checkpoint.origin not in self.logs:
            return 404, b""
        try:
            signed = note.by(self.logs[checkpoint.origin])
        except EvidenceError:
            signed = ()
        if not signed:
            return 403, b""
        if old > checkpoint.size:
            return 400, b""
        size, root = self.seen.get(checkpoint.origin, (0, merkle.EMPTY_ROOT))
        if old != size:
            return 409, b"%d\n" % size
        if not merkle.is_consistent(size, root, checkpoint.size, checkpoint.root, proof):
            return 422, b""
        self.seen[checkpoint.origin] = (checkpoint.size, checkpoint.root)
        self.time += 1
        message = b"cosignature/v1\ntime %d\n%s" % (self.time, note.text)
        made = Signature(self.key.name, self.key.id, self.time.to_bytes(8, "big") + self.private.sign(message))
        return 200, made.line().encode()


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeLog:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = MadeLog(tmp_path)
    made.add(chain_lines(500))
    return made


@pytest.fixture
def witness(log: MadeLog) -> HonestWitness:
    return HonestWitness([log.key])


@pytest.fixture
def url(witness: HonestWitness) -> Iterator[str]:
    with serving(witness) as prefix:
        yield prefix


@contextlib.contextmanager
def serving(witness: HonestWitness) -> Iterator[str]:
    """Let a witness answer, and give its submission prefix."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = witness.add_checkpoint(body) if self.path == "/w/add-checkpoint" else (404, b"")
            self.send_response(status)
            if status == 409:
                self.send_header("Content-Type", "text/x.tlog.size")
            if status == 302:
                self.send_header("Location", "/w/elsewhere")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/w"
    server.shutdown()
    thread.join()
    server.server_close()


def cosign(log: MadeLog, url: str, witness: HonestWitness) -> dict[str, int]:
    cosigned = witness_log([f"{url}={witness.key}"], log.store.uri, str(log.key))
    log.checkpoint = log.store.get("checkpoint", 10_000)
    return cosigned


def codes(log: MadeLog, witness: HonestWitness, **more: Any) -> set[str]:
    report = verify_audit_log(log.store.uri, str(log.key), witnesses=[str(witness.key)], strict=False, **more)
    return {finding.code for finding in report.verdict.findings if finding.severity == "refusal"}


def test_a_log_that_grows_is_cosigned(log: MadeLog, url: str, witness: HonestWitness) -> None:
    assert codes(log, witness) == {"LOG_UNWITNESSED"}
    assert codes(log, witness, quorum=0) == set()
    assert cosign(log, url, witness) == {witness.key.name: witness.time}
    assert codes(log, witness) == set()
    # Growing takes the cosignature away until the witness has seen the new checkpoint.
    log.add(chain_lines(700))
    assert codes(log, witness) == {"LOG_UNWITNESSED"}
    cosign(log, url, witness)
    assert codes(log, witness) == set()
    # It says itself where it was, and the checkpoint that it knows needs no proof.
    assert witness.asked == [0, 0, 500]
    cosign(log, url, witness)
    assert witness.asked[3:] == [0, 1200]
    report = verify_audit_log(log.store.uri, str(log.key), witnesses=[str(witness.key)])
    time = datetime.datetime.fromtimestamp(witness.time, datetime.timezone.utc)
    assert report.witnesses == {witness.key.name: time.strftime("%Y-%m-%dT%H:%M:%SZ")}


def test_an_honest_witness_refuses_a_fork_under_the_real_key(
    log: MadeLog, url: str, witness: HonestWitness, tmp_path: Path
) -> None:
    cosign(log, url, witness)
    fork = MadeLog(tmp_path, uri=str(tmp_path / "fork"))
    fork.add(chain_lines(500))
    for _ in range(2):
        with pytest.raises(EvidenceError) as caught:
            cosign(fork, url, witness)
        assert caught.value.code == "LOG_FORKED"
        fork.add(chain_lines(100))
    assert codes(log, witness) == set()


def test_an_honest_witness_refuses_a_rollback(log: MadeLog, url: str, witness: HonestWitness, tmp_path: Path) -> None:
    first = log.checkpoint
    log.add(chain_lines(10))
    cosign(log, url, witness)
    assert first is not None
    log.path().write_bytes(first)
    with pytest.raises(EvidenceError) as caught:
        cosign(log, url, witness)
    assert caught.value.code == "LOG_ROLLED_BACK"


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        ((404, b"unknown"), UsageError, "WITNESS_REFUSED"),
        ((403, b""), EvidenceError, "LOG_CHECKPOINT"),
        ((422, b""), EvidenceError, "LOG_FORKED"),
        ((400, b"\x1b[31m"), UsageError, "WITNESS_REFUSED"),
        ((500, b""), UnavailableError, "BACKEND_UNAVAILABLE"),
        ((302, b""), UnavailableError, "BACKEND_UNAVAILABLE"),
        ((204, b""), UnavailableError, "BACKEND_UNAVAILABLE"),
        ((409, b"many\n"), UnavailableError, "BACKEND_UNAVAILABLE"),
        ((409, b"007\n"), UnavailableError, "BACKEND_UNAVAILABLE"),
        ((409, b"\xd9\xa1\n"), UnavailableError, "BACKEND_UNAVAILABLE"),
        ((409, b"501\n"), EvidenceError, "LOG_ROLLED_BACK"),
        ((409, b"9\n"), UnavailableError, "BACKEND_UNAVAILABLE"),
        ((200, b""), EvidenceError, "LOG_CHECKPOINT"),
        ((200, b"hello\n"), EvidenceError, "LOG_CHECKPOINT"),
        ((200, "— somebody AAAAAAAA\n".encode()), EvidenceError, "LOG_CHECKPOINT"),
        ((200, b"x" * 100_000), UnavailableError, "BACKEND_UNAVAILABLE"),
    ],
)
def test_answers(
    log: MadeLog, url: str, witness: HonestWitness, answer: tuple[int, bytes], error: type[Exception], code: str
) -> None:
    before = log.path().read_bytes()
    witness.answer = answer
    with pytest.raises(error) as caught:
        cosign(log, url, witness)
    assert caught.value.code == code  # type: ignore[attr-defined]
    assert "\x1b" not in str(caught.value)
    assert log.path().read_bytes() == before


def test_a_witness_that_lies(log: MadeLog, url: str, witness: HonestWitness) -> None:
    forged = Signature(witness.key.name, witness.key.id, bytes(72)).line().encode()
    witness.answer = (200, forged)
    with pytest.raises(EvidenceError) as caught:
        cosign(log, url, witness)
    assert caught.value.code == "LOG_CHECKPOINT"
    # Put under the checkpoint by somebody else it refuses the checkpoint for those who know the witness.
    log.path().write_bytes(log.path().read_bytes() + forged)
    assert codes(log, witness) == {"LOG_CHECKPOINT"}


def test_nobody_there(log: MadeLog, witness: HonestWitness) -> None:
    with pytest.raises(UnavailableError):
        cosign(log, "http://127.0.0.1:9/w", witness)


@pytest.mark.parametrize(
    "text",
    ["", "https://w.example", "file:///etc/passwd={key}", "ftp://w={key}", "https://u:p@w={key}", "https://w?x={key}"],
)
def test_no_witness(text: str, witness: HonestWitness, log: MadeLog) -> None:
    with pytest.raises(UsageError):
        Witness.parse(text.replace("{key}", str(witness.key)))
    with pytest.raises(UsageError):
        Witness.parse(f"https://w.example={log.key}")
    assert Witness.parse(f"https://w.example/={witness.key}").url == "https://w.example"


def dripping(head: bytes, tail: bytes) -> Callable[[socket.socket], None]:
    """Answers with the first part at once, and with the second one byte after the other."""

    def answer(client: socket.socket) -> None:
        client.sendall(head)
        for _ in range(200):
            client.sendall(tail)
            time.sleep(0.05)

    return answer


DRIPS = {
    "status line": dripping(b"", b"H"),
    "header": dripping(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "headers": dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "interim answers": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
    "body without a length": dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "chunks": dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "size of what it knows": dripping(b"HTTP/1.1 409 Conflict\r\nContent-Length: 1000\r\n\r\n", b"1"),
    "why it fails": dripping(b"HTTP/1.1 500 Error\r\nContent-Length: 1000\r\n\r\n", b"x"),
    "nothing": lambda client: time.sleep(10),
    "handshake": dripping(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb", b"\0"),
}


@pytest.mark.slow  # each waits
@pytest.mark.parametrize("drip", DRIPS)
def test_a_witness_that_drips_holds_nobody_beyond_the_timeout(log: MadeLog, witness: HonestWitness, drip: str) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(20)

    def serve() -> None:
        # Who gave up closes, which ends this; on a busy machine before anybody was let in.
        with contextlib.suppress(OSError):
            client, _ = server.accept()
            with client:
                DRIPS[drip](client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    scheme = "https" if drip == "handshake" else "http"
    asked = Witness(f"{scheme}://localhost:{server.getsockname()[1]}/w", witness.key)
    signed = open_checkpoint(log.store.get("checkpoint", 10_000) or b"", log.key)
    start = time.monotonic()
    try:
        with pytest.raises(UnavailableError):
            cosign_one(log.store.get, signed.checkpoint, signed.note, asked, timeout=0.5)
        took = time.monotonic() - start
    finally:
        server.close()
    # A byte every 0.05 seconds for 10 seconds, and no wait of its own is ever long.
    assert 0.4 < took < 9


@pytest.mark.parametrize("name", ["localhost", "elsewhere.example"])
def test_over_tls(
    log: MadeLog, witness: HonestWitness, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The deadline takes nothing from the check of the witness's certificate, nor the certificate from the deadline."""
    root = certify("root", ca=True)
    leaf = certify("witness", root, alternative=[x509.DNSName(name)], purposes=[ExtendedKeyUsageOID.SERVER_AUTH])
    (tmp_path / "root.pem").write_bytes(root.pem)
    (tmp_path / "leaf.pem").write_bytes(leaf.pem + private_pem(leaf.key))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "leaf.pem")
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = server.accept()
        with client, contextlib.suppress(OSError), tls.wrap_socket(client, server_side=True) as stream:
            with stream.makefile("rb") as file:
                head = list(iter(file.readline, b"\r\n"))
                (length,) = [line.split()[1] for line in head if line.lower().startswith(b"content-length:")]
                status, answer = witness.add_checkpoint(file.read(int(length)))
            stream.sendall(b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n" % (status, len(answer)) + answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    asked = Witness(f"https://localhost:{server.getsockname()[1]}/w", witness.key)
    signed = open_checkpoint(log.store.get("checkpoint", 10_000) or b"", log.key)
    with server:
        if name == "localhost":
            cosigned = cosign_one(log.store.get, signed.checkpoint, signed.note, asked, timeout=20)
            assert cosigned.by(witness.key)
        else:
            with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
                cosign_one(log.store.get, signed.checkpoint, signed.note, asked, timeout=20)
    thread.join(20)
