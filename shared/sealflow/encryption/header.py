"""The header of a message: read strictly and within limits, or written once.

Source: AWS Encryption SDK specification, ``data-format/message-header.md``, header body version 2.0, and
``framework/algorithm-suites.md``. Whatever else that specification allows (version 1.0, suites without key commitment,
bodies without frames) is refused, and no flag changes that: a reader that can be talked into an older form will be.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sealflow.encryption.context import SIGNING_KEY, EncryptionContext
from sealflow.encryption.refusal import refused
from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import printable

#: AES-256-GCM, HKDF-SHA512, key commitment: what we write.
SUITE: Final = 0x0478
#: The same and an ECDSA signature on P-384 after the body: read only.
SIGNED_SUITE: Final = 0x0578

MESSAGE_ID: Final = 32
COMMITMENT: Final = 32
TAG: Final = 16
IV: Final = 12

#: The largest header that is read or written, in bytes. So many bytes of an object hold all of its header.
MAX_HEADER: Final = 64 << 10
#: The most wrapped data keys in a header; each of ours is tried.
MAX_DATA_KEYS: Final = 32
#: Content bytes of a frame: the usual number and the largest. A reader holds some whole frames in memory.
FRAME_LENGTH: Final = 1 << 20
MAX_FRAME_LENGTH: Final = 16 << 20

# Bits of the tag and bytes of the nonce, which ends the information of symmetric keys (framework/raw-aes-keyring.md).
_SYMMETRIC = struct.pack(">II", TAG * 8, IV)

_VERSION = 2
_FRAMED = 2
_START = struct.Struct(f">BH{MESSAGE_ID}sH")
_U16 = struct.Struct(">H")
_END = struct.Struct(f">BI{COMMITMENT}s")


@dataclass(frozen=True)
class EncryptedDataKey:
    """The data key, wrapped to one recipient.

    Attributes:
        provider: Who can unwrap it: ``aws-kms``, or a namespace.
        info: Which key of theirs.
        ciphertext: The wrapped key.
    """

    provider: str
    info: bytes
    ciphertext: bytes

    @property
    def name(self) -> str:
        """Name of the key for people: what stands in ``info``, without the nonce of symmetric keys."""
        symmetric = self.info[-20:-IV] == _SYMMETRIC
        return printable(self.info[: -20 if symmetric else None].decode("utf-8", "backslashreplace"))


@dataclass(frozen=True)
class Header:
    """A header. Nothing of a parsed one is proved until a data key fits it.

    Attributes:
        raw: All of its bytes, verbatim; the authentication tag is the last 16.
        suite: :data:`SUITE` or :data:`SIGNED_SUITE`.
        message_id: 32 random bytes that name the message.
        context: The encryption context.
        data_keys: The data key, wrapped to each recipient.
        frame_length: Content bytes of every frame but the last.
        commitment: Which data key it is, without telling it.
    """

    raw: bytes
    suite: int
    message_id: bytes
    context: EncryptionContext
    data_keys: tuple[EncryptedDataKey, ...]
    frame_length: int
    commitment: bytes

    @property
    def signed(self) -> bool:
        """Whether a signature follows the body."""
        return self.suite == SIGNED_SUITE

    @property
    def body(self) -> bytes:
        """What the authentication tag is over."""
        return self.raw[:-TAG]

    @property
    def tag(self) -> bytes:
        """The authentication tag."""
        return self.raw[-TAG:]


def parse_header(data: bytes | bytearray | memoryview) -> Header:
    """Parse the header at the start of untrusted bytes.

    Args:
        data: The first bytes of a message: all of it, or at least :data:`MAX_HEADER`. What follows the header is not
            looked at.

    Raises:
        EvidenceError: ``MESSAGE_UNSUPPORTED`` for other versions, suites and bodies; ``MESSAGE_MALFORMED`` for bytes
            that are no header, or one beyond the limits.
    """
    source = _Source(memoryview(data)[:MAX_HEADER])
    _version, suite, message_id, context_length = source.unpack(_START, first=True)
    if suite not in (SUITE, SIGNED_SUITE):
        raise _unsupported(f"uses the algorithm suite 0x{suite:04x}")
    context = EncryptionContext.parse(source.take(context_length))
    if (SIGNING_KEY in context.pairs) is not (suite == SIGNED_SUITE):
        raise _malformed("has a signing key without a signature, or a signature without a signing key")
    (count,) = source.unpack(_U16)
    if not 1 <= count <= MAX_DATA_KEYS:
        raise _malformed(f"has {count} wrapped data keys; 1 to {MAX_DATA_KEYS} are read")
    data_keys = tuple(_data_key(source) for _ in range(count))
    content_type, frame_length, commitment = source.unpack(_END)
    if content_type != _FRAMED:
        raise _unsupported(f"has a body of type {content_type}, not of frames")
    if not 1 <= frame_length <= MAX_FRAME_LENGTH:
        raise _malformed(f"has frames of {frame_length} bytes; 1 to {MAX_FRAME_LENGTH} are read")
    source.take(TAG)
    return Header(source.taken, suite, message_id, context, data_keys, frame_length, commitment)


def header_body(
    message_id: bytes,
    context: EncryptionContext,
    data_keys: Sequence[EncryptedDataKey],
    frame_length: int,
    commitment: bytes,
) -> bytes:
    """Return the bytes of a header of ours up to its authentication tag.

    Raises:
        UsageError: More recipients, longer frames or more bytes than we would read.
    """
    if not 1 <= frame_length <= MAX_FRAME_LENGTH:
        raise UsageError(f"A frame holds 1 to {MAX_FRAME_LENGTH} bytes, not {frame_length}.")
    if not 1 <= len(data_keys) <= MAX_DATA_KEYS:
        raise UsageError(f"An artifact is encrypted to 1 to {MAX_DATA_KEYS} recipients, not {len(data_keys)}.")
    parts = [_START.pack(_VERSION, SUITE, message_id, len(context.encoded)), context.encoded]
    parts.append(_U16.pack(len(data_keys)))
    for key in data_keys:
        for field in (key.provider.encode("utf-8"), key.info, key.ciphertext):
            if len(field) > 0xFFFF:
                raise UsageError("A wrapped data key has more bytes than the format holds.")
            parts += (_U16.pack(len(field)), field)
    parts.append(_END.pack(_FRAMED, frame_length, commitment))
    body = b"".join(parts)
    if len(body) + TAG > MAX_HEADER:
        raise UsageError(f"A header has at most {MAX_HEADER} bytes; name fewer recipients.")
    return body


class _Source:
    """Bytes that are taken from the front, and never more than there are."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    @property
    def taken(self) -> bytes:
        return bytes(self._data[: self._at])

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise _malformed(
                f"has more than the limit of {MAX_HEADER} bytes" if len(self._data) == MAX_HEADER else "ends too early"
            )
        piece = bytes(self._data[self._at : end])
        self._at = end
        return piece

    def unpack(self, form: struct.Struct, *, first: bool = False) -> tuple[Any, ...]:
        # The version first: what follows another one has another form, and may well be shorter.
        if first and self._data[:1] and self._data[0] != _VERSION:
            raise _unsupported(f"begins with 0x{self._data[0]:02x}, which is no message of format version {_VERSION}")
        return form.unpack(self.take(form.size))


def _data_key(source: _Source) -> EncryptedDataKey:
    provider, info, ciphertext = (source.take(source.unpack(_U16)[0]) for _ in range(3))
    try:
        return EncryptedDataKey(provider.decode("utf-8"), info, ciphertext)
    except UnicodeDecodeError:
        raise _malformed("names a key provider in bytes that are no UTF-8") from None


def _malformed(what: str) -> EvidenceError:
    return refused("MESSAGE_MALFORMED", f"The header of the encrypted artifact {what}.")


def _unsupported(what: str) -> EvidenceError:
    return refused("MESSAGE_UNSUPPORTED", f"The encrypted artifact {what}.")
