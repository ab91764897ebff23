"""The bytes in a work tree, hashed as DVC hashes them.

``md5`` of a file; for a folder the MD5 of its ``.dir`` object, the JSON list of its files; ``md5-dos2unix`` of DVC 2.
Every byte is read at every check. Folders are opened relative to their parents and never through a link.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from typing import Any, Final, NamedTuple

from sealflow.errors import ArtifactError, UnavailableError
from sealflow.findings import printable
from sealflow.hashing import CHUNK, Digest, dir_hash
from sealflow.names import MAX_LEVELS, check_name, check_tree
from sealflow.storage import Entry
from sealflow.storage.local import LocalReader

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO that replaced a file would block a plain open for ever.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_FORMAT: Final = 0o170000

# Threads cost more than they bring on small files, whose hashing does not release the interpreter long enough.
_LARGE: Final = 4 << 20
_WORKERS: Final = max(1, min(4, os.cpu_count() or 1))

# DVC 2 decided once per block of this size whether it is text, and converted line ends within the block only.
_TEXT_BLOCK: Final = 1 << 20
_TEXT_SAMPLE: Final = 512

# A cached file below the cache's folder; DVC 2 had no files/md5/.
_OBJECT: Final = re.compile(r"(?:files/md5/)?[0-9a-f]{2}/[0-9a-f]{30}")
_TEXT: Final = bytes(range(32, 127)) + b"\n\r\t\f\b"


class FileContent(NamedTuple):
    """One file.

    Attributes:
        md5: MD5 in hex, of the bytes or, for a legacy look, of the bytes with Unix line ends; empty when it was not
            asked for.
        size: Bytes on disk.
        sha256: SHA-256 of the bytes in hex, empty when it was not asked for.
    """

    md5: str
    size: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """A file or a folder.

    Attributes:
        digest: What DVC writes as ``md5``; of a folder it ends in ``.dir``. Empty when it was not asked for.
        size: Bytes in all.
        files: The files of a folder by relative name; ``None`` for a file.
        sha256: SHA-256 of a file in hex, empty when it was not asked for.
    """

    digest: str
    size: int
    files: Mapping[str, FileContent] | None = None
    sha256: str = ""

    def artifact_digest(self) -> Digest:
        """Return the artifact digest, where SHA-256 digests were asked for.

        Raises:
            ArtifactError: A file has a name that no signed tree may hold.
        """
        if self.files is None:
            return Digest("sha256", self.sha256)
        for name in self.files:
            check_name(name)
        check_tree(self.files)
        return dir_hash((name, file.sha256) for name, file in self.files.items())


def directory_object(files: Iterable[tuple[str, str]]) -> bytes:
    """Return the ``.dir`` object of ``(relative name, md5)`` pairs in any order, byte for byte as DVC stores it."""
    # What json.dumps(…, sort_keys=True) writes, at a third of its price.
    entries = [f'{{"md5": "{md5}", "relpath": {encode_basestring_ascii(name)}}}' for name, md5 in sorted(files)]
    return f"[{', '.join(entries)}]".encode("ascii")


def directory_digest(files: Iterable[tuple[str, str]]) -> str:
    """Return the digest of a folder as DVC writes it: the MD5 of its ``.dir`` object and ``.dir``."""
    return f"{_md5(directory_object(files)).hexdigest()}.dir"


def _md5(data: bytes = b"") -> Any:
    return hashlib.md5(data, usedforsecurity=False)


class _UnixLineEnds:
    """MD5 as DVC 2 made it: blocks that look like text are hashed with their CRLF turned into LF."""

    def __init__(self) -> None:
        self._hash = _md5()
        self._block = bytearray()

    def update(self, piece: Any) -> None:
        self._block += piece
        while len(self._block) >= _TEXT_BLOCK:
            self._add(bytes(self._block[:_TEXT_BLOCK]))
            del self._block[:_TEXT_BLOCK]

    def _add(self, block: bytes) -> None:
        sample = block[:_TEXT_SAMPLE]
        text = b"\0" not in sample and len(sample.translate(None, _TEXT)) <= 0.30 * len(sample)
        self._hash.update(block.replace(b"\r\n", b"\n") if text else block)

    def hexdigest(self) -> str:
        if self._block:
            self._add(bytes(self._block))
            self._block.clear()
        return str(self._hash.hexdigest())


def _unix_md5(data: bytes) -> str:
    hasher = _UnixLineEnds()
    hasher.update(data)
    return hasher.hexdigest()


@dataclass
class _Listing:
    """What one walk found.

    Attributes:
        names: Files, relative to the work tree.
        deferred: Files that are still to be read: the reader, and the name that it knows the file by.
        large: How many of these are large.
        stamps: Folder → what a change of its entries would change.
    """

    names: list[str] = field(default_factory=list)
    deferred: dict[str, tuple[LocalReader, str]] = field(default_factory=dict)
    large: int = 0
    stamps: dict[str, tuple[int, int, int]] = field(default_factory=dict)


class WorkTree:
    """Reads the files of one folder, each once however often it is asked for.

    Args:
        root: The folder. The way to it may lead through links; below it none is followed, but for a file that DVC
            itself linked to its cache.
        caches: Folders of DVC caches. A link of a file into one of them is read through.
        md5: Whether to make MD5 digests.
        sha256: Whether to make SHA-256 digests, in the same pass.

    Attributes:
        root: Real path of the folder.

    Raises:
        UnavailableError: The folder cannot be read.
    """

    def __init__(self, root: str, caches: Iterable[str] = (), *, md5: bool = True, sha256: bool = False) -> None:
        self.root = self._root = os.path.realpath(root)
        with _reading(self._root):
            self._fd = os.open(self._root, _FOLDER)
        self._reader = LocalReader(os.dup(self._fd))
        self._md5 = md5
        self._sha256 = sha256
        # By whether they were hashed as DVC 2 did.
        self._files: dict[bool, dict[str, FileContent]] = {False: {}, True: {}}
        self._folders: dict[str, list[str]] = {}
        self._caches: list[tuple[str, LocalReader]] = []
        for path in caches:
            self.link_to(path)

    def __enter__(self) -> WorkTree:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        for reader in (self._reader, *(reader for _, reader in self._caches)):
            reader.__exit__()

    def link_to(self, path: str) -> None:
        """Let links into one more cache count."""
        real = os.path.realpath(path)
        try:
            self._caches.append((real + "/", LocalReader(os.open(real, _FOLDER))))
        except OSError:
            # A cache that is not there is linked to by nothing; one that cannot be read fails at the link.
            return

    def get(self, name: str, limit: int) -> bytes | None:
        """Return the bytes of a small file, ``None`` when there is none.

        Raises:
            ArtifactError: A link, no regular file, more than ``limit`` bytes, or a change while it was read.
            UnavailableError: It cannot be read.
        """
        mode = self._kind(name)
        if mode is None:
            return None
        if not stat.S_ISREG(mode):
            raise ArtifactError(f"{printable(name)} is a link, a folder or a special file, not a file.")
        pieces: list[bytes] = []
        left = limit

        def take(piece: Any) -> None:
            nonlocal left
            left -= len(piece)
            if left < 0:
                raise ArtifactError(f"{printable(name)} has more than {limit} bytes.")
            pieces.append(bytes(piece))

        self._reader.read(Entry(name), take)
        return b"".join(pieces)

    def look(self, name: str, *, legacy: bool = False) -> Content | None:
        """Hash what lies at a path; ``None`` when nothing does.

        Args:
            name: Path relative to the root, in its shortest form.
            legacy: Hash as DVC 2 did.

        Raises:
            ArtifactError: A link, a special file, or a change while reading; names the file.
            UnavailableError: Something cannot be read.
        """
        known = self._known(name, legacy)
        if known is not None:
            return known
        mode = self._kind(name)
        if mode is None:
            return None
        listing = _Listing()
        folder, _, base = name.rpartition("/")
        if not stat.S_ISDIR(mode):
            if not stat.S_ISLNK(mode) and not stat.S_ISREG(mode):
                raise ArtifactError(f"{printable(name)} is a special file, not data.")
            if stat.S_ISLNK(mode):
                self._follow(name, listing)
            else:
                fd = self._open_folder(folder)
                try:
                    self._take(fd, [(base, name)], listing, legacy)
                finally:
                    os.close(fd)
            self._read_deferred(listing, legacy)
            file = self._files[legacy][name]
            return Content(file.md5, file.size, None, file.sha256)
        fd = self._open_folder(name)
        try:
            self._walk(fd, name, listing, legacy, 0)
        finally:
            os.close(fd)
        self._read_deferred(listing, legacy)
        self._compare(listing)
        self._folders[name] = listing.names
        return self._folder(name, listing.names, legacy)

    def _known(self, name: str, legacy: bool) -> Content | None:
        if (file := self._files[legacy].get(name)) is not None:
            return Content(file.md5, file.size, None, file.sha256)
        above = name
        while above:
            names = self._folders.get(above)
            if names is not None:
                inside = [item for item in names if item.startswith(name + "/")]
                if not inside or inside[0] not in self._files[legacy]:
                    return None
                return self._folder(name, inside, legacy)
            above = above.rpartition("/")[0]
        return None

    def _folder(self, name: str, names: list[str], legacy: bool) -> Content:
        start = len(name) + 1
        done = self._files[legacy]
        files = {item[start:]: done[item] for item in names}
        known = self._md5 or legacy
        digest = directory_digest([(item, file[0]) for item, file in files.items()]) if known else ""
        return Content(digest, sum([file[1] for file in files.values()]), files)

    def _walk(self, fd: int, name: str, listing: _Listing, legacy: bool, level: int) -> None:
        if level > MAX_LEVELS:
            raise ArtifactError(f"{printable(name)} has more than {MAX_LEVELS} levels of folders.")
        listing.stamps[name] = _stamp(os.fstat(fd))
        folders: list[str] = []
        files: list[str] = []
        links: list[str] = []
        with _reading(name), os.scandir(fd) as scan:
            for item in scan:
                if item.is_file(follow_symlinks=False):
                    files.append(item.name)
                elif item.is_dir(follow_symlinks=False):
                    folders.append(item.name)
                elif item.is_symlink():
                    links.append(item.name)
                else:
                    raise ArtifactError(f"{printable(f'{name}/{item.name}')} is a special file, not data.")
        self._take(fd, [(base, f"{name}/{base}") for base in files], listing, legacy)
        for base in links:
            self._follow(f"{name}/{base}", listing)
        for base in folders:
            with _reading(f"{name}/{base}"):
                inner = os.open(base, _FOLDER, dir_fd=fd)
            try:
                self._walk(inner, f"{name}/{base}", listing, legacy, level + 1)
            finally:
                os.close(inner)

    def _follow(self, name: str, listing: _Listing) -> None:
        listing.names.append(name)
        listing.deferred[name] = self._through(name)

    def _take(self, folder: int, files: list[tuple[str, str]], listing: _Listing, legacy: bool) -> None:
        """Hash the small files of one folder, given as names there and in the tree; leave others to the careful reader.

        The loop runs once a file, so it takes few steps. What replaced a file meanwhile shows in the folder's times.
        """
        names, done = listing.names, self._files[legacy]
        md5, wanted, sha256 = hashlib.md5, self._md5, self._sha256
        for base, name in files:
            names.append(name)
            if name in done:
                continue
            try:
                fd = os.open(base, _FILE, dir_fd=folder)
                try:
                    before = os.fstat(fd)
                    size = before.st_size
                    if size >= CHUNK or before.st_mode & _FORMAT != stat.S_IFREG:
                        listing.deferred[name] = self._reader, name
                        listing.large += size >= _LARGE
                        continue
                    data = os.read(fd, size + 1)
                    after = os.fstat(fd)
                finally:
                    os.close(fd)
            except OSError:
                # The careful reader has the words for whatever this was.
                listing.deferred[name] = self._reader, name
                continue
            if len(data) != size or before.st_mtime_ns != after.st_mtime_ns or before.st_ctime_ns != after.st_ctime_ns:
                raise ArtifactError(f"{printable(name)} changed while it was read.", code="ARTIFACT_CHANGED")
            digest = _unix_md5(data) if legacy else md5(data, usedforsecurity=False).hexdigest() if wanted else ""
            done[name] = FileContent(digest, size, hashlib.sha256(data).hexdigest() if sha256 else "")

    def _read_deferred(self, listing: _Listing, legacy: bool) -> None:
        def read(name: str) -> FileContent:
            return self._read(*listing.deferred[name], legacy)

        names = list(listing.deferred)
        if listing.large > 1 and _WORKERS > 1:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(min(_WORKERS, len(names)), thread_name_prefix="sealflow-read") as pool:
                found = list(pool.map(read, names))
        else:
            found = [read(name) for name in names]
        self._files[legacy].update(zip(names, found, strict=True))

    def _read(self, reader: LocalReader, name: str, legacy: bool) -> FileContent:
        hashers = [_UnixLineEnds()] if legacy else [_md5()] if self._md5 else []
        if self._sha256:
            hashers.append(hashlib.sha256())

        def all_of_them(piece: Any) -> None:
            for hasher in hashers:
                hasher.update(piece)

        size = reader.read(Entry(name), hashers[0].update if len(hashers) == 1 else all_of_them)
        found = [hasher.hexdigest() for hasher in hashers]
        sha256 = found.pop() if self._sha256 else ""
        return FileContent(found[0] if found else "", size, sha256)

    def _compare(self, listing: _Listing) -> None:
        # Files are compared one by one as they are read; this finds the file that came or went meanwhile.
        for name, stamp in listing.stamps.items():
            fd = self._open_folder(name)
            try:
                if _stamp(os.fstat(fd)) != stamp:
                    raise ArtifactError(f"{printable(name)} changed while it was read.", code="ARTIFACT_CHANGED")
            finally:
                os.close(fd)

    def _through(self, name: str) -> tuple[LocalReader, str]:
        path = os.path.join(self._root, name)
        with _reading(name):
            target = os.path.realpath(path)
        for cache, reader in self._caches:
            if target.startswith(cache) and _OBJECT.fullmatch(target[len(cache) :]):
                return reader, target[len(cache) :]
        raise ArtifactError(f"{printable(name)} is a symbolic link that does not lead into DVC's cache.")

    def _kind(self, name: str) -> int | None:
        folder, _, base = name.rpartition("/")
        try:
            fd = self._open_folder(folder)
        except ArtifactError as error:
            if error.code == "DATA_MISSING":
                return None
            raise
        try:
            return os.stat(base, dir_fd=fd, follow_symlinks=False).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UnavailableError(f"{printable(name)}: {error.strerror}.") from None
        finally:
            os.close(fd)

    def _open_folder(self, name: str) -> int:
        fd = os.dup(self._fd)
        walked = ""
        for part in name.split("/") if name else ():
            walked = f"{walked}/{part}" if walked else part
            try:
                inner = os.open(part, _FOLDER, dir_fd=fd)
            except FileNotFoundError:
                raise ArtifactError(f"There is no {printable(walked)}.", code="DATA_MISSING") from None
            except NotADirectoryError:
                try:
                    link = stat.S_ISLNK(os.stat(part, dir_fd=fd, follow_symlinks=False).st_mode)
                except OSError:
                    link = False
                if link:
                    raise ArtifactError(f"{printable(walked)} is a symbolic link, not a folder.") from None
                raise ArtifactError(f"{printable(walked)} is no folder.", code="DATA_MISSING") from None
            except PermissionError:
                raise UnavailableError(f"No permission for {printable(walked)}.", code="PERMISSION_DENIED") from None
            except OSError as error:
                raise UnavailableError(f"{printable(walked)}: {error.strerror}.") from None
            finally:
                os.close(fd)
            fd = inner
        return fd


def _stamp(info: os.stat_result) -> tuple[int, int, int]:
    return info.st_mtime_ns, info.st_ino, info.st_dev


class _reading:  # noqa: N801 - reads as a statement
    """Turn the system's errors into ours; a context manager of its own because it runs once a folder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, PermissionError):
            raise UnavailableError(f"No permission for {printable(self._name)}.", code="PERMISSION_DENIED") from None
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise ArtifactError(
                f"{printable(self._name)} changed while it was read.", code="ARTIFACT_CHANGED"
            ) from None
        if isinstance(error, OSError):
            raise UnavailableError(f"{printable(self._name)}: {error.strerror}.") from None


def walk_names(root: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield folder, folders in it and files in it below ``root``, sorted, top down; remove folders to skip them.

    Links are named among the files and never followed.

    Raises:
        UnavailableError: A folder cannot be read.
    """
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        folders: list[str] = []
        files: list[str] = []
        with _reading(folder or "."), os.scandir(os.path.join(root, folder)) as scan:
            for item in scan:
                (folders if item.is_dir(follow_symlinks=False) else files).append(item.name)
        folders.sort()
        files.sort()
        yield folder, folders, files
        waiting += [f"{folder}/{name}" if folder else name for name in reversed(folders)]
