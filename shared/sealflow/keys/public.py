"""Public keys that verify signatures: ECDSA on P-256, P-384 and P-521 (OMS v1.0 algorithm registry), and Ed25519.

Ed25519 is outside the OMS registry, so it verifies attestations, never an OMS signature.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from sealflow.errors import UnavailableError, UsageError
from sealflow.findings import printable

#: The digest of each curve (OMS v1.0 section 6.7, as the reference implementation chooses it).
CURVE_HASHES: Final[dict[str, type[hashes.HashAlgorithm]]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}
CURVE_NAMES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}

#: URI scheme to the module whose ``public_key`` asks the service that holds the key.
SERVICES: Final = {
    "awskms": "sealflow.keys.awskms",
    "azurekms": "sealflow.keys.securesystemslib",
    "gcpkms": "sealflow.keys.securesystemslib",
    "hv": "sealflow.keys.securesystemslib",
    "pkcs11": "sealflow.keys.pkcs11",
}

_MAX_PEM = 64 << 10
_LEGACY: Final = ec.ECDSA(hashes.SHA256())

# A stretch of Base64 that no path has; the shortest private key has about 160 characters.
_KEY_LIKE = re.compile(r"[A-Za-z0-9+/=]{120,}")


class PublicKey:
    """A public key.

    Args:
        key: A key object of ``cryptography``.

    Raises:
        UsageError: Neither an elliptic-curve key on P-256, P-384 or P-521 nor an Ed25519 key.
    """

    def __init__(self, key: Any) -> None:
        #: How an elliptic-curve key signs; made once, since a walk verifies by the hundred thousand.
        self._scheme: ec.ECDSA | None = None
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVE_HASHES:
            self.algorithm = f"ECDSA {CURVE_NAMES[key.curve.name]}"
            self._scheme = ec.ECDSA(CURVE_HASHES[key.curve.name]())
        elif isinstance(key, ed25519.Ed25519PublicKey):
            self.algorithm = "Ed25519"
        else:
            kind = getattr(getattr(key, "curve", None), "name", type(key).__name__.strip("_"))
            raise UsageError(
                f"A {printable(kind)} key cannot make or check our signatures.",
                code="KEY_UNSUPPORTED",
                next_step="Use ECDSA on P-256, P-384 or P-521; Ed25519 for attestations only.",
            )
        self._key = key

    @cached_property
    def pem(self) -> bytes:
        """SubjectPublicKeyInfo in PEM with a final newline."""
        return bytes(
            self._key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )

    @cached_property
    def hint(self) -> str:
        """SHA-256 of the PEM text in hex: the ``publicKey.hint`` that the reference implementation demands."""
        return hashlib.sha256(self.pem).hexdigest()

    @property
    def fits_oms(self) -> bool:
        """Whether OMS v1.0 allows this key for its signatures."""
        return self.algorithm != "Ed25519"

    def verify(self, signature: bytes, data: bytes, *, legacy_sha256: bool = False) -> bool:
        """Tell whether ``signature`` (DER for ECDSA, raw for Ed25519) is this key's over ``data``.

        Args:
            signature: The signature bytes.
            data: The signed bytes.
            legacy_sha256: Hash with SHA-256 whatever the curve, as model-signing 0.2.0 did.
        """
        try:
            if self._scheme is None:
                self._key.verify(signature, data)
            else:
                self._key.verify(signature, data, _LEGACY if legacy_sha256 else self._scheme)
        except (InvalidSignature, ValueError):
            return False
        return True


def parse_public_key(data: bytes, what: str) -> PublicKey:
    """Parse a PEM public key.

    Raises:
        UsageError: Not a PEM public key of a supported kind.
    """
    if b"PRIVATE KEY" in data:
        raise UsageError(
            f"{what} holds a private key where a public key belongs.",
            next_step="Name the public key, and keep the private one where only the signer reads it.",
        )
    try:
        return PublicKey(serialization.load_pem_public_key(data))
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{what} is not a PEM public key.", next_step="Expected -----BEGIN PUBLIC KEY-----.") from None


def load_public_key(source: str) -> PublicKey:
    """Load a public key from PEM text, a path, a ``file:`` URI or the URI of a key service or token.

    Raises:
        UsageError: There is no such key, or it is of an unsupported kind.
        UnavailableError: The key service or the file cannot be read.
    """
    if source.lstrip().startswith("-----BEGIN"):
        return parse_public_key(source.encode("utf-8"), "The given text")
    if (service := SERVICES.get(source.partition(":")[0])) is not None:
        from importlib import import_module

        key: PublicKey = import_module(service).public_key(source)
        return key
    return parse_public_key(read_key_file(source), printable(source))


def read_key_file(source: str) -> bytes:
    """Return the bytes of a key or certificate file named by path or ``file:`` URI.

    Raises:
        UsageError: No such file, not a file, or larger than 64 KiB.
        UnavailableError: It cannot be read.
    """
    from sealflow.storage.local import to_path

    if "\n" in source or "PRIVATE KEY" in source or _KEY_LIKE.search(source):
        # Not repeated: it may be the key itself, put where its place belongs.
        raise UsageError(
            "The name of a key file looks like a key.",
            code="KEY_MISSING",
            next_step="Name the file that holds the key.",
        )
    path = to_path(source)
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_PEM + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UsageError(f"There is no key file at {printable(path)}.", code="KEY_MISSING") from None
    except OSError as error:
        raise UnavailableError(
            f"The key file {printable(path)} cannot be read: {error.strerror}.",
            code="PERMISSION_DENIED" if isinstance(error, PermissionError) else "BACKEND_UNAVAILABLE",
        ) from None
    if len(data) > _MAX_PEM:
        raise UsageError(f"{printable(path)} has more than {_MAX_PEM} bytes; that is no key file.")
    return data
