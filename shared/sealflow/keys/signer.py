"""Signers, found by the scheme of their URI in one table that others can extend."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import parse_qsl

from sealflow.errors import UsageError
from sealflow.findings import printable
from sealflow.keys.public import PublicKey
from sealflow.keys.schemes import Schemes

#: Returns the passphrase of the key named by its URI. Passphrases are never arguments: those end up in logs.
PassphraseCallback = Callable[[str], bytes]

#: Environment variable that holds the passphrase of an encrypted key file. The key itself never comes from one.
PASSPHRASE_VARIABLE: Final = "SEALFLOW_KEY_PASSPHRASE"  # noqa: S105  (its name, not its value)


class KeySigner(Protocol):
    """Makes signatures with one private key that may live anywhere.

    Attributes:
        uri: The URI that named the key, without secrets.
        public_key: The public half.
        certificates: DER certificates, leaf first, when the key is certified; empty for a bare key.
    """

    uri: str
    public_key: PublicKey
    certificates: tuple[bytes, ...]

    def sign(self, data: bytes) -> bytes:
        """Return the signature over ``data``: DER for ECDSA with the curve's hash, raw for Ed25519.

        Raises:
            UnavailableError: The key service does not answer or refuses.
        """


SignerFactory = Callable[[str, PassphraseCallback], KeySigner]


def _file(uri: str, passphrase: PassphraseCallback) -> KeySigner:
    from sealflow.keys.file import FileSigner

    return FileSigner(uri, passphrase)


def _awskms(uri: str, passphrase: PassphraseCallback) -> KeySigner:
    from sealflow.keys.awskms import AwsKmsSigner

    return AwsKmsSigner(uri)


#: URI scheme to factory.
SIGNERS: Final = Schemes[SignerFactory](
    "signer", "file:/path/to/key.pem or awskms:alias/name", {"file": _file, "awskms": _awskms}
)


def register_signer(scheme: str, factory: SignerFactory) -> None:
    """Add a URI scheme. A scheme that is taken stays as it is.

    Raises:
        UsageError: The scheme is taken.
    """
    SIGNERS.register(scheme, factory)


def passphrase_from_environment(uri: str) -> bytes:
    """Return the passphrase from ``SEALFLOW_KEY_PASSPHRASE``.

    Raises:
        UsageError: It is not set.
    """
    value = os.environ.get(PASSPHRASE_VARIABLE)
    if value is None:
        raise UsageError(
            f"The key {printable(uri)} is encrypted and no passphrase was given.",
            code="PASSPHRASE_MISSING",
            next_step=f"Set {PASSPHRASE_VARIABLE}, or pass a passphrase callback.",
        )
    return os.fsencode(value)


def load_signer(uri: str, passphrase: PassphraseCallback | None = None) -> KeySigner:
    """Open the signer that a URI names: ``file:/keys/signing.pem``, ``awskms:alias/models``.

    Both take ``?certificate=`` with the path of a PEM chain, leaf first.

    Args:
        uri: The URI.
        passphrase: Asked for the passphrase of an encrypted key; by default the environment variable is read.

    Raises:
        UsageError: Unknown scheme, no such key, an unsupported kind of key, a wrong passphrase.
        UnavailableError: The key service does not answer.
    """
    return SIGNERS.find(uri)(uri, passphrase or passphrase_from_environment)


def split_query(uri: str, allowed: frozenset[str]) -> tuple[str, dict[str, str]]:
    """Split the query off a signer URI.

    Raises:
        UsageError: A parameter that this scheme does not know.
    """
    bare, _, query = uri.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = options.keys() - allowed
    if unknown:
        raise UsageError(
            f"A signer URI of this scheme takes {', '.join(sorted(allowed))}, not {printable(min(unknown))!r}."
        )
    return bare, options


def load_chain(source: str | None, public_key: PublicKey) -> tuple[bytes, ...]:
    """Load a PEM certificate chain, leaf first, whose leaf must hold ``public_key``; empty without a source.

    Raises:
        UsageError: Not a PEM chain, or its leaf holds another key.
    """
    if source is None:
        return ()
    from sealflow.keys.certificate import load_certificates, to_der

    chain = load_certificates(source)
    if PublicKey(chain[0].public_key()).hint != public_key.hint:
        raise UsageError(
            f"The first certificate in {printable(source)} belongs to another key.",
            next_step="Put the certificate of the signing key first, then its issuers.",
        )
    return tuple(to_der(certificate) for certificate in chain)
