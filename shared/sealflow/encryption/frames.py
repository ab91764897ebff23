"""The body of a message: where its frames lie, and how one is made and opened.

Source: AWS Encryption SDK specification, ``data-format/message-body.md`` and ``data-format/message-body-aad.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sealflow.encryption.header import IV, TAG, Header
from sealflow.encryption.refusal import refused
from sealflow.errors import EvidenceError

Buffer = bytes | bytearray | memoryview

#: Bytes that a frame has beyond its content, and those that the final one has.
OVERHEAD: Final = 4 + IV + TAG
FINAL_OVERHEAD: Final = OVERHEAD + 8

#: Sequence numbers are 1 to this; the number above marks the final frame.
MAX_FRAMES: Final = 0xFFFF_FFFE

#: The longest footer: the length, and an ECDSA signature on P-384 in DER.
MAX_FOOTER: Final = 2 + 104

_REGULAR = struct.Struct(f">I{IV}s")
_FINAL = struct.Struct(f">II{IV}sI")
_AAD_END = struct.Struct(">IQ")
_U16 = struct.Struct(">H")
_MARK = 0xFFFF_FFFF
_REGULAR_TEXT = b"AWSKMSEncryptionClient Frame"
_FINAL_TEXT = b"AWSKMSEncryptionClient Final Frame"


def sealed_length(content: int, *, final: bool) -> int:
    """Return the bytes of a frame with so many bytes of content."""
    return content + (FINAL_OVERHEAD if final else OVERHEAD)


def frame_iv(sequence: int) -> bytes:
    """Return the nonce of a frame of ours: its sequence number."""
    return sequence.to_bytes(IV, "big")


def _aad(message_id: bytes, sequence: int, length: int, final: bool) -> bytes:
    return message_id + (_FINAL_TEXT if final else _REGULAR_TEXT) + _AAD_END.pack(sequence, length)


def write_frame(
    cipher: AESGCM, message_id: bytes, sequence: int, content: Buffer, out: memoryview, *, final: bool
) -> None:
    """Encrypt one frame into a buffer of exactly its length. The caller sees to it that a number is used once."""
    length = len(content)
    iv = frame_iv(sequence)
    if final:
        _FINAL.pack_into(out, 0, _MARK, sequence, iv, length)
    else:
        _REGULAR.pack_into(out, 0, sequence, iv)
    start = _FINAL.size if final else _REGULAR.size
    cipher.encrypt_into(iv, content, _aad(message_id, sequence, length, final), out[start:])


def read_frame(
    cipher: AESGCM, message_id: bytes, sequence: int, frame: Buffer, out: memoryview, *, final: bool
) -> None:
    """Decrypt one frame into a buffer of exactly its content's length; on any error the buffer holds zeros.

    The nonce is taken as it stands in the frame: other writers may choose another than we do.

    Raises:
        EvidenceError: ``MESSAGE_MALFORMED`` for another frame than the one meant, ``MESSAGE_ALTERED`` for other bytes
            than were encrypted as this frame of this message.
    """
    source = memoryview(frame)
    length = len(out)
    if len(source) != sealed_length(length, final=final):
        raise _malformed(sequence, "has another length than it should")
    if final:
        mark, number, iv, said = _FINAL.unpack_from(source)
        if mark != _MARK:
            raise _malformed(sequence, "should be the final one and is not")
        if said != length:
            raise _malformed(sequence, f"says that it has {said} bytes and has {length}")
    else:
        number, iv = _REGULAR.unpack_from(source)
    if number != sequence:
        raise _malformed(sequence, "should be another one: frames are missing, repeated or out of order")
    start = _FINAL.size if final else _REGULAR.size
    try:
        cipher.decrypt_into(iv, source[start:], _aad(message_id, sequence, length, final), out)
    except InvalidTag:
        # The library decrypts first and compares then: what nobody vouches for stands in the buffer.
        out[:] = bytes(length)
        raise refused(
            "MESSAGE_ALTERED",
            f"Frame {sequence} of the encrypted artifact was altered, or belongs to another artifact.",
        ) from None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the frames of a message lie, by arithmetic alone.

    Attributes:
        header: Bytes of the header.
        frame_length: Content bytes of every frame but the last.
        frames: Number of frames; sequence numbers are 1 to this.
        final_length: Content bytes of the last frame.
        footer: Bytes of the signature after the body; 0 without one.
    """

    header: int
    frame_length: int
    frames: int
    final_length: int
    footer: int = 0

    @classmethod
    def of_content(cls, header: Header, length: int) -> Layout:
        """Return where the frames of so many bytes of plaintext come to lie in a message of ours.

        Raises:
            EvidenceError: More frames than the format has numbers for.
        """
        before = max(length - 1, 0) // header.frame_length
        return cls._checked(header, before, length - before * header.frame_length, 0)

    @classmethod
    def of_message(cls, header: Header, size: int, tail: Buffer = b"") -> Layout:
        """Return where the frames lie in a message of so many bytes.

        Args:
            header: Its header.
            size: Bytes of the whole message, as the store says or as the file has.
            tail: The last :data:`MAX_FOOTER` bytes of a signed message, or more; of others nothing is needed.

        Raises:
            EvidenceError: No message has this size: it was cut, or something was added.
        """
        footer = _footer_length(tail) if header.signed else 0
        body = size - len(header.raw) - footer - FINAL_OVERHEAD
        before, final_length = divmod(body, header.frame_length + OVERHEAD)
        if body < 0 or final_length > header.frame_length:
            raise refused(
                "MESSAGE_MALFORMED",
                f"No encrypted artifact with this header has {size} bytes; it was cut, or bytes were added.",
            )
        return cls._checked(header, before, final_length, footer)

    @classmethod
    def _checked(cls, header: Header, before: int, final_length: int, footer: int) -> Layout:
        if before >= MAX_FRAMES:
            raise refused("MESSAGE_MALFORMED", f"An encrypted artifact has at most {MAX_FRAMES} frames.")
        return cls(len(header.raw), header.frame_length, before + 1, final_length, footer)

    @property
    def content(self) -> int:
        """Bytes of the plaintext."""
        return (self.frames - 1) * self.frame_length + self.final_length

    @property
    def size(self) -> int:
        """Bytes of the whole message."""
        return self.span(self.frames)[1] + self.footer

    def content_length(self, sequence: int) -> int:
        """Return the content bytes of a frame."""
        self._check(sequence)
        return self.final_length if sequence == self.frames else self.frame_length

    def span(self, sequence: int) -> tuple[int, int]:
        """Return where a frame begins and ends in the message."""
        start = self.header + (sequence - 1) * (self.frame_length + OVERHEAD)
        return start, start + sealed_length(self.content_length(sequence), final=sequence == self.frames)

    def covering(self, start: int, length: int) -> Iterator[tuple[int, slice]]:
        """Yield the frames that hold a range of the plaintext, each with the slice of its content that is in it."""
        if start < 0 or length < 0 or start + length > self.content:
            raise ValueError(f"{start}+{length} is not within {self.content} bytes")
        end = start + length
        while start < end:
            index, skip = divmod(start, self.frame_length)
            stop = min(end - index * self.frame_length, self.frame_length)
            yield index + 1, slice(skip, stop)
            start = index * self.frame_length + stop

    def _check(self, sequence: int) -> None:
        if not 1 <= sequence <= self.frames:
            raise ValueError(f"there is no frame {sequence} of {self.frames}")


def _footer_length(tail: Buffer) -> int:
    """Return the length of the footer at the end, found by its own form: a length, and a DER sequence of it."""
    end = bytes(tail[-MAX_FOOTER:])
    found = [
        2 + length
        for length in range(8, min(MAX_FOOTER, len(end)) - 1)
        if _U16.unpack_from(end, len(end) - length - 2)[0] == length and end[-length:][:2] == bytes((0x30, length - 2))
    ]
    # More than one: the signature was made to look so, and nobody has to guess.
    if len(found) != 1:
        raise refused("MESSAGE_MALFORMED", "The encrypted artifact lacks its signature at the end.")
    return found[0]


def _malformed(sequence: int, what: str) -> EvidenceError:
    return refused("MESSAGE_MALFORMED", f"Frame {sequence} of the encrypted artifact {what}.")
