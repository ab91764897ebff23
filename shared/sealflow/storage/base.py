"""The storage protocol and its two records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

#: Receives consecutive pieces of a file; a piece is valid only during the call.
Consumer = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Location:
    """An artifact that exists.

    Attributes:
        uri: Canonical location, without credentials.
        kind: ``file`` or ``tree``.
        name: Last component of the location.
        version_id: Object version of a single object in a versioned bucket.
    """

    uri: str
    kind: Literal["file", "tree"]
    name: str
    version_id: str | None = None


class Entry(NamedTuple):
    """One file of an artifact. A tuple, since a listing can make a million of them.

    Attributes:
        name: Relative to the artifact's root, ``/`` as separator; the basename for a single file.
        size: Bytes, ``None`` when the listing does not say.
        pin: Version of the bytes as the store names it (ETag); a read under another version fails.
    """

    name: str
    size: int | None = None
    pin: str | None = None


class Reader(Protocol):
    """Reads the files of one artifact."""

    def __enter__(self) -> Reader: ...

    def __exit__(self, *_: object) -> None: ...

    def read(self, entry: Entry, consume: Consumer) -> int:
        """Pass the bytes of one file to ``consume`` piece by piece and return their number.

        Raises:
            ArtifactError: ``ARTIFACT_CHANGED`` when the file is not the one that was listed, or changed meanwhile.
        """


class Storage(Protocol):
    """Read-only access to artifacts, and create-only access to evidence.

    Every method raises ``UnavailableError`` when the place cannot be reached or permission is missing, and
    ``ArtifactError`` when what lies there cannot be taken.
    """

    #: How many files may usefully be read at the same time.
    parallel: int

    def canonical(self, uri: str) -> str:
        """Return the one form of ``uri`` that is recorded, without credentials."""

    def locate(self, uri: str) -> Location | None:
        """Return what lies at ``uri``, or ``None``."""

    def entries(self, location: Location) -> list[Entry]:
        """Return the files of an artifact, sorted by name in code-point order. Refuses links and special files."""

    def open(self, location: Location) -> Reader:
        """Return a reader of the artifact's files; it is a context manager and may be used by many threads."""

    def get(self, uri: str, limit: int) -> bytes | None:
        """Return a small object, or ``None`` where there is none.

        Raises:
            EvidenceError: It has more than ``limit`` bytes.
        """

    def list_objects(self, uri: str, limit: int) -> list[str]:
        """Return at most ``limit + 1`` names of objects directly under the folder ``uri``, sorted."""

    def list_folders(self, uri: str, limit: int) -> list[str]:
        """Return at most ``limit + 1`` names of folders directly under the folder ``uri``, sorted."""

    def create(self, uri: str, data: bytes) -> bool:
        """Write a new object atomically and durably; ``False`` when one is there already (it is left alone)."""
