"""Keys on PKCS#11 tokens, against SoftHSM2."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

import sealflow
from sealflow.errors import MissingExtraError, PolicyError, UnavailableError, UsageError
from sealflow.keys import load_public_key, load_signer
from sealflow.keys.pkcs11 import Pkcs11Signer
from sealflow.keys.public import PublicKey
from sealflow.policy.draft import read_draft
from tests.servers.softhsm import KEYS, SoftHsm
from tests.trees import write_tree


@pytest.fixture(autouse=True)
def _library(softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_PKCS11_MODULE", softhsm.library)


@pytest.fixture
def pin(softhsm: SoftHsm) -> Any:
    return lambda uri: softhsm.pin.encode()


@pytest.mark.parametrize("name", [*KEYS, "ed25519"])
def test_signs_with_every_kind_of_key(softhsm: SoftHsm, pin: Any, name: str) -> None:
    signer = load_signer(softhsm.uri(name), pin)
    data = b"x" * 100_000
    assert signer.public_key.verify(signer.sign(data), data)
    assert signer.public_key.algorithm == {"ed25519": "Ed25519"}.get(name, f"ECDSA P-{name[1:]}")
    # The public half needs no PIN, and is the same from wherever it is asked.
    assert load_public_key(softhsm.uri(name)).hint == signer.public_key.hint
    assert "?" not in signer.uri


def test_a_signed_artifact_verifies_with_the_public_half_alone(softhsm: SoftHsm, tmp_path: Path) -> None:
    (tmp_path / "pin").write_text(softhsm.pin + "\n")
    model = write_tree(tmp_path / "model", {"a": b"1", "b/c": b"2"})
    ref = sealflow.sign(model, signer=softhsm.uri("p384", **{"pin-source": str(tmp_path / "pin")}))
    pem = load_public_key(softhsm.uri("p384")).pem.decode()
    assert sealflow.verify(ref, identities=pem).passed


def test_the_pin_comes_from_a_variable(softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = load_signer(softhsm.uri("p256", **{"pin-source": "env:TEAM_PIN"}))
    with pytest.raises(UsageError) as unset:
        signer.sign(b"x")
    assert unset.value.code == "PASSPHRASE_MISSING"
    monkeypatch.setenv("TEAM_PIN", softhsm.pin)
    assert signer.public_key.verify(signer.sign(b"x"), b"x")
    # Without a source it is asked for as a passphrase is.
    monkeypatch.setenv("SEALFLOW_KEY_PASSPHRASE", softhsm.pin)
    assert load_signer(softhsm.uri("p256")).sign(b"x")


def test_a_wrong_pin_is_said_and_not_shown(softhsm: SoftHsm) -> None:
    signer = load_signer(softhsm.uri("p256"), lambda uri: b"hunter2")
    with pytest.raises(UsageError) as caught:
        signer.sign(b"x")
    assert caught.value.code == "KEY_UNREADABLE"
    assert "hunter2" not in str(caught.value)
    with pytest.raises(UsageError, match="not UTF-8"):
        load_signer(softhsm.uri("p256"), lambda uri: b"\xff").sign(b"x")


def test_the_library_comes_from_a_variable_alone(
    softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A library is code: whoever checks a draft of somebody's must not run what it names."""
    monkeypatch.delenv("SEALFLOW_PKCS11_MODULE")
    with pytest.raises(UsageError, match="No library"):
        load_public_key(softhsm.uri("p256"))
    (tmp_path / "draft.yaml").write_text(
        "apiVersion: sealflow/v1\nversion: 1\nexpires: 2999-01-01T00:00:00Z\n"
        f"identities:\n  trainer:\n    key: '{softhsm.uri('p256', **{'module-path': softhsm.library})}'\n"
    )
    loaded = []
    monkeypatch.setattr("pkcs11.lib", loaded.append)
    with pytest.raises(PolicyError, match="names a library"):
        read_draft(str(tmp_path / "draft.yaml"))
    assert loaded == []


