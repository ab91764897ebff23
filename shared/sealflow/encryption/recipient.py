"""Recipients: who can unwrap the data key. Found by the scheme of their URI in one table that others can extend."""

from __future__ import annotations

import abc
import secrets
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from sealflow.encryption.context import EncryptionContext
from sealflow.encryption.header import EncryptedDataKey, Header
from sealflow.encryption.refusal import RecipientError, no_key
from sealflow.encryption.suite import DATA_KEY
from sealflow.errors import UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.hashing import sha256_hex
from sealflow.keys import PassphraseCallback
from sealflow.keys.schemes import Schemes
from sealflow.keys.signer import passphrase_from_environment

#: Key provider of keys in AWS KMS; no namespace of other keys.
KMS_PROVIDER: Final = "aws-kms"


class Published(NamedTuple):
    """A recipient as everybody may know it.

    Attributes:
        provider: Key provider in the header.
        name: Name of the key there.
        key: RSA public key in PEM, or ARN of a key in KMS.
    """

    provider: str
    name: str
    key: str


class Recipient(abc.ABC):
    """One key that wraps data keys, and perhaps unwraps them.

    Attributes:
        uri: The URI that named the key, without secrets.
        provider: Key provider in the header of a message.
    """

    uri: str
    provider: str

    @abc.abstractmethod
    def wrap(self, data_key: bytes, context: EncryptionContext) -> EncryptedDataKey:
        """Wrap a data key.

        Raises:
            UsageError: The key cannot wrap.
            UnavailableError: The key service does not answer or refuses.
        """

    @abc.abstractmethod
    def owns(self, key: EncryptedDataKey) -> bool:
        """Tell whether the header says that this key was wrapped to this recipient."""

    @abc.abstractmethod
    def unwrap(self, key: EncryptedDataKey, context: EncryptionContext) -> bytes:
        """Unwrap a data key that this recipient owns.

        Raises:
            RecipientError: ``RECIPIENT_KEY_WRONG``: it was wrapped to another key of this name, or altered.
            UnavailableError: The key service does not answer or refuses.
        """

    @property
    def published(self) -> Published:
        """What others need to wrap to this key too; ``key`` is empty for a shared secret."""
        return Published(self.provider, getattr(self, "name", ""), self.public)

    @property
    def public(self) -> str:
        """What everybody may know and to whom it is enough to wrap: PEM text or an ARN; empty for a shared secret."""
        return ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 that tells this key from every other, whatever it is called, and tells nothing about it, in hex."""
        return sha256_hex(f"{self.provider}\0{self.public}".encode())

    def same_key(self, other: Recipient) -> bool:
        """Tell whether two recipients are one key, so that to wrap a data key to one of them is enough.

        Only what this one was told says so: to be called alike is not to be the same.
        """
        return self.uri == other.uri

    def generate(self, context: EncryptionContext) -> tuple[bytes, EncryptedDataKey]:
        """Return a fresh data key, plain and wrapped to this recipient.

        Raises:
            UsageError: The key cannot wrap.
            UnavailableError: The key service does not answer or refuses.
        """
        data_key = secrets.token_bytes(DATA_KEY)
        return data_key, self.wrap(data_key, context)


RecipientFactory = Callable[[str, PassphraseCallback], Recipient]


def _rsa(uri: str, passphrase: PassphraseCallback) -> Recipient:
    from sealflow.encryption.raw import RsaRecipient

    return RsaRecipient(uri, passphrase)


def _aes(uri: str, passphrase: PassphraseCallback) -> Recipient:
    from sealflow.encryption.raw import AesRecipient

    return AesRecipient(uri)


def _awskms(uri: str, passphrase: PassphraseCallback) -> Recipient:
    from sealflow.encryption.awskms import AwsKmsRecipient

    return AwsKmsRecipient(uri)


#: URI scheme to factory.
RECIPIENTS: Final = Schemes[RecipientFactory](
    "recipient",
    "rsa:/path/to/key.pem, aes:/path/to/32-bytes or awskms:<key ARN>",
    {"rsa": _rsa, "aes": _aes, "awskms": _awskms},
)


def register_recipient(scheme: str, factory: RecipientFactory) -> None:
    """Add a URI scheme. A scheme that is taken stays as it is.

    Raises:
        UsageError: The scheme is taken.
    """
    RECIPIENTS.register(scheme, factory)


def load_recipient(uri: str, passphrase: PassphraseCallback | None = None) -> Recipient:
    """Open the recipient that a URI names: ``rsa:/keys/recovery.pem``, ``aes:/keys/team.key``, ``awskms:<key ARN>``.

    Args:
        uri: The URI.
        passphrase: Asked for the passphrase of an encrypted key; by default the environment variable is read.

    Raises:
        UsageError: Unknown scheme, no such key, an unsupported kind of key, a wrong passphrase.
        UnavailableError: The key cannot be read.
    """
    return RECIPIENTS.find(uri)(uri, passphrase or passphrase_from_environment)


def fresh_data_key(
    recipients: Sequence[Recipient], context: EncryptionContext
) -> tuple[bytes, tuple[EncryptedDataKey, ...]]:
    """Return a fresh data key, plain and wrapped to each recipient.

    Raises:
        UsageError: No recipient, or one that cannot wrap.
        UnavailableError: A key service does not answer or refuses.
    """
    if not recipients:
        raise UsageError("Nobody could open the artifact.", next_step="Name at least one recipient.")
    data_key, first = recipients[0].generate(context)
    if len(data_key) != DATA_KEY:
        raise UnavailableError(f"{printable(recipients[0].uri)} returned a data key of {len(data_key)} bytes.")
    return data_key, (first, *(recipient.wrap(data_key, context) for recipient in recipients[1:]))


def unwrap_data_key(
    header: Header, recipients: Sequence[Recipient], used: Callable[[EncryptedDataKey], None] | None = None
) -> bytes:
    """Return the data key, unwrapped by the first of ours that can. Keys wrapped to others are skipped.

    Args:
        header: The header.
        recipients: Our keys.
        used: Told which wrapped key gave the data key, for whoever keeps account of the use of keys.

    Raises:
        RecipientError: ``RECIPIENT_MISSING``: nothing was wrapped to us; ``KMS_KEY_NOT_ALLOWED``: only to keys in KMS
            that nobody listed, none of which is asked; ``RECIPIENT_KEY_WRONG``: ours do not unwrap it.
        UsageError: The key service does not know the key any more, or a library is missing.
        UnavailableError: A key service that might unwrap it does not answer or refuses.
    """
    refusals: list[RecipientError | UnavailableError | UsageError] = []
    for recipient in recipients:
        for key in header.data_keys:
            if not recipient.owns(key):
                continue
            try:
                data_key = recipient.unwrap(key, header.context)
            except (RecipientError, UnavailableError, UsageError) as error:
                # A key that is gone must not shut out the recovery key behind it.
                refusals.append(error)
                continue
            if used is not None:
                used(key)
            if len(data_key) == DATA_KEY:
                return data_key
            refusals.append(wrong_key(recipient))
    if refusals:
        # Who might have opened it and could not be asked matters more than who could not open it.
        raise next((error for error in refusals if isinstance(error, UnavailableError)), refusals[0])
    raise _not_for_us(header, recipients)


def wrong_key(recipient: Recipient) -> RecipientError:
    """Return the one answer to whatever was wrong with a wrapped key, so that the answer tells nothing about it."""
    return no_key(
        "RECIPIENT_KEY_WRONG", f"{printable(recipient.uri)} does not unwrap the data key that bears its name."
    )


def _not_for_us(header: Header, recipients: Sequence[Recipient]) -> RecipientError:
    found = printable(", ".join(f"{key.provider}:{key.name}" for key in header.data_keys))
    if any(key.provider == KMS_PROVIDER for key in header.data_keys) and any(
        recipient.provider == KMS_PROVIDER for recipient in recipients
    ):
        return no_key(
            "KMS_KEY_NOT_ALLOWED",
            f"The data key is wrapped to {found}; no key in KMS was asked, since none of these was listed.",
        )
    ours = printable(", ".join(recipient.uri for recipient in recipients)) or "none"
    return no_key("RECIPIENT_MISSING", f"The data key is wrapped to {found}; the keys at hand are {ours}.")
