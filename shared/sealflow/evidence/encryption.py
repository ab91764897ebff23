"""The attestation about an encrypted artifact: which bytes lie in the store, and which artifact they are.

An authentication tag proves only that somebody with the data key made a frame, and every recipient has it. So the
SHA-256 of the header and of each frame stand in a list, an object of its own in clear, and a signed statement names the
digest of that list, the message id and the artifact digest. The list tells nothing of what is encrypted.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Final

from sealflow import strictjson
from sealflow.errors import EvidenceError
from sealflow.evidence.provenance import parse_digest_set
from sealflow.evidence.statement import Statement, make_statement
from sealflow.hashing import Digest, sha256_hex
from sealflow.run_identity import RunIdentity

PREDICATE_TYPE: Final = "urn:sealflow:predicate:encryption:v1"
#: Kind under which a store keeps it.
KIND: Final = "encryption"
FORMAT: Final = "aws-encryption-sdk/v2"

#: Largest list of digests in bytes: two million frames.
MAX_LIST: Final = 64 << 20
_DIGEST: Final = 32
_MESSAGE_ID = re.compile(r"[0-9a-f]{64}")
_FINISHED = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class MessageId:
    """Name of one encrypted object: 32 random bytes among its first, in hex."""

    hex: str

    @property
    def path_segment(self) -> str:
        """The id as one path segment of an evidence store."""
        return f"message-{self.hex}"


@dataclass(frozen=True)
class FrameDigests:
    """The SHA-256 of the header and of each frame, in order.

    Attributes:
        data: 32 bytes each.
    """

    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) % _DIGEST or not 2 * _DIGEST <= len(self.data) <= MAX_LIST:
            raise EvidenceError(f"A list of frame digests has another length than {len(self.data)} bytes.")

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.data) // _DIGEST - 1

    @property
    def header(self) -> bytes:
        """Digest of the header."""
        return self.data[:_DIGEST]

    @property
    def sha256(self) -> str:
        """Digest of the list, in hex: what is signed."""
        return sha256_hex(self.data)

    def __getitem__(self, sequence: int) -> bytes:
        """Return the digest of a frame, numbered from 1."""
        if not 1 <= sequence <= self.frames:
            raise IndexError(sequence)
        return self.data[sequence * _DIGEST : (sequence + 1) * _DIGEST]


@dataclass(frozen=True)
class Encryption:
    """What a signed statement says about an encrypted object.

    Attributes:
        message: The message id.
        list_sha256: Digest of the list of frame digests.
        frames: Number of frames.
        artifact: Artifact digest of what is encrypted.
        producer: Who encrypted it.
        finished_on: When, as the signer claims; RFC 3339.
    """

    message: MessageId
    list_sha256: str
    frames: int
    artifact: Digest
    producer: str
    finished_on: str


def make_encryption_statement(
    message: MessageId, digests: FrameDigests, artifact: Digest, run: RunIdentity, *, now: datetime.datetime
) -> bytes:
    """Return the statement about one encrypted object as canonical JSON, ready to be signed.

    Args:
        message: Its message id.
        digests: Of its header and frames.
        artifact: Artifact digest of what is encrypted.
        run: Who encrypts.
        now: The time of signing, aware.
    """
    predicate = {
        "format": FORMAT,
        "frames": digests.frames,
        "artifact": artifact.as_digest_set(),
        "producer": run.producer,
        "builder": run.builder_id,
        "invocationId": run.invocation,
        "finishedOn": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return make_statement(message.hex, {"sha256": digests.sha256}, PREDICATE_TYPE, predicate)


def parse_encryption(statement: Statement) -> Encryption:
    """Parse such a statement. Unknown members are ignored.

    Raises:
        EvidenceError: Another predicate or format, several subjects, or a member is missing or of another form.
    """
    if statement.predicate_type != PREDICATE_TYPE:
        raise EvidenceError(f"The predicate type is {statement.predicate_type[:120]!r}, not {PREDICATE_TYPE}.")
    what = "The encryption statement"
    if len(statement.subjects) != 1:
        raise EvidenceError(f"{what} has {len(statement.subjects)} subjects instead of one.")
    subject, body = statement.subjects[0], statement.predicate
    if strictjson.member(body, "format", str, what) != FORMAT:
        raise EvidenceError(f"{what} is about another format than {FORMAT}; update sealflow.")
    listed = parse_digest_set(subject.digests)
    if not _MESSAGE_ID.fullmatch(subject.name) or listed.algorithm != "sha256":
        raise EvidenceError(f"{what} names no message id, or no list of digests.")
    frames = strictjson.member(body, "frames", int, what)
    finished = strictjson.member(body, "finishedOn", str, what)
    if frames < 1 or not _FINISHED.fullmatch(finished):
        raise EvidenceError(f"{what} has no number of frames, or no time in UTC.")
    digests = strictjson.member(body, "artifact", dict, what)
    if not all(isinstance(value, str) for value in digests.values()):
        raise EvidenceError(f"{what} names no artifact digest.")
    producer = strictjson.member(body, "producer", str, what)
    if len(producer) > 4096 or not producer.isprintable():
        raise EvidenceError(f"{what} names a producer that is too long or holds control characters.")
    return Encryption(MessageId(subject.name), listed.hex, frames, parse_digest_set(digests), producer, finished)