@pytest.mark.parametrize("module", ["libsofthsm2.so", "/absent/module.so", "/etc"])
def test_a_library_is_an_absolute_path_to_a_file(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_PKCS11_MODULE", module)
    with pytest.raises(UsageError) as caught:
        load_public_key("pkcs11:object=k")
    assert caught.value.code == "KEY_MISSING"


def test_what_is_no_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module.so").write_bytes(b"no library")
    monkeypatch.setenv("SEALFLOW_PKCS11_MODULE", f"{tmp_path}/module.so")
    with pytest.raises(UnavailableError):
        load_public_key("pkcs11:object=k")


def test_keys_that_are_not_there(softhsm: SoftHsm, pin: Any) -> None:
    with pytest.raises(UnavailableError, match="No token"):
        load_signer(softhsm.uri("p256").replace("token=sealflow", "token=other"), pin)
    with pytest.raises(UsageError) as caught:
        load_signer(softhsm.uri("absent"), pin)
    assert caught.value.code == "KEY_MISSING"
    # Both attributes must fit.
    with pytest.raises(UsageError):
        load_signer(softhsm.uri("p256").replace("object=p256", "object=p256;id=%02"), pin)
    assert load_signer(softhsm.uri("p256").replace("object=p256", "id=%02"), pin).public_key.algorithm == "ECDSA P-384"


def test_two_keys_of_one_label_are_told_apart_by_their_id(softhsm: SoftHsm, pin: Any) -> None:
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters

    with softhsm.session() as session:
        parameters = session.create_domain_parameters(
            pkcs11.KeyType.EC,
            {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")},
            local=True,
        )
        for ident in (b"\x11", b"\x12"):
            parameters.generate_keypair(store=True, label="twins", id=ident)
    with pytest.raises(UsageError, match="2 public keys"):
        load_signer(softhsm.uri("twins"), pin)
    hints = {
        load_signer(softhsm.uri("twins").replace("object=twins", f"object=twins;id=%{n}"), pin).public_key.hint
        for n in ("11", "12")
    }
    assert len(hints) == 2


def test_kinds_that_cannot_sign_for_us(softhsm: SoftHsm, pin: Any) -> None:
    with pytest.raises(UsageError) as caught:
        load_signer(softhsm.uri("rsa"), pin)
    assert caught.value.code == "KEY_UNSUPPORTED"


def test_a_token_whose_halves_do_not_fit_is_found_out(softhsm: SoftHsm, pin: Any) -> None:
    """A public object beside somebody else's private one: nothing may be called signed then."""
    import pkcs11
    from pkcs11.util.ec import decode_ec_public_key, encode_named_curve_parameters

    other = load_pem_public_key(load_public_key(softhsm.uri("p256")).pem)
    der = other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with softhsm.session() as session:
        parameters = session.create_domain_parameters(
            pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
        )
        public, _ = parameters.generate_keypair(store=True, label="crossed", id=b"\x21")
        public.destroy()
        session.create_object(
            {**decode_ec_public_key(der), pkcs11.Attribute.TOKEN: True, pkcs11.Attribute.LABEL: "crossed"}
        )
    with pytest.raises(UnavailableError, match="does not verify"):
        load_signer(softhsm.uri("crossed"), pin).sign(b"x")


def test_threads_share_a_token(softhsm: SoftHsm, pin: Any) -> None:
    signers = [load_signer(softhsm.uri(name), pin) for name in ("p256", "p384")]
    bad: list[object] = []

    def work(index: int) -> None:
        try:
            for _ in range(5):
                data = b"%d" % index
                if not signers[index % 2].public_key.verify(signers[index % 2].sign(data), data):
                    bad.append(index)
        except Exception as error:
            bad.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bad == []


def test_somebody_else_is_logged_in(softhsm: SoftHsm, pin: Any) -> None:
    with softhsm.session():
        assert load_signer(softhsm.uri("p256"), pin).sign(b"x")


def _sign_in_child(uri: str, pin: str, pipe: Any) -> None:
    try:
        pipe.send(load_signer(uri, lambda _: pin.encode()).sign(b"child"))
    except Exception as error:
        pipe.send(repr(error))


def test_a_forked_child_signs(softhsm: SoftHsm, pin: Any) -> None:
    """Airflow forks its tasks; a token's sessions do not survive that."""
    signer = load_signer(softhsm.uri("p256"), pin)
    signer.sign(b"parent")
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(
        target=_sign_in_child, args=(softhsm.uri("p256"), softhsm.pin, theirs)
    )
    child.start()
    answer = ours.recv() if ours.poll(60) else "no answer"
    child.join(60)
    assert isinstance(answer, bytes), answer
    assert signer.public_key.verify(answer, b"child")
    assert signer.public_key.verify(signer.sign(b"parent"), b"parent")


def test_without_the_library_one_error_names_the_extra(softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    for act in (load_public_key, lambda uri: Pkcs11Signer(uri, lambda _: b"")):
        with pytest.raises(MissingExtraError) as caught:
            act(softhsm.uri("p256"))
        assert caught.value.extra == "pkcs11"


def test_a_certificate_of_a_key_on_a_token(softhsm: SoftHsm, pin: Any, tmp_path: Path) -> None:
    from tests.pki import certify

    (tmp_path / "cert.pem").write_bytes(certify("somebody else").pem)
    with pytest.raises(UsageError, match="another key"):
        load_signer(softhsm.uri("p256", certificate=str(tmp_path / "cert.pem")), pin)


def test_the_public_half_is_ours(softhsm: SoftHsm) -> None:
    """The same SubjectPublicKeyInfo as OpenSSL writes, or the fingerprint would be another."""
    key = load_public_key(softhsm.uri("p521"))
    assert PublicKey(load_pem_public_key(key.pem)).hint == key.hint
