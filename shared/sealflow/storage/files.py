"""How files of this machine are opened, put in their place whole, and refused: shared by what reads and what writes."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator

from sealflow.errors import ArtifactError, SealflowError, UnavailableError
from sealflow.findings import printable

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

# A FIFO that replaced a file would block a plain open for ever.
READ_FILE = _READ | os.O_NONBLOCK
READ_FOLDER = _READ | os.O_DIRECTORY

#: What the system says where there is no room.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def kind_of(mode: int) -> str:
    """Return what a mode says that a name stands for, in words."""
    for test, word in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISDIR, "a folder"),
    ):
        if test(mode):
            return word
    return "a special file"


def translate(error: OSError, name: str) -> SealflowError:
    """Return what the system says of a name as an error of ours."""
    shown = printable(name)
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
        return ArtifactError(f"{shown} is, or lies behind, a symbolic link or no folder.")
    if error.errno == errno.ENOENT:
        return ArtifactError(f"{shown} vanished while it was read.", code="ARTIFACT_CHANGED")
    if error.errno in (errno.EACCES, errno.EPERM):
        return UnavailableError(f"No permission for {shown}.", code="PERMISSION_DENIED")
    if error.errno in NO_ROOM:
        return UnavailableError(
            f"There is no room for {shown}: {error.strerror}.",
            code="NO_SPACE",
            next_step="Make room on that file system (or raise the quota), then try again.",
        )
    return UnavailableError(f"{shown}: {error.strerror or error}.")


class errors:  # noqa: N801  (read as a word at each use)
    """Turn what the system refuses into errors of ours.

    A class, since a generator takes longer than many a system call, and a large walk enters it by the hundred thousand.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise translate(error, self._path) from None


@contextlib.contextmanager
def beside(path: str, data: bytes | memoryview, mode: int) -> Iterator[str]:
    """Write a file durably beside its place, under a name that nobody can foresee; it is gone afterwards."""
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".{short(name)}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def short(name: str) -> str:
    """Return at most the first 100 bytes of a name: what stands before and after it must fit beside (255, or 143)."""
    return os.fsencode(name)[:100].decode(errors="ignore")


def settle(temporary: str, path: str, *, overwrite: bool) -> None:
    """Give a finished file its name, at once and durably. Afterwards nothing lies under its old one.

    Raises:
        ArtifactError: ``ARTIFACT_EXISTS`` where something lies there and ``overwrite`` is false; what lies there is no
            file.
        OSError: The file system refuses.
    """
    refuse_taken(path, overwrite=overwrite)
    if overwrite:
        os.replace(temporary, path)
    else:
        # link() fails where a rename would overwrite.
        try:
            os.link(temporary, path)
        except FileExistsError:
            # A file server whose answer was lost is asked twice, and then says so of its own work.
            if not os.path.samestat(os.stat(temporary), os.lstat(path)):
                raise exists(path) from None
        os.unlink(temporary)
    sync_folder(os.path.dirname(path))


def refuse_taken(path: str, *, overwrite: bool) -> None:
    """Refuse a place where something lies that may not be replaced.

    Raises:
        ArtifactError: As :func:`settle`.
        OSError: It cannot be looked at.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise ArtifactError(f"{printable(path)} is {kind_of(mode)}, not a file that could be replaced.")
    if not overwrite:
        raise exists(path)


def exists(name: str) -> ArtifactError:
    """Return the refusal to replace what lies at a location, wherever that is."""
    return ArtifactError(
        f"Something lies at {printable(name)} already.",
        code="ARTIFACT_EXISTS",
        next_step="Choose another name, or ask for it to be overwritten.",
    )


def sync_folder(path: str) -> None:
    """Make new names in a folder survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
