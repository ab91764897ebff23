"""The manifest and the way its digests were made (OMS v1.0 sections 5.2, 6.3 and 6.5)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NamedTuple

from sealflow.hashing import Digest, dir_hash

#: OMS default, section 6.3.2: one billion bytes.
DEFAULT_SHARD_SIZE: Final = 1_000_000_000

#: Left out at the root of a tree by every OMS implementation (section 6.2), listed or not.
DEFAULT_IGNORED: Final = (".git", ".gitattributes", ".github", ".gitignore")


class Serialization(NamedTuple):
    """How file bytes become digests.

    Attributes:
        method: ``files`` (one digest a file) or ``shards`` (one digest a byte range).
        hash_type: ``sha256``, ``blake2b`` or ``blake3``.
        shard_size: Bytes of a range; 0 for ``files``.
    """

    method: Literal["files", "shards"]
    hash_type: str
    shard_size: int = 0


#: The only serialization that we write, and the only one from which an artifact digest follows.
FILES_SHA256: Final = Serialization("files", "sha256")


class Resource(NamedTuple):
    """One line of a manifest: a file, or for shards ``path:start:end``."""

    name: str
    digest: str


@dataclass(frozen=True)
class Manifest:
    """What an artifact consists of.

    Attributes:
        kind: ``file`` or ``tree``; ``None`` when read from a signature, which cannot say.
        name: Basename of the artifact.
        resources: Sorted by name in code-point order when we made them; in signed order when read.
        serialization: How the digests were made.
        ignored: Paths relative to the root that the signer left out.
        size: Bytes read, 0 when read from a signature.
        unhashed: Files that lie in the artifact but were left out of ``resources`` (empty files under ``shards``).
    """

    kind: Literal["file", "tree"] | None
    name: str
    resources: tuple[Resource, ...]
    serialization: Serialization = FILES_SHA256
    ignored: tuple[str, ...] = ()
    size: int = 0
    unhashed: tuple[str, ...] = ()

    @cached_property
    def root_digest(self) -> str:
        """The OMS root: SHA-256 over the raw digests in order (section 6.5.1). It ignores names."""
        return hashlib.sha256(b"".join([bytes.fromhex(item.digest) for item in self.resources])).hexdigest()

    @cached_property
    def _dir_hash(self) -> Digest:
        return dir_hash(self.resources)

    def adopt(self, other: Manifest) -> None:
        """Take over the digests that another manifest already made from the very same resources."""
        assert self.resources is other.resources  # noqa: S101
        vars(self).update({name: value for name, value in vars(other).items() if name in ("root_digest", "_dir_hash")})

    def artifact_digest(self, kind: Literal["file", "tree"]) -> Digest | None:
        """Return the artifact digest, or ``None`` when it does not follow from these resources."""
        if self.serialization != FILES_SHA256 or not self.resources:
            return None
        if kind == "file":
            return Digest("sha256", self.resources[0].digest) if len(self.resources) == 1 else None
        return self._dir_hash

    @property
    def digest(self) -> Digest:
        """The artifact digest of a manifest that was made from bytes with ``FILES_SHA256``."""
        assert self.kind is not None  # noqa: S101  (made from bytes)
        digest = self.artifact_digest(self.kind)
        assert digest is not None  # noqa: S101
        return digest
