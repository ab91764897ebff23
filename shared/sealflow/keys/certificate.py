"""Certificates: chain to given roots, validity, usage and name, each judged apart so that a refusal says which failed.

Path building and signature checks are ``cryptography``'s (RFC 5280 profile); the purpose is code signing, so a leaf for
TLS servers is refused although it may carry ``digitalSignature``.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import printable
from sealflow.keys.public import PublicKey, read_key_file

_E = TypeVar("_E", bound=x509.ExtensionType)

#: Longest accepted chain, leaf and root included.
MAX_CHAIN = 8

#: What ``cryptography`` raises for certificates that are not what they should be.
_MALFORMED = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class CertificateError(Exception):
    """Why a certificate may not speak.

    Attributes:
        code: A finding code.
        found: What the certificate says.
    """

    def __init__(self, code: str, message: str, found: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.found = found


@dataclass(frozen=True)
class Names:
    """The names in a leaf: its RFC 4514 subject and its alternative names as ``dns:``, ``email:``, ``uri:`` text."""

    subject: str
    alternative: tuple[str, ...]


def load_certificates(source: str) -> list[x509.Certificate]:
    """Load PEM certificates from text, a path or a ``file:`` URI.

    Raises:
        UsageError: Not PEM certificates, or none.
    """
    inline = source.lstrip().startswith("-----BEGIN")
    data = source.encode("utf-8") if inline else read_key_file(source)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        where = "The given text" if inline else printable(source)
        raise UsageError(f"{where} holds no PEM certificate.") from None


def to_der(certificate: x509.Certificate) -> bytes:
    """Return the DER form."""
    return certificate.public_bytes(serialization.Encoding.DER)


def to_pem(certificate: x509.Certificate) -> str:
    """Return the PEM form."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def public_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate's public key as PEM, of which fingerprints are made; also where we take no such key.

    Raises:
        EvidenceError: It holds none that can be read.
    """
    try:
        return certificate.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except _MALFORMED:
        raise EvidenceError("The certificate chain holds a key that cannot be read.") from None


def parse_chain(chain: Sequence[bytes]) -> list[x509.Certificate]:
    """Parse the DER chain of a bundle, leaf first.

    Raises:
        EvidenceError: Too long, empty, or not certificates.
    """
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise EvidenceError(f"The certificate chain has {len(chain)} certificates; 1 to {MAX_CHAIN} are accepted.")
    try:
        return [x509.load_der_x509_certificate(der) for der in chain]
    except _MALFORMED:
        raise EvidenceError("The certificate chain holds something that is no certificate.") from None


def names(leaf: x509.Certificate) -> Names:
    """Return the names that identity rules compare. A name that cannot be read is none."""
    found: list[str] = []
    subject = ""
    try:
        alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        for kind, label in (
            (x509.DNSName, "dns"),
            (x509.RFC822Name, "email"),
            (x509.UniformResourceIdentifier, "uri"),
        ):
            found += [f"{label}:{value}" for value in alternative.get_values_for_type(kind)]
    except (x509.ExtensionNotFound, *_MALFORMED):
        found = []
    with contextlib.suppress(*_MALFORMED):
        subject = leaf.subject.rfc4514_string()
    return Names(subject, tuple(found))


def check_chain(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], at: datetime.datetime
) -> PublicKey:
    """Judge everything about a chain but its name, and return the leaf's key.

    Args:
        chain: Leaf first; the rest are intermediates and are trusted for nothing by themselves.
        roots: The only certificates that are trusted.
        at: The time at which the chain must be valid, aware.

    Raises:
        CertificateError: With the code of what failed.
    """
    try:
        return _check_chain(chain, roots, at)
    except _MALFORMED as error:
        # Certificates are parsed member by member as they are looked at, so bad ones surface late.
        raise CertificateError("CERTIFICATE_USAGE", "The certificate is malformed.", printable(error, 200)) from None


def _check_chain(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], at: datetime.datetime
) -> PublicKey:
    leaf = chain[0]
    validity = f"{leaf.not_valid_before_utc.isoformat()} to {leaf.not_valid_after_utc.isoformat()}"
    if at > leaf.not_valid_after_utc:
        raise CertificateError("CERTIFICATE_EXPIRED", "The certificate has expired.", validity)
    if at < leaf.not_valid_before_utc:
        raise CertificateError("CERTIFICATE_NOT_YET_VALID", "The certificate is not valid yet.", validity)
    _check_usage(leaf)
    try:
        key = PublicKey(leaf.public_key())
    except UsageError as error:
        raise CertificateError("CERTIFICATE_USAGE", error.message) from None
    # The leaf's own extensions were judged above; issuers get the library's web PKI rules for CAs.
    verifier = (
        PolicyBuilder()
        .store(Store(list(roots)))
        .time(at)
        .max_chain_depth(MAX_CHAIN)
        .extension_policies(ca_policy=_ca_policy(), ee_policy=ExtensionPolicy.permit_all())
        .build_client_verifier()
    )
    try:
        verifier.verify(leaf, list(chain[1:]))
    except VerificationError as error:
        raise CertificateError(
            "CERTIFICATE_UNTRUSTED", "The certificate does not chain to a given root.", printable(error, 200)
        ) from None
    return key


def _ca_policy() -> ExtensionPolicy:
    # A CA must say that it is one and, where it limits its key usage, that it may sign certificates. One that is
    # limited to other purposes, such as the issuer of a company's TLS certificates, cannot make signers either.
    def basic(_: object, __: object, value: x509.BasicConstraints) -> None:
        if not value.ca:
            raise ValueError("an issuer is not a certification authority")

    def usage(_: object, __: object, value: x509.KeyUsage | None) -> None:
        if value is not None and not value.key_cert_sign:
            raise ValueError("an issuer may not sign certificates")

    def purpose(_: object, __: object, value: x509.ExtendedKeyUsage | None) -> None:
        fitting = (ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
        if value is not None and not any(oid in value for oid in fitting):
            raise ValueError("an issuer is limited to other purposes than code signing")

    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, basic)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, usage)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, purpose)
    )


def _check_usage(leaf: x509.Certificate) -> None:
    usage = _extension(leaf, x509.KeyUsage)
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    basic = _extension(leaf, x509.BasicConstraints)
    if usage is None or not usage.digital_signature:
        raise CertificateError(
            "CERTIFICATE_USAGE", "The certificate's key usage does not hold digitalSignature.", "no digitalSignature"
        )
    # CA:TRUE alone is what the reference implementation's own test certificates say; without keyCertSign it gives no
    # power over certificates (RFC 5280 section 4.2.1.9).
    if basic is not None and basic.ca and usage.key_cert_sign:
        raise CertificateError(
            "CERTIFICATE_USAGE", "The certificate is a certification authority's own.", "CA:TRUE, keyCertSign"
        )
    if purposes is not None and ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        listed = ", ".join(oid.dotted_string for oid in purposes)
        raise CertificateError("CERTIFICATE_USAGE", "The certificate is for other purposes than code signing.", listed)


def _extension(leaf: x509.Certificate, kind: type[_E]) -> _E | None:
    try:
        return leaf.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
