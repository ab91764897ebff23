"""A timestamp authority (RFC 3161) for tests: ``openssl ts`` behind a small HTTP server on loopback."""

from __future__ import annotations

import contextlib
import datetime
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.pki import DAY, NOW, Certified, certify, private_pem

STAMPS = (ExtendedKeyUsageOID.TIME_STAMPING,)

_SETTINGS = """\
[tsa]
default_tsa = usual
[usual]
serial = {folder}/serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = {accuracy}
ordering = no
tsa_name = no
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""


def leaf(
    issuer: Certified,
    name: str = "stamps",
    *,
    purposes: Sequence[x509.ObjectIdentifier] = STAMPS,
    critical: bool = True,
    serial: int | None = None,
    key: Any = None,
    valid_from: datetime.datetime = NOW - DAY,
    valid_to: datetime.datetime = NOW + 30 * DAY,
) -> Certified:
    """Make the certificate of an authority's key; every knob is one thing that a verifier must look at."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(valid_from)
        .not_valid_after(valid_to)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(True, False, False, False, False, False, False, False, False),
            critical=True,
        )
    )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=critical)
    return Certified(builder.sign(issuer.key, hashes.SHA256()), key)


@dataclass
class TimestampAuthority:
    """An authority with a root, an authority between and a key for stamps.

    Attributes:
        folder: Where its keys lie.
        root: Its root.
        signer: Certificate and key of its stamps.
        between: Certificates between, which its tokens carry.
        url: Where it listens, inside of :meth:`serving`.
        asked: How often it was asked.
        answer: What it answers instead: status, content type, body.
    """

    folder: Path
    root: Certified = field(default_factory=lambda: certify("stamps root", ca=True))
    between: tuple[Certified, ...] = ()
    signer: Certified | None = None
    accuracy: str = "secs:1"
    url: str = ""
    asked: int = 0
    answer: tuple[int, str, bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.between:
            self.between = (certify("stamps between", self.root, ca=True),)
        self.signer = self.signer or leaf(self.between[0])
        (self.folder / "serial").write_text("01\n")
        (self.folder / "settings").write_text(_SETTINGS.format(folder=self.folder, accuracy=self.accuracy))
        (self.folder / "key.pem").write_bytes(private_pem(self.signer.key))
        (self.folder / "leaf.pem").write_bytes(self.signer.pem)
        (self.folder / "chain.pem").write_bytes(b"".join(item.pem for item in self.between))

    @property
    def roots(self) -> list[str]:
        """What a policy trusts."""
        return [self.root.certificate.public_bytes(serialization.Encoding.PEM).decode()]

    def reply(self, query: bytes) -> bytes:
        """Answer a request with OpenSSL's own program."""
        done = subprocess.run(
            [
                *("openssl", "ts", "-reply", "-config", "settings", "-section", "usual", "-queryfile", "/dev/stdin"),
                *("-signer", "leaf.pem", "-inkey", "key.pem", "-chain", "chain.pem", "-out", "/dev/stdout"),
            ],
            cwd=self.folder,
            input=query,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        mine = self.signer.certificate.public_bytes(serialization.Encoding.DER) if self.signer else b""
        return rewritten(done.stdout, mine, mine, mine)

    def token(self, signature: bytes) -> bytes:
        """Return a token over a signature."""
        import rfc3161_client

        request = rfc3161_client.TimestampRequestBuilder().data(signature)
        return self.reply(request.hash_algorithm(rfc3161_client.HashAlgorithm.SHA256).build().as_bytes())

    @contextlib.contextmanager
    def serving(self) -> Iterator[TimestampAuthority]:
        """Listen on loopback, on a port that is free."""
        authority = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                authority.asked += 1
                query = self.rfile.read(int(self.headers["Content-Length"]))
                status, kind, body = authority.answer or (200, "application/timestamp-reply", authority.reply(query))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
            self.url = ""


def rewritten(token: bytes, old: bytes, new: bytes, inside: bytes) -> bytes:
    """Exchange a certificate in a token, sort the set that holds ``inside``, and correct all lengths.

    OpenSSL writes certificates as they come; DER has a set sorted, and strict readers insist on it.
    """

    def walk(data: bytes) -> bytes:
        out, at = [], 0
        while at < len(data):
            head, length = 2, data[at + 1]
            if length & 0x80:
                count = length & 0x7F
                head, length = 2 + count, int.from_bytes(data[at + 2 : at + 2 + count], "big")
            whole, body = data[at : at + head + length], data[at + head : at + head + length]
            if whole == old:
                out.append(new)
            elif (old in body or inside in body) and data[at] & 0x20:
                made = walk(body)
                out.append(data[at : at + 1] + _length(len(made)) + made)
            else:
                out.append(whole)
            at += head + length
        return b"".join(sorted(out) if new in out or inside in out else out)

    return walk(token)


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    data = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(data)]) + data
