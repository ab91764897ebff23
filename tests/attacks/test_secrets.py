"""Secrets that must not come out: keys, passphrases, parameter values, credentials in locations."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import sealflow
from sealflow.errors import SealflowError
from sealflow.run_identity import RunIdentity
from tests.attacks.world import RUN, World
from tests.pki import private_pem

PASSPHRASE = "correct-horse-battery-staple"
VALUE = "hunter2-database-password"
# Short, and in letters that no hexadecimal digest holds.
PIN = "tulip"
DEPLOYMENT_KEY = "0123456789abcdef-deployment-key"


def _pieces(pem: bytes) -> list[str]:
    """Return every stretch of 16 characters of a key's body: enough to be worth stealing."""
    body = "".join(line for line in pem.decode().splitlines() if not line.startswith("-"))
    return [body[start : start + 16] for start in range(0, len(body) - 16)]


def _everything(world: World, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    output = capsys.readouterr()
    yield output.out
    yield output.err
    yield caplog.text
    for path in world.folder.parent.rglob("*"):
        if path.is_file() and path.suffix != ".pem" and path.name != "hmac.key":
            yield path.read_bytes().decode("utf-8", "replace")


def test_nothing_secret_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    world = World(tmp_path / "world", "tree")
    key = ec.generate_private_key(ec.SECP256R1())
    plain = private_pem(key)
    encrypted = world.folder / "encrypted.pem"
    encrypted.write_bytes(private_pem(key, PASSPHRASE.encode()))
    public = world.folder / "public.pem"
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    (world.folder / "hmac.key").write_text(DEPLOYMENT_KEY)
    log = tmp_path / "spool"
    monkeypatch.setenv("SEALFLOW_KEY_PASSPHRASE", PASSPHRASE)
    settings = sealflow.Settings(
        signer=f"file:{encrypted}",
        identities=str(public),
        audit_spool=str(log),
        parameter_key=str(world.folder / "hmac.key"),
    )
    surroundings = sealflow.Surroundings(RUN, settings, {"password": VALUE})
    with sealflow.run(surroundings):
        ref = sealflow.sign(world.artifact)
        with sealflow.verified(ref):
            pass
        verdict = sealflow.verify(ref)
        (world.artifact / "a.bin").write_bytes(b"x")
        refused = sealflow.verify(ref)
        # Errors with the key open.
        with pytest.raises(SealflowError) as caught:
            sealflow.sign(world.folder / "nowhere")
    assert verdict.passed
    assert not refused.passed
    texts = [
        *_everything(world, capsys, caplog),
        json.dumps(verdict.as_dict()),
        json.dumps(refused.as_dict()),
        ref.to_json(),
        repr(surroundings),
        "".join(traceback.format_exception(caught.value)),
    ]
    assert any('"intent"' in text for text in texts), "the audit log was not looked at"
    for secret in (PASSPHRASE, VALUE, DEPLOYMENT_KEY, *_pieces(plain), *_pieces(encrypted.read_bytes())):
        for text in texts:
            assert secret not in text


def test_equal_values_cannot_be_guessed_without_the_deployment_key(tree: World) -> None:
    """Without a key a value is not hashed at all: a hash of a short value is the value."""
    with sealflow.run(sealflow.Surroundings(RUN, parameters={"pin": PIN})):
        ref = sealflow.sign(tree.artifact, signer=tree.trainer.signer, evidence_store=str(tree.folder / "s"))
    (path,) = (tree.folder / "s" / ref.digest.path_segment).glob("provenance-*")
    import base64
    import hashlib

    payload = base64.b64decode(json.loads(path.read_bytes())["dsseEnvelope"]["payload"])
    assert PIN.encode() not in payload
    assert hashlib.sha256(PIN.encode()).hexdigest().encode() not in payload


def _sec1(key: Any) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()


def _bare(key: Any) -> str:
    return "".join(line for line in _sec1(key).splitlines() if not line.startswith("-"))


FORMS: dict[str, Callable[[Any], str]] = {
    "pkcs8": lambda key: private_pem(key).decode(),
    "sec1": _sec1,
    "base64-alone": _bare,
    "after-a-comment": lambda key: "# my key\n" + _sec1(key),
    "with-escaped-newlines": lambda key: _sec1(key).replace("\n", "\\n"),
    "as-file-uri": lambda key: "file:" + _sec1(key),
    "in-a-query": lambda key: f"file:/nowhere.pem?key={_bare(key)}",
}


@pytest.mark.parametrize("form", [pytest.param(form, id=name) for name, form in FORMS.items()])
def test_key_put_where_its_uri_belongs(tree: World, form: Callable[[Any], str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    text = form(key)
    for call in (
        lambda: tree.sign(signer=text),
        lambda: tree.check(identities=text),
        lambda: tree.check(identities={"a": {"key": text}}),
        lambda: tree.check(identities={"a": {"certificate": {"roots": text, "names": ["dns:a"]}}}),
    ):
        with pytest.raises(SealflowError) as caught:
            call()
        shown = "".join(traceback.format_exception(caught.value))
        # The head of every such key is the same.
        body = _bare(key)
        leaked = [body[at : at + 16] for at in range(10, len(body) - 16) if body[at : at + 16] in shown]
        assert leaked == []


@pytest.mark.parametrize("value", [b"xyzzy", b"", b"\xff\xfe"])
def test_wrong_passphrase(tree: World, value: bytes) -> None:
    path = tree.folder / "encrypted.pem"
    path.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1()), PASSPHRASE.encode()))
    with pytest.raises(SealflowError) as caught:
        tree.sign(signer=f"file:{path}", passphrase=lambda uri: value)
    assert "xyzzy" not in str(caught.value).replace(str(tree.folder), "")
    assert PASSPHRASE not in str(caught.value)


@pytest.mark.parametrize(
    "location",
    [
        "s3://key:topsecret@bucket/x",
        "gs://user:topsecret@bucket/x",
        "https://user:topsecret@host/x",
        "ftp://user:topsecret@host/x",
        "simplecache::s3://key:topsecret@bucket/x",
        "memory://x::s3://key:topsecret@bucket/x",
        "abfs://container/x?sig=topsecret",
        "sftp:user:topsecret@host/x",
    ],
)
def test_credentials_in_a_location(tree: World, location: str) -> None:
    for call in (
        lambda: tree.check(location),
        lambda: tree.check(evidence_store=location),
        lambda: sealflow.sign(location, signer=tree.trainer.signer),
        lambda: sealflow.sign(tree.artifact, signer=tree.trainer.signer, evidence_store=location),
    ):
        with pytest.raises(SealflowError) as caught:
            call()
        assert "topsecret" not in str(caught.value)


def test_run_identity_is_all_that_a_run_tells(tree: World) -> None:
    run = RunIdentity("airflow", "d", "t", "r")
    assert set(run.as_dict()) <= {"orchestrator", "workflow", "task", "run", "map_index", "attempt", "instance"}
