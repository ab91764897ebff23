"""Attacks with certificates: who issued them, for what, for when and for whom."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sealflow.keys.certificate import CertificateError, check_chain, names, parse_chain
from tests.attacks.world import World
from tests.pki import DAY, NOW, Certified, certify, private_pem

EMAIL = [x509.RFC822Name("trainer@example.org")]


class Authority:
    """A root, an intermediate, and attackers of the same names."""

    def __init__(self) -> None:
        self.root = certify("root", ca=True)
        self.intermediate = certify("intermediate", self.root, ca=True)
        self.evil_root = certify("root", ca=True)
        self.evil_intermediate = certify("intermediate", self.evil_root, ca=True)

    def leaf(self, issuer: Certified | None = None, **knobs: Any) -> Certified:
        knobs.setdefault("alternative", EMAIL)
        return certify("trainer", issuer or self.intermediate, **knobs)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


Chain = list[Certified]


def _below(a: Authority, **knobs: Any) -> Chain:
    """A leaf below a CA of the given kind below the root."""
    middle = certify("middle", a.root, **({"ca": True} | knobs))
    return [a.leaf(middle), middle]


def _extended(issuer: Certified, extension: x509.ExtensionType, critical: bool, name: str = "middle") -> Certified:
    """A CA with one extension more."""
    key = ec.generate_private_key(ec.SECP256R1())
    others = "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
    usage = dict.fromkeys([*others.split(), "encipher_only", "decipher_only"], False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(extension, critical=critical)
        .sign(issuer.key, hashes.SHA256())
    )
    return Certified(certificate, key)


def _constrained(a: Authority, permitted: Sequence[x509.GeneralName], alternative: Sequence[x509.GeneralName]) -> Chain:
    middle = _extended(a.root, x509.NameConstraints(permitted, None), True)
    return [a.leaf(middle, alternative=alternative), middle]


def _weak(a: Authority) -> Chain:
    key = rsa.generate_private_key(65537, 1024)
    middle = certify("weak", a.root, ca=True, key=key)
    return [a.leaf(middle), middle]


def _forged_by_a_leaf(a: Authority, **knobs: Any) -> Chain:
    """Somebody with an ordinary certificate makes one for the trainer."""
    mallory = certify("mallory", a.intermediate, **knobs)
    return [a.leaf(mallory), mallory, a.intermediate]


def _path_too_long(a: Authority) -> Chain:
    short = certify("short", a.root, ca=True, path_length=0)
    deeper = certify("deeper", short, ca=True)
    return [a.leaf(deeper), deeper, short]


def _unknown_critical(a: Authority) -> Chain:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
    middle = _extended(a.root, unknown, True)
    return [a.leaf(middle), middle]


def _for_tls(a: Authority) -> Chain:
    middle = _extended(a.root, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
    return [a.leaf(middle), middle]


def _edited(a: Authority) -> Chain:
    """The leaf's name is changed under the issuer's signature."""
    leaf = a.leaf(alternative=[x509.RFC822Name("mallory@example.org")])
    der = leaf.certificate.public_bytes(serialization.Encoding.DER)
    edited = der.replace(b"mallory@example.org", b"trainer@example.org")
    return [Certified(x509.load_der_x509_certificate(edited), leaf.key), a.intermediate]


UNTRUSTED = "CERTIFICATE_UNTRUSTED"
USAGE = "CERTIFICATE_USAGE"
URI = x509.UniformResourceIdentifier

CHAINS: dict[str, tuple[Callable[[Authority], Chain], str]] = {
    "expired": (lambda a: [a.leaf(valid_to=NOW - datetime.timedelta(hours=1)), a.intermediate], "CERTIFICATE_EXPIRED"),
    "not-yet-valid": (
        lambda a: [a.leaf(valid_from=NOW + datetime.timedelta(hours=1)), a.intermediate],
        "CERTIFICATE_NOT_YET_VALID",
    ),
    "for-tls-servers": (
        lambda a: [a.leaf(purposes=[ExtendedKeyUsageOID.SERVER_AUTH]), a.intermediate],
        USAGE,
    ),
    "for-any-purpose": (
        lambda a: [a.leaf(purposes=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), a.intermediate],
        USAGE,
    ),
    "may-not-sign": (lambda a: [a.leaf(digital_signature=False), a.intermediate], USAGE),
    "without-key-usage": (lambda a: [a.leaf(key_usage=False), a.intermediate], USAGE),
    "authority-as-leaf": (lambda a: [certify("ca", a.root, ca=True, alternative=EMAIL)], USAGE),
    "rsa-key": (lambda a: [a.leaf(key=rsa.generate_private_key(65537, 2048)), a.intermediate], USAGE),
    "other-curve": (lambda a: [a.leaf(key=ec.generate_private_key(ec.SECP256K1())), a.intermediate], USAGE),
    "self-signed-with-the-name": (lambda a: [certify("trainer", alternative=EMAIL)], UNTRUSTED),
    "other-root": (lambda a: [a.leaf(a.evil_intermediate), a.evil_intermediate], UNTRUSTED),
    "attackers-root-in-the-bundle": (
        lambda a: [a.leaf(a.evil_intermediate), a.evil_intermediate, a.evil_root],
        UNTRUSTED,
    ),
    "attackers-intermediate-beside-the-true-one": (
        lambda a: [a.leaf(a.evil_intermediate), a.intermediate, a.evil_intermediate],
        UNTRUSTED,
    ),
    "intermediate-missing": (lambda a: [a.leaf()], UNTRUSTED),
    "intermediate-expired": (lambda a: _below(a, valid_to=NOW - datetime.timedelta(hours=1)), UNTRUSTED),
    "intermediate-not-an-authority": (lambda a: _below(a, ca=False), UNTRUSTED),
    "intermediate-without-basic-constraints": (lambda a: _below(a, ca=None), UNTRUSTED),
    "intermediate-may-not-certify": (lambda a: _below(a, key_cert_sign=False), UNTRUSTED),
    "intermediate-for-tls-only": (_for_tls, UNTRUSTED),
    "intermediate-with-unknown-critical-extension": (_unknown_critical, UNTRUSTED),
    "intermediate-with-weak-key": (_weak, UNTRUSTED),
    "issued-by-a-leaf": (_forged_by_a_leaf, UNTRUSTED),
    "issued-by-a-leaf-that-may-certify": (lambda a: _forged_by_a_leaf(a, key_cert_sign=True), UNTRUSTED),
    "issued-by-a-leaf-without-constraints": (
        lambda a: _forged_by_a_leaf(a, ca=None, key_cert_sign=True),
        UNTRUSTED,
    ),
    "path-too-long": (_path_too_long, UNTRUSTED),
    "email-outside-name-constraints": (
        lambda a: _constrained(a, [x509.RFC822Name("partner.example")], EMAIL),
        UNTRUSTED,
    ),
    "dns-outside-name-constraints": (
        lambda a: _constrained(a, [x509.DNSName("partner.example")], [x509.DNSName("train.example.org")]),
        UNTRUSTED,
    ),
    "uri-outside-name-constraints": (
        lambda a: _constrained(a, [URI("partner.example")], [URI("spiffe://example.org/train")]),
        UNTRUSTED,
    ),
    "subject-outside-name-constraints": (
        lambda a: _constrained(
            a,
            [x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "partner")]))],
            EMAIL,
        ),
        UNTRUSTED,
    ),
    "edited-under-the-issuers-signature": (_edited, UNTRUSTED),
    "somebody-elses-name": (
        lambda a: [a.leaf(alternative=[x509.RFC822Name("mallory@example.org")]), a.intermediate],
        "CERTIFICATE_NAME",
    ),
    "name-of-another-kind": (
        lambda a: [a.leaf(alternative=[x509.DNSName("trainer.example.org")]), a.intermediate],
        "CERTIFICATE_NAME",
    ),
    "name-in-the-subject-only": (
        lambda a: [certify("trainer@example.org", a.intermediate, alternative=[]), a.intermediate],
        "CERTIFICATE_NAME",
    ),
    "name-in-other-case": (
        lambda a: [a.leaf(alternative=[x509.RFC822Name("Trainer@example.org")]), a.intermediate],
        "CERTIFICATE_NAME",
    ),
    "longer-name": (
        lambda a: [a.leaf(alternative=[x509.RFC822Name("trainer@example.org.evil.example")]), a.intermediate],
        "CERTIFICATE_NAME",
    ),
}


def _write(world: World, authority: Authority, chain: Chain) -> tuple[str, dict[str, Any]]:
    folder = world.folder
    (folder / "root.pem").write_bytes(authority.root.pem)
    (folder / "chain.pem").write_bytes(b"".join(item.pem for item in chain))
    (folder / "leaf.key.pem").write_bytes(private_pem(chain[0].key))
    identity = {"certificate": {"roots": str(folder / "root.pem"), "names": ["email:trainer@example.org"]}}
    return f"file:{folder / 'leaf.key.pem'}?certificate={folder / 'chain.pem'}", identity


def _certified(world: World, chain: Chain) -> None:
    """Let the trainer's evidence carry a chain, signed with the chain's own key whatever kind it is of."""
    key = chain[0].key
    ders = [item.certificate.public_bytes(serialization.Encoding.DER) for item in chain]

    class Signer:
        uri = "test:"
        certificates = tuple(ders)
        public_key = None

        def sign(self, data: bytes) -> bytes:
            if isinstance(key, ec.EllipticCurvePrivateKey):
                return key.sign(data, ec.ECDSA(hashes.SHA256()))
            from cryptography.hazmat.primitives.asymmetric import padding

            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())

    from sealflow.evidence.bundle import make_bundle

    payloads = {
        kind: base64.b64decode(world.bundle(kind)["dsseEnvelope"]["payload"]) for kind in ("signature", "provenance")
    }
    world.remove()
    for kind, payload in payloads.items():
        world.plant(make_bundle(payload, Signer()), kind)  # type: ignore[arg-type]


def test_good_certificate_passes(world: World, authority: Authority) -> None:
    signer, identity = _write(world, authority, [authority.leaf(), authority.intermediate])
    world.remove()
    world.sign(signer=signer)
    outcome = world.passes(identities=identity)
    assert {item.kind for item in outcome.verdict.signers} == {"signature", "provenance"}


@pytest.mark.parametrize(("make", "code"), [pytest.param(*case, id=name) for name, case in CHAINS.items()])
def test_certificate(world: World, authority: Authority, make: Callable[[Authority], Chain], code: str) -> None:
    chain = make(authority)
    _certified(world, chain)
    _, identity = _write(world, authority, chain)
    world.refuses(code, 4, identities=identity)


def test_certificate_and_key_rules_do_not_stand_in_for_each_other(tree: World, authority: Authority) -> None:
    _, identity = _write(tree, authority, [authority.leaf(), authority.intermediate])
    tree.refuses("SIGNER_NOT_ALLOWED", 4, identities=identity)
    _certified(tree, [authority.leaf(), authority.intermediate])
    tree.refuses("SIGNER_NOT_ALLOWED", 4)


def test_signature_of_another_key_under_a_good_chain(tree: World, authority: Authority) -> None:
    leaf = authority.leaf()
    mallory = Certified(leaf.certificate, ec.generate_private_key(ec.SECP256R1()))
    _certified(tree, [mallory, authority.intermediate])
    _, identity = _write(tree, authority, [leaf, authority.intermediate])
    tree.refuses("SIGNATURE_INVALID", 3, identities=identity)


def test_weak_hash_in_the_chain(authority: Authority) -> None:
    # SHA-1 cannot be written any more; SHA-224 is outside of the same list.
    leaf = authority.leaf()
    builder = x509.CertificateBuilder().subject_name(leaf.certificate.subject)
    builder = builder.issuer_name(authority.root.certificate.subject).public_key(leaf.key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    for extension in leaf.certificate.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    weak = builder.sign(authority.root.key, hashes.SHA224())
    with pytest.raises(CertificateError) as caught:
        check_chain([weak], [authority.root.certificate], NOW)
    assert caught.value.code == "CERTIFICATE_UNTRUSTED"


def test_time_zone_of_the_check_changes_nothing(authority: Authority) -> None:
    leaf = authority.leaf(valid_to=NOW + datetime.timedelta(hours=1)).certificate
    chain = [leaf, authority.intermediate.certificate]
    for hours in (-12, 0, 14):
        zone = datetime.timezone(datetime.timedelta(hours=hours))
        check_chain(chain, [authority.root.certificate], NOW.astimezone(zone))
        with pytest.raises(CertificateError):
            check_chain(chain, [authority.root.certificate], (NOW + 2 * datetime.timedelta(hours=1)).astimezone(zone))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_every_single_byte_of_a_certificate(authority: Authority) -> None:
    """Whatever a certificate holds, the answer is a refusal by name, never a crash."""
    leaf = authority.leaf()
    der = leaf.certificate.public_bytes(serialization.Encoding.DER)
    signed_part = len(leaf.certificate.tbs_certificate_bytes)
    from sealflow.errors import EvidenceError

    for position in range(len(der)):
        for value in (der[position] ^ 1, der[position] ^ 0x80, 0, 255):
            data = der[:position] + bytes([value]) + der[position + 1 :]
            if data == der:
                continue
            try:
                chain = parse_chain([data])
                check_chain([*chain, authority.intermediate.certificate], [authority.root.certificate], NOW)
                names(chain[0])
            except (CertificateError, EvidenceError):
                continue
            # The signature's own encoding has a spare bit; nothing that is signed may change.
            assert position > signed_part, position


def test_bundle_with_a_broken_certificate_is_no_crash(tree: World, authority: Authority) -> None:
    leaf = authority.leaf()
    der = bytearray(leaf.certificate.public_bytes(serialization.Encoding.DER))
    point = leaf.key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    der[bytes(der).index(point) + 5] ^= 1
    body = tree.bundle("signature")
    raw = base64.b64encode(bytes(der)).decode()
    body["verificationMaterial"] = {"x509CertificateChain": {"certificates": [{"rawBytes": raw}]}}
    _, identity = _write(tree, authority, [leaf])
    tree.plant(body)
    tree.passes(identities=[identity, str(tree.trainer.public)])
    tree.remove("signature")
    tree.plant(body)
    assert tree.check(identities=[identity, str(tree.trainer.public)]).status == "failed"


def test_chain_is_bounded(tree: World, authority: Authority) -> None:
    leaf = authority.leaf()
    _certified(tree, [leaf, *[authority.intermediate] * 20])
    _, identity = _write(tree, authority, [leaf])
    tree.refuses("EVIDENCE_MALFORMED", 3, identities=identity)


@pytest.mark.parametrize(
    "rule",
    [
        {"roots": "root.pem"},
        {"names": ["email:trainer@example.org"]},
        {"roots": "root.pem", "names": []},
        {"roots": [], "names": ["email:trainer@example.org"]},
        {"roots": "root.pem", "names": [""]},
        {"roots": "root.pem", "names": ["trainer@example.org"]},
        {"roots": "root.pem", "names": ["*"]},
        {"roots": "root.pem", "names": None},
    ],
    ids=str,
)
def test_certificate_rule_without_roots_or_names(tree: World, rule: dict[str, Any]) -> None:
    from sealflow.errors import UsageError

    with pytest.raises(UsageError):
        tree.check(identities={"trainer": {"certificate": rule}})
