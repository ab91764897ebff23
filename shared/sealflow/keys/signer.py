"""Signers, found by the scheme of their URI in one table that others can extend."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import parse_qsl, quote, unquote

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


def _pkcs11(uri: str, passphrase: PassphraseCallback) -> KeySigner:
    from sealflow.keys.pkcs11 import Pkcs11Signer

    return Pkcs11Signer(uri, passphrase)


def _service(uri: str, passphrase: PassphraseCallback) -> KeySigner:
    from sealflow.keys.securesystemslib import ServiceSigner

    return ServiceSigner(uri)


#: URI scheme to factory.
SIGNERS: Final = Schemes[SignerFactory](
    "signer",
    "file:/path/to/key.pem or awskms:alias/name",
    {
        "file": _file,
        "awskms": _awskms,
        "azurekms": _service,
        "gcpkms": _service,
        "hv": _service,
        "pkcs11": _pkcs11,
    },
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
    """Open the signer that a URI names: ``file:/keys/signing.pem``, ``awskms:alias/models``, ``pkcs11:object=…``.

    All take ``?certificate=`` with the path of a PEM chain, leaf first.

    While a key is replaced, ``also=`` names a second signer: what is signed with the first is signed with it too, in a
    bundle of its own. The URI of the second is percent-encoded where it holds ``?``, ``&`` or ``%``. Who stamps
    (``timestamp=``) is for those who sign artifacts; opening the key leaves it aside.

    Args:
        uri: The URI.
        passphrase: Asked for the passphrase of an encrypted key; by default the environment variable is read.

    Raises:
        UsageError: Unknown scheme, no such key, an unsupported kind of key, a wrong passphrase, two signers of one key.
        UnavailableError: The key service does not answer.
    """
    ask = passphrase or passphrase_from_environment
    first, second = _split_also(split_authority(uri)[0])
    signer = SIGNERS.find(first)(first, ask)
    if second is None:
        return signer
    if _split_also(second)[1] is not None:
        raise UsageError("A signer URI names a third signer; a key is replaced by one other.")
    return TwoSigners(signer, SIGNERS.find(second)(second, ask))


class TwoSigners:
    """Two keys that sign together while the one replaces the other. See :class:`KeySigner`, which is the first.

    Attributes:
        first: The first.
        also: The second.
    """

    def __init__(self, first: KeySigner, also: KeySigner) -> None:
        if first.public_key.hint == also.public_key.hint:
            raise UsageError(
                f"{printable(first.uri)} and {printable(also.uri)} are one key.", next_step="Leave `also` out."
            )
        self.first, self.also = first, also
        self.uri, self.public_key, self.certificates = first.uri, first.public_key, first.certificates

    def sign(self, data: bytes) -> bytes:
        """See :class:`KeySigner`: the signature of the first."""
        return self.first.sign(data)


def signers_of(signer: KeySigner) -> tuple[KeySigner, ...]:
    """Return all that sign where ``signer`` does, the first first."""
    return (signer.first, signer.also) if isinstance(signer, TwoSigners) else (signer,)


def demand_one(signer: KeySigner) -> None:
    """Refuse a second signer where it would sign nothing: policies and logs are replaced with their keys at once.

    Raises:
        UsageError: There is a second one.
    """
    if len(signers_of(signer)) > 1:
        raise UsageError(
            f"{printable(signer.uri)} names a second signer, which signs artifacts only.",
            next_step="Leave `also` out; name both public keys where the document is verified.",
        )


def chains_of(uri: str) -> tuple[str, ...]:
    """Return the places of the certificate chains that a signer URI names, its second signer's too; opens nothing."""
    places = (_option(item, "certificate") for item in _split_also(uri) if item is not None)
    return tuple(place for place in places if place)


def _option(uri: str, name: str) -> str:
    found = [part.partition("=")[2] for part in uri.partition("?")[2].split("&") if part.startswith(f"{name}=")]
    return unquote(found[0]) if found else ""


def _split_also(uri: str) -> tuple[str, str | None]:
    bare, _, query = uri.partition("?")
    parts = query.split("&") if query else []
    found = [part.removeprefix("also=") for part in parts if part.startswith("also=")]
    if not found:
        return uri, None
    if len(found) > 1 or not found[0]:
        raise UsageError("A signer URI has `also` twice, or empty.")
    rest = "&".join(part for part in parts if not part.startswith("also="))
    return f"{bare}?{rest}" if rest else bare, unquote(found[0])


_STAMPED: Final = "timestamp"


def stamped_by(uri: str, authority: str) -> str:
    """Return a signer URI that also says who stamps what it signs: ``file:/k.pem?timestamp=company``."""
    return f"{uri}{'&' if '?' in uri else '?'}{_STAMPED}={quote(authority, safe='')}"


def split_authority(uri: str) -> tuple[str, str]:
    """Split off who stamps; empty where a signer URI says nothing of it.

    Raises:
        UsageError: It says so twice.
    """
    bare, mark, query = uri.partition("?")
    parts = query.split("&") if mark else []
    named = [unquote(item.partition("=")[2]) for item in parts if item.partition("=")[0] == _STAMPED]
    if len(named) > 1 or named == [""]:
        raise UsageError("A signer URI names one timestamp authority.")
    kept = "&".join(item for item in parts if item.partition("=")[0] != _STAMPED)
    return f"{bare}?{kept}" if kept else bare, named[0] if named else ""


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
