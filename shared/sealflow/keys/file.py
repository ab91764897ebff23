"""Private keys in PEM files: PKCS#8 (encrypted or not) and SEC 1."""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from sealflow.errors import UsageError
from sealflow.findings import printable
from sealflow.keys.public import CURVE_HASHES, PublicKey, read_key_file
from sealflow.keys.signer import PassphraseCallback, load_chain, split_query


class FileSigner:
    """Signs with a key file. See :class:`~sealflow.keys.signer.KeySigner`.

    Args:
        uri: ``file:/path/key.pem`` with an optional ``?certificate=/path/chain.pem``.
        passphrase: Asked only when the key is encrypted.

    Raises:
        UsageError: No such file, not a private key, a wrong passphrase, an unsupported kind.
    """

    def __init__(self, uri: str, passphrase: PassphraseCallback) -> None:
        self.uri, options = split_query(uri, frozenset({"certificate"}))
        self._key = _load(read_key_file(self.uri), self.uri, passphrase)
        self.public_key = PublicKey(self._key.public_key())
        self.certificates = load_chain(options.get("certificate"), self.public_key)

    def sign(self, data: bytes) -> bytes:
        """See :class:`~sealflow.keys.signer.KeySigner`."""
        return sign_with(self._key, data)


def sign_with(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, data: bytes) -> bytes:
    """Return the signature of a key object of ``cryptography`` over ``data``, with its curve's hash."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    return key.sign(data, ec.ECDSA(CURVE_HASHES[key.curve.name]()))


def _load(pem: bytes, uri: str, passphrase: PassphraseCallback) -> Any:
    try:
        try:
            return serialization.load_pem_private_key(pem, None)
        except TypeError:  # encrypted
            secret = passphrase(uri)
        return serialization.load_pem_private_key(pem, secret)
    except (TypeError, ValueError, UnsupportedAlgorithm):  # TypeError: an empty passphrase
        encrypted = b"ENCRYPTED" in pem
        raise UsageError(
            f"{printable(uri)} "
            + ("cannot be opened with this passphrase." if encrypted else "is not a PEM private key."),
            code="KEY_UNREADABLE",
            next_step="Check the passphrase." if encrypted else "Make one with `sealflow keys generate`.",
        ) from None
