"""Signers: found by URI, opened late, honest about what they cannot do."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sealflow.errors import UsageError
from sealflow.keys import SIGNERS, load_public_key, load_signer, register_signer
from sealflow.keys import signer as signer_module
from tests.pki import CURVES, certify, private_pem, write_key, write_pki


def no_passphrase(uri: str) -> bytes:
    raise AssertionError("asked for a passphrase that is not needed")


@pytest.mark.parametrize("curve", CURVES)
def test_file(tmp_path: Path, curve: str) -> None:
    keys = write_key(tmp_path, curve=curve)
    signer = load_signer(keys.signer, no_passphrase)
    public = load_public_key(str(keys.public))
    assert signer.public_key.hint == public.hint
    assert signer.certificates == ()
    assert public.verify(signer.sign(b"data"), b"data")


def test_ed25519(tmp_path: Path) -> None:
    keys = write_key(tmp_path, key=ed25519.Ed25519PrivateKey.generate())
    signer = load_signer(keys.signer)
    assert load_public_key(str(keys.public)).verify(signer.sign(b"data"), b"data")
    assert not signer.public_key.fits_oms


def test_sec1_form(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "key.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    signer = load_signer(f"file:{path}")
    assert signer.public_key.verify(signer.sign(b"data"), b"data")


@pytest.fixture
def encrypted(tmp_path: Path) -> str:
    path = tmp_path / "key.pem"
    path.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1()), "größe".encode()))
    return f"file:{path}"


def test_passphrase_from_a_callback(encrypted: str) -> None:
    asked = []

    def passphrase(uri: str) -> bytes:
        asked.append(uri)
        return "größe".encode()

    signer = load_signer(encrypted, passphrase)
    assert signer.public_key.verify(signer.sign(b"data"), b"data")
    assert asked == [encrypted]


def test_passphrase_from_the_environment(encrypted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_KEY_PASSPHRASE", "größe")
    signer = load_signer(encrypted)
    assert signer.public_key.verify(signer.sign(b"data"), b"data")


def test_no_passphrase(encrypted: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_signer(encrypted)
    assert caught.value.code == "PASSPHRASE_MISSING"
    assert "SEALFLOW_KEY_PASSPHRASE" in caught.value.next_step


@pytest.mark.parametrize("wrong", [b"hunter2", b"", b"\xff"], ids=["another", "empty", "not-text"])
def test_wrong_passphrase(encrypted: str, wrong: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        load_signer(encrypted, lambda uri: wrong)
    assert caught.value.code == "KEY_UNREADABLE"
    assert "passphrase" in caught.value.next_step
    assert "hunter2" not in str(caught.value)


def test_a_passphrase_is_never_part_of_the_uri(encrypted: str) -> None:
    for name in ("passphrase", "password"):
        with pytest.raises(UsageError, match="takes certificate, not") as caught:
            load_signer(f"{encrypted}?{name}=hunter2")
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(rsa.generate_private_key(65537, 2048), id="rsa"),
        pytest.param(ec.generate_private_key(ec.SECP256K1()), id="k1"),
    ],
)
def test_other_kinds_are_refused(tmp_path: Path, key: Any) -> None:
    keys = write_key(tmp_path, key=key)
    with pytest.raises(UsageError) as caught:
        load_signer(keys.signer)
    assert caught.value.code == "KEY_UNSUPPORTED"


def test_a_public_key_where_a_private_one_belongs(tmp_path: Path) -> None:
    keys = write_key(tmp_path)
    with pytest.raises(UsageError) as caught:
        load_signer(f"file:{keys.public}")
    assert caught.value.code == "KEY_UNREADABLE"


@pytest.mark.parametrize(
    "uri", ["", "key.pem", "/keys/key.pem", "ftp:x", "pkcs12:x", "FILE:/x", "awskms:", "awskms:///"]
)
def test_uris_that_name_no_signer(uri: str) -> None:
    with pytest.raises(UsageError):
        load_signer(uri)


def test_other_schemes_can_be_added_and_none_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = write_key(tmp_path)
    opened = []

    def factory(uri: str, passphrase: Any) -> Any:
        opened.append(uri)
        return load_signer(keys.signer)

    monkeypatch.delitem(SIGNERS, "mine", raising=False)
    register_signer("mine", factory)
    try:
        assert load_signer("mine:key").public_key.hint == load_public_key(str(keys.public)).hint
        assert opened == ["mine:key"]
        with pytest.raises(UsageError, match="taken"):
            register_signer("mine", lambda uri, passphrase: load_signer(keys.signer))
        with pytest.raises(UsageError, match="taken"):
            register_signer("file", factory)
    finally:
        del SIGNERS["mine"]


def test_entry_points_are_of_signers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = write_key(tmp_path)

    class Entry:
        name = "theirs"

        @staticmethod
        def load() -> Any:
            return lambda uri, passphrase: load_signer(keys.signer)

    monkeypatch.setattr(signer_module, "SIGNERS", copy.copy(SIGNERS))
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Entry] if group == "sealflow.signers" else [])
    assert load_signer("theirs:x").public_key.hint == load_public_key(str(keys.public)).hint


def test_a_certificate_chain_travels_with_the_signature(tmp_path: Path) -> None:
    pki = write_pki(tmp_path)
    signer = load_signer(pki.signer)
    assert len(signer.certificates) == 2
    from cryptography.x509 import load_der_x509_certificate

    assert load_der_x509_certificate(signer.certificates[0]) == pki.leaf.certificate


def test_the_certificate_of_another_key_is_refused(tmp_path: Path) -> None:
    pki = write_pki(tmp_path)
    other = write_key(tmp_path, "other")
    with pytest.raises(UsageError, match="belongs to another key"):
        load_signer(f"{other.signer}?certificate={pki.folder / 'chain.pem'}")
    (tmp_path / "reversed.pem").write_bytes(pki.intermediate.pem + pki.leaf.pem)
    with pytest.raises(UsageError, match="belongs to another key"):
        load_signer(f"file:{pki.private}?certificate={tmp_path / 'reversed.pem'}")
    (tmp_path / "rsa.pem").write_bytes(certify("rsa", key=rsa.generate_private_key(65537, 2048)).pem)
    with pytest.raises(UsageError):
        load_signer(f"file:{pki.private}?certificate={tmp_path / 'rsa.pem'}")


@pytest.mark.parametrize("name", ["absent.pem", "root.pem.txt"])
def test_a_certificate_file_that_is_none(tmp_path: Path, name: str) -> None:
    pki = write_pki(tmp_path)
    (tmp_path / "root.pem.txt").write_text("no certificate")
    with pytest.raises(UsageError):
        load_signer(f"file:{pki.private}?certificate={tmp_path / name}")
