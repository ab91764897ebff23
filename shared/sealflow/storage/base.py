"""The storage protocol, its records, and the two ways of a large object: in by parts, out by ranges."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

#: Receives consecutive pieces of a file; a piece is valid only during the call.
Consumer = Callable[[Any], object]


@runtime_checkable
class Filled(Protocol):
    """A consumer with a place for the bytes: a reader may put them there itself, which spares a copy."""

    def __call__(self, piece: Any) -> object:
        """Take a piece, as any consumer."""

    def room(self) -> memoryview:
        """Return where the next bytes of the file go, at least one; the place is valid until the next call."""

    def took(self, count: int) -> None:
        """Take so many bytes that were put to the beginning of that place."""


class Location(NamedTuple):
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
        executable: The owner may execute the file; known only of local files, and only where sizes were asked for.
    """

    name: str
    size: int | None = None
    pin: str | None = None
    executable: bool = False


class Unfinished(NamedTuple):
    """An upload that was begun and neither committed nor aborted.

    Attributes:
        uri: The object that it would become; below a folder of this machine a long name may be cut short.
        token: Names it for :meth:`Storage.resume`.
        since: When it was begun or, where only that is known, last written to. Has a time zone.
    """

    uri: str
    token: str
    since: datetime.datetime


class Reader(Protocol):
    """Reads the files of one artifact."""

    def __enter__(self) -> Reader: ...

    def __exit__(self, *_: object) -> None: ...

    def read(self, entry: Entry, consume: Consumer) -> int:
        """Pass the bytes of one file to ``consume`` piece by piece and return their number.

        Raises:
            ArtifactError: ``ARTIFACT_CHANGED`` when the file is not the one that was listed, or changed meanwhile.
        """


class OpenObject(Protocol):
    """One object, pinned to the version that opening it saw. Usable by many threads.

    Attributes:
        uri: Canonical location.
        size: Bytes.
        pin: What the store calls these bytes (ETag), ``None`` where it has no name for them.
        version_id: Their version in a store that keeps versions.
        head: The first bytes, which opening read: ``min(first, size)``.
    """

    uri: str
    size: int
    pin: str | None
    version_id: str | None
    head: bytes

    def read_into(self, start: int, out: memoryview) -> None:
        """Fill ``out`` with the bytes that begin at byte ``start``.

        Raises:
            ArtifactError: ``ARTIFACT_CHANGED``: the object is not the opened one any more. What ``out`` holds then is
                worthless.
            UnavailableError: The store cannot be reached, or breaks off again and again.
            ValueError: The range does not lie within the object.
        """

    def close(self) -> None:
        """Give back what reading needed."""

    def __enter__(self) -> OpenObject: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def same_part(tag: str, listed: str) -> bool:
    """Tell whether a part that is listed is the one that was sent.

    Behind a space in a tag stands a checksum. Some stores acknowledge it, want it in the end, and do not list it
    (SeaweedFS 4): there the part is told by the tag before it.
    """
    return listed in (tag, tag.partition(" ")[0])


