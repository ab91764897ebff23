"""Signed notes and verifier keys (C2SP signed-note, tlog-cosignature), with Ed25519."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import printable
from sealflow.keys import KeySigner
from sealflow.keys.public import read_key_file
from sealflow.keys.signer import demand_one
from sealflow.strictjson import base64_bytes

#: Signature types of signed-note: Ed25519 over the text, and a witness's timestamped cosignature of a checkpoint.
ED25519: Final = 0x01
COSIGNATURE: Final = 0x04

#: Largest note in bytes, and most signatures on one. The specification demands room for 16.
MAX_NOTE: Final = 512 << 10
MAX_SIGNATURES: Final = 100

_DASH = "— "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_ID = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True)
class VerifierKey:
    """A key that verifies signatures of notes.

    Attributes:
        name: Who signs; for a log, its origin.
        kind: :data:`ED25519` or :data:`COSIGNATURE`.
        raw: The 32 bytes of the Ed25519 key.
        id: The four bytes that signatures name it by.
    """

    name: str
    kind: int
    raw: bytes
    id: bytes = field(init=False)
    _key: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not is_key_name(self.name):
            raise UsageError(
                f"{printable(self.name)!r} cannot name a key.",
                code="KEY_UNSUPPORTED",
                next_step="Write a name like example.com/log, without spaces and '+'.",
            )
        try:
            key = Ed25519PublicKey.from_public_bytes(self.raw)
        except ValueError:
            raise UsageError("A verifier key holds no Ed25519 key.", code="KEY_UNSUPPORTED") from None
        object.__setattr__(self, "_key", key)
        named = self.name.encode() + b"\n" + bytes((self.kind,)) + self.raw
        object.__setattr__(self, "id", hashlib.sha256(named).digest()[:4])

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read ``<name>+<key id>+<key>``.

        Raises:
            UsageError: ``KEY_UNSUPPORTED``: it is none, or neither of the two kinds.
        """
        name, _, rest = text.partition("+")
        named, _, encoded = rest.partition("+")
        try:
            raw = base64_bytes(encoded, "The key")
        except EvidenceError:
            raw = b""
        if not _ID.fullmatch(named) or len(raw) != 33 or raw[0] not in (ED25519, COSIGNATURE):
            raise UsageError(
                f"{printable(text)!r} is no verifier key of a log or a witness.",
                code="KEY_UNSUPPORTED",
                next_step="Write name+id+key, as `sealflow audit key` prints it; the key has to be Ed25519.",
            )
        key = cls(name, raw[0], raw[1:])
        if key.id.hex() != named:
            raise UsageError(
                f"The verifier key of {printable(name)} and its id do not belong together.",
                code="KEY_UNSUPPORTED",
                next_step="Copy the whole line again.",
            )
        return key

    @classmethod
    def of(cls, signer: KeySigner, name: str) -> VerifierKey:
        """Return what verifies the notes that a signer signs under a name.

        Raises:
            UsageError: ``KEY_UNSUPPORTED``: the signer's key is not Ed25519, or this is no name; two signers.
        """
        demand_one(signer)
        if signer.public_key.algorithm != "Ed25519":
            raise UsageError(
                f"A log's checkpoints are signed with Ed25519, and the signer has a {signer.public_key.algorithm} key.",
                code="KEY_UNSUPPORTED",
                next_step="Make one: sealflow keys generate --algorithm ed25519 PATH.",
            )
        key = serialization.load_pem_public_key(signer.public_key.pem)
        return cls(name, ED25519, key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the key, in hex, as the list of revocations names it: of its PEM form."""
        pem = self._key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(pem).hexdigest()

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(bytes((self.kind,)) + self.raw).decode()}"

    def verifies(self, text: bytes, signature: bytes) -> bool:
        """Tell whether a signature, without the key's id, is this key's over the text of a note."""
        if self.kind == COSIGNATURE:
            if len(signature) != 72 or signature[0] & 0x80:
                return False
            text = b"cosignature/v1\ntime %d\n%s" % (int.from_bytes(signature[:8], "big"), text)
            signature = signature[8:]
        try:
            self._key.verify(signature, text)
        except InvalidSignature:
            return False
        return True


def load_verifier_key(source: str) -> VerifierKey:
    """Return the key that stands in a text or in a file.

    Args:
        source: ``<name>+<key id>+<key>``, or the path of a file that holds nothing else.

    Raises:
        UsageError: It is none, or there is no such file.
        UnavailableError: The file cannot be read.
    """
    if re.search(r"\+[0-9a-f]{8}\+", source):
        return VerifierKey.parse(source.strip())
    return VerifierKey.parse(read_key_file(source).decode("utf-8", "replace").strip())


def is_key_name(name: str) -> bool:
    """Tell whether a text can be the name of a key, as signed-note has it."""
    return bool(name) and "+" not in name and not _CONTROL.search(name) and not any(map(str.isspace, name))


class Signature(NamedTuple):
    """One signature of a note.

    Attributes:
        name: Who says to have made it.
        id: The key's.
        data: The signature, without the key's id.
    """

    name: str
    id: bytes
    data: bytes

    @property
    def time(self) -> int:
        """When a cosignature was made, in seconds since 1970; without meaning for other kinds."""
        return int.from_bytes(self.data[:8], "big")

    def line(self) -> str:
        """Return the signature's line, with its end."""
        return f"{_DASH}{self.name} {base64.b64encode(self.id + self.data).decode()}\n"


class Note(NamedTuple):
    """A text and what claims to be signatures of it.

    Attributes:
        text: With its final line end.
        signatures: In their order.
    """

    text: bytes
    signatures: tuple[Signature, ...]

    def by(self, key: VerifierKey) -> tuple[Signature, ...]:
        """Return the signatures of a key; none where it did not sign.

        Raises:
            EvidenceError: ``LOG_CHECKPOINT``: one says to be this key's and is not.
        """
        found = tuple(item for item in self.signatures if (item.name, item.id) == (key.name, key.id))
        # One that stands there a hundred times is checked once.
        for item in dict.fromkeys(found):
            if not key.verifies(self.text, item.data):
                raise EvidenceError(f"A signature under {printable(key.name)} is not its key's.", code="LOG_CHECKPOINT")
        return found

    def encode(self) -> bytes:
        """Return the note as it is stored."""
        return self.text + b"\n" + "".join(item.line() for item in self.signatures).encode()


def parse_note(data: bytes) -> Note:
    """Read a note; nothing is verified.

    Raises:
        EvidenceError: ``LOG_CHECKPOINT``: it is none.
    """
    if len(data) > MAX_NOTE:
        raise _malformed(f"it has more than {MAX_NOTE} bytes")
    try:
        whole = data.decode()
    except UnicodeDecodeError:
        raise _malformed("it is not UTF-8") from None
    if _CONTROL.search(whole):
        raise _malformed("it holds control characters")
    text, blank, signatures = whole.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise _malformed("it has no signatures")
    return Note(f"{text}\n".encode(), parse_signatures(signatures))


def parse_signatures(lines: str) -> tuple[Signature, ...]:
    """Read the lines of signatures, each with its end; nothing is verified.

    Raises:
        EvidenceError: ``LOG_CHECKPOINT``: they are none, or more than 100.
    """
    parts = lines.split("\n")
    if parts.pop() or not parts or len(parts) > MAX_SIGNATURES:
        raise _malformed(f"it has not between 1 and {MAX_SIGNATURES} lines of signatures")
    return tuple(map(_signature, parts))


def _signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    try:
        data = base64_bytes(encoded, "The signature") if encoded.isascii() else b""
    except EvidenceError:
        data = b""
    if not line.startswith(_DASH) or not is_key_name(name) or len(data) < 5:
        raise _malformed(f"{line[:80]!r} is no line of a signature")
    return Signature(name, data[:4], data[4:])


def sign_note(text: bytes, signer: KeySigner, name: str) -> bytes:
    """Return a note with one signature.

    Args:
        text: What is signed; ends with a line end.
        signer: With an Ed25519 key.
        name: Of the key.

    Raises:
        UsageError: The key is not Ed25519, or this is no name.
        UnavailableError: The key service does not answer.
    """
    key = VerifierKey.of(signer, name)
    return Note(text, (Signature(name, key.id, signer.sign(text)),)).encode()


def with_signatures(note: Note, more: Iterable[Signature], keys: Sequence[VerifierKey]) -> Note:
    """Return a note with the verified signatures of others added, each key's latest one.

    Args:
        note: The note.
        more: What they sent.
        keys: Whose signatures are taken; all others are left out.

    Raises:
        EvidenceError: ``LOG_CHECKPOINT``: one says to be of such a key and is not.
    """
    sent = Note(note.text, tuple(more))
    fresh = [found[-1] for key in keys if (found := sent.by(key))]
    replaced = {(item.name, item.id) for item in fresh}
    return Note(note.text, (*(item for item in note.signatures if (item.name, item.id) not in replaced), *fresh))


def _malformed(why: str) -> EvidenceError:
    return EvidenceError(f"This is no signed note: {printable(why)}.", code="LOG_CHECKPOINT")
