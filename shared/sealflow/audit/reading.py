"""A log's entries in their order, proved by its checkpoint once the last one was read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from typing import Final

from sealflow.audit import merkle
from sealflow.audit.checkpoint import Checkpoint
from sealflow.audit.tiles import WIDTH, Get, Tree
from sealflow.errors import EvidenceError

# Bundles that are fetched before they are asked for; each is at most 16 MiB, and mostly 0.2.
_AHEAD: Final = 8


def entries(get: Get, checkpoint: Checkpoint, before: merkle.Frontier | None = None) -> Iterator[bytes]:
    """Yield the entries of a log.

    What was made of them counts only once this has ended: then, and not before, their hashes have led to the root.

    Args:
        get: Reads an object of the log; is called by several threads.
        checkpoint: A checkpoint whose signature was verified.
        before: What was read of the log before, which must be a part of it; by default nothing. Grows with what is
            yielded, and is of no more use when this raises.

    Raises:
        EvidenceError: ``LOG_TRUNCATED``, ``LOG_ALTERED``: these are not the entries of the checkpoint.
        UnavailableError: The store cannot be read.
    """
    frontier = before if before is not None else merkle.Frontier()
    tree = Tree(get, checkpoint.size)
    first, skipped = divmod(frontier.size, WIDTH)
    bundles = iter(range(first, (checkpoint.size + WIDTH - 1) // WIDTH))
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="sealflow-log") as pool:
        waiting: deque[Future[list[bytes]]] = deque()
        try:
            for _ in range(_AHEAD):
                _fetch(pool, tree, bundles, waiting)
            while waiting:
                lines = waiting.popleft().result()[skipped:]
                skipped = 0
                _fetch(pool, tree, bundles, waiting)
                frontier.add([sha256(b"\0" + line).digest() for line in lines])
                yield from lines
        finally:
            for future in waiting:
                future.cancel()
    if frontier.root() != checkpoint.root:
        raise EvidenceError(
            f"The entries of the log do not lead to the root of its checkpoint of {checkpoint.size} entries.",
            code="LOG_ALTERED",
        )


def _fetch(pool: ThreadPoolExecutor, tree: Tree, bundles: Iterator[int], waiting: deque[Future[list[bytes]]]) -> None:
    number = next(bundles, None)
    if number is not None:
        waiting.append(pool.submit(tree.bundle, number))
