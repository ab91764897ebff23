"""One message: written once under a key of its own, or opened frame by frame.

Both are for callers who read, send and hash in threads: frames may be made and opened in any order, and at the same
time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, NoReturn
from weakref import WeakValueDictionary

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384

from sealflow.encryption.context import SIGNING_KEY, EncryptionContext
from sealflow.encryption.frames import MAX_FRAMES, Buffer, Layout, read_frame, sealed_length, write_frame
from sealflow.encryption.header import (
    FRAME_LENGTH,
    MESSAGE_ID,
    SUITE,
    EncryptedDataKey,
    Header,
    header_body,
    parse_header,
)
from sealflow.encryption.recipient import Recipient, fresh_data_key, unwrap_data_key
from sealflow.encryption.refusal import refused
from sealflow.encryption.suite import derive, header_tag, open_header
from sealflow.errors import ArtifactError, EvidenceError, SealflowError

_POINT: Final = 49  # a compressed point on P-384
_NO_KEY: Final = EncryptedDataKey("", b"", b"")

# Messages that this process is writing. Two writers of one message would use its numbers twice.
_writing: WeakValueDictionary[bytes, MessageEncryptor] = WeakValueDictionary()
_writing_lock = threading.Lock()


class Sent(NamedTuple):
    """Frames that may have left the process: nothing else may ever leave it under their numbers.

    Attributes:
        first: Number of the first of them.
        digests: SHA-256 of each frame as it was sent, 32 bytes a frame.
        final: Whether the last of them is the final frame.
    """

    first: int
    digests: bytes
    final: bool

    @property
    def frames(self) -> int:
        """How many they are."""
        return len(self.digests) // 32


class MessageEncryptor:
    """Encrypts one message, under a data key that it makes and that nobody else gets.

    Nonces are counters, so a second header or another frame of a number under the same key would give away plaintext
    and the power to forge. Hence the key comes from here and stays here, the header is made once, each sequence number
    is used once, and the object can neither be copied nor used on the other side of a fork.

    A message whose writer died is gone on with by :meth:`resume`.

    Attributes:
        header: The header, to be stored and sent verbatim.
        header_sha256: SHA-256 of its bytes.
        kept: The data key wrapped to ``keeper``, for :meth:`resume`; ``None`` without one.

    Args:
        recipients: Who can open the message; the first one makes the data key.
        context: Pairs that stand in clear in the header and that the reader will compare.
        frame_length: Content bytes of every frame but the last.
        keeper: A key of the writer's own, which need not be a recipient.

    Raises:
        UsageError: No recipient, one that cannot wrap, a context or a frame length beyond the limits.
        UnavailableError: A key service does not answer or refuses.
    """

    def __init__(
        self,
        recipients: Sequence[Recipient],
        context: Mapping[str, str],
        *,
        frame_length: int = FRAME_LENGTH,
        keeper: Recipient | None = None,
    ) -> None:
        encoded = EncryptionContext.of(context)
        # First of all with a key that is none: what cannot be written is said before anybody is asked for a key.
        header_body(bytes(MESSAGE_ID), encoded, (_NO_KEY,) * max(len(recipients), 1), frame_length, bytes(32))
        data_key, wrapped = fresh_data_key(recipients, encoded)
        self.kept = keeper.wrap(data_key, encoded) if keeper is not None else None
        message_id = secrets.token_bytes(MESSAGE_ID)
        cipher, commitment = derive(data_key, SUITE, message_id)
        body = header_body(message_id, encoded, wrapped, frame_length, commitment)
        raw = body + header_tag(cipher, body)
        self._begin(Header(raw, SUITE, message_id, encoded, wrapped, frame_length, commitment), cipher, ())

    @classmethod
    def resume(
        cls, header: Buffer, keeper: Recipient, kept: EncryptedDataKey | None, sent: Iterable[Sent]
    ) -> MessageEncryptor:
        """Go on with a message of ours whose writer is dead.

        Whatever may have left that process has to be in ``sent``: the caller writes it down, safe from a crash and from
        other hands, before the first byte leaves. Such a frame is handed out again only as the very same bytes
        (:meth:`repeat`); all other numbers are free, once. The caller sees to it, by a lock, that one process at a time
        goes on with a message.

        Args:
            header: The header, verbatim.
            keeper: The key that the data key was kept under.
            kept: The kept data key; ``None`` if the keeper is one of the recipients.
            sent: What may have left.

        Raises:
            EvidenceError: The header is not one of ours, or was altered.
            RecipientError: The keeper does not unwrap the data key.
            SealflowError: ``NONCE_REUSE``: ``sent`` names a number twice or one behind the final frame, or this process
                is writing the message already: the object that does is still there.
            UnavailableError: A key service does not answer or refuses.
        """
        parsed = parse_header(header)
        if parsed.signed:
            raise refused("MESSAGE_UNSUPPORTED", "The encrypted artifact is not one of ours, and is not gone on with.")
        holder = replace(parsed, data_keys=(kept,)) if kept is not None else parsed
        cipher = open_header(parsed, unwrap_data_key(holder, [keeper]))
        self = cls.__new__(cls)
        self.kept = kept
        self._begin(parsed, cipher, sent)
        return self

    def _begin(self, header: Header, cipher: AESGCM, sent: Iterable[Sent]) -> None:
        self.header = header
        self.header_sha256 = hashlib.sha256(header.raw).digest()
        self._cipher = cipher
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._retired = False
        # Every number below `_next` was used, and those in `_ahead`.
        self._next = 1
        self._ahead: set[int] = set()
        self._final: int | None = None
        self._sent = sorted(sent)
        for item in self._sent:
            if item.first < 1 or len(item.digests) % 32 or not 1 <= item.frames <= MAX_FRAMES:
                raise ValueError(f"{item.frames} frames from number {item.first} cannot have been sent")
            for index in range(item.frames):
                self._claim(item.first + index, item.final and index == item.frames - 1)
        with _writing_lock:
            if header.message_id in _writing:
                raise _reuse("this process is writing the message already")
            _writing[header.message_id] = self

    @property
    def complete(self) -> bool:
        """Whether the final frame and all before it were made."""
        return self._final is not None and self._next > self._final

    def sealed_length(self, content: int, *, final: bool = False) -> int:
        """Return the bytes of a frame with so many bytes of content."""
        return sealed_length(content, final=final)

    def seal(self, sequence: int, content: Buffer, out: bytearray | memoryview, *, final: bool = False) -> bytes:
        """Encrypt one frame into a buffer and return the SHA-256 of the frame as it stands there.

        Other threads run meanwhile.

        Args:
            sequence: Number of the frame, from 1; each once.
            content: ``frame_length`` bytes; in the final frame 0 to so many.
            out: Writable, of exactly :meth:`sealed_length` bytes.
            final: Whether it is the last frame.

        Raises:
            ValueError: A length or a number that does not fit; nothing was encrypted.
            SealflowError: ``NONCE_REUSE``: the number was used, lies behind the final frame, or the object came here
                over a fork. A defect of the caller; nothing was encrypted.
        """
        self.encrypt(sequence, content, out, final=final)
        return hashlib.sha256(out).digest()

    def encrypt(self, sequence: int, content: Buffer, out: bytearray | memoryview, *, final: bool = False) -> None:
        """Do as :meth:`seal` does, without the digest, for callers who hash the frame with others."""
        length = len(content)
        if length > self.header.frame_length or (not final and length != self.header.frame_length):
            raise ValueError(f"a frame of this message holds {self.header.frame_length} bytes, not {length}")
        view = memoryview(out)
        if len(view) != sealed_length(length, final=final):
            raise ValueError(f"the buffer has {len(view)} bytes, not {sealed_length(length, final=final)}")
        if not 1 <= sequence <= MAX_FRAMES:
            raise ValueError(f"frames are numbered 1 to {MAX_FRAMES}, not {sequence}")
        self._claim(sequence, final)
        write_frame(self._cipher, self.header.message_id, sequence, content, view, final=final)

    def repeat(self, sequence: int, content: Buffer, out: bytearray | memoryview) -> None:
        """Make a frame again that may have been sent before: the same one, byte for byte.

        The same content gives the same frame. Whatever another content gives is wiped before it can leave: two texts
        under one number would give both away.

        Args:
            sequence: Number of the frame; one of ``sent`` in :meth:`resume`.
            content: Its content; it has to be the same.
            out: Writable, of exactly the length of the frame.

        Raises:
            ValueError: No frame of this number was sent, or a length does not fit.
            ArtifactError: ``ARTIFACT_CHANGED``: the content is another one. Start anew under a new key.
        """
        at = bisect_right(self._sent, sequence, key=lambda item: item.first) - 1
        item = self._sent[at] if at >= 0 else None
        if item is None or sequence >= item.first + item.frames:
            raise ValueError(f"frame {sequence} was not sent before")
        if os.getpid() != self._process:
            raise _reuse("an encryptor was taken over a fork")
        if self._retired:
            raise _reuse("the encryptor was retired")
        index = sequence - item.first
        final = item.final and index == item.frames - 1
        view = memoryview(out)
        if len(view) == sealed_length(len(content), final=final):
            write_frame(self._cipher, self.header.message_id, sequence, content, view, final=final)
            digest = hashlib.sha256(view).digest()
            if hmac.compare_digest(digest, item.digests[index * 32 : index * 32 + 32]):
                return
        view[:] = bytes(len(view))
        raise ArtifactError(
            f"The content of frame {sequence} is not what was sent before.",
            code="ARTIFACT_CHANGED",
            next_step="Start anew; the message gets another key then.",
        )

    def _claim(self, sequence: int, final: bool) -> None:
        if os.getpid() != self._process:
            raise _reuse("an encryptor was taken over a fork")
        with self._lock:
            if self._retired:
                raise _reuse("the encryptor was retired")
            if sequence < self._next or sequence in self._ahead:
                raise _reuse(f"frame {sequence} was encrypted before")
            if self._final is not None and (final or sequence > self._final):
                raise _reuse(f"frame {sequence} lies behind the final one")
            if final and (self._ahead and max(self._ahead) > sequence):
                raise _reuse(f"frames behind the final one, {sequence}, were encrypted before")
            if final:
                self._final = sequence
            # Whatever happens to the frame from here on, the number counts as used.
            self._ahead.add(sequence)
            while self._next in self._ahead:
                self._ahead.remove(self._next)
                self._next += 1

    def retire(self) -> None:
        """Encrypt nothing any more. From then on :meth:`resume` can go on with the message in this process too."""
        with self._lock:
            self._retired = True
        with _writing_lock:
            if _writing.get(self.header.message_id) is self:
                del _writing[self.header.message_id]

    def __reduce__(self) -> NoReturn:
        raise TypeError("an encryptor cannot be copied: its numbers would be used twice")


class MessageDecryptor:
    """Opens frames of one message after its header was found sound, meant for us, and what the reader expects.

    Attributes:
        header: The header.
        layout: Where the frames lie.

    Args:
        header: The header, or bytes that begin with it: the whole message, or its first ``MAX_HEADER`` bytes.
        recipients: Our keys; only those that the header names are used.
        expected: Pairs that the encryption context must hold. Others may stand there too.
        size: Bytes of the whole message.
        tail: The last ``MAX_FOOTER`` bytes of a signed message, or more.
        used: Told which wrapped key gave the data key, even where the message is refused after that.

    Raises:
        EvidenceError: ``MESSAGE_UNSUPPORTED``, ``MESSAGE_MALFORMED``, ``CONTEXT_MISMATCH``, ``COMMITMENT_MISMATCH`` or
            ``MESSAGE_ALTERED``.
        RecipientError: ``RECIPIENT_MISSING``, ``RECIPIENT_KEY_WRONG`` or ``KMS_KEY_NOT_ALLOWED``.
        UnavailableError: A key service does not answer or refuses.
    """

    def __init__(
        self,
        header: Header | Buffer,
        recipients: Sequence[Recipient],
        *,
        expected: Mapping[str, str],
        size: int,
        tail: Buffer = b"",
        used: Callable[[EncryptedDataKey], None] | None = None,
    ) -> None:
        self.header = header if isinstance(header, Header) else parse_header(header)
        # What needs no key comes first: nobody is asked to unwrap what is refused anyway.
        self.header.context.require(expected)
        self.layout = Layout.of_message(self.header, size, tail)
        self._signing_key = _signing_key(self.header.context) if self.header.signed else None
        self._cipher = open_header(self.header, unwrap_data_key(self.header, recipients, used))
        self._digests: bytes | None = None

    def verify_signature(self, frames: Iterable[Buffer], footer: Buffer) -> None:
        """Verify the signature of a signed message; before that, none of its frames can be opened.

        What is opened later has to be the very bytes that were read here: 32 bytes a frame are kept for that.

        Args:
            frames: All frames in order, each as it lies in the message.
            footer: What follows the last of them.

        Raises:
            EvidenceError: ``SIGNATURE_INVALID``, or ``MESSAGE_MALFORMED`` for frames that are not those of the layout.
        """
        if self._signing_key is None:
            raise ValueError("the message is not signed")
        state = hashlib.sha384(self.header.raw)
        digests = bytearray()
        count = 0
        for count, frame in enumerate(frames, 1):
            start, end = self.layout.span(count) if count <= self.layout.frames else (0, -1)
            if len(frame) != end - start:
                raise _malformed(f"Frame {count} of the encrypted artifact has another length than it should.")
            state.update(frame)
            digests += hashlib.sha256(frame).digest()
        if count != self.layout.frames or len(footer) != self.layout.footer:
            raise _malformed("The encrypted artifact has other frames than its size says, or another signature.")
        try:
            self._signing_key.verify(bytes(footer[2:]), state.digest(), ec.ECDSA(Prehashed(SHA384())))
        except InvalidSignature:
            raise EvidenceError(
                "The signature at the end of the encrypted artifact does not verify.",
                code="SIGNATURE_INVALID",
                next_step="Fetch the artifact again, or ask its producer; nothing of it was released.",
            ) from None
        self._digests = bytes(digests)

    def seals_to(self, sequence: int, content: Buffer, sha256: bytes) -> bool:
        """Tell whether a frame with this content, as we write frames, has this digest: whether it is its content.

        For what was decrypted before and lay on a disk since. Nothing that is encrypted here leaves the object.

        Args:
            sequence: Number of the frame, from 1.
            content: What its content may be.
            sha256: The frame's digest in signed evidence.
        """
        length, final = self.layout.content_length(sequence), sequence == self.layout.frames
        if len(content) != length:
            return False
        frame = memoryview(bytearray(sealed_length(length, final=final)))
        write_frame(self._cipher, self.header.message_id, sequence, content, frame, final=final)
        return hmac.compare_digest(hashlib.sha256(frame).digest(), sha256)

    def open(self, sequence: int, frame: Buffer, out: bytearray | memoryview, *, sha256: bytes | None = None) -> None:
        """Decrypt one frame into a buffer. On any error the buffer holds nothing of it.

        Other threads run meanwhile. That a frame opens proves that somebody with the data key made it, as every
        recipient can: what proves who made it is signed evidence over its digest.

        Args:
            sequence: Number of the frame, from 1.
            frame: The frame as it lies in the message.
            out: Writable, of exactly ``layout.content_length(sequence)`` bytes.
            sha256: The frame's digest in signed evidence; compared first.

        Raises:
            ValueError: There is no such frame, or the buffer has another length.
            EvidenceError: ``MESSAGE_ALTERED``, ``MESSAGE_MALFORMED``; ``SIGNATURE_INVALID`` for a signed message whose
                signature was not verified.
        """
        view = memoryview(out)
        if len(view) != self.layout.content_length(sequence):
            raise ValueError(f"the buffer has {len(view)} bytes, not {self.layout.content_length(sequence)}")
        wanted = [] if sha256 is None else [sha256]
        if self._signing_key is not None:
            if self._digests is None:
                raise refused(
                    "SIGNATURE_INVALID", "The signature at the end of the encrypted artifact was not verified yet."
                )
            wanted.append(self._digests[(sequence - 1) * 32 : sequence * 32])
        if wanted:
            digest = hashlib.sha256(frame).digest()
            if not all(hmac.compare_digest(digest, item) for item in wanted):
                raise refused(
                    "MESSAGE_ALTERED", f"Frame {sequence} of the encrypted artifact is not the one that was signed."
                )
        read_frame(self._cipher, self.header.message_id, sequence, frame, view, final=sequence == self.layout.frames)


def encrypt_message(
    plaintext: Buffer,
    recipients: Sequence[Recipient],
    context: Mapping[str, str],
    *,
    frame_length: int = FRAME_LENGTH,
) -> bytes:
    """Encrypt bytes that are in memory. Raises what :class:`MessageEncryptor` raises."""
    encryptor = MessageEncryptor(recipients, context, frame_length=frame_length)
    layout = Layout.of_content(encryptor.header, len(plaintext))
    message = bytearray(layout.size)
    message[: layout.header] = encryptor.header.raw
    source, target = memoryview(plaintext), memoryview(message)
    for sequence in range(1, layout.frames + 1):
        start, end = layout.span(sequence)
        at = (sequence - 1) * frame_length
        content = source[at : at + layout.content_length(sequence)]
        encryptor.encrypt(sequence, content, target[start:end], final=sequence == layout.frames)
    return bytes(message)


def decrypt_message(message: Buffer, recipients: Sequence[Recipient], *, expected: Mapping[str, str]) -> bytes:
    """Decrypt bytes that are in memory: all of them, or none.

    Raises what :class:`MessageDecryptor` and its methods raise.
    """
    source = memoryview(message)
    decryptor = MessageDecryptor(source, recipients, expected=expected, size=len(source), tail=source)
    layout = decryptor.layout
    spans = [layout.span(sequence) for sequence in range(1, layout.frames + 1)]
    if decryptor.header.signed:
        decryptor.verify_signature((source[start:end] for start, end in spans), source[spans[-1][1] :])
    plaintext = bytearray(layout.content)
    target = memoryview(plaintext)
    for sequence, (start, end) in enumerate(spans, 1):
        at = (sequence - 1) * layout.frame_length
        decryptor.open(sequence, source[start:end], target[at : at + layout.content_length(sequence)])
    return bytes(plaintext)


def _signing_key(context: EncryptionContext) -> ec.EllipticCurvePublicKey:
    try:
        point = base64.b64decode(context.pairs[SIGNING_KEY], validate=True)
        if len(point) != _POINT:
            raise ValueError
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), point)
    except (ValueError, binascii.Error):
        raise _malformed("The encrypted artifact names a signing key that is no compressed point on P-384.") from None


def _reuse(what: str) -> SealflowError:
    return SealflowError(f"Nothing was encrypted: {what}.", code="NONCE_REUSE")


def _malformed(sentence: str) -> EvidenceError:
    return refused("MESSAGE_MALFORMED", sentence)
