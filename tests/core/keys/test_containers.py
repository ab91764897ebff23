"""Keys in other tools' containers: all forms are read, weak keys and lies are refused, and no secret is repeated."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from hypothesis import given
from hypothesis import strategies as st

from sealflow.errors import UsageError
from sealflow.keys.containers import open_container
from tests.pki import CURVES, certify

SECRET = b"correct horse"

FORMS = {
    "pkcs8-pem": (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    "pkcs8-pem-encrypted": (Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET)),
    "pkcs8-der": (Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    "pkcs8-der-encrypted": (Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET)),
    "sec1-pem": (Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    "sec1-der": (Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    "openssh": (Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
}


def never(uri: str) -> bytes:
    raise AssertionError(f"asked for the passphrase of {uri}")


def asked(uri: str) -> bytes:
    assert uri == "the key"
    return SECRET


def key(curve: str = "p256") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(CURVES[curve])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("curve", CURVES)
def test_every_form_of_every_curve(form: str, curve: str) -> None:
    made = key(curve)
    encrypted = "encrypted" in form
    found = open_container(made.private_bytes(*FORMS[form]), "the key", asked if encrypted else never)
    assert found.key.private_numbers() == made.private_numbers()  # type: ignore[union-attr]
    assert found.passphrase == (SECRET if encrypted else None)
    assert found.chain == ()


@pytest.mark.parametrize("form", ["pkcs8-pem", "pkcs8-der", "pkcs8-pem-encrypted", "openssh"])
def test_ed25519(form: str) -> None:
    made = ed25519.Ed25519PrivateKey.generate()
    found = open_container(made.private_bytes(*FORMS[form]), "the key", asked)
    assert found.public.algorithm == "Ed25519"


@pytest.mark.parametrize("secret", [None, SECRET])
def test_pkcs12_with_its_chain(secret: bytes | None) -> None:
    root = certify("root", ca=True)
    leaf = certify("trainer", issuer=root)
    certificates = [x509.load_pem_x509_certificate(item.pem) for item in (leaf, root)]
    stranger = x509.load_pem_x509_certificate(certify("stranger").pem)
    data = pkcs12.serialize_key_and_certificates(
        b"name",
        leaf.key,
        certificates[0],
        [stranger, certificates[1]],
        BestAvailableEncryption(secret) if secret else NoEncryption(),
    )
    found = open_container(data, "the key", asked if secret else never)
    assert found.chain == tuple(certificates)
    assert found.passphrase == secret


def test_pem_with_a_certificate_before_the_key() -> None:
    leaf = certify("trainer")
    pem = leaf.pem + leaf.key.private_bytes(*FORMS["pkcs8-pem"])
    assert len(open_container(pem, "the key", never).chain) == 1


@pytest.mark.oracle
@pytest.mark.parametrize("more", [[], ["-legacy"]], ids=["modern", "legacy"])
def test_what_openssl_writes(tmp_path: Path, more: list[str], need_program: Callable[[str, str, str], None]) -> None:
    need_program("openssl", "openssl", "containers that it writes")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, cwd=tmp_path, capture_output=True)

    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key.pem")
    openssl(
        *("req", "-x509", "-key", "key.pem", "-subj", "/CN=trainer", "-days", "1", "-out", "cert.pem"),
    )
    openssl(
        *("pkcs12", "-export", *more, "-inkey", "key.pem", "-in", "cert.pem"),
        *("-passout", f"pass:{SECRET.decode()}", "-out", "key.p12"),
    )
    openssl("ec", "-in", "key.pem", "-aes256", "-passout", f"pass:{SECRET.decode()}", "-out", "sec1.pem")
    # With parameters before the key, as old releases wrote by default.
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-out", "parameters.pem")
    for name, callback in (("key.pem", never), ("parameters.pem", never), ("key.p12", asked), ("sec1.pem", asked)):
        found = open_container((tmp_path / name).read_bytes(), "the key", callback)
        assert found.public.algorithm == "ECDSA P-256"
        assert len(found.chain) == (name == "key.p12")


@pytest.mark.oracle
def test_what_ssh_keygen_writes(tmp_path: Path, need_program: Callable[[str, str, str], None]) -> None:
    need_program("ssh-keygen", "openssh-client", "keys that it writes")
    for kind, size, algorithm in (("ecdsa", ["-b", "384"], "ECDSA P-384"), ("ed25519", [], "Ed25519")):
        path = tmp_path / kind
        subprocess.run(["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-f", str(path)], check=True)
        assert open_container(path.read_bytes(), "the key", never).public.algorithm == algorithm


@pytest.mark.oracle
def test_an_encrypted_openssh_key_has_a_way(
    tmp_path: Path, need_program: Callable[[str, str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key derivation is bcrypt's, a library that we do not bring; the next step that is shown works."""
    from cryptography.hazmat.primitives.serialization import ssh

    need_program("ssh-keygen", "openssh-client", "keys that it encrypts")
    monkeypatch.setattr(ssh, "_bcrypt_supported", False)
    path = tmp_path / "id"
    secret = SECRET.decode()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", secret, "-f", str(path)], check=True)
    with pytest.raises(UsageError) as caught:
        open_container(path.read_bytes(), "the key", asked)
    assert caught.value.code == "KEY_UNSUPPORTED"
    assert "ssh-keygen -p -N '' -f" in caught.value.next_step
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", secret, "-N", "", "-f", str(path)], check=True)
    assert open_container(path.read_bytes(), "the key", never).public.algorithm == "Ed25519"


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65537, 2048),
        lambda: dsa.generate_private_key(2048),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        lambda: ec.generate_private_key(ec.SECP224R1()),
        lambda: x25519.X25519PrivateKey.generate(),
    ],
    ids=["rsa", "dsa", "secp256k1", "p224", "x25519"],
)
def test_kinds_that_cannot_sign_for_us(make: Callable[[], Any]) -> None:
    data = make().private_bytes(*FORMS["pkcs8-pem"])
    with pytest.raises(UsageError) as caught:
        open_container(data, "the key", never)
    assert caught.value.code == "KEY_UNSUPPORTED"


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("value", ["one", "short", "order-minus-one"])
def test_numbers_that_can_be_guessed(curve: str, value: str) -> None:
    order = CURVES[curve].group_order
    number = {"one": 1, "short": 2**128 + 7, "order-minus-one": order - 1}[value]
    data = ec.derive_private_key(number, CURVES[curve]).private_bytes(*FORMS["pkcs8-pem"])
    with pytest.raises(UsageError) as caught:
        open_container(data, "the key", never)
    assert caught.value.code == "KEY_WEAK"


