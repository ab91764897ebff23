"""Private keys in the containers in which other tools keep them: PEM, DER, PKCS#8, PKCS#12, OpenSSH.

Which container it is shows in the bytes alone. Everything is parsed by ``cryptography``; what is weak is refused here,
so that no such key gets a place among ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import pkcs12

from sealflow.errors import UsageError
from sealflow.findings import printable
from sealflow.keys.certificate import MAX_CHAIN
from sealflow.keys.file import sign_with
from sealflow.keys.public import PublicKey
from sealflow.keys.signer import PassphraseCallback

#: A secret number this many bits shorter than its curve was never drawn at random: that happens once in 2**64 times.
_SHORT_BITS = 64
#: A random Ed25519 seed of 32 bytes with so few different ones happens less than once in 2**100 times.
_FEW_BYTES = 8


@dataclass(frozen=True)
class Contained:
    """A private key as it lay in its container.

    Attributes:
        key: A key object of ``cryptography``.
        public: Its public half.
        chain: Certificates beside it, leaf first; empty where there are none.
        passphrase: What opened it, ``None`` where it lay open.
    """

    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    public: PublicKey
    chain: tuple[x509.Certificate, ...]
    passphrase: bytes | None


def open_container(data: bytes, what: str, passphrase: PassphraseCallback) -> Contained:
    """Return the private key that a file holds.

    Args:
        data: The file's bytes.
        what: Its name, for messages and for whoever is asked for the passphrase.
        passphrase: Asked where the container is encrypted.

    Raises:
        UsageError: ``KEY_UNREADABLE``: no container of a private key, or not opened by this passphrase;
            ``KEY_UNSUPPORTED``: of a kind that cannot make our signatures; ``KEY_WEAK``: it can be guessed.
    """
    secret: bytes | None = None
    try:
        try:
            key, certificates = _load(data, None)
        except (TypeError, _LockedError):
            secret = passphrase(what)
            key, certificates = _load(data, secret)
    except (TypeError, ValueError, _LockedError):
        opened = "cannot be opened with this passphrase" if secret is not None else "holds no private key that we read"
        raise UsageError(
            f"{printable(what)} {opened}.",
            code="KEY_UNREADABLE",
            next_step="Check the passphrase."
            if secret is not None
            else "PEM, DER, PKCS#8, PKCS#12 (.p12, .pfx) and OpenSSH keys are read.",
        ) from None
    except UnsupportedAlgorithm:
        raise UsageError(
            f"{printable(what)} has an encryption, or a kind of key, that is not read here.",
            code="KEY_UNSUPPORTED",
            next_step="Of an encrypted OpenSSH key import a private copy (ssh-keygen -p -N '' -f COPY) with --encrypt; "
            "others convert with openssl pkcs8 -topk8.",
        ) from None
    if key is None:
        raise UsageError(f"{printable(what)} holds certificates and no private key.", code="KEY_UNREADABLE")
    public = PublicKey(key.public_key())
    _refuse_weak(key, public, what)
    return Contained(key, public, _chain(certificates, public, what), secret)


class _LockedError(Exception):
    """A PKCS#12 container without its passphrase; ``cryptography`` calls that and a wrong one by one name."""


def _load(data: bytes, secret: bytes | None) -> tuple[Any, Sequence[x509.Certificate]]:
    if b"-----BEGIN OPENSSH PRIVATE KEY-----" in data:
        return serialization.load_ssh_private_key(data, secret), ()
    if b"-----BEGIN " in data:
        certificates = x509.load_pem_x509_certificates(data) if b"-----BEGIN CERTIFICATE-----" in data else ()
        return serialization.load_pem_private_key(data, secret), certificates
    if not _is_pkcs12(data):
        return serialization.load_der_private_key(data, secret), ()
    try:
        key, leaf, others = pkcs12.load_key_and_certificates(data, secret)
    except ValueError:
        raise _LockedError from None
    return key, [item for item in (leaf, *others) if item is not None]


def _is_pkcs12(data: bytes) -> bool:
    """Tell PKCS#12 by the first member of its sequence, the version 3 (RFC 7292 section 4); PKCS#8 has 0 or 1."""
    if data[:1] != b"\x30" or len(data) < 2:
        return False
    header = 2 + (data[1] & 0x7F if data[1] > 0x80 else 0)
    # Indefinite lengths are BER, in which PKCS#12 files of old tools come.
    return data[header : header + 3] == b"\x02\x01\x03"


def _refuse_weak(key: Any, public: PublicKey, what: str) -> None:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        weak = len(set(key.private_bytes_raw())) < _FEW_BYTES
    else:
        value, order = key.private_numbers().private_value, key.curve.group_order
        weak = min(value, order - value).bit_length() < key.curve.key_size - _SHORT_BITS
    probe = b"sealflow: does the public half fit?"
    if weak or not public.verify(sign_with(key, probe), probe):
        raise UsageError(
            f"The key in {printable(what)} can be guessed." if weak else f"The halves in {printable(what)} do not fit.",
            code="KEY_WEAK",
            next_step="Make a new one: sealflow keys generate. Revoke this one where it is trusted.",
        )


def _chain(certificates: Sequence[x509.Certificate], public: PublicKey, what: str) -> tuple[x509.Certificate, ...]:
    """Return the key's certificate and those that issued it, in order; what else lies there is nobody's."""
    chain = [item for item in certificates if _belongs(item, public)][:1]
    if certificates and not chain:
        raise UsageError(f"None of the certificates in {printable(what)} belongs to its key.", code="KEY_UNREADABLE")
    while chain and chain[-1].issuer != chain[-1].subject and len(chain) < MAX_CHAIN:
        issuers = [item for item in certificates if item.subject == chain[-1].issuer and item not in chain]
        if not issuers:
            break
        chain.append(issuers[0])
    return tuple(chain)


def _belongs(certificate: x509.Certificate, public: PublicKey) -> bool:
    try:
        return PublicKey(certificate.public_key()).hint == public.hint
    except (UsageError, ValueError, UnsupportedAlgorithm):
        return False
