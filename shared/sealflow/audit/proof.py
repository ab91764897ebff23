"""Proofs that an entry is in a log, which anybody can check offline (C2SP tlog-proof)."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sealflow.audit import merkle
from sealflow.audit.checkpoint import SignedCheckpoint, open_checkpoint
from sealflow.audit.entry import MAX_ENTRY
from sealflow.audit.note import MAX_NOTE, VerifierKey
from sealflow.errors import EvidenceError
from sealflow.strictjson import base64_bytes

#: How the file of a proof ends.
SUFFIX: Final = ".tlog-proof"
#: Largest proof in bytes.
MAX_PROOF: Final = MAX_NOTE + 2 * MAX_ENTRY

_HEAD = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True)
class Proof:
    """A proof.

    Attributes:
        index: Of the entry in the log.
        hashes: The inclusion proof, from the leaf up.
        checkpoint: The note of the log's checkpoint, cosignatures included.
        extra: Unproved bytes that belong to it; ours hold the entry itself.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""

    def encode(self) -> bytes:
        """Return the proof as it is stored."""
        lines = [_HEAD]
        if self.extra:
            lines.append(f"extra {base64.b64encode(self.extra).decode()}")
        lines.append(f"index {self.index}")
        lines += [base64.b64encode(item).decode() for item in self.hashes]
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.checkpoint


def parse_proof(data: bytes) -> Proof:
    """Read a proof; nothing is verified.

    Raises:
        EvidenceError: ``LOG_PROOF``: it is none.
    """
    head, blank, checkpoint = data.partition(b"\n\n")
    if len(data) > MAX_PROOF or not blank:
        raise _malformed()
    try:
        lines = head.decode("ascii").split("\n")
        extra = b""
        if lines[1:2] and lines[1].startswith("extra "):
            extra = base64_bytes(lines.pop(1)[6:], "The extra data")
        index = _INDEX.fullmatch(lines[1]) if len(lines) > 1 else None
        hashes = tuple(base64_bytes(line, "The hash") for line in lines[2:])
    except (UnicodeDecodeError, EvidenceError):
        raise _malformed() from None
    if lines[0] != _HEAD or index is None or len(hashes) > merkle.MAX_PROOF:
        raise _malformed()
    if any(len(item) != merkle.HASH_SIZE for item in hashes):
        raise _malformed()
    return Proof(int(index[1]), hashes, checkpoint, extra)


def open_proof(proof: Proof, line: bytes, key: VerifierKey, witnesses: Sequence[VerifierKey] = ()) -> SignedCheckpoint:
    """Verify that a log holds an entry, and return the checkpoint that says so.

    Args:
        proof: The proof.
        line: The entry.
        key: The log's verifier key.
        witnesses: Keys of witnesses whose cosignatures count.

    Raises:
        EvidenceError: ``LOG_CHECKPOINT``: the checkpoint is not the log's; ``LOG_PROOF``: the proof does not lead from
            the entry to its root.
    """
    signed = open_checkpoint(proof.checkpoint, key, witnesses)
    size, root = signed.checkpoint.size, signed.checkpoint.root
    if not merkle.is_included(proof.index, size, merkle.leaf_hash(line), proof.hashes, root):
        raise EvidenceError(
            f"The proof does not lead from the entry, as number {proof.index}, to the root of the checkpoint.",
            code="LOG_PROOF",
        )
    return signed


def _malformed() -> EvidenceError:
    return EvidenceError("This is no proof of a log.", code="LOG_PROOF")
