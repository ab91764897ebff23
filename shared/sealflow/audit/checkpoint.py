"""Checkpoints: what a log's key signs of the whole log (C2SP tlog-checkpoint)."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sealflow.audit import merkle
from sealflow.audit.note import COSIGNATURE, Note, VerifierKey, parse_note, sign_note
from sealflow.errors import EvidenceError
from sealflow.findings import printable
from sealflow.keys import KeySigner
from sealflow.strictjson import base64_bytes

#: Name of the object that holds a log's checkpoint.
NAME: Final = "checkpoint"

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class Checkpoint:
    """A log at one moment.

    Attributes:
        origin: The log's name.
        size: Its entries.
        root: Root of its tree.
        extensions: Further lines, which mean nothing to us; we write none.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> bytes:
        """The text that is signed."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions)
        return "".join(f"{line}\n" for line in lines).encode()


def parse_text(text: bytes) -> Checkpoint:
    """Read the text of a checkpoint.

    Raises:
        EvidenceError: ``LOG_CHECKPOINT``: it is none.
    """
    try:
        origin, size, encoded, *extensions, end = text.decode().split("\n")
        root = base64_bytes(encoded, "The root")
    except (UnicodeDecodeError, ValueError, EvidenceError):
        raise _malformed() from None
    if end or not origin or not all(extensions) or not _SIZE.fullmatch(size) or len(root) != merkle.HASH_SIZE:
        raise _malformed()
    if int(size) >= merkle.MAX_SIZE or (size == "0" and root != merkle.EMPTY_ROOT):
        raise _malformed()
    return Checkpoint(origin, int(size), root, tuple(extensions))


class SignedCheckpoint(NamedTuple):
    """A checkpoint whose log's signature was verified.

    Attributes:
        checkpoint: What it says.
        note: The whole note.
        witnesses: Name of each given witness that cosigned it, and when, in seconds since 1970.
    """

    checkpoint: Checkpoint
    note: Note
    witnesses: dict[str, int]


def sign_checkpoint(checkpoint: Checkpoint, signer: KeySigner) -> bytes:
    """Return the note of a checkpoint, signed under the log's origin.

    Raises:
        UsageError: The key is not Ed25519, or the origin cannot name a key.
        UnavailableError: The key service does not answer.
    """
    return sign_note(checkpoint.text, signer, checkpoint.origin)


def open_checkpoint(data: bytes, key: VerifierKey, witnesses: Sequence[VerifierKey] = ()) -> SignedCheckpoint:
    """Read and verify a checkpoint.

    Args:
        data: The note.
        key: The log's; its name is the origin that the checkpoint must have.
        witnesses: Keys of witnesses whose cosignatures count. Each *key* counts once, whatever names it has. One that
            makes no cosignatures counts for nothing: what another log signs says nothing of when, nor of its history.

    Raises:
        EvidenceError: ``LOG_CHECKPOINT``: malformed, of another log, not signed by the key, or with a signature of
            one of the keys that is none.
    """
    note = parse_note(data)
    checkpoint = parse_text(note.text)
    if checkpoint.origin != key.name:
        raise EvidenceError(
            f"The checkpoint is of the log {printable(checkpoint.origin)}, not of {printable(key.name)}.",
            code="LOG_CHECKPOINT",
        )
    if not note.by(key):
        raise EvidenceError(
            f"The checkpoint is not signed with the key {printable(key)} of its log.", code="LOG_CHECKPOINT"
        )
    cosigned: dict[bytes, tuple[str, int]] = {}
    for witness in witnesses:
        # A log that witnesses itself says nothing new.
        if (found := note.by(witness)) and witness.kind == COSIGNATURE and witness.raw != key.raw:
            cosigned[witness.raw] = (witness.name, max(item.time for item in found))
    return SignedCheckpoint(checkpoint, note, dict(cosigned.values()))


def _malformed() -> EvidenceError:
    return EvidenceError("The text of this note is no checkpoint of a log.", code="LOG_CHECKPOINT")
