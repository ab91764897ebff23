"""Entries of the audit log: one event in the chain of the writer that made it, signed.

An entry is one line of text, without its end::

    sealflow-audit/v1 <writer> <n> <prev> <event> <signature>

=========== ==========================================================================================
part        what it is
=========== ==========================================================================================
writer      the writer's Ed25519 public key (RFC 8032), 64 lower-case hex digits: an id that nobody else can sign for
n           number of the entry in its writer's chain, from 0, decimal
prev        RFC 6962 leaf hash of the writer's entry before, 64 lower-case hex digits; zeros for the first
event       the event's canonical JSON, which holds no line end
signature   the writer's over everything before the last space, standard Base64
=========== ==========================================================================================

Since each entry names the one before by its hash, the signature of a chain's last entry speaks for the whole chain.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sealflow.errors import EvidenceError
from sealflow.strictjson import base64_bytes

FORMAT: Final = b"sealflow-audit/v1"
#: Largest entry in bytes: its length must fit into the two bytes of a bundle (C2SP tlog-tiles).
MAX_ENTRY: Final = 65_535
#: ``prev`` of a chain's first entry.
NO_PREV: Final = "0" * 64

_LINE: Final = re.compile(
    rb"sealflow-audit/v1 ([0-9a-f]{64}) (0|[1-9][0-9]{0,17}) ([0-9a-f]{64}) (\{[^\n]*\}) ([A-Za-z0-9+/]{86}==)"
)


class Entry(NamedTuple):
    """One entry.

    Attributes:
        writer: The writer's public key in hex.
        n: Number in the writer's chain, from 0.
        prev: Leaf hash of the entry before, in hex.
        event: Canonical JSON of the event.
        line: The whole entry, as it is hashed and stored, without a line end.
    """

    writer: str
    n: int
    prev: str
    event: bytes
    line: bytes

    @property
    def hash(self) -> str:
        """RFC 6962 leaf hash in hex."""
        return leaf_hash(self.line)

    def is_signed(self) -> bool:
        """Tell whether the writer signed the entry."""
        signed, _, signature = self.line.rpartition(b" ")
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.writer))
            # Strictly: one signature must not have two texts, nor one entry two hashes.
            key.verify(base64_bytes(signature.decode("ascii"), "The signature"), signed)
        except (InvalidSignature, EvidenceError, ValueError):
            return False
        return True


def leaf_hash(line: bytes) -> str:
    """Return the RFC 6962 leaf hash of an entry in hex."""
    return hashlib.sha256(b"\0" + line).hexdigest()


def parse_entry(line: bytes) -> Entry:
    """Read an entry; nothing is verified.

    Raises:
        EvidenceError: ``AUDIT_MALFORMED``.
    """
    match = _LINE.fullmatch(line) if len(line) <= MAX_ENTRY else None
    if match is None:
        raise EvidenceError("This is no entry of an audit log.", code="AUDIT_MALFORMED")
    writer, n, prev, event, _ = match.groups()
    return Entry(writer.decode(), int(n), prev.decode(), event, line)


class Chain:
    """Makes the entries of one writer, with a key that is made for it and never leaves the process. Not for threads.

    Attributes:
        writer: The writer's public key in hex.
        count: How many entries there are so far.
    """

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._prev = NO_PREV
        self.writer = self._key.public_key().public_bytes_raw().hex()
        self.count = 0

    def add(self, event: bytes) -> Entry:
        """Return the next entry, with an event's canonical JSON.

        Raises:
            EvidenceError: ``AUDIT_MALFORMED``: it holds a line end, is no JSON object, or is too large.
        """
        signed = b" ".join((FORMAT, self.writer.encode(), b"%d" % self.count, self._prev.encode(), event))
        entry = parse_entry(signed + b" " + base64.b64encode(self._key.sign(signed)))
        self._prev = entry.hash
        self.count += 1
        return entry
