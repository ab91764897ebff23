"""Generate keys: a new key pair on disk, the private half readable by its owner only."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sealflow.actions import context
from sealflow.actions.recording import Recording
from sealflow.errors import UsageError
from sealflow.findings import printable
from sealflow.keys import PublicKey
from sealflow.storage.local import to_uri

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

ALGORITHMS: Final = ("p256", "p384", "p521", "ed25519")


def generate_key(path: str, *, algorithm: str = "p256", passphrase: bytes | None = None) -> PublicKey:
    """Write ``path`` (private, PKCS#8 PEM, mode 0600) and ``path.pub`` (public). Never writes over a file.

    Args:
        path: Where the private key goes.
        algorithm: ``p256``, ``p384``, ``p521``; ``ed25519`` signs attestations only.
        passphrase: Encrypts the private key.

    Raises:
        UsageError: Unknown algorithm, an empty passphrase, or a file is there already.
        UnavailableError: The audit is out of reach.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    makers: dict[str, Callable[[], ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey]] = {
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }
    if algorithm not in makers:
        raise UsageError(f"Unknown algorithm {printable(algorithm)!r}; known: {', '.join(ALGORITHMS)}.")
    key = makers[algorithm]()
    public = PublicKey(key.public_key())
    write_pair("key-generate", path, key, public, passphrase=passphrase)
    return public


def write_pair(
    action: str,
    path: str,
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
    public: PublicKey,
    *,
    passphrase: bytes | None = None,
    chain: bytes = b"",
) -> None:
    """Write a key pair, and its certificate chain to ``path.crt`` where it has one. Never writes over a file.

    Args:
        action: Name of the audit event.
        path: Where the private key goes.
        key: The private half.
        public: The public half.
        passphrase: Encrypts the private key.
        chain: PEM certificates, leaf first.

    Raises:
        UsageError: An empty passphrase, or a file is there already or cannot be written.
        UnavailableError: The audit is out of reach.
    """
    from cryptography.hazmat.primitives import serialization

    if passphrase is not None and not passphrase:
        raise UsageError("The passphrase is empty.")
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    for taken in (path, f"{path}.pub", *([f"{path}.crt"] if chain else [])):
        if os.path.lexists(taken):
            raise UsageError(f"{printable(taken)} exists; keys are never written over.")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    where = to_uri(os.path.abspath(path))
    # Nobody has it before the log knows that there is such a key.
    with Recording(action, where, context.current(), key=f"sha256:{public.hint}", ruled=False):
        _create(path, pem, 0o600)
        _create(f"{path}.pub", public.pem, 0o644)
        if chain:
            _create(f"{path}.crt", chain, 0o644)


def _create(path: str, data: bytes, mode: int) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except OSError as error:
        raise UsageError(f"{printable(path)} cannot be written: {error.strerror}.") from None
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
