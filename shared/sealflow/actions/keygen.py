"""Keygen: a new key pair on disk, the private half readable by its owner only."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from sealflow.errors import UsageError
from sealflow.findings import printable
from sealflow.keys import PublicKey

ALGORITHMS: Final = ("p256", "p384", "p521", "ed25519")


def keygen(path: str, *, algorithm: str = "p256", passphrase: bytes | None = None) -> PublicKey:
    """Write ``path`` (private, PKCS#8 PEM, mode 0600) and ``path.pub`` (public). Never writes over a file.

    Args:
        path: Where the private key goes.
        algorithm: ``p256``, ``p384``, ``p521``; ``ed25519`` signs attestations only.
        passphrase: Encrypts the private key.

    Raises:
        UsageError: Unknown algorithm, an empty passphrase, or a file is there already.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    makers: dict[str, Callable[[], ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey]] = {
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }
    if algorithm not in makers:
        raise UsageError(f"Unknown algorithm {printable(algorithm)!r}; known: {', '.join(ALGORITHMS)}.")
    if passphrase is not None and not passphrase:
        raise UsageError("The passphrase is empty.")
    for taken in (path, path + ".pub"):
        if os.path.lexists(taken):
            raise UsageError(f"{printable(taken)} exists; keys are never written over.")
    key = makers[algorithm]()
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    public = PublicKey(key.public_key())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    _create(path, pem, 0o600)
    _create(path + ".pub", public.pem, 0o644)
    return public


def _create(path: str, data: bytes, mode: int) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except OSError as error:
        raise UsageError(f"{printable(path)} cannot be written: {error.strerror}.") from None
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
