"""A stand-in for HashiCorp Vault: an HTTP server that speaks what the transit engine's API documentation says.

Read: ``GET /v1/transit/keys/:name``. Sign: ``POST /v1/transit/sign/:name(/:hash_algorithm)``. Vault itself is not free
to be shipped with tests; this keeps to its published JSON, and refuses what Vault refuses.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_HASHES = {"sha2-256": hashes.SHA256, "sha2-384": hashes.SHA384, "sha2-512": hashes.SHA512}
_TYPES = {"secp256r1": "ecdsa-p256", "secp384r1": "ecdsa-p384", "secp521r1": "ecdsa-p521"}


@dataclass
class Vault:
    """A running server.

    Attributes:
        url: For ``VAULT_ADDR``.
        token: For ``VAULT_TOKEN``.
        keys: Name to the versions of the key, the first first.
        hashes_again: Ignore ``prehashed``, as an old server would.
        status: Answer everything with this status.
        requests: What was asked: path and body.
    """

    url: str = ""
    token: str = "test-token-that-never-shows"
    keys: dict[str, list[Any]] = field(default_factory=dict)
    hashes_again: bool = False
    status: int = 0
    requests: list[tuple[str, Any]] = field(default_factory=list)

    def read(self, name: str) -> tuple[int, Any]:
        """Answer to reading a key."""
        versions = self.keys.get(name)
        if not versions:
            return 404, {"errors": []}
        edwards = isinstance(versions[0], ed25519.Ed25519PrivateKey)
        listed = {}
        for number, key in enumerate(versions, 1):
            public = key.public_key()
            text = (
                base64.b64encode(public.public_bytes_raw())
                if edwards
                else public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            )
            listed[str(number)] = {"public_key": text.decode()}
        curve = getattr(versions[0], "curve", None)
        kind = "ed25519" if edwards else _TYPES.get(curve.name, "other") if curve else "rsa-2048"
        return 200, {"data": {"name": name, "type": kind, "keys": listed, "latest_version": len(versions)}}

    def sign(self, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Answer to signing."""
        versions = self.keys.get(name)
        if not versions:
            return 400, {"errors": ["signing key not found"]}
        number = body.get("key_version") or len(versions)
        if not isinstance(number, int) or number > len(versions):
            return 400, {"errors": ["cannot sign: key version is too new"]}
        key, data = versions[number - 1], base64.b64decode(body["input"], validate=True)
        if isinstance(key, ed25519.Ed25519PrivateKey):
            if body.get("prehashed"):
                return 400, {"errors": ["prehashed is not supported for this key type"]}
            signature = base64.b64encode(key.sign(data))
        else:
            digest = _HASHES[body.get("hash_algorithm", "sha2-256")]()
            prehashed = body.get("prehashed") and not self.hashes_again
            if prehashed and len(data) != digest.digest_size:
                return 400, {"errors": ["input has another length than the digest"]}
            der = key.sign(data, ec.ECDSA(Prehashed(digest) if prehashed else digest))
            signature = base64.b64encode(der)
            if body.get("marshaling_algorithm", "asn1") == "jws":
                size = (key.curve.key_size + 7) // 8
                signature = base64.urlsafe_b64encode(
                    b"".join(number.to_bytes(size, "big") for number in decode_dss_signature(der))
                )
        return 200, {"data": {"signature": f"vault:v{number}:{signature.decode()}"}}


@contextlib.contextmanager
def vault_server() -> Iterator[Vault]:
    """Run a server on a free port of 127.0.0.1."""
    vault = Vault()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: Any) -> None:
            vault.requests.append((self.path, body))
            parts = self.path.strip("/").split("/")
            if self.headers.get("X-Vault-Token") != vault.token:
                status, said = 403, {"errors": ["permission denied", vault.token]}
            elif vault.status:
                status, said = vault.status, {"errors": [f"for {vault.token}"]}
            elif parts[:3] == ["v1", "transit", "keys"] and self.command == "GET":
                status, said = vault.read(parts[3])
            elif parts[:3] == ["v1", "transit", "sign"]:
                if len(parts) > 4:
                    body = {**body, "hash_algorithm": parts[4]}
                status, said = vault.sign(parts[3], body)
            else:
                status, said = 404, {"errors": []}
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.answer(None)

        def do_POST(self) -> None:
            self.answer(json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}"))

        def do_PUT(self) -> None:
            self.do_POST()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    vault.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield vault
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
