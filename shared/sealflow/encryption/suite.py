"""What one data key gives: the key of the message, and the commitment to the data key.

Sources: AWS Encryption SDK specification, ``framework/algorithm-suites.md``, ``framework/transitive-requirements.md``.
The commitment is what AES-GCM lacks: without it one ciphertext can be made that opens under two keys to two plaintexts.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sealflow.encryption.header import COMMITMENT, IV, Header
from sealflow.encryption.refusal import refused

#: Bytes of a data key.
DATA_KEY: Final = 32

_HEADER_IV = bytes(IV)


def derive(data_key: bytes, suite: int, message_id: bytes) -> tuple[AESGCM, bytes]:
    """Return the cipher of a message and the commitment that stands in its header."""

    def expand(info: bytes, length: int) -> bytes:
        return HKDF(SHA512(), length, salt=message_id, info=info).derive(data_key)

    cipher = AESGCM(expand(suite.to_bytes(2, "big") + b"DERIVEKEY", 32))
    return cipher, expand(b"COMMITKEY", COMMITMENT)


def header_tag(cipher: AESGCM, body: bytes) -> bytes:
    """Return the authentication tag of a header. Its nonce is fixed, so a key makes one and never another."""
    return cipher.encrypt(_HEADER_IV, b"", body)


def open_header(header: Header, data_key: bytes) -> AESGCM:
    """Return the cipher of a message after its header was found to be made with this data key.

    Raises:
        EvidenceError: ``COMMITMENT_MISMATCH`` for another data key, ``MESSAGE_ALTERED`` for an altered header.
    """
    cipher, commitment = derive(data_key, header.suite, header.message_id)
    if not hmac.compare_digest(commitment, header.commitment):
        raise refused(
            "COMMITMENT_MISMATCH",
            "The header of the encrypted artifact commits to another data key than the one wrapped in it.",
        )
    try:
        cipher.decrypt(_HEADER_IV, header.tag, header.body)
    except InvalidTag:
        raise refused("MESSAGE_ALTERED", "The header of the encrypted artifact was altered.") from None
    return cipher
