"""Small objects of a store, taken in order and, where the store is far away, read some at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Final

from sealflow.errors import ArtifactError, EvidenceError, SealflowError, UnavailableError
from sealflow.storage import Storage

if TYPE_CHECKING:
    from concurrent.futures import Future

#: Most reads of one store at the same time, however many it takes.
MOST_AT_ONCE: Final = 8

#: Bytes, ``None`` where there is no such object, or why it could not be read.
Outcome = bytes | None | SealflowError


def in_order(storage: Storage, wanted: Sequence[tuple[str, int]], most_bytes: int) -> Generator[Outcome]:
    """Yield for each object what came of reading it, in order.

    What comes does not depend on how fast the store answers: each object may have as many bytes as if it had been read
    after those before it, and is read only once that is known. So all that is read has ``most_bytes`` together.

    Args:
        storage: The store; it says how many reads it takes at the same time.
        wanted: Locations, and the most bytes of each.
        most_bytes: Of all together.
    """
    parallel = min(storage.parallel, MOST_AT_ONCE, len(wanted))
    # Files of this machine: a thread costs more than the read.
    if parallel < 2 or wanted[0][0].startswith("file:"):
        yield from _in_turn(storage, wanted, most_bytes)
        return
    from concurrent.futures import ThreadPoolExecutor

    left = most_bytes
    reserved = taken = 0
    waiting: deque[tuple[Future[Outcome], int]] = deque()
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="sealflow-evidence")
    try:
        for _ in wanted:
            while taken < len(wanted) and len(waiting) < parallel:
                uri, limit = wanted[taken]
                most = min(left, limit)
                if waiting and reserved + most > left:
                    break  # those before it may leave less
                waiting.append((pool.submit(_get, storage, uri, most), most))
                reserved += most
                taken += 1
            future, most = waiting.popleft()
            outcome = future.result()
            reserved -= most
            if isinstance(outcome, bytes):
                left -= len(outcome)
            yield outcome
    finally:
        # Whoever gave up does not wait for reads that change nothing.
        pool.shutdown(wait=False, cancel_futures=True)


def _in_turn(storage: Storage, wanted: Sequence[tuple[str, int]], left: int) -> Generator[Outcome]:
    for uri, limit in wanted:
        outcome = _get(storage, uri, min(left, limit))
        if isinstance(outcome, bytes):
            left -= len(outcome)
        yield outcome


def _get(storage: Storage, uri: str, limit: int) -> Outcome:
    try:
        return storage.get(uri, limit)
    except (ArtifactError, EvidenceError, UnavailableError) as error:
        return error
