"""Folders and files of this machine.

Each folder is opened relative to its parent and never through a link, so a folder that is swapped for a link while
the walk runs is refused instead of followed.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from urllib.parse import quote, unquote, urlsplit

from sealflow.errors import ArtifactError, EvidenceError, UsageError
from sealflow.findings import printable
from sealflow.hashing import CHUNK
from sealflow.names import check_name
from sealflow.storage.base import Consumer, Entry, Filled, Location, Unfinished
from sealflow.storage.files import READ_FILE, READ_FOLDER, beside, errors, kind_of, refuse_taken, settle, translate
from sealflow.storage.files import sync_folder as sync_folder
from sealflow.storage.local_objects import LocalObject, LocalOutgoing, unfinished

# From 128 KiB on the buffer is mapped by itself, page by page, and every copy into it costs the system twice as much.
_BUFFER = 64 << 10

# Sizes cost one system call a file; beyond this many files they are not worth it.
_SIZES_UP_TO = 4096

# What nearly every location that we write looks like: no escapes, no empty parts, and none that begin with a dot.
_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9_~!$&'()*+,;=:@.-]*)+")


def to_path(uri: str) -> str:
    """Return the absolute path for a path or a ``file:`` URI.

    Raises:
        UsageError: A ``file:`` URI with a host, a query or a fragment, or a path with a NUL.
    """
    if uri.startswith("file:///") and _PLAIN.fullmatch(uri, 7):
        return uri[7:]  # nothing to unescape, nothing to resolve
    path = uri
    if uri.startswith("file:"):
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            shown = printable(uri.partition("?")[0])
            raise UsageError(f"{shown!r} is not a plain file URI.", next_step="Use file:///absolute/path.")
        path = unquote(parts.path, errors="surrogateescape")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        path = ""
    if "\0" in path or not path:
        raise UsageError(f"{printable(uri)!r} is not a path.")
    absolute = os.path.abspath(path)
    # POSIX lets two slashes at the start mean something else; here they never do, and one place has one name.
    return absolute[1:] if absolute.startswith("//") else absolute


def to_uri(path: str) -> str:
    """Return the ``file:`` URI of an absolute path (RFC 8089)."""
    if _PLAIN.fullmatch(path):
        return "file://" + path
    return "file://" + quote(os.fsencode(path), safe="/~!$&'()*+,;=:@-._")


class LocalStorage:
    """Artifacts and evidence in the file system."""

    # Half of the processors: the other half is often the same cores once more, and a core hashes for one at a time.
    parallel = max(1, min(4, (os.cpu_count() or 1) // 2))
    smallest_part = 1
    largest_part: int | None = None
    most_parts: int | None = None

    def canonical(self, uri: str) -> str:
        """See :class:`~sealflow.storage.base.Storage`."""
        return to_uri(to_path(uri))

    def locate(self, uri: str) -> Location | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        path = to_path(uri)
        with errors(path):
            try:
                info = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
        name = os.path.basename(path)
        if stat.S_ISDIR(info.st_mode):
            check_name(name)
            return Location(to_uri(path), "tree", name)
        if stat.S_ISREG(info.st_mode):
            check_name(name)
            return Location(to_uri(path), "file", name)
        raise ArtifactError(f"{printable(path)} is {kind_of(info.st_mode)}, not a file or a folder.")

    def entries(self, location: Location, *, sizes: bool = False) -> list[Entry]:
        """See :class:`~sealflow.storage.base.Storage`."""
        path = to_path(location.uri)
        with errors(path):
            if location.kind == "file":
                return [
                    _entry(location.name, os.lstat(path)) if sizes else Entry(location.name, os.lstat(path).st_size)
                ]
            names: list[str] = []
            root = os.open(path, READ_FOLDER)
            try:
                _walk(root, "", names)
                names.sort()
                if sizes:
                    return [_entry(name, os.stat(name, dir_fd=root, follow_symlinks=False)) for name in names]
                if len(names) > _SIZES_UP_TO:
                    return [Entry(name) for name in names]
                return [Entry(name, os.stat(name, dir_fd=root, follow_symlinks=False).st_size) for name in names]
            finally:
                os.close(root)

    def open(self, location: Location) -> LocalReader:
        """See :class:`~sealflow.storage.base.Storage`."""
        path = to_path(location.uri)
        with errors(path):
            if location.kind == "tree":
                return LocalReader(os.open(path, READ_FOLDER))
            # The way to an artifact may lead through links, the artifact itself may be none.
            return LocalReader(os.open(os.path.dirname(path), READ_FOLDER & ~os.O_NOFOLLOW))

    def get(self, uri: str, limit: int) -> bytes | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        path = to_path(uri)
        with errors(path):
            try:
                fd = os.open(path, READ_FILE)
            except (FileNotFoundError, NotADirectoryError):
                return None
            try:
                info = os.fstat(fd)
                if not stat.S_ISREG(info.st_mode):
                    raise EvidenceError(f"{printable(path)} is not a regular file.")
                # One read where the file is as long as it says; room for more would cost more than the bytes.
                data = os.read(fd, min(info.st_size, limit) + 1)
                pieces = [data]
                left = limit + 1 - len(data)
                while len(data) != info.st_size and left and (piece := os.read(fd, min(left, CHUNK))):
                    pieces.append(piece)
                    left -= len(piece)
            finally:
                os.close(fd)
        if left <= 0:
            raise EvidenceError(f"{printable(path)} has more than {limit} bytes.")
        return b"".join(pieces)

    def list_objects(self, uri: str, limit: int) -> list[str]:
        """See :class:`~sealflow.storage.base.Storage`."""
        return self._list(uri, limit, folders=False)

    def list_folders(self, uri: str, limit: int) -> list[str]:
        """See :class:`~sealflow.storage.base.Storage`."""
        return self._list(uri, limit, folders=True)

    def _list(self, uri: str, limit: int, *, folders: bool) -> list[str]:
        path = to_path(uri)
        names: list[str] = []
        with errors(path):
            try:
                scan = os.scandir(path)
            except (FileNotFoundError, NotADirectoryError):
                return []
            with scan:
                for item in scan:
                    if item.is_dir(follow_symlinks=False) is folders:
                        names.append(item.name)
                        if len(names) > limit:
                            break
        return sorted(names)

    def create(self, uri: str, data: bytes) -> bool:
        """See :class:`~sealflow.storage.base.Storage`."""
        path = to_path(uri)
        # Written whole under a private name, then linked: the final name appears complete or not at all, and link()
        # fails where a rename would overwrite.
        with errors(path):
            with beside(path, data, 0o644) as temporary:
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    return False
            sync_folder(os.path.dirname(path))
        return True

    def open_object(self, uri: str, first: int, version_id: str | None = None) -> LocalObject | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        path = to_path(uri)
        if version_id is not None:
            raise ArtifactError(f"{printable(path)}: the file system keeps no versions, so none can be opened.")
        with errors(path):
            try:
                fd = os.open(path, READ_FILE)
            except (FileNotFoundError, NotADirectoryError):
                return None
        return LocalObject(to_uri(path), path, fd, first)

    def begin(self, uri: str, *, overwrite: bool) -> LocalOutgoing:
        """See :class:`~sealflow.storage.base.Storage`."""
        return LocalOutgoing.begin(to_path(uri), overwrite=overwrite)

    def resume(self, uri: str, token: str, *, overwrite: bool) -> LocalOutgoing | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        return LocalOutgoing.resume(to_path(uri), token, overwrite=overwrite)

    def put(self, uri: str, data: bytes | memoryview, *, overwrite: bool) -> str | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        path = to_path(uri)
        with errors(path):
            refuse_taken(path, overwrite=overwrite)
            with beside(path, data, 0o644) as temporary:
                settle(temporary, path, overwrite=overwrite)
        return None

    def unfinished(self, uri: str, limit: int) -> list[Unfinished]:
        """See :class:`~sealflow.storage.base.Storage`."""
        path = to_path(uri)
        return [Unfinished(to_uri(place), token, since) for place, token, since in unfinished(path, limit)]


def replace_file(path: str, data: bytes, mode: int = 0o644) -> None:
    """Put a file in its place, whole or not at all, whatever lies there.

    Raises:
        UnavailableError: It cannot be written.
    """
    with errors(path):
        with beside(path, data, mode) as temporary:
            os.replace(temporary, path)
        sync_folder(os.path.dirname(path))


def _entry(name: str, info: os.stat_result) -> Entry:
    return Entry(name, info.st_size, None, bool(info.st_mode & stat.S_IXUSR))


class LocalReader:
    """Reads files below one folder, which stays open so that it cannot be exchanged meanwhile.

    Usable by many threads.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._open = [self._root]
        self._last = threading.local()

    def __enter__(self) -> LocalReader:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._open:
            os.close(fd)
        self._open = []

    def read(self, entry: Entry, consume: Consumer) -> int:
        """See :class:`~sealflow.storage.base.Reader`."""
        folder, _, base = entry.name.rpartition("/")
        try:
            dir_fd = self._folder(folder)
            fd = os.open(base, READ_FILE, dir_fd=dir_fd)
            try:
                before = os.fstat(fd)
                size = before.st_size
                if not stat.S_ISREG(before.st_mode):
                    raise ArtifactError(f"{printable(entry.name)} is {kind_of(before.st_mode)}, not a file.")
                data = os.read(fd, size + 1) if size < CHUNK else b""
                consume(data)
                total = len(data) if len(data) == size else _consume_rest(fd, len(data), consume)
            finally:
                os.close(fd)
            # One look-up by name proves two things: the file kept its size and times while it was read, and the
            # name still means that file.
            after = os.stat(base, dir_fd=dir_fd, follow_symlinks=False)
        except OSError as error:
            raise translate(error, entry.name) from None
        if (
            total != size
            or after.st_mtime_ns != before.st_mtime_ns
            or after.st_ctime_ns != before.st_ctime_ns
            or after.st_size != size
            or after.st_ino != before.st_ino
            or after.st_dev != before.st_dev
        ):
            raise ArtifactError(f"{printable(entry.name)} changed while it was read.", code="ARTIFACT_CHANGED")
        return total

    def _folder(self, folder: str) -> int:
        # Names come sorted, so the folder of the last file serves most of the files that follow.
        last = getattr(self._last, "folder", None)
        if last is not None and last[0] == folder:
            return int(last[1])
        fd = self._root
        for part in folder.split("/") if folder else ():
            try:
                inner = os.open(part, READ_FOLDER, dir_fd=fd)
            finally:
                if fd != self._root:
                    os.close(fd)
            fd = inner
        if last is not None and last[1] != self._root:
            self._open.remove(last[1])
            os.close(last[1])
        if fd != self._root:
            self._open.append(fd)
        self._last.folder = (folder, fd)
        return fd


def _walk(fd: int, prefix: str, names: list[str]) -> None:
    folders: list[str] = []
    with os.scandir(fd) as scan:
        for item in scan:
            name = prefix + item.name
            check_name(name)
            if item.is_file(follow_symlinks=False):
                names.append(name)
            elif item.is_dir(follow_symlinks=False):
                folders.append(item.name)
            else:
                mode = item.stat(follow_symlinks=False).st_mode
                raise ArtifactError(f"{printable(name)} is {kind_of(mode)}, not a file or a folder.")
    for folder in folders:
        inner = os.open(folder, READ_FOLDER, dir_fd=fd)
        try:
            _walk(inner, f"{prefix}{folder}/", names)
        finally:
            os.close(inner)


def _consume_rest(fd: int, total: int, consume: Consumer) -> int:
    if isinstance(consume, Filled):
        while count := os.readv(fd, [consume.room()]):
            consume.took(count)
            total += count
        return total
    buffer = memoryview(bytearray(_BUFFER))
    while count := os.readv(fd, [buffer]):
        consume(buffer[:count])
        total += count
    return total
