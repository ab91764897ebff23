"""Encryption: the AWS Encryption SDK message format v2, written and read in frames.

A codec over buffers: where bytes come from and go to is the transfer's business. One data key encrypts one message.
"""

from sealflow.encryption.context import ARTIFACT, RUN, EncryptionContext
from sealflow.encryption.frames import MAX_FOOTER, Layout
from sealflow.encryption.header import FRAME_LENGTH, MAX_HEADER, EncryptedDataKey, Header, parse_header
from sealflow.encryption.message import MessageDecryptor, MessageEncryptor, Sent, decrypt_message, encrypt_message
from sealflow.encryption.recipient import (
    RECIPIENTS,
    Recipient,
    load_recipient,
    register_recipient,
)
from sealflow.encryption.refusal import RecipientError

__all__ = [
    "ARTIFACT",
    "FRAME_LENGTH",
    "MAX_FOOTER",
    "MAX_HEADER",
    "RECIPIENTS",
    "RUN",
    "EncryptedDataKey",
    "EncryptionContext",
    "Header",
    "Layout",
    "MessageDecryptor",
    "MessageEncryptor",
    "Recipient",
    "RecipientError",
    "Sent",
    "decrypt_message",
    "encrypt_message",
    "load_recipient",
    "parse_header",
    "register_recipient",
]
