"""Signing keys in AWS KMS. The digest is made here and sent alone, so artifacts of any size cost one small call."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from cryptography.hazmat.primitives import hashes, serialization

from sealflow.aws_client import make_client
from sealflow.errors import UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.keys.public import PublicKey
from sealflow.keys.signer import load_chain, split_query

_ALGORITHMS: dict[str, tuple[str, type[hashes.HashAlgorithm]]] = {
    "ECDSA P-256": ("ECDSA_SHA_256", hashes.SHA256),
    "ECDSA P-384": ("ECDSA_SHA_384", hashes.SHA384),
    "ECDSA P-521": ("ECDSA_SHA_512", hashes.SHA512),
}
_OPTIONS = frozenset({"region", "endpoint", "certificate"})
_USAGE_CODES = ("NotFoundException", "InvalidKeyUsageException", "UnsupportedOperationException", "ValidationException")


def _client(options: dict[str, str]) -> Any:
    return make_client(
        "AWS KMS",
        "kms",
        region=options.get("region"),
        endpoint=options.get("endpoint"),
        next_step="Name the region (?region=, AWS_REGION) and check the endpoint and the AWS configuration.",
    )


def _key_id(uri: str) -> str:
    # awskms:alias/x, awskms:///alias/x and awskms:arn:aws:kms:… all name a key.
    key_id = unquote(uri.removeprefix("awskms:").lstrip("/"))
    if not key_id:
        raise UsageError(f"{printable(uri)} names no key.", next_step="Write awskms:alias/name or awskms:<key ARN>.")
    return key_id


def _call(what: str, call: Any, **arguments: Any) -> Any:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return call(**arguments)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _USAGE_CODES:
            raise UsageError(f"KMS refused {what} ({code}).", code="KEY_UNSUPPORTED") from None
        denied = "AccessDenied" in code or "UnrecognizedClient" in code or "ExpiredToken" in code
        raise UnavailableError(
            f"KMS failed for {what} ({code}).",
            code="PERMISSION_DENIED" if denied else "BACKEND_UNAVAILABLE",
            next_step="Check the key policy and the credentials of this process." if denied else "Try again.",
        ) from None
    except BotoCoreError as error:
        raise UnavailableError(f"KMS cannot be reached for {what} ({type(error).__name__}).") from None


def public_key(uri: str, client: Any = None) -> PublicKey:
    """Return the public half of a KMS key.

    Raises:
        UsageError: No such key, or not an elliptic-curve signing key.
        UnavailableError: KMS does not answer or refuses.
    """
    bare, options = split_query(uri, _OPTIONS)
    key_id = _key_id(bare)
    client = client or _client(options)
    answer = _call(printable(bare), client.get_public_key, KeyId=key_id)
    return PublicKey(serialization.load_der_public_key(answer["PublicKey"]))


class AwsKmsSigner:
    """Signs with a KMS key. See :class:`~sealflow.keys.signer.KeySigner`.

    Args:
        uri: ``awskms:<key id, ARN or alias>`` with optional ``?region=``, ``endpoint=``, ``certificate=``.
        client: A boto3 KMS client; made from the process's configuration by default.
    """

    def __init__(self, uri: str, client: Any = None) -> None:
        self.uri, options = split_query(uri, _OPTIONS)
        self._key_id = _key_id(self.uri)
        self._client = client or _client(options)
        self.public_key = public_key(uri, self._client)
        if self.public_key.algorithm not in _ALGORITHMS:
            raise UsageError(f"{printable(self.uri)} is a {self.public_key.algorithm} key; use an ECC NIST key.")
        self.certificates = load_chain(options.get("certificate"), self.public_key)

    def sign(self, data: bytes) -> bytes:
        """See :class:`~sealflow.keys.signer.KeySigner`."""
        algorithm, digest = _ALGORITHMS[self.public_key.algorithm]
        state = hashes.Hash(digest())
        state.update(data)
        answer = _call(
            printable(self.uri),
            self._client.sign,
            KeyId=self._key_id,
            Message=state.finalize(),
            MessageType="DIGEST",
            SigningAlgorithm=algorithm,
        )
        signature = bytes(answer["Signature"])
        # A service that hashed the digest again, or signed with another key, must not leave a useless signature.
        if not self.public_key.verify(signature, data):
            raise UnavailableError(f"KMS returned a signature of {printable(self.uri)} that does not verify.")
        return signature
