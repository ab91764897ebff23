"""Spools: folders in which writers leave their chains until somebody ships them to an inbox.

Each chain is one file ``<spool>/<writer>.entries``, one entry a line. Its writer holds a lock on it (flock) for as long
as it lives, so that others can tell the living from the dead, and the system takes the lock away from whoever dies.
A crash can only tear the last line, which nobody was told to be durable; a line without its end is never taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from sealflow.audit.entry import MAX_ENTRY, NO_PREV, Entry, parse_entry
from sealflow.errors import EvidenceError, UnavailableError
from sealflow.findings import printable

#: Most entries of one chain: what is read and sent at once stays small. Its writer then ends it and begins another.
MAX_CHAIN: Final = 1000

_SUFFIX: Final = ".entries"
_MAKING: Final = ".making"
_NAME: Final = re.compile(r"([0-9a-f]{64})\.entries")
# A file in the making lives for microseconds; one that is so old lost its writer.
_STALE: Final = 3600.0


def default_spool() -> str:
    """Return ``$XDG_STATE_HOME/sealflow/audit/spool``."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "sealflow", "audit", "spool")


class SpoolGoneError(UnavailableError):
    """Somebody removed the file of a living writer."""

    code = "AUDIT_UNAVAILABLE"


class SpoolUnreadableError(UnavailableError):
    """A spool, or one file of it, does not let us in."""

    code = "AUDIT_UNAVAILABLE"


class SpoolFile:
    """The file of one living writer. Not for threads.

    Args:
        folder: The spool; it is made when missing.
        writer: The writer's id.
    """

    def __init__(self, folder: str, writer: str) -> None:
        self._folder = os.path.abspath(folder)
        self._path = os.path.join(self._folder, writer + _SUFFIX)
        self._fd: int | None = None
        # Where each entry ends. One list, so that no exception from outside can come between size and count.
        self._ends = [0]

    def append(self, entry: Entry) -> None:
        """Make an entry durable; the last one again is a success. After a failure the same must come before any other.

        Raises:
            SpoolGoneError: The file was removed; what it held is lost.
            UnavailableError: ``AUDIT_UNAVAILABLE``: no room, no permission.
        """
        if entry.n < len(self._ends) - 1:
            return
        line = entry.line + b"\n"
        size = self._ends[-1]
        try:
            if self._fd is None:
                self._fd = self._create()
            elif not os.fstat(self._fd).st_nlink:
                raise SpoolGoneError(
                    f"The audit spool's file {printable(self._path)} is gone.",
                    next_step="Find out who removes files there; `sealflow audit ship` leaves those of living writers.",
                )
            try:
                # At its own place, not at the end: what a failure left half written is written over.
                if os.pwrite(self._fd, line, size) != len(line):
                    raise OSError("the disk is full")
                os.fsync(self._fd)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, size)
                raise
        except OSError as error:
            raise UnavailableError(
                f"The audit spool {printable(self._folder)} cannot be written: {error.strerror or error}.",
                code="AUDIT_UNAVAILABLE",
                next_step="Give this process a writable audit spool (`audit_spool`, SEALFLOW_AUDIT_SPOOL).",
            ) from None
        self._ends.append(size + len(line))

    def _create(self) -> int:
        _make_folder(self._folder)
        making = self._path + _MAKING
        fd = os.open(making, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # Nobody must find it without its lock and take its writer for dead.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(making, self._path)
            _sync_folder(self._folder)
        except BaseException:
            for path in (making, self._path):
                with contextlib.suppress(OSError):
                    os.unlink(path)
            os.close(fd)
            raise
        return fd

    def close(self) -> None:
        """Let go of the file, and with it of the lock, unless another process shares it (fork)."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class SpooledChain(NamedTuple):
    """What a spool holds of one chain.

    Attributes:
        writer: The writer's id.
        entries: The chain from its beginning, as far as it is sound.
        alive: The writer still holds its file, or somebody else looks at it.
        problem: Why the file holds more than these entries, as an error with a code; ``None`` when it does not.
    """

    writer: str
    entries: tuple[Entry, ...]
    alive: bool
    problem: EvidenceError | None = None


def writers(folder: str) -> list[str]:
    """Return the ids of all writers that left a file in a spool; none where there is no spool.

    Raises:
        SpoolUnreadableError: The spool cannot be read.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(folder, error) from None
    _sweep(folder, names)
    return sorted(match[1] for match in map(_NAME.fullmatch, names) if match)


@contextlib.contextmanager
def opened(folder: str, writer: str) -> Iterator[SpooledChain | None]:
    """Read a writer's chain; while it is open, nobody else takes the writer for dead. ``None``: the file is gone.

    Raises:
        SpoolUnreadableError: It cannot be read.
    """
    path = os.path.join(folder, writer + _SUFFIX)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError("it is no regular file")
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alive = False
            except BlockingIOError:
                alive = True
            data = _read(fd)
        except OSError as error:
            raise _unreadable(path, error) from None
        yield _chain(writer, data, alive)
    finally:
        os.close(fd)


def remove(folder: str, writer: str) -> None:
    """Remove a dead writer's file, opened at the moment; it is no error when it is gone.

    Raises:
        SpoolUnreadableError: It cannot be removed.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, writer + _SUFFIX))
    except OSError as error:
        raise SpoolUnreadableError(
            f"The file of writer {writer[:16]}… cannot be removed from the spool: {error.strerror}."
        ) from None


def _read(fd: int) -> bytes:
    pieces, left = [], MAX_CHAIN * (MAX_ENTRY + 1) + 1
    while left and (piece := os.read(fd, min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _chain(writer: str, data: bytes, alive: bool) -> SpooledChain:
    entries: list[Entry] = []
    problem: EvidenceError | None = None
    # What follows the last line end is torn, or about to be written.
    for line in data.split(b"\n")[:-1]:
        try:
            entry = parse_entry(line)
        except EvidenceError as error:
            problem = error
            break
        prev = entries[-1].hash if entries else NO_PREV
        if (entry.writer, entry.n, entry.prev) != (writer, len(entries), prev) or len(entries) == MAX_CHAIN:
            problem = _broken(writer, f"entry {len(entries)} does not continue the chain", "AUDIT_CHAIN")
            break
        entries.append(entry)
    while entries and not entries[-1].is_signed():
        problem = _broken(writer, f"entry {entries[-1].n} is not signed by its writer", "AUDIT_SIGNATURE")
        entries.pop()
    return SpooledChain(writer, tuple(entries), alive, problem)


def _broken(writer: str, what: str, code: str) -> EvidenceError:
    return EvidenceError(f"The spool's file of writer {writer[:16]}… was altered: {what}.", code=code)


def _sweep(folder: str, names: list[str]) -> None:
    for name in names:
        if name.endswith(_SUFFIX + _MAKING):
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                if time.time() - os.lstat(path).st_mtime > _STALE:
                    os.unlink(path)


def _make_folder(path: str) -> None:
    if not os.path.isdir(path):
        above = os.path.dirname(path)
        if above != path:
            _make_folder(above)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
            _sync_folder(above)


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unreadable(path: str, error: OSError) -> SpoolUnreadableError:
    return SpoolUnreadableError(f"The audit spool {printable(path)} cannot be read: {error.strerror or error}.")
