"""Tiles and bundles: how a log lies in its store (C2SP tlog-tiles).

Tile ``n`` of level ``l`` holds up to 256 hashes of perfect subtrees of ``256 ** l`` leaves. A bundle holds the up to
256 entries whose hashes are one tile of level 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sealflow.audit import merkle
from sealflow.errors import ArtifactError, EvidenceError

WIDTH: Final = 256
#: Largest tile and bundle in bytes.
MAX_TILE: Final = WIDTH * merkle.HASH_SIZE
MAX_BUNDLE: Final = WIDTH * (2 + 0xFFFF)
#: Levels that a log of fewer than 2**63 entries has.
LEVELS: Final = 8

#: Reads an object of a log: its name and the most bytes that it may have; ``None`` where there is none.
Get = Callable[[str, int], "bytes | None"]

_NAME = re.compile(r"tile/(entries|0|[1-9]|[1-5][0-9]|6[0-3])/((?:x[0-9]{3}/)*)([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


def tile_name(level: int | None, index: int, width: int = WIDTH) -> str:
    """Return the name of a tile, or of a bundle where ``level`` is ``None``.

    Args:
        level: The tile's level.
        index: Its number in the level.
        width: How many hashes or entries it has; less than 256: it is partial.
    """
    digits = f"{index % 1000:03d}"
    while index >= 1000:
        index //= 1000
        digits = f"x{index % 1000:03d}/{digits}"
    name = f"tile/{'entries' if level is None else level}/{digits}"
    return name if width == WIDTH else f"{name}.p/{width}"


def parse_tile_name(name: str) -> tuple[int | None, int, int]:
    """Return level (``None``: a bundle), index and width of what a name stands for.

    Raises:
        EvidenceError: ``LOG_ALTERED``: no tile and no bundle is called so.
    """
    match = _NAME.fullmatch(name)
    if match is not None:
        level = None if match[1] == "entries" else int(match[1])
        index = int(match[2].replace("x", "").replace("/", "") + match[3])
        width = int(match[4] or WIDTH)
        # One name for each: neither leading zeros nor a partial tile that is full.
        if tile_name(level, index, width) == name:
            return level, index, width
    raise EvidenceError("No tile of a log has this name.", code="LOG_ALTERED")


def edge(size: int) -> Iterator[tuple[int, int, int]]:
    """Yield level, index and width of each partial tile of a tree, from level 0 up."""
    level = 0
    while size:
        if size % WIDTH:
            yield level, size // WIDTH, size % WIDTH
        size //= WIDTH
        level += 1


def split_tile(data: bytes, width: int, name: str) -> list[bytes]:
    """Return the hashes of a tile.

    Raises:
        EvidenceError: ``LOG_ALTERED``: it has another length.
    """
    if len(data) != width * merkle.HASH_SIZE:
        raise EvidenceError(
            f"The tile {name} has {len(data)} bytes instead of {width * merkle.HASH_SIZE}.", code="LOG_ALTERED"
        )
    return [data[at : at + merkle.HASH_SIZE] for at in range(0, len(data), merkle.HASH_SIZE)]


def pack_bundle(entries: Sequence[bytes]) -> bytes:
    """Return the bundle of at most 256 entries, each shorter than 64 KiB."""
    return b"".join([part for entry in entries for part in (len(entry).to_bytes(2, "big"), entry)])


def split_bundle(data: bytes, width: int, name: str) -> list[bytes]:
    """Return the entries of a bundle.

    Raises:
        EvidenceError: ``LOG_ALTERED``: it does not hold exactly ``width`` entries.
    """
    entries: list[bytes] = []
    at, end = 0, len(data)
    append = entries.append
    for _ in range(width):
        start = at + 2
        # Past the end the slice is shorter, and the lengths below do not add up.
        at = start + int.from_bytes(data[at:start], "big")
        append(data[start:at])
    if at != end or start > end:
        raise EvidenceError(f"The bundle {name} does not hold {width} whole entries.", code="LOG_ALTERED")
    return entries


class Tree:
    """A log's tree of a certain size, read from its tiles. Nothing is checked but their lengths.

    Args:
        get: Reads an object of the log.
        size: Leaves of the tree.
    """

    # A proof touches one tile a level, consecutive proofs mostly the same ones.
    _KEPT = 64

    def __init__(self, get: Get, size: int) -> None:
        self._get = get
        self.size = size
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def subtree(self, level: int, index: int) -> bytes:
        """Return the hash of a perfect subtree.

        Raises:
            EvidenceError: ``LOG_TRUNCATED``, ``LOG_ALTERED``: the tile is gone or has another length.
            UnavailableError: The store cannot be read.
        """
        tile_level, inside = divmod(level, 8)
        first = index << inside
        number, at = divmod(first, WIDTH)
        return merkle.perfect_root(self.tile(tile_level, number)[at : at + (1 << inside)])

    def tile(self, level: int, number: int) -> list[bytes]:
        """Return the hashes of one tile, as many as the tree has there. Raises as :meth:`subtree`."""
        key = (level, number)
        if key not in self._tiles:
            while len(self._tiles) >= self._KEPT:
                del self._tiles[next(iter(self._tiles))]
            width = min(WIDTH, (self.size >> 8 * level) - number * WIDTH)
            data, name, present = read(self._get, level, number, width, MAX_TILE)
            self._tiles[key] = split_tile(data, present, name)[:width]
        return self._tiles[key]

    def bundle(self, number: int) -> list[bytes]:
        """Return the entries of one bundle, as many as the tree has there. Raises as :meth:`subtree`."""
        width = min(WIDTH, self.size - number * WIDTH)
        data, name, present = read(self._get, None, number, width, MAX_BUNDLE)
        return split_bundle(data, present, name)[:width]

    def entry(self, index: int) -> bytes:
        """Return one entry, whose hash is the leaf in its tile. Raises as :meth:`subtree`."""
        number, at = divmod(index, WIDTH)
        found = self.bundle(number)[at]
        if merkle.leaf_hash(found) != self.tile(0, number)[at]:
            raise EvidenceError(f"Entry {index} is not the one that the log's tile holds.", code="LOG_ALTERED")
        return found

    def root(self) -> bytes:
        """Return the tree's root. Raises as :meth:`subtree`."""
        return merkle.range_root(0, self.size, self.subtree)

    def inclusion_proof(self, index: int) -> list[bytes]:
        """Return the proof that a leaf is in the tree. Raises as :meth:`subtree`, and ``ValueError``: no such leaf."""
        return merkle.inclusion_proof(index, self.size, self.subtree)

    def consistency_proof(self, old: int) -> list[bytes]:
        """Return the proof that the tree begins with an older one. Raises as :meth:`inclusion_proof`."""
        return merkle.consistency_proof(old, self.size, self.subtree)


def read(get: Get, level: int | None, number: int, width: int, limit: int) -> tuple[bytes, str, int]:
    """Read a tile or a bundle; the full one where the partial one was removed after it had become full.

    Returns:
        The bytes, the name and the width of what was found.

    Raises:
        EvidenceError: ``LOG_TRUNCATED``: there is neither; ``LOG_ALTERED``: it is too large.
        UnavailableError: The store cannot be read.
    """
    name = tile_name(level, number, width)
    try:
        data = get(name, limit)
        if data is None and width < WIDTH:
            full = tile_name(level, number)
            data, width = get(full, limit), WIDTH
            name = full if data is not None else name
    except (ArtifactError, EvidenceError) as error:
        raise EvidenceError(error.message, code="LOG_ALTERED") from None
    if data is None:
        raise EvidenceError(f"The log has no {name}, which its checkpoint needs.", code="LOG_TRUNCATED")
    return data, name, width
