r"""Digests: names, lengths, and the two digests that identify artifacts.

The artifact digest is SHA-256 for a file and ``dirHash`` for a tree (in-toto attestation spec, digest_set.md: Go's
``Hash1`` without its prefix, in lower-case hex). ``dirHash`` binds names and bytes and is reproduced by
``find . -type f | cut -c3- | LC_ALL=C sort | xargs -d '\n' sha256sum -- | sha256sum``. It is never the OMS root
digest, which ignores names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sealflow.errors import EvidenceError, MissingExtraError, UsageError

#: Bytes per read: large enough to make the system call cheap, small enough to be hashed from the processor's cache.
CHUNK: Final = 256 << 10

#: Hex length of each file digest that OMS v1.0 knows (algorithm-registry.md).
FILE_HASHES: Final = {"sha256": 64, "blake2b": 128, "blake3": 64}

_DIGEST = re.compile(r"(sha256|dirHash):([0-9a-f]{64})")


def new_hash(algorithm: str) -> Any:
    """Return a fresh hashlib-like object for an OMS file hash.

    Raises:
        MissingExtraError: ``blake3`` is asked for and its library is not installed.
        EvidenceError: The algorithm is not one that OMS v1.0 knows.
    """
    if algorithm == "sha256":
        return hashlib.sha256()
    if algorithm == "blake2b":
        return hashlib.blake2b()
    if algorithm == "blake3":
        try:
            import blake3
        except ImportError:
            raise MissingExtraError("A blake3 signature", "blake3") from None
        return blake3.blake3()
    raise EvidenceError(f"Unknown hash algorithm {algorithm[:40]!r}; OMS v1.0 knows {', '.join(FILE_HASHES)}.")


@dataclass(frozen=True, slots=True)
class Digest:
    """An artifact digest; its text form is ``sha256:<hex>`` for a file and ``dirHash:<hex>`` for a tree.

    The algorithm is part of the identity: a file may hold exactly the text whose SHA-256 is the ``dirHash`` of a tree.
    """

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse the text form.

        Raises:
            UsageError: Not of the form ``sha256:<64 hex>`` or ``dirHash:<64 hex>``, lower case.
        """
        match = _DIGEST.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise UsageError(
                f"{str(text)[:90]!r} is not an artifact digest.",
                next_step="Give sha256:<64 hex digits> for a file or dirHash:<64 hex digits> for a tree.",
            )
        return cls(match[1], match[2])

    def __hash__(self) -> int:
        # A walk asks for it five million times; what it leaves out hardly ever tells two digests apart.
        return hash(self.hex)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def path_segment(self) -> str:
        """The digest as one path segment of an evidence store."""
        return f"{self.algorithm}-{self.hex}"

    def as_digest_set(self) -> dict[str, str]:
        """Return the in-toto DigestSet of one entry."""
        return {self.algorithm: self.hex}


def dir_hash(files: Iterable[tuple[str, str]]) -> Digest:
    """Return the ``dirHash`` of ``(name, SHA-256 hex)`` pairs in any order."""
    lines = "".join([f"{sha256}  {name}\n" for name, sha256 in sorted(files)])
    return Digest("dirHash", hashlib.sha256(lines.encode("utf-8")).hexdigest())


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in lower-case hex."""
    return hashlib.sha256(data).hexdigest()
