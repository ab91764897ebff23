"""Memory for the bytes of a transfer."""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Final

_HUGE_PAGE: Final = 2 << 20


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