class Outgoing(Protocol):
    """A large object on its way: nothing of it can be seen under its name until :meth:`commit`.

    Nothing is aborted by itself: an upload that was left can be resumed, and lies there until somebody aborts it.

    Attributes:
        parallel: How many parts may usefully be sent at the same time; 1: parts must come one after another, in order.
    """

    parallel: int

    @property
    def token(self) -> str:
        """Names the upload for :meth:`Storage.resume`; asking for it may begin the upload."""

    def send(self, number: int, offset: int, data: memoryview) -> str:
        """Send part ``number``, from 1, which begins at byte ``offset`` of the object; return its tag.

        Parts but the last must have at least ``Storage.smallest_part`` bytes. To send a part again replaces it, and
        what a broken connection makes necessary to repeat is repeated from the same buffer. A large part lies in a
        file (:mod:`sealflow.storage.memory`), and is read piece by piece, each released. Usable by many threads where
        ``parallel`` is more than 1.

        Raises:
            UnavailableError: The part did not arrive; ``NO_SPACE``, ``PERMISSION_DENIED``, ``CREDENTIALS_EXPIRED``, or
                ``UPLOAD_LOST`` when the store knows nothing of the upload any more.
        """

    def present(self) -> dict[int, tuple[str, int]]:
        """Return what the store holds: for each part's number its tag and size in bytes.

        Empty where the store cannot say: then each part must be sent (again). The tags are those that ``send``
        returned, or those without what follows the first space, see :func:`same_part`; a store that lists a part in any
        other way makes it look like another.
        """

    def commit(self, parts: Sequence[tuple[int, str]]) -> str | None:
        """Make the parts, numbers and tags in order, the object: the one moment at which it appears.

        An answer that is lost on the way is looked up, so a success is not reported as a failure.

        Returns:
            The object's version, where the store keeps versions.

        Raises:
            ArtifactError: ``ARTIFACT_EXISTS``: something lies there, and overwriting was not asked for.
            UnavailableError: The store cannot be reached or has no room; ``UPLOAD_LOST`` when it does not hold these
                parts.
        """

    def abort(self) -> None:
        """Remove the upload and its parts; it is no error when they are gone. No ``send`` may run meanwhile."""


class Storage(Protocol):
    """Access to artifacts and evidence: whole files are read, evidence is created once, large objects come and go.

    Every method raises ``UnavailableError`` when the place cannot be reached or permission is missing, and
    ``ArtifactError`` when what lies there cannot be taken.
    """

    #: How many files may usefully be read at the same time.
    parallel: int

    #: Bounds of an :class:`Outgoing`: bytes of each part but the last at least, of any part at most, and how many.
    smallest_part: int
    largest_part: int | None
    most_parts: int | None

    def canonical(self, uri: str) -> str:
        """Return the one form of ``uri`` that is recorded, without credentials."""

    def locate(self, uri: str) -> Location | None:
        """Return what lies at ``uri``, or ``None``."""

    def entries(self, location: Location, *, sizes: bool = False) -> list[Entry]:
        """Return the files of an artifact, sorted by name in code-point order. Refuses links and special files.

        Args:
            location: The artifact.
            sizes: Every entry must have its size, and local ones say whether their owner may execute them.
        """

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

    def open_object(self, uri: str, first: int, version_id: str | None = None) -> OpenObject | None:
        """Open one object for reads of ranges, ``None`` where there is none.

        Args:
            uri: The object.
            first: How many bytes to read at once, at least 1; most readers need the beginning at any rate.
            version_id: The version to open, in a store that keeps versions.
        """

    def begin(self, uri: str, *, overwrite: bool) -> Outgoing:
        """Begin to write a large object.

        Raises:
            ArtifactError: ``ARTIFACT_EXISTS``: something lies there and ``overwrite`` is false (``commit`` looks
                again); or it is a folder or a link.
            UsageError: ``OVERWRITE_NOT_PROTECTED``: this store cannot keep an upload from replacing what lies there,
                and ``overwrite`` is false.
        """

    def resume(self, uri: str, token: str, *, overwrite: bool) -> Outgoing | None:
        """Return an upload that was begun, by whatever process; ``None``: the store does not know it any more.

        An upload that was committed is unknown, too: whether the object lies there is for the caller to look at.

        Raises:
            UsageError: ``OVERWRITE_NOT_PROTECTED``, as :meth:`begin`.
        """

    def put(self, uri: str, data: bytes | memoryview, *, overwrite: bool) -> str | None:
        """Write a small object whole and atomically; return its version, where the store keeps versions.

        Raises:
            ArtifactError: ``ARTIFACT_EXISTS``, as :meth:`Outgoing.commit`; or it is a folder or a link.
            UsageError: ``OVERWRITE_NOT_PROTECTED``, as :meth:`begin`.
        """

    def unfinished(self, uri: str, limit: int) -> list[Unfinished]:
        """Return at most ``limit + 1`` uploads that nobody finished, of an object or of anything below a folder.

        To remove one: ``resume(uri, token, overwrite=True).abort()``.
        """
