"""Certificates: each thing that can be wrong with one has its own code."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from sealflow.errors import EvidenceError, UsageError
from sealflow.keys.certificate import CertificateError, check_chain, load_certificates, names, parse_chain, to_der
from tests.pki import DAY, NOW, Certified, certify

OLD = NOW - 365 * DAY


@pytest.fixture(scope="module")
def root() -> Certified:
    return certify("root", ca=True, valid_from=OLD)


@pytest.fixture(scope="module")
def intermediate(root: Certified) -> Certified:
    return certify("intermediate", root, ca=True, valid_from=OLD)


def refusal(chain: list[Certified], root: Certified, at: datetime.datetime = NOW) -> str:
    """The code with which a chain is refused, or ``accepted``."""
    try:
        key = check_chain([item.certificate for item in chain], [root.certificate], at)
    except CertificateError as error:
        return error.code
    assert key.verify(chain[0].key.sign(b"x", ec.ECDSA(hashes.SHA256())), b"x")
    return "accepted"


LEAVES: dict[str, tuple[dict[str, Any], str]] = {
    "code-signing": ({}, "accepted"),
    "no-purpose-at-all": ({"purposes": None}, "accepted"),
    "two-purposes": ({"purposes": [ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.CODE_SIGNING]}, "accepted"),
    "no-basic-constraints": ({"ca": None}, "accepted"),
    "tls-server": ({"purposes": [ExtendedKeyUsageOID.SERVER_AUTH]}, "CERTIFICATE_USAGE"),
    "tls-client": ({"purposes": [ExtendedKeyUsageOID.CLIENT_AUTH]}, "CERTIFICATE_USAGE"),
    "any-purpose": ({"purposes": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]}, "CERTIFICATE_USAGE"),
    "unknown-purpose": ({"purposes": [ObjectIdentifier("1.2.3.4")]}, "CERTIFICATE_USAGE"),
    "no-key-usage": ({"key_usage": False}, "CERTIFICATE_USAGE"),
    "no-digital-signature": ({"digital_signature": False}, "CERTIFICATE_USAGE"),
    "a-ca": ({"ca": True}, "CERTIFICATE_USAGE"),
    "says-ca-but-may-not-sign-certificates": ({"ca": True, "key_cert_sign": False}, "accepted"),
    "expired": ({"valid_from": OLD, "valid_to": NOW - DAY}, "CERTIFICATE_EXPIRED"),
    "expired-a-second-ago": ({"valid_to": NOW - datetime.timedelta(seconds=1)}, "CERTIFICATE_EXPIRED"),
    "last-second": ({"valid_to": NOW}, "accepted"),
    "first-second": ({"valid_from": NOW}, "accepted"),
    "not-yet-valid": ({"valid_from": NOW + datetime.timedelta(seconds=1)}, "CERTIFICATE_NOT_YET_VALID"),
    "rsa-key": ({"key": rsa.generate_private_key(65537, 2048)}, "CERTIFICATE_USAGE"),
}  # fmt: skip


@pytest.mark.parametrize("case", LEAVES)
def test_leaves(root: Certified, intermediate: Certified, case: str) -> None:
    knobs, expected = LEAVES[case]
    assert refusal([certify("leaf", intermediate, **knobs), intermediate], root) == expected


def test_directly_under_the_root(root: Certified) -> None:
    assert refusal([certify("leaf", root)], root) == "accepted"


def test_the_chain_may_hold_the_root_and_strangers(root: Certified, intermediate: Certified) -> None:
    leaf = certify("leaf", intermediate)
    assert refusal([leaf, certify("stranger", ca=True), intermediate, root], root) == "accepted"


def test_a_root_in_the_chain_is_trusted_for_nothing(root: Certified) -> None:
    mine = certify("root", ca=True, valid_from=OLD)
    assert refusal([certify("leaf", mine), mine], root) == "CERTIFICATE_UNTRUSTED"


def test_an_intermediate_is_needed(root: Certified, intermediate: Certified) -> None:
    assert refusal([certify("leaf", intermediate)], root) == "CERTIFICATE_UNTRUSTED"


@pytest.mark.parametrize(
    "knobs",
    [
        pytest.param({"ca": False}, id="not-a-ca"),
        pytest.param({"ca": None}, id="no-basic-constraints"),
        pytest.param({"ca": True, "key_cert_sign": False}, id="may-not-sign-certificates"),
        pytest.param({"ca": True, "valid_to": NOW - DAY}, id="expired"),
        pytest.param({"ca": True, "valid_from": NOW + DAY, "valid_to": NOW + 9 * DAY}, id="not-yet-valid"),
    ],
)
def test_issuers_that_may_not_issue(root: Certified, knobs: dict[str, Any]) -> None:
    issuer = certify("issuer", root, **({"valid_from": OLD} | knobs))
    assert refusal([certify("leaf", issuer), issuer], root) == "CERTIFICATE_UNTRUSTED"


def test_path_length(root: Certified) -> None:
    first = certify("first", root, ca=True, path_length=0)
    second = certify("second", first, ca=True)
    assert refusal([certify("leaf", first), first], root) == "accepted"
    assert refusal([certify("leaf", second), second, first], root) == "CERTIFICATE_UNTRUSTED"


def test_a_forged_leaf(root: Certified, intermediate: Certified) -> None:
    """Right issuer name, signed with somebody else's key."""
    impostor = Certified(intermediate.certificate, ec.generate_private_key(ec.SECP256R1()))
    assert refusal([certify("leaf", impostor), intermediate], root) == "CERTIFICATE_UNTRUSTED"


def test_an_expired_root(intermediate: Certified) -> None:
    old = certify("old root", ca=True, valid_from=OLD, valid_to=NOW - DAY)
    assert refusal([certify("leaf", old)], old) == "CERTIFICATE_UNTRUSTED"


def test_a_self_signed_leaf_is_no_root_of_itself() -> None:
    leaf = certify("leaf")
    other = certify("root", ca=True)
    assert refusal([leaf], other) == "CERTIFICATE_UNTRUSTED"


def test_names() -> None:
    leaf = certify(
        "trainer",
        alternative=[
            x509.RFC822Name("a@example.org"),
            x509.DNSName("train.example.org"),
            x509.UniformResourceIdentifier("spiffe://example.org/train"),
            x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])),
        ],
    )
    found = names(leaf.certificate)
    assert found.subject == "CN=trainer"
    assert set(found.alternative) == {"email:a@example.org", "dns:train.example.org", "uri:spiffe://example.org/train"}
    assert names(certify("plain").certificate).alternative == ()


def test_parse_chain(root: Certified) -> None:
    der = to_der(root.certificate)
    assert parse_chain([der]) == [root.certificate]
    for chain in ([], [der] * 9, [b"x"], [der, b""], [der[:-1]]):
        with pytest.raises(EvidenceError):
            parse_chain(chain)


def test_load_certificates(tmp_path: Path, root: Certified) -> None:
    path = tmp_path / "root.pem"
    path.write_bytes(root.pem * 2)
    assert load_certificates(str(path)) == [root.certificate] * 2
    assert load_certificates(root.pem.decode()) == [root.certificate]
    path.write_bytes(b"no certificate")
    for source in (str(path), "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----"):
        with pytest.raises(UsageError, match="no PEM certificate"):
            load_certificates(source)
