"""Sealed values: small texts that travel through a database which others can read and write, each bound to its slot.

A sealed value is a message of this package, so AES-256-GCM with a data key of its own, HKDF and key commitment, whose
encryption context is the slot and nothing else. It stands in JSON, in an envelope that a person can read. The keys are
symmetric on purpose: with a public key everybody could seal. Whoever has a key can open, and seal, for any slot.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sealflow.encryption.header import MAX_HEADER, SUITE, parse_header
from sealflow.encryption.message import decrypt_message, encrypt_message
from sealflow.encryption.raw import AesRecipient
from sealflow.encryption.refusal import RecipientError
from sealflow.errors import EvidenceError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.keys.signer import split_query
from sealflow.storage.local import to_path
from sealflow.strictjson import base64_bytes, member, only_members

#: What ``sealed_by`` says; whatever else says so is refused if it is anything else than an envelope.
SEALED_BY: Final = "sealflow"
ALGORITHM: Final = "AES-256-GCM"
#: Version of the envelope.
FORMAT: Final = 1

#: Longest name of a key, in characters.
MAX_KEY_ID: Final = 256

_MEMBERS: Final = frozenset({"sealed_by", "format", "algorithm", "key_id", "bytes", "sealed"})
_WHAT: Final = "The sealed value"


@dataclass(frozen=True)
class SealedValue:
    """The envelope.

    Attributes:
        key_id: Name of the key that seals it. It decides nothing: the message names its key too, and has to agree.
        size: Bytes of the value. The message has to agree.
        sealed: The message in Base64, or where it lies.
    """

    key_id: str
    size: int
    sealed: str

    def as_dict(self) -> dict[str, Any]:
        """Return the envelope as JSON knows it."""
        return {
            "sealed_by": SEALED_BY,
            "format": FORMAT,
            "algorithm": ALGORITHM,
            "key_id": self.key_id,
            "bytes": self.size,
            "sealed": self.sealed,
        }

    @classmethod
    def parse(cls, found: Any, *, limit: int) -> SealedValue:
        """Read an envelope.

        Args:
            found: What stands where an envelope should, parsed from JSON.
            limit: Most bytes of the value.

        Raises:
            EvidenceError: ``VALUE_CLEAR`` for what is no envelope, ``VALUE_TOO_LARGE``, ``VALUE_MALFORMED``.
        """
        if not is_sealed(found):
            raise EvidenceError(
                "A value is not sealed: it was stored before sealing was on, or written past it.",
                code="VALUE_CLEAR",
                next_step="Find out who wrote it; run the task that makes the value again.",
            )
        try:
            only_members(found, _MEMBERS, _WHAT)
            form, algorithm = member(found, "format", int, _WHAT), member(found, "algorithm", str, _WHAT)
            if (form, algorithm) != (FORMAT, ALGORITHM):
                raise EvidenceError(
                    f"{_WHAT} has format {form} and algorithm {printable(algorithm, 40)!r}; "
                    f"format {FORMAT} with {ALGORITHM} is read."
                )
            made = cls(
                member(found, "key_id", str, _WHAT),
                member(found, "bytes", int, _WHAT),
                member(found, "sealed", str, _WHAT),
            )
            if made.size < 0 or not 0 < len(made.key_id) <= MAX_KEY_ID:
                raise EvidenceError(f"{_WHAT} has a size below 0, or a key id of {len(made.key_id)} characters.")
        except EvidenceError as error:
            raise _malformed(error.message) from None
        if made.size > limit or len(made.sealed) > longest(limit):
            raise _too_large(max(made.size, len(made.sealed) * 3 // 4), limit)
        return made


class Opened(NamedTuple):
    """What an envelope held.

    Attributes:
        value: The value.
        slot: Where it was sealed for.
        key_id: The key that opened it.
    """

    value: bytes
    slot: Mapping[str, str]
    key_id: str


def load_value_keys(uris: Sequence[str]) -> tuple[AesRecipient, ...]:
    """Open the keys for values: the first one seals, all of them open.

    Args:
        uris: ``aes:/path/key``, with an optional ``?name=`` that becomes the key id.

    Raises:
        UsageError: ``KEY_MISSING``, ``KEY_UNREADABLE``, ``KEY_EXPOSED`` for a file that others than its owner may
            write or others than its group may read, or a URI of another scheme.
        UnavailableError: A file cannot be read.
    """
    if not uris:
        raise UsageError(
            "No key for values is named.",
            code="KEY_MISSING",
            next_step="Make one: (umask 077; openssl rand 32 > xcom.key), and name it: aes:/path/xcom.key",
        )
    return tuple(_load_key(uri) for uri in uris)


def _load_key(uri: str) -> AesRecipient:
    if not uri.startswith("aes:"):
        raise UsageError(
            f"{printable(uri, 120)!r} names no key for values.",
            code="KEY_UNSUPPORTED",
            next_step="Name a file with 32 random bytes: aes:/path/xcom.key",
        )
    bare, _ = split_query(uri, frozenset({"namespace", "name"}))
    path = to_path("file:" + bare.removeprefix("aes:"))
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise UsageError(f"There is no key file at {printable(path)}.", code="KEY_MISSING") from None
        raise UnavailableError(f"The key file {printable(path)} cannot be looked at: {error.strerror}.") from None
    # A group may read: that is how secrets are mounted for a user who is not root.
    if not stat.S_ISREG(mode) or mode & (stat.S_IWGRP | stat.S_IRWXO):
        raise UsageError(
            f"The key file {printable(path)} has the mode {stat.S_IMODE(mode):04o}; others can get at it.",
            code="KEY_EXPOSED",
            next_step="Give it to the workers' user alone (chmod 0600); make a new key if others could read it.",
        )
    key = AesRecipient(uri)
    if len(key.name) > MAX_KEY_ID or key.name != printable(key.name):
        raise UsageError(
            f"The key id {printable(key.name, 60)!r} is not one of at most {MAX_KEY_ID} printable characters.",
            code="KEY_UNSUPPORTED",
        )
    return key


def longest(limit: int) -> int:
    """Return the length of the longest Base64 of a message with so many bytes of value, or a little more."""
    # A frame of 1 MiB adds less than a 1024th.
    return (limit + limit // 1024 + MAX_HEADER + 1024) * 4 // 3


def is_sealed(found: Any) -> bool:
    """Tell whether something claims to be an envelope, well-formed or not."""
    return isinstance(found, dict) and found.get("sealed_by") == SEALED_BY


def seal_value(value: bytes, slot: Mapping[str, str], key: AesRecipient, *, limit: int) -> SealedValue:
    """Seal a value for a slot.

    Args:
        value: The value.
        slot: Names what the value is; all of it is bound, and stands in clear.
        key: The key that seals.
        limit: Most bytes of the value.

    Raises:
        UsageError: ``VALUE_TOO_LARGE``, or a slot that cannot be written.
    """
    if len(value) > limit:
        error = _too_large(len(value), limit)
        raise UsageError(error.message, code=error.code, next_step="Store it as an artifact and pass its reference.")
    message = encrypt_message(value, [key], slot)
    return SealedValue(key.name, len(value), base64.b64encode(message).decode("ascii"))


def open_value(
    envelope: SealedValue, keys: Sequence[AesRecipient], names: frozenset[str], expected: Mapping[str, str]
) -> Opened:
    """Open a sealed value, all of it or nothing.

    Args:
        envelope: The envelope; ``sealed`` is the message itself.
        keys: All keys that may open.
        names: The names that a slot has, each of them and no other.
        expected: What the reader knows about the slot.

    Raises:
        EvidenceError: ``VALUE_MALFORMED``, ``VALUE_ALTERED``, or ``VALUE_MISPLACED`` for a value of another slot.
        RecipientError: ``VALUE_FOREIGN``: sealed under none of the keys.
    """
    try:
        message = base64_bytes(envelope.sealed, _WHAT)
        header = parse_header(message)
        # We write this and nothing else, so there is nothing to choose for whoever made it.
        if header.suite != SUITE or len(header.data_keys) != 1 or header.context.pairs.keys() != names:
            raise EvidenceError(f"{_WHAT} holds an encrypted message that is none of a value.")
    except EvidenceError as error:
        raise _malformed(error.message) from None
    slot = header.context.pairs
    for name, value in expected.items():
        if slot[name] != value:
            raise misplaced(f"has {name} {printable(slot[name], 120)!r}, expected {printable(value, 120)!r}")
    try:
        value_bytes = decrypt_message(message, keys, expected=expected)
    except RecipientError as error:
        raise RecipientError(
            f"{_WHAT} names the key {printable(header.data_keys[0].name, 80)!r}, and no key at hand opens it: "
            f"{error.code}.",
            code="VALUE_FOREIGN",
            next_step="Add the key that sealed it behind the others; without one, treat the value as forged.",
        ) from None
    except EvidenceError as error:
        raise _altered(error.code) from None
    if len(value_bytes) != envelope.size or header.data_keys[0].name != envelope.key_id:
        raise _altered("its envelope says another size or key than the message")
    return Opened(value_bytes, slot, envelope.key_id)


def misplaced(what: str) -> EvidenceError:
    """Return the error for a value that was sealed for another slot than the one it was read from."""
    return EvidenceError(
        f"A sealed value {what}.",
        code="VALUE_MISPLACED",
        next_step="Somebody moved or copied it; find out who can write there, and run its task again.",
    )


def _malformed(what: str) -> EvidenceError:
    return EvidenceError(
        f"A sealed value cannot be read. {what}",
        code="VALUE_MALFORMED",
        next_step="Find out who wrote it; run the task that makes the value again.",
    )


def _altered(why: str) -> EvidenceError:
    return EvidenceError(
        f"A sealed value was altered ({why}).",
        code="VALUE_ALTERED",
        next_step="Find out who can write there; run the task that makes the value again.",
    )


def _too_large(size: int, limit: int) -> EvidenceError:
    return EvidenceError(
        f"A value has {size} bytes, more than the limit of {limit}.",
        code="VALUE_TOO_LARGE",
        next_step="Store it as an artifact and pass its reference.",
    )
