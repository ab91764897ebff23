"""Large files of this machine: read by ranges, written by parts into a private file beside their place."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import secrets
import stat
import threading
from collections.abc import Sequence

from sealflow.errors import ArtifactError, UnavailableError
from sealflow.findings import printable
from sealflow.storage.files import errors, kind_of, refuse_taken, settle, short
from sealflow.storage.memory import release

# What is written at a time.
_PIECE = 8 << 20

_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_TOKEN = re.compile(r"[0-9a-f]{16}")
_PARTIAL = re.compile(r"\.(.+)\.([0-9a-f]{16})\.partial", re.DOTALL)


class LocalObject:
    """See :class:`~sealflow.storage.base.OpenObject`.

    The descriptor keeps the file that was opened; its times tell whether somebody wrote into it, or took its name away.
    """

    version_id: str | None = None

    def __init__(self, uri: str, path: str, fd: int, first: int) -> None:
        self.uri = uri
        self._path = path
        self._fd = fd
        try:
            with errors(path):
                self._opened = os.fstat(fd)
                if not stat.S_ISREG(self._opened.st_mode):
                    raise ArtifactError(f"{printable(path)} is {kind_of(self._opened.st_mode)}, not a file.")
                self.size = self._opened.st_size
            self.pin: str | None = f"{self.size}-{self._opened.st_ino}-{self._opened.st_mtime_ns}"
            head = bytearray(min(max(first, 0), self.size))
            self.read_into(0, memoryview(head))
            self.head = bytes(head)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LocalObject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """See :class:`~sealflow.storage.base.OpenObject`."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def read_into(self, start: int, out: memoryview) -> None:
        """See :class:`~sealflow.storage.base.OpenObject`."""
        if start < 0 or start + len(out) > self.size:
            raise ValueError("The range does not lie within the object.")
        done = 0
        with errors(self._path):
            while done < len(out) and (count := os.preadv(self._fd, [out[done:]], start + done)):
                done += count
            now = os.fstat(self._fd)
        if done < len(out) or (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (
            self.size,
            self._opened.st_mtime_ns,
            self._opened.st_ctime_ns,
        ):
            raise ArtifactError(f"{printable(self._path)} changed while it was read.", code="ARTIFACT_CHANGED")


class LocalOutgoing:
    """See :class:`~sealflow.storage.base.Outgoing`: a file of ours alone beside its place, named ``.….partial``.

    A file system does not remember which parts of a file were written, so an upload that is resumed starts with an
    empty file.
    """

    parallel = 4

    def __init__(self, path: str, token: str, fd: int, *, overwrite: bool) -> None:
        self._path = path
        self._token = token
        self._fd = fd
        self._overwrite = overwrite
        self._sent: dict[int, tuple[int, int, str]] = {}  # number -> offset, size, tag
        self._count = 0
        self._lock = threading.Lock()

    @classmethod
    def begin(cls, path: str, *, overwrite: bool) -> LocalOutgoing:
        """See :class:`~sealflow.storage.base.Storage`."""
        token = secrets.token_hex(8)
        with errors(path):
            refuse_taken(path, overwrite=overwrite)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            return cls(path, token, os.open(_partial(path, token), _WRITE | os.O_CREAT | os.O_EXCL, 0o600),
                       overwrite=overwrite)  # fmt: skip

    @classmethod
    def resume(cls, path: str, token: str, *, overwrite: bool) -> LocalOutgoing | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        if not _TOKEN.fullmatch(token):
            return None
        partial = _partial(path, token)
        with errors(partial):
            try:
                fd = os.open(partial, _WRITE | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError):
                return None
            try:
                info = os.fstat(fd)
                # In a folder where others may write, such a name proves nothing.
                if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_nlink != 1:
                    raise ArtifactError(f"{printable(partial)} is no upload that this user began.")
                os.fchmod(fd, 0o600)
                os.ftruncate(fd, 0)
            except BaseException:
                os.close(fd)
                raise
        return cls(path, token, fd, overwrite=overwrite)

    @property
    def token(self) -> str:
        """See :class:`~sealflow.storage.base.Outgoing`."""
        return self._token

    def send(self, number: int, offset: int, data: memoryview) -> str:
        """See :class:`~sealflow.storage.base.Outgoing`. The tag tells one sending of a part from the next."""
        data = data.cast("B")
        done = 0
        with errors(self._path):
            while done < len(data):
                done += os.pwrite(self._fd, data[done : done + _PIECE], offset + done)
                release(data)
        with self._lock:
            self._count += 1
            tag = str(self._count)
            self._sent[number] = (offset, len(data), tag)
        return tag

    def present(self) -> dict[int, tuple[str, int]]:
        """See :class:`~sealflow.storage.base.Outgoing`."""
        return {}

    def commit(self, parts: Sequence[tuple[int, str]]) -> str | None:
        """See :class:`~sealflow.storage.base.Outgoing`."""
        end = 0
        for number, tag in parts:
            offset, size, sent = self._sent.get(number, (-1, 0, ""))
            if offset != end or sent != tag:
                raise UnavailableError(
                    f"The unfinished file for {printable(self._path)} does not hold part {number} as it was sent.",
                    code="UPLOAD_LOST",
                    next_step="Start the upload again.",
                )
            end += size
        with errors(self._path):
            os.ftruncate(self._fd, end)
            os.fchmod(self._fd, 0o644 & ~_umask())
            os.fsync(self._fd)
            settle(_partial(self._path, self._token), self._path, overwrite=self._overwrite)
        self._close()
        return None

    def abort(self) -> None:
        """See :class:`~sealflow.storage.base.Outgoing`."""
        self._close()
        with errors(self._path), contextlib.suppress(FileNotFoundError):
            os.unlink(_partial(self._path, self._token))

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        # Whoever leaves an upload to be resumed forgets it, and nothing else.
        self._close()


def unfinished(path: str, limit: int) -> list[tuple[str, str, datetime.datetime]]:
    """Return at most ``limit + 1`` uploads, of this path or of anything below it: place, token, last written to.

    Raises:
        UnavailableError: A folder cannot be looked into.
    """
    found: list[tuple[str, str, datetime.datetime]] = []
    folder, name = os.path.split(path)
    with errors(path):
        _search(folder, short(name), limit, found)
        # Links are not followed: what lies behind one is reached under its own name.
        for inner, _, _ in os.walk(path, onerror=_raise) if os.path.isdir(path) and not os.path.islink(path) else ():
            _search(inner, None, limit, found)
            if len(found) > limit:
                break
    return found[: limit + 1]


def _search(folder: str, only: str | None, limit: int, found: list[tuple[str, str, datetime.datetime]]) -> None:
    try:
        scan = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with scan:
        for item in scan:
            match = _PARTIAL.fullmatch(item.name)
            if match is None or match[1] != (only or match[1]) or len(found) > limit:
                continue
            with contextlib.suppress(FileNotFoundError):
                info = item.stat(follow_symlinks=False)
                if stat.S_ISREG(info.st_mode):
                    since = datetime.datetime.fromtimestamp(info.st_mtime, datetime.timezone.utc)
                    found.append((os.path.join(folder, match[1]), match[2], since))


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _partial(path: str, token: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{short(name)}.{token}.partial")


def _umask() -> int:
    # os.umask() can only be asked by changing it, for every thread of the process.
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return next((int(line.split()[1], 8) for line in status if line.startswith("Umask:")), 0o022)
    except OSError:
        return 0o022
