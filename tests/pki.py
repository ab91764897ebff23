"""Keys and certificates for tests, made on the spot."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
CURVES = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}


def private_pem(key: Any, passphrase: bytes | None = None) -> bytes:
    """PKCS#8."""
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def public_pem(key: Any) -> bytes:
    """SubjectPublicKeyInfo of the public half."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class KeyPair:
    """A key pair on disk."""

    private: Path
    public: Path

    @property
    def signer(self) -> str:
        return f"file:{self.private}"


def write_key(folder: Path, name: str = "key", key: Any = None, curve: str = "p256") -> KeyPair:
    """Write a key pair as ``<name>.pem`` and ``<name>.pub.pem``."""
    key = key or ec.generate_private_key(CURVES[curve])
    pair = KeyPair(folder / f"{name}.pem", folder / f"{name}.pub.pem")
    pair.private.write_bytes(private_pem(key))
    pair.public.write_bytes(public_pem(key))
    return pair


@dataclass(frozen=True)
class Certified:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def certify(
    common_name: str,
    issuer: Certified | None = None,
    *,
    ca: bool | None = False,
    valid_from: datetime.datetime = NOW - DAY,
    valid_to: datetime.datetime = NOW + 30 * DAY,
    digital_signature: bool = True,
    key_cert_sign: bool | None = None,
    key_usage: bool = True,
    purposes: Sequence[x509.ObjectIdentifier] | None = (ExtendedKeyUsageOID.CODE_SIGNING,),
    alternative: Sequence[x509.GeneralName] = (),
    key: Any = None,
    path_length: int | None = None,
) -> Certified:
    """Make a certificate; every knob is one thing that a verifier must look at.

    Args:
        common_name: Its subject.
        issuer: Who signs it; itself by default.
        ca: Basic constraints; ``None`` leaves the extension out.
        valid_from: Start of its validity.
        valid_to: End of its validity.
        digital_signature: Key usage of a signer.
        key_cert_sign: Key usage of a CA; follows ``ca`` by default.
        key_usage: Whether there is a key usage extension at all.
        purposes: Extended key usage; ``None`` leaves the extension out.
        alternative: Subject alternative names.
        key: Its private key; a fresh one on P-256 by default.
        path_length: How many CAs may follow below this one.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    signer = issuer.key if issuer else key
    authority = signer.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid_from)
        .not_valid_after(valid_to)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    if key_usage:
        usage = x509.KeyUsage(
            digital_signature=digital_signature,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=bool(ca) if key_cert_sign is None else key_cert_sign,
            crl_sign=bool(ca),
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usage, critical=True)
    if purposes is not None and not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
    if alternative:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(alternative)), critical=False)
    return Certified(builder.sign(signer, hashes.SHA256()), key)


@dataclass(frozen=True)
class Pki:
    """A root, an intermediate and a leaf for ``trainer@example.org``, in files."""

    folder: Path
    root: Certified
    intermediate: Certified
    leaf: Certified

    @property
    def root_file(self) -> Path:
        return self.folder / "root.pem"

    @property
    def private(self) -> Path:
        return self.folder / "leaf.key.pem"

    @property
    def signer(self) -> str:
        return f"file:{self.private}?certificate={self.folder / 'chain.pem'}"

    @property
    def identity(self) -> dict[str, Any]:
        return {"certificate": {"roots": str(self.root_file), "names": ["email:trainer@example.org"]}}


def write_pki(folder: Path, leaf: Certified | None = None, **knobs: Any) -> Pki:
    """Write a PKI; ``knobs`` of :func:`certify` turn its leaf into one that must be refused."""
    # Older than any leaf, so that only the leaf is out of time.
    root = certify("test root", ca=True, valid_from=NOW - 365 * DAY)
    intermediate = certify("test intermediate", root, ca=True, valid_from=NOW - 365 * DAY)
    defaults: dict[str, Any] = {"alternative": [x509.RFC822Name("trainer@example.org")]}
    leaf = leaf or certify("trainer", intermediate, **(defaults | knobs))
    (folder / "root.pem").write_bytes(root.pem)
    (folder / "intermediate.pem").write_bytes(intermediate.pem)
    (folder / "leaf.pem").write_bytes(leaf.pem)
    (folder / "chain.pem").write_bytes(leaf.pem + intermediate.pem)
    (folder / "leaf.key.pem").write_bytes(private_pem(leaf.key))
    return Pki(folder, root, intermediate, leaf)
