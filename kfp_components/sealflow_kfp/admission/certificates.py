"""The server's certificate and key: read again when their files change, taken only as a pair that works."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sealflow.errors import UsageError

_MAX_FILE: Final = 1 << 20
#: Seconds between two looks at the files. Kubernetes itself brings a changed secret within about a minute.
INTERVAL: Final = 2.0


class Certificates:
    """A TLS context whose certificate follows its files.

    A connection keeps what it began with. Nothing is resumed: a client sees the certificate of each handshake.

    Args:
        certificate: PEM chain, leaf first.
        key: PEM private key, without a passphrase.

    Attributes:
        not_after: When the one in use ends.
        problem: Why the files were not taken when they were last looked at, empty when they were.
        loads: How many pairs were taken.

    Raises:
        UsageError: The files cannot be used; nothing is served then.
    """

    def __init__(self, certificate: str, key: str) -> None:
        self._paths = (Path(certificate), Path(key))
        self._seen = b""
        self.problem = ""
        self.loads = 0
        self._current, self.not_after, self._seen = self._load()
        self.loads = 1
        self.context = _context()
        # Called in every handshake, with or without a server name: the context of the moment takes over.
        self.context.sni_callback = self._take_over

    @property
    def expired(self) -> bool:
        """Whether the one in use has ended."""
        return self.not_after <= datetime.datetime.now(datetime.timezone.utc)

    async def watch(self, told: Callable[[], None], interval: float = INTERVAL) -> None:
        """Look at the files for ever; ``told`` is called after each change of what is used or of the problem."""
        while True:
            await asyncio.sleep(interval)
            if self.look():
                told()

    def look(self) -> bool:
        """Look once; return whether something changed."""
        before = self.problem
        try:
            if _digest(self._read()) == self._seen:
                self.problem = ""
                return bool(before)
            # A new context: one that fails to load leaves the one in use as it is.
            self._current, self.not_after, self._seen = self._load()
        except UsageError as error:
            self.problem = error.message
            return self.problem != before
        except Exception as error:
            # Whatever a parser makes of strange files: looking at them must not end.
            self.problem = f"Certificate or key cannot be judged ({type(error).__name__})."
            return self.problem != before
        self.problem = ""
        self.loads += 1
        return True

    def _take_over(self, connection: Any, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _load(self) -> tuple[ssl.SSLContext, datetime.datetime, bytes]:
        from cryptography import x509

        pair = self._read()
        context = _context()
        try:
            leaf = x509.load_pem_x509_certificates(pair[0])[0]
            begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
            # Without the function an encrypted key would ask whoever sits at the terminal.
            context.load_cert_chain(*self._paths, password=lambda: "")
        except (ssl.SSLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise _unusable(f"Certificate and key do not make a pair that TLS takes ({reason}).") from None
        if pair != self._read():
            raise _unusable("Certificate or key changed while they were read.")
        now = datetime.datetime.now(datetime.timezone.utc)
        if not begins <= now < ends:
            span = " to ".join(f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (begins, ends))
            raise _unusable(f"The certificate is valid from {span}, which is not now.")
        return context, ends, _digest(pair)

    def _read(self) -> tuple[bytes, bytes]:
        try:
            return tuple(_read(path) for path in self._paths)  # type: ignore[return-value]
        except OSError as error:
            raise _unusable(f"Certificate or key cannot be read ({error.strerror}).") from None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    return context


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise _unusable(f"Certificate or key has more than {_MAX_FILE} bytes.")
    return data


def _digest(pair: tuple[bytes, bytes]) -> bytes:
    return b"".join(hashlib.sha256(part).digest() for part in pair)


def _unusable(message: str) -> UsageError:
    return UsageError(
        message,
        code="CERTIFICATE_UNUSABLE",
        next_step="Bring a PEM chain, leaf first, with its key without a passphrase; see the guide on enforcement on a "
        "Kubeflow cluster.",
    )
