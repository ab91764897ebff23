"""From bytes to a manifest: one read of every file, in constant memory.

The same pass can copy the bytes: a copy made here holds exactly the bytes whose digests the manifest names.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

from sealflow.errors import ArtifactError
from sealflow.findings import printable
from sealflow.hashing import new_hash
from sealflow.manifest.model import FILES_SHA256, Manifest, Resource, Serialization
from sealflow.names import check_tree
from sealflow.storage import Entry, Location, Reader

#: Reports bytes done and, where the listing says it, bytes in all.
Progress = Callable[[int, int | None], None]

# Threads hurt on small local files (the lock costs more than the hash) and pay on large ones.
_LARGE = 16 << 20


class Source(Protocol):
    """Where the files of an artifact are read: a storage, or something that stands for one."""

    #: How many files may usefully be read at the same time.
    parallel: int

    def entries(self, location: Location, *, sizes: bool = False) -> list[Entry]:
        """Return the files; see :class:`~sealflow.storage.base.Storage`."""

    def open(self, location: Location) -> Reader:
        """Return a reader of the files."""


def build_manifest(
    storage: Source,
    location: Location,
    *,
    serialization: Serialization = FILES_SHA256,
    ignore: Sequence[str] = (),
    files: Iterable[str] | None = None,
    copy_to: str | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Read an artifact and return its manifest.

    Args:
        storage: Reads ``location``.
        location: The artifact.
        serialization: How to make the digests.
        ignore: Paths relative to the root that are left out, with everything below them. Not globs.
        files: Only these files; a name that is not there is left out of the result.
        copy_to: An existing private folder that receives the files under their names.
        progress: Called after each piece read.

    Raises:
        ArtifactError: A hostile name, a link, a special file, no file at all, or a change while reading.
        UnavailableError: A file could not be read.
    """
    entries = storage.entries(location)
    check_tree(entry.name for entry in entries)
    if ignore:
        entries = [entry for entry in entries if not is_ignored(entry.name, ignore)]
    if not entries:
        raise ArtifactError(
            f"{printable(location.uri)} holds no file.", next_step="Sign an artifact with at least one file."
        )
    if files is not None:
        wanted = frozenset(files)
        entries = [entry for entry in entries if entry.name in wanted]
    digest = _Digester(storage.open(location), serialization, copy_to, _Meter(progress, entries))
    with digest.reader:
        workers = min(storage.parallel, len(entries))
        if workers > 1 and (storage.parallel > 4 or any((entry.size or 0) >= _LARGE for entry in entries)):
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(workers, thread_name_prefix="sealflow-read") as pool:
                # Every thread keeps one file at a time in flight; the list of entries is all that grows.
                parts = list(pool.map(digest, entries))
        elif digest.plain:
            return _whole_files(digest.reader, location, entries, ignore)
        else:
            parts = [digest(entry) for entry in entries]
    resources = [resource for part in parts for resource in part[0]]
    if serialization.method == "shards":
        resources.sort(key=lambda resource: resource.name)
    return Manifest(
        location.kind,
        location.name,
        tuple(resources),
        serialization,
        tuple(ignore),
        sum(part[1] for part in parts),
        tuple(entry.name for entry, part in zip(entries, parts, strict=True) if not part[0]),
    )


def _whole_files(reader: Reader, location: Location, entries: Sequence[Entry], ignore: Sequence[str]) -> Manifest:
    # The usual case in the fewest steps: they run once a file, and every object kept here costs the collector a visit.
    size = 0
    resources = []
    for entry in entries:
        digest = hashlib.sha256()
        size += reader.read(entry, digest.update)
        resources.append(Resource(entry.name, digest.hexdigest()))
    return Manifest(location.kind, location.name, tuple(resources), FILES_SHA256, tuple(ignore), size)


def is_ignored(name: str, ignore: Iterable[str]) -> bool:
    """Tell whether a file is one of the ignored paths or lies below one (OMS v1.0 section 6.2.1)."""
    return any(name == path or name.startswith(path + "/") for path in ignore)


class _Meter:
    def __init__(self, progress: Progress | None, entries: Sequence[Entry]) -> None:
        self._progress = progress
        self._done = 0
        sizes = [entry.size for entry in entries]
        self._total = None if None in sizes else sum(size or 0 for size in sizes)

    def __bool__(self) -> bool:
        return self._progress is not None

    def __call__(self, piece: Any) -> None:
        # Not locked: a lost addition between threads only makes the display late.
        self._done += len(piece)
        if self._progress is not None:
            self._progress(self._done, self._total)


class _Digester:
    def __init__(self, reader: Reader, serialization: Serialization, copy_to: str | None, meter: _Meter) -> None:
        self.reader = reader
        self._serialization = serialization
        self._copy_to = copy_to
        self._meter = meter
        self.plain = serialization == FILES_SHA256 and copy_to is None and not meter

    def __call__(self, entry: Entry) -> tuple[list[Resource], int]:
        """Read one file and return its resources and its size."""
        sharded = self._serialization.method == "shards"
        hasher: Any = _Shards(entry.name, self._serialization) if sharded else new_hash(self._serialization.hash_type)
        with _copy(self._copy_to, entry.name) as copy:
            consumers = [hasher.update]
            if copy is not None:
                consumers.append(copy.write)
            if self._meter:
                consumers.append(self._meter)
            size = self.reader.read(entry, consumers[0] if len(consumers) == 1 else _Tee(consumers))
        if sharded:
            return hasher.finish(), size
        return [Resource(entry.name, hasher.hexdigest())], size


class _Tee:
    def __init__(self, consumers: Sequence[Callable[[Any], object]]) -> None:
        self._consumers = consumers

    def __call__(self, piece: Any) -> None:
        for consume in self._consumers:
            consume(piece)


class _Shards:
    """Digests of consecutive byte ranges (OMS v1.0 section 6.3.2). A file without bytes has none."""

    def __init__(self, name: str, serialization: Serialization) -> None:
        self._name = name
        self._serialization = serialization
        self._resources: list[Resource] = []
        self._start = self._filled = 0
        self._hash = new_hash(serialization.hash_type)

    def update(self, piece: Any) -> None:
        view = memoryview(piece)
        while len(view):
            part = view[: self._serialization.shard_size - self._filled]
            self._hash.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == self._serialization.shard_size:
                self._close()

    def _close(self) -> None:
        end = self._start + self._filled
        self._resources.append(Resource(f"{self._name}:{self._start}:{end}", self._hash.hexdigest()))
        self._start, self._filled = end, 0
        self._hash = new_hash(self._serialization.hash_type)

    def finish(self) -> list[Resource]:
        if self._filled:
            self._close()
        return self._resources


def _copy(folder: str | None, name: str) -> Any:
    if folder is None:
        return nullcontext()
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return _Copy(fd)


class _Copy:
    """A file that takes all of each piece or fails: a full disk can make the system write less than it was given."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> _Copy:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def write(self, piece: Any) -> None:
        if os.write(self._fd, piece) == len(piece):
            return
        # Rare, so the whole piece again: positions are exact, and the second try says what is wrong.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