@pytest.mark.parametrize("seed", [bytes(32), b"\x01" * 32, b"abcdabcdabcdabcdabcdabcdabcdabcd"])
def test_seeds_that_can_be_guessed(seed: bytes) -> None:
    data = ed25519.Ed25519PrivateKey.from_private_bytes(seed).private_bytes(*FORMS["pkcs8-pem"])
    with pytest.raises(UsageError) as caught:
        open_container(data, "the key", never)
    assert caught.value.code == "KEY_WEAK"


@pytest.mark.parametrize("form", ["pkcs8-pem-encrypted", "pkcs8-der-encrypted", "pkcs12"])
@pytest.mark.parametrize("wrong", [b"hunter2", b"", b"\xff" * 9])
def test_a_wrong_passphrase(form: str, wrong: bytes) -> None:
    made = key()
    data = (
        pkcs12.serialize_key_and_certificates(None, made, None, None, BestAvailableEncryption(SECRET))
        if form == "pkcs12"
        else made.private_bytes(*FORMS[form])
    )
    with pytest.raises(UsageError) as caught:
        open_container(data, "the key", lambda uri: wrong)
    assert caught.value.code == "KEY_UNREADABLE"
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_certificates_of_others_and_none() -> None:
    made, other = key(), certify("other")
    with pytest.raises(UsageError, match="belongs to its key"):
        open_container(other.pem + made.private_bytes(*FORMS["pkcs8-pem"]), "the key", never)
    certificate = x509.load_pem_x509_certificate(other.pem)
    alone = pkcs12.serialize_key_and_certificates(None, None, certificate, None, NoEncryption())
    with pytest.raises(UsageError, match="no private key"):
        open_container(alone, "the key", never)


def test_halves_that_do_not_fit() -> None:
    """A SEC 1 structure says its public half itself."""
    first, second = (key().private_bytes(*FORMS["sec1-der"]) for _ in range(2))
    public = serialization.load_der_private_key(second, None).public_key()
    theirs = public.public_bytes(Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    mine = serialization.load_der_private_key(first, None).public_key()
    ours = mine.public_bytes(Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    assert ours in first
    with pytest.raises(UsageError):
        open_container(first.replace(ours, theirs), "the key", never)


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\x30\x82\x01\x00\x02\x01\x03", b"-----BEGIN PRIVATE KEY-----\n"])
)
def test_any_bytes_are_read_or_refused(data: bytes, head: bytes) -> None:
    with pytest.raises(UsageError):
        open_container(head + data, "the key", lambda uri: b"x")
