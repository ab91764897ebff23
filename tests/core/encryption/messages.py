"""Keys and messages for tests, some of them such as no writer of ours makes."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sealflow.encryption import EncryptedDataKey, EncryptionContext, Layout, Recipient, load_recipient, parse_header
from sealflow.encryption.frames import write_frame
from sealflow.encryption.suite import derive, header_tag

SUITE, SIGNED_SUITE = 0x0478, 0x0578
#: One key for all tests: making one takes longer than they do.
RSA_KEY = rsa.generate_private_key(65537, 2048)
RSA_PEM = RSA_KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
RSA_PUBLIC_PEM = RSA_KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
DATA_KEY = b"d" * 32
SIGNING_KEY = ec.generate_private_key(ec.SECP384R1())
ARN = "arn:aws:kms:eu-west-1:123456789012:key/1b2c3d4e-0000-4000-8000-123456789abc"
OTHER_ARN = ARN.replace("1b2c", "ffff")


def aes(folder: Path, fill: int = 7, query: str = "") -> Recipient:
    """A symmetric recipient whose key is 32 times one byte."""
    path = folder / f"aes-{fill}.key"
    path.write_bytes(bytes([fill]) * 32)
    return load_recipient(f"aes:{path}{query}")


def private_rsa(folder: Path, query: str = "") -> Recipient:
    (folder / "rsa.pem").write_bytes(RSA_PEM)
    return load_recipient(f"rsa:{folder / 'rsa.pem'}{query}")


def public_rsa(folder: Path, query: str = "") -> Recipient:
    (folder / "rsa.pub").write_bytes(RSA_PUBLIC_PEM)
    return load_recipient(f"rsa:{folder / 'rsa.pub'}{query}")


class Holder(Recipient):
    """Somebody who knows the data key, without any wrapping."""

    uri = "held:key"
    provider = "held"

    def __init__(self, data_key: bytes, info: bytes = b"") -> None:
        self.data_key = data_key
        self.info = info
        self.asked = 0

    def wrap(self, data_key: bytes, context: EncryptionContext) -> EncryptedDataKey:
        return EncryptedDataKey(self.provider, self.info, b"held")

    def generate(self, context: EncryptionContext) -> tuple[bytes, EncryptedDataKey]:
        return self.data_key, self.wrap(self.data_key, context)

    def owns(self, key: EncryptedDataKey) -> bool:
        return (key.provider, key.info) == (self.provider, self.info)

    def unwrap(self, key: EncryptedDataKey, context: EncryptionContext) -> bytes:
        self.asked += 1
        return self.data_key


class Knows(Holder):
    """Knows the data key of whatever it is shown."""

    def owns(self, key: EncryptedDataKey) -> bool:
        return True


class Refuses(Holder):
    """Owns the key and raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__(bytes(32))
        self.error = error

    def unwrap(self, key: EncryptedDataKey, context: EncryptionContext) -> bytes:
        raise self.error


def forge(
    plaintext: bytes,
    data_keys: Sequence[EncryptedDataKey],
    data_key: bytes,
    *,
    context: Mapping[str, str] | None = None,
    frame_length: int = 16,
    suite: int = SUITE,
    message_id: bytes = bytes(range(32)),
    signing_key: ec.EllipticCurvePrivateKey | None = None,
    signer: ec.EllipticCurvePrivateKey | None = None,
    final_empty: bool = False,
) -> bytes:
    """Write a message as somebody would who knows the data key, signed if a signing key is given."""
    pairs = dict(context or {})
    encoded = EncryptionContext.of(pairs).encoded
    if signing_key is not None:
        point = signing_key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        )
        encoded = encode_pairs([*pairs.items(), ("aws-crypto-public-key", base64.b64encode(point).decode())])
    cipher, commitment = derive(data_key, suite, message_id)
    body = struct.pack(">BH32sH", 2, suite, message_id, len(encoded)) + encoded + struct.pack(">H", len(data_keys))
    for key in data_keys:
        for field in (key.provider.encode(), key.info, key.ciphertext):
            body += struct.pack(">H", len(field)) + field
    body += struct.pack(">BI32s", 2, frame_length, commitment)
    message = bytearray(body + header_tag(cipher, body))
    pieces = [plaintext[at : at + frame_length] for at in range(0, len(plaintext), frame_length)] or [b""]
    if final_empty:
        pieces.append(b"")
    for sequence, piece in enumerate(pieces, 1):
        final = sequence == len(pieces)
        frame = bytearray(len(piece) + (40 if final else 32))
        write_frame(cipher, message_id, sequence, piece, memoryview(frame), final=final)
        message += frame
    if signing_key is not None:
        signature = (signer or signing_key).sign(bytes(message), ec.ECDSA(hashes.SHA384()))
        message += struct.pack(">H", len(signature)) + signature
    return bytes(message)


def encode_pairs(pairs: Sequence[tuple[str, str]]) -> bytes:
    """Encode a context in any order, with any names."""
    encoded = struct.pack(">H", len(pairs))
    for pair in pairs:
        for text in pair:
            encoded += struct.pack(">H", len(text.encode())) + text.encode()
    return encoded


def parts(message: bytes) -> tuple[bytes, list[bytes], bytes]:
    """The header, the frames and the footer of a message."""
    header = parse_header(message)
    layout = Layout.of_message(header, len(message), message)
    spans = [layout.span(sequence) for sequence in range(1, layout.frames + 1)]
    return header.raw, [message[start:end] for start, end in spans], message[spans[-1][1] :]


class Kms:
    """What KMS does with symmetric keys, by its documentation."""

    def __init__(self, *arns: str) -> None:
        self.keys = {arn: AESGCM(hashlib.sha256(arn.encode()).digest()) for arn in arns}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.made = 0
        self.answers: dict[str, Any] = {}

    @staticmethod
    def _aad(context: Mapping[str, str]) -> bytes:
        return repr(sorted(context.items())).encode()

    def _key(self, operation: str, arguments: dict[str, Any]) -> AESGCM:
        self.calls.append((operation, arguments))
        if arguments["KeyId"] not in self.keys:
            raise client_error("NotFoundException", operation)
        return self.keys[arguments["KeyId"]]

    def encrypt(self, **arguments: Any) -> dict[str, Any]:
        cipher = self._key("Encrypt", arguments)
        nonce = hashlib.sha256(len(self.calls).to_bytes(8, "big")).digest()[:12]
        blob = nonce + cipher.encrypt(nonce, arguments["Plaintext"], self._aad(arguments["EncryptionContext"]))
        return {"CiphertextBlob": blob, "KeyId": arguments["KeyId"]} | self.answers

    def generate_data_key(self, **arguments: Any) -> dict[str, Any]:
        self.made += 1
        count = arguments.pop("NumberOfBytes")
        plain = hashlib.sha256(b"key %d" % self.made).digest()[:count]
        return {"Plaintext": plain} | self.encrypt(**arguments, Plaintext=plain) | self.answers

    def decrypt(self, **arguments: Any) -> dict[str, Any]:
        cipher = self._key("Decrypt", arguments)
        blob = arguments["CiphertextBlob"]
        try:
            plain = cipher.decrypt(blob[:12], blob[12:], self._aad(arguments["EncryptionContext"]))
        except (InvalidTag, ValueError):
            raise client_error("InvalidCiphertextException", "Decrypt") from None
        return {"Plaintext": plain, "KeyId": arguments["KeyId"]} | self.answers


def client_error(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, operation)
