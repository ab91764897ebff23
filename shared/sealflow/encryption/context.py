"""The encryption context: pairs of text that stand in clear in the header and are bound to every key and byte.

Source: AWS Encryption SDK specification, ``framework/structures.md``, section "Encryption Context".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sealflow.encryption.refusal import refused
from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import printable

#: Which artifact the message holds, and which run made it: what we write into every context.
ARTIFACT: Final = "sealflow-artifact"
RUN: Final = "sealflow-run"

#: Names that begin so belong to the format.
RESERVED: Final = "aws-crypto-"

#: Holds the key that checks the signature of a signed message: Base64 of a compressed point.
SIGNING_KEY: Final = "aws-crypto-public-key"

#: The most pairs, and the most bytes of all of them, that are written or read.
MAX_PAIRS: Final = 64
MAX_CONTEXT: Final = 16 << 10

_U16 = struct.Struct(">H")


@dataclass(frozen=True)
class EncryptionContext:
    """An encryption context in both of its forms.

    Attributes:
        pairs: Name to value.
        encoded: Sorted by name: as it stands in a header of ours after its length, and as additional data wherever a
            key is wrapped.
    """

    pairs: Mapping[str, str]
    encoded: bytes

    @classmethod
    def of(cls, pairs: Mapping[str, str]) -> EncryptionContext:
        """Encode pairs for writing.

        Raises:
            UsageError: Not text, a name that is empty or reserved, or too much of it.
        """
        items: list[tuple[bytes, bytes]] = []
        for name, value in pairs.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise UsageError("An encryption context holds texts only.")
            if not name or name.startswith(RESERVED):
                raise UsageError(f"The name {printable(name, 60)!r} cannot stand in an encryption context.")
            try:
                items.append((name.encode("utf-8"), value.encode("utf-8")))
            except UnicodeEncodeError:
                raise UsageError(f"The pair {printable(name, 60)!r} of the encryption context is no text.") from None
        size = 2 + sum(4 + len(name) + len(value) for name, value in items)
        if len(items) > MAX_PAIRS or size > MAX_CONTEXT:
            raise UsageError(f"An encryption context has at most {MAX_PAIRS} pairs and {MAX_CONTEXT} bytes.")
        return cls(MappingProxyType(dict(pairs)), _encode(items))

    @classmethod
    def parse(cls, encoded: bytes) -> EncryptionContext:
        """Parse what stands in a header. Other writers do not always sort the pairs; each name stands there once.

        Raises:
            EvidenceError: ``MESSAGE_MALFORMED``: another form, or more than the limits allow.
        """
        if not encoded:
            return cls(MappingProxyType({}), b"")
        if len(encoded) > MAX_CONTEXT:
            raise _malformed(f"has {len(encoded)} bytes, more than the limit of {MAX_CONTEXT}")
        if len(encoded) < 2:
            raise _malformed("ends within its count")
        (count,) = _U16.unpack_from(encoded)
        if not 1 <= count <= MAX_PAIRS:
            raise _malformed(f"has {count} pairs; 1 to {MAX_PAIRS} are read")
        items: list[tuple[bytes, bytes]] = []
        at = 2
        for _ in range(count):
            name, at = _text(encoded, at)
            value, at = _text(encoded, at)
            items.append((name, value))
        if at != len(encoded):
            raise _malformed("is followed by bytes that belong to nothing")
        try:
            pairs = {name.decode("utf-8"): value.decode("utf-8") for name, value in items}
        except UnicodeDecodeError:
            raise _malformed("holds bytes that are no UTF-8") from None
        if len(pairs) != count:
            raise _malformed("holds a name twice")
        return cls(MappingProxyType(pairs), _encode(items))

    def require(self, expected: Mapping[str, str]) -> None:
        """Compare with what the reader expects: each expected pair has to be there, with its value.

        Raises:
            EvidenceError: A pair is missing or has another value.
        """
        for name, value in expected.items():
            found = self.pairs.get(name)
            if found != value:
                raise refused(
                    "CONTEXT_MISMATCH",
                    f"The encrypted artifact says {printable(name, 60)} = {printable(found, 120)!r}, "
                    f"expected {printable(value, 120)!r}.",
                )


def _encode(items: list[tuple[bytes, bytes]]) -> bytes:
    parts = [_U16.pack(len(items))] if items else []
    for pair in sorted(items):
        for text in pair:
            parts += (_U16.pack(len(text)), text)
    return b"".join(parts)


def _text(encoded: bytes, at: int) -> tuple[bytes, int]:
    start = at + 2
    if start > len(encoded):
        raise _malformed("ends within a length")
    end = start + _U16.unpack_from(encoded, at)[0]
    if end > len(encoded):
        raise _malformed("ends within a text")
    return encoded[start:end], end


def _malformed(what: str) -> EvidenceError:
    return refused("MESSAGE_MALFORMED", f"The encryption context {what}.")
