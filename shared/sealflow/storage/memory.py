"""Memory for the bytes of a transfer: of the process, or of a file where a part is too large to be held."""

from __future__ import annotations

import mmap
import os
import tempfile
from contextlib import suppress
from typing import Final

from sealflow.errors import UnavailableError

#: A part with more bytes waits in a file.
LARGEST_IN_MEMORY: Final = 36 << 20

_HUGE_PAGE: Final = 2 << 20
_ZEROS: Final = bytes(1 << 20)


class _InFile(mmap.mmap):
    """A file without a name, seen as memory."""


def buffer(size: int) -> memoryview:
    """Return a writable buffer of zeros, which takes memory only as far as it is written to.

    In huge pages as far as it fills them, where the system has them: to clear and to find 4 KiB at a time costs more
    than to encrypt what comes to stand there.
    """
    # Private: the default is memory that a forked process would share.
    area = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # The rest in small pages: a huge one counts whole.
    if (whole := size - size % _HUGE_PAGE) and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            area.madvise(mmap.MADV_HUGEPAGE, 0, whole)
    return memoryview(area)[:size]


def part_buffer(size: int) -> memoryview:
    """Return a writable buffer of zeros for a part: in memory, or in a file where it is too large for that.

    Raises:
        UnavailableError: ``NO_SPACE``, as :func:`buffer_in_file`.
    """
    return buffer(size) if size <= LARGEST_IN_MEMORY else buffer_in_file(size)


def buffer_in_file(size: int) -> memoryview:
    """Return a writable buffer of zeros in a temporary file, which has no name and goes with the buffer.

    What is written to it or read from it stays in the process's memory until :func:`release`. The file lies where
    ``SEALFLOW_TMPDIR`` says, else where this system keeps temporary files.

    Raises:
        UnavailableError: ``NO_SPACE``: there is no room for all of it.
    """
    try:
        with tempfile.TemporaryFile(dir=os.environ.get("SEALFLOW_TMPDIR") or None) as file:
            # All of it at once: a file with holes would end the process when the disk is full.
            _reserve(file.fileno(), max(size, 1))
            return memoryview(_InFile(file.fileno(), max(size, 1)))[:size]
    except OSError as error:
        raise UnavailableError(
            f"There is no room for a part of {size >> 20} MiB on its way: {error.strerror or error}.",
            code="NO_SPACE",
            next_step="Point SEALFLOW_TMPDIR to a place on a disk with enough room.",
        ) from None


def release(view: memoryview) -> None:
    """Give back the memory that a buffer in a file has taken; its bytes stay. Other buffers are left alone."""
    area = view.obj
    if isinstance(area, _InFile) and hasattr(mmap, "MADV_DONTNEED"):
        area.madvise(mmap.MADV_DONTNEED)


def _reserve(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
        return
    while size > 0:
        size -= os.write(fd, _ZEROS[: min(size, len(_ZEROS))])
