"""Recipients in AWS KMS: symmetric keys, named by their full ARN.

Source: AWS Encryption SDK specification, ``framework/aws-kms/aws-kms-keyring.md``. Only the key that the URI names is
ever asked: neither aliases nor discovery, which would let the header choose whom we ask.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import unquote

from sealflow.aws_client import make_client
from sealflow.encryption.context import EncryptionContext
from sealflow.encryption.header import EncryptedDataKey
from sealflow.encryption.recipient import KMS_PROVIDER, Recipient, wrong_key
from sealflow.encryption.suite import DATA_KEY
from sealflow.errors import UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.keys.signer import split_query

_ARN = re.compile(r"arn:aws[a-z0-9-]*:kms:([a-z0-9-]+):[0-9]{12}:key/[A-Za-z0-9-]+")
_OPTIONS = frozenset({"endpoint"})
# What KMS says of a key that will not do, now or later.
_USAGE: Final = (
    "NotFoundException",
    "InvalidKeyUsageException",
    "UnsupportedOperationException",
    "ValidationException",
)
_DENIED: Final = ("AccessDenied", "UnrecognizedClient", "ExpiredToken", "InvalidSignature", "InvalidClientToken")


class AwsKmsRecipient(Recipient):
    """A symmetric key in KMS.

    Args:
        uri: ``awskms:<key ARN>`` with an optional ``?endpoint=``.
        client: A boto3 KMS client; made from the process's configuration, for the ARN's region, when it is first used.

    Raises:
        UsageError: Not the ARN of a key.
    """

    provider = KMS_PROVIDER

    def __init__(self, uri: str, client: Any = None) -> None:
        self.uri, self._options = split_query(uri, _OPTIONS)
        self.arn = unquote(self.uri.removeprefix("awskms:").lstrip("/"))
        match = _ARN.fullmatch(self.arn)
        if match is None:
            raise UsageError(
                f"{printable(self.uri)} is not the ARN of a key in KMS.",
                next_step="Write awskms:arn:aws:kms:<region>:<account>:key/<id>; an alias can be pointed elsewhere.",
            )
        self._region = match[1]
        self._made = client

    def generate(self, context: EncryptionContext) -> tuple[bytes, EncryptedDataKey]:
        """See :class:`~sealflow.encryption.recipient.Recipient`. The key is made by KMS."""
        answer = self._ask("generate_data_key", context, NumberOfBytes=DATA_KEY)
        return bytes(answer["Plaintext"]), self._wrapped(answer)

    @property
    def public(self) -> str:
        """See :class:`~sealflow.encryption.recipient.Recipient`."""
        return self.arn

    def same_key(self, other: Recipient) -> bool:
        """See :class:`~sealflow.encryption.recipient.Recipient`."""
        return isinstance(other, AwsKmsRecipient) and self.arn == other.arn

    def wrap(self, data_key: bytes, context: EncryptionContext) -> EncryptedDataKey:
        """See :class:`~sealflow.encryption.recipient.Recipient`."""
        return self._wrapped(self._ask("encrypt", context, Plaintext=data_key))

    def owns(self, key: EncryptedDataKey) -> bool:
        """See :class:`~sealflow.encryption.recipient.Recipient`."""
        return key.provider == KMS_PROVIDER and key.info == self.arn.encode("ascii")

    def unwrap(self, key: EncryptedDataKey, context: EncryptionContext) -> bytes:
        """See :class:`~sealflow.encryption.recipient.Recipient`."""
        answer = self._ask("decrypt", context, CiphertextBlob=key.ciphertext)
        if answer.get("KeyId") != self.arn:
            raise wrong_key(self)
        return bytes(answer["Plaintext"])

    def _wrapped(self, answer: dict[str, Any]) -> EncryptedDataKey:
        if answer.get("KeyId") != self.arn:
            raise UnavailableError(f"KMS answered for another key than {printable(self.uri)}.")
        return EncryptedDataKey(KMS_PROVIDER, self.arn.encode("ascii"), bytes(answer["CiphertextBlob"]))

    def _client(self) -> Any:
        if self._made is None:
            self._made = make_client("AWS KMS", "kms", region=self._region, endpoint=self._options.get("endpoint"))
        return self._made

    def _ask(self, operation: str, context: EncryptionContext, **arguments: Any) -> Any:
        client = self._client()
        from botocore.exceptions import BotoCoreError, ClientError

        what = printable(self.uri)
        try:
            return getattr(client, operation)(KeyId=self.arn, EncryptionContext=dict(context.pairs), **arguments)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
        except BotoCoreError as error:
            raise UnavailableError(f"KMS cannot be reached for {what} ({type(error).__name__}).") from None
        if operation == "decrypt" and code in ("InvalidCiphertextException", "IncorrectKeyException"):
            raise wrong_key(self)
        if code in _USAGE:
            raise UsageError(f"KMS refused {what} ({printable(code, 60)}).", code="KEY_UNSUPPORTED")
        denied = any(word in code for word in _DENIED)
        raise UnavailableError(
            f"KMS failed for {what} ({printable(code, 60)}).",
            code="PERMISSION_DENIED" if denied else "BACKEND_UNAVAILABLE",
            next_step="Check the key policy and the credentials of this process." if denied else "Try again.",
        )
