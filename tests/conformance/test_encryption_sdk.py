"""The official AWS Encryption SDK as the oracle: it opens what we write, and we open what it writes.

Published test vectors too: `commitment-test-vectors.json` of aws-encryption-sdk-python.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sealflow.encryption import (
    ARTIFACT,
    EncryptedDataKey,
    EncryptionContext,
    Recipient,
    decrypt_message,
    encrypt_message,
    load_recipient,
    parse_header,
)
from sealflow.encryption.suite import derive
from sealflow.encryption.value import load_value_keys, seal_value
from sealflow.errors import SealflowError
from tests.conformance.conftest import REQUIRE_ORACLES
from tests.conftest import ROOT
from tests.core.encryption.messages import RSA_PEM, RSA_PUBLIC_PEM, Knows, aes, forge, parts, private_rsa, public_rsa

# The SDK takes seconds to import.
pytestmark = [pytest.mark.slow, pytest.mark.oracle]

CONTEXTS = {"empty": {}, "plain": {ARTIFACT: "sha256:ab", "b": ""}, "unicode": {"ü": "ß", "😀": "\u0000é", "z": "日本"}}
SIZES = (0, 1, 127, 128, 129, 256, 1000)
SIGNED = "AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384"
UNSIGNED = "AES_256_GCM_HKDF_SHA512_COMMIT_KEY"


@pytest.fixture(scope="module")
def sdk(loud: Callable[[str], None]) -> Any:
    """The SDK with its keyrings, which need Python 3.11."""
    try:
        import aws_encryption_sdk
        from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders, models
        from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
    except ImportError as error:
        what = f"the official encryption SDK cannot be imported ({error})"
        if REQUIRE_ORACLES and sys.version_info >= (3, 11):
            pytest.fail(f"SEALFLOW_REQUIRE_ORACLES=1, but {what}")
        loud(f"ORACLE: encrypted artifacts were not compared with the official SDK, {what}")
        pytest.skip(what)
    return SimpleNamespace(
        client=aws_encryption_sdk.EncryptionSDKClient(),
        mpl=AwsCryptographicMaterialProviders(config=MaterialProvidersConfig()),
        models=models,
        suites=aws_encryption_sdk.Algorithm,
    )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


def rsa_keyring(sdk: Any, name: str, namespace: str = "sealflow") -> Any:
    return sdk.mpl.create_raw_rsa_keyring(
        input=sdk.models.CreateRawRsaKeyringInput(
            key_namespace=namespace,
            key_name=name,
            padding_scheme=sdk.models.PaddingScheme.OAEP_SHA256_MGF1,
            private_key=RSA_PEM,
            public_key=RSA_PUBLIC_PEM,
        )
    )


def aes_keyring(sdk: Any, name: str, fill: int = 7, namespace: str = "sealflow") -> Any:
    return sdk.mpl.create_raw_aes_keyring(
        input=sdk.models.CreateRawAesKeyringInput(
            key_namespace=namespace,
            key_name=name,
            wrapping_key=bytes([fill]) * 32,
            wrapping_alg=sdk.models.AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16,
        )
    )


def multi(sdk: Any, *keyrings: Any) -> Any:
    first, *others = keyrings
    return sdk.mpl.create_multi_keyring(
        input=sdk.models.CreateMultiKeyringInput(generator=first, child_keyrings=others)
    )


def keyring_of(sdk: Any, recipient: Any, kind: str) -> Any:
    return (rsa_keyring if kind == "rsa" else aes_keyring)(sdk, recipient.name)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("kind", ["rsa", "aes"])
def test_the_sdk_opens_ours(sdk: Any, keys: Path, kind: str, context: str) -> None:
    recipient = public_rsa(keys) if kind == "rsa" else aes(keys)
    keyring = keyring_of(sdk, recipient, kind)
    for frame_length in (16, 100, 128, 1 << 20):
        for size in SIZES:
            content = os.urandom(size)
            message = encrypt_message(content, [recipient], CONTEXTS[context], frame_length=frame_length)
            plaintext, header = sdk.client.decrypt(
                source=message, keyring=keyring, encryption_context=CONTEXTS[context]
            )
            assert plaintext == content
            assert dict(header.encryption_context) == CONTEXTS[context]
            assert header.message_id == parse_header(message).message_id


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("suite", [UNSIGNED, SIGNED])
@pytest.mark.parametrize("kind", ["rsa", "aes"])
def test_we_open_the_sdks(sdk: Any, keys: Path, kind: str, suite: str, context: str) -> None:
    recipient = private_rsa(keys) if kind == "rsa" else aes(keys)
    keyring = keyring_of(sdk, recipient, kind)
    for frame_length in (128, 4096):
        for size in SIZES:
            content = os.urandom(size)
            message, _ = sdk.client.encrypt(
                source=content,
                keyring=keyring,
                encryption_context=CONTEXTS[context],
                frame_length=frame_length,
                algorithm=getattr(sdk.suites, suite),
            )
            assert parse_header(message).signed is (suite == SIGNED)
            assert decrypt_message(message, [recipient], expected=CONTEXTS[context]) == content


def test_many_frames_both_ways(sdk: Any, keys: Path) -> None:
    recipient = aes(keys)
    keyring = aes_keyring(sdk, recipient.name)  # type: ignore[attr-defined]
    content = os.urandom((3 << 20) + 5)
    for frame_length in (4096, 1 << 20):
        message = encrypt_message(content, [recipient], {}, frame_length=frame_length)
        assert sdk.client.decrypt(source=message, keyring=keyring)[0] == content
        message, _ = sdk.client.encrypt(source=content, keyring=keyring, frame_length=frame_length)
        assert decrypt_message(message, [recipient], expected={}) == content


def test_several_recipients_both_ways(sdk: Any, keys: Path) -> None:
    ours = [public_rsa(keys), aes(keys), aes(keys, 8)]
    openers = [private_rsa(keys), *ours[1:]]
    keyrings = [
        rsa_keyring(sdk, ours[0].name),  # type: ignore[attr-defined]
        aes_keyring(sdk, ours[1].name),  # type: ignore[attr-defined]
        aes_keyring(sdk, ours[2].name, 8),  # type: ignore[attr-defined]
    ]
    message = encrypt_message(b"weights", ours, {"a": "b"})
    for keyring in keyrings:
        assert sdk.client.decrypt(source=message, keyring=keyring)[0] == b"weights"
    message, _ = sdk.client.encrypt(source=b"weights", keyring=multi(sdk, *keyrings), encryption_context={"a": "b"})
    assert len(parse_header(message).data_keys) == 3
    for opener in openers:
        assert decrypt_message(message, [opener], expected={"a": "b"}) == b"weights"


def test_keys_by_the_names_of_others(sdk: Any, keys: Path) -> None:
    query = "?namespace=k%C3%BCche&name=2026%2Fn%C3%B6"
    for opener, keyring in (
        (private_rsa(keys, query), rsa_keyring(sdk, "2026/nö", "küche")),
        (aes(keys, query=query), aes_keyring(sdk, "2026/nö", namespace="küche")),
    ):
        message, _ = sdk.client.encrypt(source=b"x", keyring=keyring)
        assert decrypt_message(message, [opener], expected={}) == b"x"
        message = encrypt_message(b"x", [opener], {})
        assert sdk.client.decrypt(source=message, keyring=keyring)[0] == b"x"


def test_the_sdk_opens_a_sealed_value(sdk: Any, keys: Path) -> None:
    aes(keys)
    (keys / "aes-7.key").chmod(0o600)
    (key,) = load_value_keys([f"aes:{keys / 'aes-7.key'}?name=2026-11"])
    sealed = seal_value(b'{"score": 1}', {"airflow-dag": "train"}, key, limit=100)
    plaintext, header = sdk.client.decrypt(
        source=base64.b64decode(sealed.sealed),
        keyring=aes_keyring(sdk, sealed.key_id),
        encryption_context={"airflow-dag": "train"},
    )
    assert plaintext == b'{"score": 1}'
    assert header.encryption_context == {"airflow-dag": "train"}


def test_the_sdk_skips_keys_of_unknown_providers(sdk: Any, keys: Path) -> None:
    recipient = aes(keys)
    unknown = EncryptedDataKey("post-quantum", b"x-wing", bytes(1200))
    wrapped = [unknown, recipient.wrap(b"k" * 32, EncryptionContext.of({}))]
    message = forge(b"x", wrapped, b"k" * 32)
    assert sdk.client.decrypt(source=message, keyring=aes_keyring(sdk, recipient.name))[0] == b"x"  # type: ignore[attr-defined]


def test_what_the_sdk_says_of_tampered_messages(sdk: Any, keys: Path) -> None:
    """What we add to it: it accepts bytes after the message. Noticed here when a release no longer does."""
    recipient = aes(keys)
    keyring = aes_keyring(sdk, recipient.name)  # type: ignore[attr-defined]
    message = encrypt_message(b"x" * 40, [recipient], {"run": "1"}, frame_length=16)
    header, frames, _ = parts(message)
    for tampered in (message[:-1] + b"\x00", header + frames[1] + frames[0] + frames[2], message[:-20]):
        with pytest.raises(Exception):  # noqa: B017, PT011
            sdk.client.decrypt(source=tampered, keyring=keyring)
        with pytest.raises(SealflowError):
            decrypt_message(tampered, [recipient], expected={})
    assert sdk.client.decrypt(source=message + b"junk", keyring=keyring)[0] == b"x" * 40
    with pytest.raises(SealflowError):
        decrypt_message(message + b"junk", [recipient], expected={})


# --- Keys in KMS, as a mock of it has them ---


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import boto3
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield boto3.client("kms", region_name="eu-west-1")


def test_keys_in_kms_both_ways(sdk: Any, keys: Path, kms: Any) -> None:
    first, second = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    keyrings = [
        sdk.mpl.create_aws_kms_keyring(input=sdk.models.CreateAwsKmsKeyringInput(kms_key_id=arn, kms_client=kms))
        for arn in (first, second)
    ]
    recipients = [load_recipient(f"awskms:{arn}") for arn in (first, second)]
    context = {ARTIFACT: "sha256:ab"}
    for order in (recipients, [aes(keys), *recipients]):
        message = encrypt_message(b"weights", order, context)
        for keyring, recipient in zip(keyrings, recipients, strict=True):
            assert sdk.client.decrypt(source=message, keyring=keyring)[0] == b"weights"
            assert decrypt_message(message, [recipient], expected=context) == b"weights"
    for suite in (UNSIGNED, SIGNED):
        message, _ = sdk.client.encrypt(
            source=b"weights",
            keyring=multi(sdk, *keyrings),
            encryption_context=context,
            algorithm=getattr(sdk.suites, suite),
        )
        for recipient in recipients:
            assert decrypt_message(message, [recipient], expected=context) == b"weights"


# --- What the documentation says ---


def test_the_documented_way_to_open_it_without_us(sdk: Any, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reference" / "encryption.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"<!-- A test runs exactly this. -->\n```python\n(.*?)```", page, re.DOTALL)
    assert len(script.splitlines()) == 10
    content = os.urandom(300_000)
    message = encrypt_message(content, [public_rsa(tmp_path)], {ARTIFACT: "x"})
    private_rsa(tmp_path)  # writes the file
    (tmp_path / "recover.py").write_text(script)
    (tmp_path / "message").write_bytes(message)
    name = subprocess.run(
        ["sha256sum", tmp_path / "rsa.pub"], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    arguments = [name, tmp_path / "rsa.pem", tmp_path / "message", tmp_path / "plaintext"]
    # Nothing of ours: isolated, and in a folder of its own.
    done = subprocess.run([sys.executable, "-I", tmp_path / "recover.py", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "plaintext").read_bytes() == content


# --- Published vectors ---


@pytest.fixture(scope="module")
def vectors() -> list[dict[str, Any]]:
    path = Path(__file__).with_name("vectors") / "commitment-test-vectors.json"
    tests: list[dict[str, Any]] = json.loads(path.read_text())["tests"]
    return tests


def test_published_vectors(vectors: list[dict[str, Any]]) -> None:
    """Those of bodies without frames are refused, all others give what they should."""
    seen = {"opened": 0, "unframed": 0, "refused": 0}
    for vector in vectors:
        message = base64.b64decode(vector["ciphertext"])
        holder: Recipient = Knows(base64.b64decode(vector["decrypted-dek"]))
        context = vector["encryption-context"]
        if not vector["status"]:
            with pytest.raises(SealflowError) as caught:
                decrypt_message(message, [holder], expected=context)
            assert caught.value.code == "COMMITMENT_MISMATCH", vector["comment"]
            seen["refused"] += 1
        elif "unframed" in vector["comment"]:
            with pytest.raises(SealflowError) as caught:
                decrypt_message(message, [holder], expected=context)
            assert caught.value.code == "MESSAGE_UNSUPPORTED", vector["comment"]
            seen["unframed"] += 1
        else:
            plaintext = "".join(vector["plaintext-frames"]).encode()
            assert decrypt_message(message, [holder], expected=context) == plaintext, vector["comment"]
            header = parse_header(message)
            assert base64.b64decode(vector["header"]) == header.raw
            assert base64.b64decode(vector["message-id"]) == header.message_id
            commitment = derive(base64.b64decode(vector["decrypted-dek"]), header.suite, header.message_id)[1]
            assert base64.b64decode(vector["commitment"]) == commitment == header.commitment
            seen["opened"] += 1
    assert seen == {"opened": 34, "unframed": 7, "refused": 5}
