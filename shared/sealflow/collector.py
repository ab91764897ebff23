"""The cyclic garbage collector, called less often where there is next to nothing for it.

Manifests and evidence are long lists of small records without cycles. At the default threshold the collector walks them
again for every few hundred, a fifth of the time that a large folder takes. It is not switched off: a check can run for
minutes beside other threads of the same process. Imports are the same: boto3's take a third less time so.
"""

from __future__ import annotations

import atexit
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_ALLOCATIONS: Final = 100_000

_lock = threading.Lock()
_inside = 0
_before = (0, 0, 0)


@contextmanager
def rare_collection() -> Iterator[None]:
    """Let the collector run at every 100,000 allocations at most; may be nested and entered by several threads."""
    global _inside, _before
    with _lock:
        if _inside == 0:
            _before = gc.get_threshold()
            # A threshold of zero means that somebody switched the collector off, which is theirs to decide.
            if _before[0]:
                gc.set_threshold(max(_before[0], _ALLOCATIONS), *_before[1:])
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                gc.set_threshold(*_before)


def end_without_collection() -> None:
    """Let this process end without a last search for cycles; for programs of our own, not for what they may import.

    Whoever ends gives all memory back at once. With boto3 loaded the search takes a tenth of a second.
    """
    atexit.register(gc.freeze)
