"""AWS KMS through a stand-in that, unlike the usual mocks, honours ``MessageType``."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

import sealflow
from sealflow.errors import UnavailableError, UsageError
from sealflow.keys.awskms import AwsKmsSigner, public_key
from tests.pki import CURVES, certify, private_pem, write_key
from tests.trees import write_tree

ALGORITHMS = {
    "ECDSA_SHA_256": (hashes.SHA256(), "secp256r1"),
    "ECDSA_SHA_384": (hashes.SHA384(), "secp384r1"),
    "ECDSA_SHA_512": (hashes.SHA512(), "secp521r1"),
}


class Kms:
    """What KMS does with an elliptic-curve key, by its documentation."""

    def __init__(self, key: Any, *, hashes_again: bool = False) -> None:
        self.key = key
        self.hashes_again = hashes_again
        self.calls: list[dict[str, Any]] = []

    def get_public_key(self, **arguments: Any) -> dict[str, Any]:
        self.calls.append(arguments)
        der = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return {"PublicKey": der}

    def sign(self, **arguments: Any) -> dict[str, Any]:
        self.calls.append(arguments)
        assert set(arguments) == {"KeyId", "Message", "MessageType", "SigningAlgorithm"}
        digest, curve = ALGORITHMS[arguments["SigningAlgorithm"]]
        message = arguments["Message"]
        assert self.key.curve.name == curve, "KMS refuses the algorithm of another curve"
        assert arguments["MessageType"] == "DIGEST"
        assert len(message) == digest.digest_size, "KMS refuses a digest of another length"
        how = digest if self.hashes_again else Prehashed(digest)
        return {"Signature": self.key.sign(message, ec.ECDSA(how))}


@pytest.mark.parametrize("curve", CURVES)
def test_signs_on_every_curve(curve: str) -> None:
    kms = Kms(ec.generate_private_key(CURVES[curve]))
    signer = AwsKmsSigner("awskms:alias/models?region=eu-west-1", kms)
    data = b"x" * 100_000
    assert signer.public_key.verify(signer.sign(data), data)
    assert {call["KeyId"] for call in kms.calls} == {"alias/models"}
    assert signer.uri == "awskms:alias/models"


@pytest.mark.parametrize(
    ("uri", "key_id"),
    [
        ("awskms:alias/x", "alias/x"),
        ("awskms:///alias/x", "alias/x"),
        ("awskms:arn:aws:kms:eu-west-1:123456789012:key/1234", "arn:aws:kms:eu-west-1:123456789012:key/1234"),
        ("awskms:///arn%3Aaws%3Akms%3Aeu-west-1%3A1%3Akey%2F1", "arn:aws:kms:eu-west-1:1:key/1"),
    ],
)
def test_key_ids(uri: str, key_id: str) -> None:
    kms = Kms(ec.generate_private_key(ec.SECP256R1()))
    assert public_key(uri, kms).algorithm == "ECDSA P-256"
    assert kms.calls == [{"KeyId": key_id}]


def test_a_signed_artifact_verifies_with_the_pinned_key(tmp_path: Any) -> None:
    kms = Kms(ec.generate_private_key(ec.SECP384R1()))
    model = write_tree(tmp_path / "model", {"a": b"1"})
    signer = AwsKmsSigner("awskms:alias/models", kms)
    ref = sealflow.sign(model, signer=signer)
    assert sealflow.verify(ref, identities=signer.public_key.pem.decode()).passed


def test_a_service_that_hashes_the_digest_again_is_found_out(tmp_path: Any) -> None:
    """A mock of KMS that ignores MessageType does that; nothing may be called signed then."""
    kms = Kms(ec.generate_private_key(ec.SECP256R1()), hashes_again=True)
    model = write_tree(tmp_path / "model", {"a": b"1"})
    with pytest.raises(UnavailableError, match="does not verify"):
        sealflow.sign(model, signer=AwsKmsSigner("awskms:alias/models", kms))
    assert not (tmp_path / "model.evidence").exists()


def test_a_service_that_signs_with_another_key_is_found_out() -> None:
    kms = Kms(ec.generate_private_key(ec.SECP256R1()))
    signer = AwsKmsSigner("awskms:alias/models", kms)
    kms.key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(UnavailableError, match="does not verify"):
        signer.sign(b"data")


def test_an_rsa_key_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        AwsKmsSigner("awskms:alias/models", Kms(rsa.generate_private_key(65537, 2048)))
    assert caught.value.code == "KEY_UNSUPPORTED"


def test_certificate_of_a_kms_key(tmp_path: Any) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "cert.pem").write_bytes(certify("kms", key=key).pem)
    assert len(AwsKmsSigner(f"awskms:alias/x?certificate={tmp_path / 'cert.pem'}", Kms(key)).certificates) == 1
    (tmp_path / "cert.pem").write_bytes(certify("other").pem)
    with pytest.raises(UsageError, match="another key"):
        AwsKmsSigner(f"awskms:alias/x?certificate={tmp_path / 'cert.pem'}", Kms(key))


def failing(error: Exception) -> Any:
    def call(**_: Any) -> None:
        raise error

    kms = Kms(ec.generate_private_key(ec.SECP256R1()))
    kms.get_public_key = call  # type: ignore[method-assign]
    return kms


def client_error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "secret detail"}}, "GetPublicKey")


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (client_error("NotFoundException"), UsageError, "KEY_UNSUPPORTED"),
        (client_error("InvalidKeyUsageException"), UsageError, "KEY_UNSUPPORTED"),
        (client_error("UnsupportedOperationException"), UsageError, "KEY_UNSUPPORTED"),
        (client_error("AccessDeniedException"), UnavailableError, "PERMISSION_DENIED"),
        (client_error("UnrecognizedClientException"), UnavailableError, "PERMISSION_DENIED"),
        (client_error("ExpiredTokenException"), UnavailableError, "PERMISSION_DENIED"),
        (client_error("ThrottlingException"), UnavailableError, "BACKEND_UNAVAILABLE"),
        (client_error("KMSInternalException"), UnavailableError, "BACKEND_UNAVAILABLE"),
        (client_error("DisabledException"), UnavailableError, "BACKEND_UNAVAILABLE"),
        (EndpointConnectionError(endpoint_url="http://x"), UnavailableError, "BACKEND_UNAVAILABLE"),
        (NoCredentialsError(), UnavailableError, "BACKEND_UNAVAILABLE"),
    ],
    ids=lambda value: (
        getattr(value, "response", {}).get("Error", {}).get("Code") or getattr(value, "__name__", str(value))
    ),
)
def test_errors(error: Exception, kind: type[Exception], code: str) -> None:
    with pytest.raises(kind) as caught:
        public_key("awskms:alias/x", failing(error))
    assert caught.value.code == code  # type: ignore[attr-defined]
    assert "secret detail" not in str(caught.value)


@pytest.mark.parametrize("uri", ["awskms:alias/x", "awskms:alias/x?region=eu-west-1&endpoint=nonsense"])
def test_without_a_region_or_with_a_bad_endpoint(uri: str) -> None:
    with pytest.raises(UsageError, match="no way to reach AWS KMS"):
        AwsKmsSigner(uri)


def test_unreachable_keys_make_a_check_unverifiable(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule whose key cannot be fetched might have accepted; nobody can say."""
    keys = write_key(tmp_path)
    model = write_tree(tmp_path / "model", {"a": b"1"})
    ref = sealflow.sign(model, signer=keys.signer)
    kms = failing(EndpointConnectionError(endpoint_url="http://x"))
    monkeypatch.setattr("sealflow.keys.awskms._client", lambda options: kms)
    verdict = sealflow.verify(ref, identities="awskms:alias/x")
    assert verdict.status == "unverifiable"
    assert verdict.exit_status == 5
    # Another rule that does accept is enough.
    assert sealflow.verify(ref, identities=["awskms:alias/x", str(keys.public)]).passed


def test_private_keys_never_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("SEALFLOW_SIGNER", private_pem(ec.generate_private_key(ec.SECP256R1())).decode())
    with pytest.raises(UsageError) as caught:
        sealflow.sign(write_tree(tmp_path / "model", {"a": b"1"}))
    assert "PRIVATE" not in str(caught.value)
