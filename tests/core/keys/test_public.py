"""Public keys: which are taken, what their fingerprint is, what they verify."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519

from sealflow.errors import UnavailableError, UsageError
from sealflow.keys import load_public_key
from sealflow.keys.public import PublicKey, read_key_file
from tests.pki import CURVES, certify, private_pem, public_pem, write_key

NAMES = {"p256": "ECDSA P-256", "p384": "ECDSA P-384", "p521": "ECDSA P-521"}
HASHES = {"p256": hashes.SHA256(), "p384": hashes.SHA384(), "p521": hashes.SHA512()}


@pytest.mark.parametrize("curve", CURVES)
def test_curves_and_their_hashes(curve: str) -> None:
    private = ec.generate_private_key(CURVES[curve])
    key = load_public_key(public_pem(private).decode())
    assert key.algorithm == NAMES[curve]
    assert key.fits_oms
    signature = private.sign(b"data", ec.ECDSA(HASHES[curve]))
    assert key.verify(signature, b"data")
    assert not key.verify(signature, b"date")
    for other in HASHES.values():
        wrong = private.sign(b"data", ec.ECDSA(other))
        assert key.verify(wrong, b"data") == (other is HASHES[curve])
    legacy = private.sign(b"data", ec.ECDSA(hashes.SHA256()))
    assert key.verify(legacy, b"data", legacy_sha256=True)


@pytest.mark.parametrize("signature", [b"", b"x", b"\x30\x06\x02\x01\x00\x02\x01\x00", b"\x00" * 64, b"\x30" * 10_000])
def test_garbage_is_no_signature(signature: bytes) -> None:
    for key in (ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()):
        assert not PublicKey(key.public_key()).verify(signature, b"data")


def test_ed25519_is_outside_the_oms_registry() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    key = PublicKey(private.public_key())
    assert key.algorithm == "Ed25519"
    assert not key.fits_oms
    assert key.verify(private.sign(b"data"), b"data")


@pytest.mark.parametrize(
    "private",
    [
        pytest.param(rsa.generate_private_key(65537, 2048), id="rsa"),
        pytest.param(dsa.generate_private_key(1024), id="dsa"),
        pytest.param(ed448.Ed448PrivateKey.generate(), id="ed448"),
        pytest.param(x25519.X25519PrivateKey.generate(), id="x25519"),
        pytest.param(ec.generate_private_key(ec.SECP256K1()), id="secp256k1"),
        pytest.param(ec.generate_private_key(ec.BrainpoolP256R1()), id="brainpool"),
    ],
)
def test_other_kinds_are_refused(private: object) -> None:
    with pytest.raises(UsageError) as caught:
        load_public_key(public_pem(private).decode())
    assert caught.value.code == "KEY_UNSUPPORTED"
    assert "P-256" in caught.value.next_step


def test_the_hint_is_the_fingerprint_of_the_pem_text(tmp_path: Path) -> None:
    keys = write_key(tmp_path)
    text = subprocess.run(["openssl", "pkey", "-in", keys.private, "-pubout"], capture_output=True, check=True).stdout
    assert load_public_key(str(keys.public)).hint == hashlib.sha256(text).hexdigest()
    # However the file is written, the fingerprint is that of the canonical text.
    messy = tmp_path / "messy.pem"
    messy.write_bytes(b"a comment\r\n" + text.replace(b"\n", b"\r\n"))
    assert load_public_key(str(messy)).hint == hashlib.sha256(text).hexdigest()


def test_sources(tmp_path: Path) -> None:
    keys = write_key(tmp_path)
    expected = load_public_key(keys.public.read_text()).hint
    for source in (str(keys.public), f"file:{keys.public}", f"file://{keys.public}", "\n" + keys.public.read_text()):
        assert load_public_key(source).hint == expected


@pytest.mark.parametrize("passphrase", [None, b"secret"])
def test_a_private_key_where_a_public_one_belongs(tmp_path: Path, passphrase: bytes | None) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1()), passphrase))
    with pytest.raises(UsageError, match="private key where a public key belongs") as caught:
        load_public_key(str(path))
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"text", b"\xff" * 100, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
def test_not_a_key(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"key\.pem is not a PEM public key"):
        load_public_key(str(path))


def test_a_certificate_is_not_a_key(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    path.write_bytes(certify("x").pem)
    with pytest.raises(UsageError, match="not a PEM public key"):
        load_public_key(str(path))


def test_key_files(tmp_path: Path) -> None:
    for missing in (tmp_path / "absent", tmp_path, Path(__file__) / "below"):
        with pytest.raises(UsageError) as caught:
            read_key_file(str(missing))
        assert caught.value.code == "KEY_MISSING"
    (tmp_path / "large").write_bytes(b"x" * ((64 << 10) + 1))
    with pytest.raises(UsageError, match="no key file"):
        read_key_file(str(tmp_path / "large"))


def test_a_key_file_without_permission_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(UnavailableError) as caught:
        read_key_file("/keys/x")
    assert caught.value.code == "PERMISSION_DENIED"
    assert caught.value.retryable
