"""Entries appended to a log: pure, from the tree's right edge to the objects that have to be written."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from sealflow.audit import merkle, tiles
from sealflow.audit.tiles import WIDTH, Get
from sealflow.errors import EvidenceError, UsageError


class Appended(NamedTuple):
    """What appending comes to.

    Attributes:
        size: Entries of the log then.
        root: Its root.
        objects: Names and bytes to create before the checkpoint is replaced, in any order.
    """

    size: int
    root: bytes
    objects: list[tuple[str, bytes]]


def append(get: Get, size: int, lines: Sequence[bytes], *, root: bytes) -> Appended:
    """Append entries to a log.

    The same entries on the same tree give the same objects, so it is safe for two to do it, and to do it again. About
    a microsecond and a half an entry.

    Args:
        get: Reads an object of the log.
        size: Entries of the log, as its signed checkpoint says.
        lines: The new entries.
        root: The root in that checkpoint. What lies in the store has to lead to it: whoever signed a new checkpoint
            over an altered tile would vouch for the alteration.

    Raises:
        EvidenceError: ``LOG_TRUNCATED``, ``LOG_ALTERED``: the tree's right edge is not that of the checkpoint.
        UsageError: An entry is empty or too long for a bundle.
        UnavailableError: The store cannot be read.
    """
    if any(not 0 < len(line) <= 0xFFFF for line in lines):
        raise UsageError("An entry of a log has at least one byte and at most 65,535.")
    tree = tiles.Tree(get, size)
    edge = {level: tree.tile(level, number) for level, number, _ in tiles.edge(size)}
    if _root(edge) != root:
        raise EvidenceError(
            f"The tiles of the log do not lead to the root of its checkpoint of {size} entries.", code="LOG_ALTERED"
        )
    objects: list[tuple[str, bytes]] = []
    number, width = divmod(size, WIDTH)
    entries = tree.bundle(number) if width else []
    fresh = [sha256(b"\0" + line).digest() for line in lines]
    if [merkle.leaf_hash(entry) for entry in entries] != edge.get(0, []):
        raise EvidenceError("The entries of the last bundle are not those of its tile.", code="LOG_ALTERED")
    entries.extend(lines)
    for start in range(0, len(entries) if fresh else 0, WIDTH):
        some = entries[start : start + WIDTH]
        objects.append((tiles.tile_name(None, number + start // WIDTH, len(some)), tiles.pack_bundle(some)))
    level, grown = 0, size + len(lines)
    while fresh:
        first = (size >> 8 * level) // WIDTH
        hashes = edge.get(level, []) + fresh
        fresh = []
        for start in range(0, len(hashes), WIDTH):
            some = hashes[start : start + WIDTH]
            objects.append((tiles.tile_name(level, first + start // WIDTH, len(some)), b"".join(some)))
            if len(some) == WIDTH:
                fresh.append(merkle.perfect_root(some))
        rest = len(hashes) % WIDTH
        edge[level] = hashes[len(hashes) - rest :]
        level += 1
    return Appended(grown, _root(edge), objects)


def _root(edge: dict[int, list[bytes]]) -> bytes:
    """Return the root over the partial tiles, which are one perfect subtree for each bit of the size."""
    result: bytes | None = None
    for level in sorted(edge):
        hashes = edge[level]
        # The smallest subtree of a tile stands last.
        end = len(hashes)
        while end:
            size = end & -end
            part = merkle.perfect_root(hashes[end - size : end])
            result = part if result is None else merkle.node_hash(part, result)
            end -= size
    return merkle.EMPTY_ROOT if result is None else result
