"""Where a log lies: a folder or a prefix in S3, with the objects of C2SP tlog-tiles.

All objects but the checkpoint are written once. The checkpoint is replaced only by somebody who knows what it replaces,
so of several integrators at once one is first and the others see it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Protocol

from sealflow.audit.checkpoint import NAME as CHECKPOINT
from sealflow.audit.note import MAX_NOTE
from sealflow.errors import ArtifactError, EvidenceError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.storage import Storages
from sealflow.storage.files import beside, errors, sync_folder
from sealflow.storage.local import LocalStorage, replace_file, to_path, to_uri
from sealflow.storage.resolve import is_s3

if TYPE_CHECKING:
    from sealflow.storage.s3 import S3Storage

# Each write waits for the disk or the network; several wait together.
_PARALLEL: Final = 8


class LogStore(Protocol):
    """Where a log lies.

    Attributes:
        uri: Canonical location, without a final slash.
    """

    uri: str

    def get(self, name: str, limit: int) -> bytes | None:
        """Return an object (``checkpoint``, ``tile/0/x001/234.p/17``, ``tile/entries/000``), or ``None``.

        Raises:
            EvidenceError: It has more than ``limit`` bytes.
            UnavailableError: The store cannot be read.
        """

    def create(self, name: str, data: bytes) -> None:
        """Write a new object, durably; that it is there already with these bytes is a success.

        Raises:
            EvidenceError: ``LOG_FORKED``: it is there with other bytes.
            UnavailableError: The store cannot be written.
        """

    def create_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Write many new objects as :meth:`create` does, faster; some of them may be there when it raises."""

    def swap_checkpoint(self, old: bytes | None, new: bytes) -> bool:
        """Replace the checkpoint, durably, if it is ``old`` still (``None``: there is none).

        Returns:
            ``False``: another one was faster, and the checkpoint is left as it is.

        Raises:
            UnavailableError: The store cannot be written.
            UsageError: ``OVERWRITE_NOT_PROTECTED``: the store ignores conditions.
        """


def open_log(uri: str, storages: Storages) -> LogStore:
    """Open a log. Nothing is made or looked at yet.

    Args:
        uri: A folder, or a location in S3.
        storages: Finds the storage.

    Raises:
        UsageError: It is neither.
    """
    if is_s3(uri):
        return S3Log(uri, storages.s3(uri))
    storage = storages.for_uri(uri)
    if isinstance(storage, LocalStorage):
        return FolderLog(uri)
    raise UsageError(f"A log lies in a folder or in S3, not at {printable(uri)}.", next_step="Name one of these.")


class FolderLog:
    """A log in a folder. See :class:`LogStore`."""

    def __init__(self, uri: str) -> None:
        self._path = to_path(uri)
        self._storage = LocalStorage()
        self.uri = to_uri(self._path)

    def get(self, name: str, limit: int) -> bytes | None:
        """See :class:`LogStore`."""
        return self._storage.get(self._place(name), limit)

    def create(self, name: str, data: bytes) -> None:
        """See :class:`LogStore`."""
        self.create_all([(name, data)])

    def create_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """See :class:`LogStore`."""
        _for_all(self._write, objects)
        # Names are durable once their folders are, and these once theirs are. One that lay there may be the work of
        # somebody who died before this.
        folders = {self._path, os.path.dirname(self._path)}
        for name, _ in objects:
            folder = os.path.dirname(name)
            while folder:
                folders.add(os.path.join(self._path, folder))
                folder = os.path.dirname(folder)
        with errors(self._path):
            for folder in folders:
                sync_folder(folder)

    def swap_checkpoint(self, old: bytes | None, new: bytes) -> bool:
        """See :class:`LogStore`."""
        with self._locked():
            if self.get(CHECKPOINT, MAX_NOTE) != old:
                return False
            replace_file(self._place(CHECKPOINT), new)
        return True

    def _place(self, name: str) -> str:
        return os.path.join(self._path, name)

    def _write(self, item: tuple[str, bytes]) -> None:
        name, data = item
        path = self._place(name)
        if _is_there(self, name, data):
            return
        # Linked once it is whole and on the disk, so that a crash leaves no half of a tile.
        with errors(path), beside(path, data, 0o644) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                _is_there(self, name, data)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with errors(self._path):
            os.makedirs(self._path, exist_ok=True)
            fd = os.open(self._place(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            with errors(self._path):
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


class S3Log:
    """A log in S3. See :class:`LogStore`."""

    def __init__(self, uri: str, storage: S3Storage) -> None:
        self._storage = storage
        self.uri = storage.canonical(uri)

    def get(self, name: str, limit: int) -> bytes | None:
        """See :class:`LogStore`."""
        return self._storage.get(f"{self.uri}/{name}", limit)

    def create(self, name: str, data: bytes) -> None:
        """See :class:`LogStore`."""
        try:
            self._storage.put(f"{self.uri}/{name}", data, overwrite=False)
        except (ArtifactError, UnavailableError) as error:
            # Also where somebody else writes the same at this moment.
            if not _is_there(self, name, data):
                raise error from None

    def create_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """See :class:`LogStore`."""
        _for_all(lambda item: self.create(*item), objects)

    def swap_checkpoint(self, old: bytes | None, new: bytes) -> bool:
        """See :class:`LogStore`."""
        uri = f"{self.uri}/{CHECKPOINT}"
        found = self._storage.get_pinned(uri, MAX_NOTE)
        if (found and found[0]) != old:
            return False
        if self._storage.replace(uri, new, found and found[1]):
            return True
        # The answer to an attempt that succeeded may have been lost.
        return self.get(CHECKPOINT, MAX_NOTE) == new


def _for_all(write: Callable[[tuple[str, bytes]], None], objects: Sequence[tuple[str, bytes]]) -> None:
    """Write objects, several at a time.

    Raises:
        SealflowError: What the first of those that failed raised.
    """
    if len(objects) < 2:
        for item in objects:
            write(item)
        return
    with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="sealflow-log") as pool:
        for future in [pool.submit(write, item) for item in objects]:
            future.result()


def _is_there(log: LogStore, name: str, data: bytes) -> bool:
    """Tell whether an object is there already.

    Raises:
        EvidenceError: ``LOG_FORKED``: it is, with other bytes.
        UnavailableError: The store cannot be read.
    """
    try:
        found = log.get(name, len(data))
        if found is None:
            return False
        same = found == data
    except EvidenceError:  # it is longer
        same = False
    if not same:
        raise EvidenceError(
            f"{printable(name)} lies in the log {printable(log.uri)} with other bytes.", code="LOG_FORKED"
        )
    return True
