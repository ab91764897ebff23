"""The Merkle tree of RFC 6962, section 2.1: hashes, roots, inclusion and consistency proofs.

A *perfect subtree* is named by its level (0: one leaf) and its index: it spans the leaves from ``index << level`` to
``(index + 1) << level``. What it hashes to never changes while the tree grows, so proofs are made of such hashes, and
whoever keeps them (:mod:`sealflow.audit.tiles`) is handed in as a function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

HASH_SIZE: Final = 32
#: Root of the tree without leaves.
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
#: Longest proof: a tree of 2**63 leaves has 63 levels (C2SP tlog-witness).
MAX_PROOF: Final = 63
#: Trees have fewer leaves than this.
MAX_SIZE: Final = 1 << 63

#: Returns the hash of a perfect subtree, by level and index.
Subtree = Callable[[int, int], bytes]

_sha256 = hashlib.sha256


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return _sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return _sha256(b"\1" + left + right).digest()


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """Return the hash over a power of two of hashes of one level."""
    prefix = b"\1"
    while len(hashes) > 1:
        hashes = [
            _sha256(prefix + left + right).digest() for left, right in zip(hashes[::2], hashes[1::2], strict=True)
        ]
    return hashes[0]


def root(hashes: Sequence[bytes]) -> bytes:
    """Return the root of the tree over these hashes: of leaves, or of perfect subtrees of one size."""
    return fold(perfect_parts(hashes))


def perfect_parts(hashes: Sequence[bytes]) -> list[bytes]:
    """Return the roots of the perfect subtrees of the tree over these hashes, largest first."""
    return [perfect_root(hashes[start:end]) for start, end in _halves(0, len(hashes))]


def _halves(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the perfect subtrees of the tree over a range, largest first, as ranges."""
    while start < end:
        size = 1 << (end - start).bit_length() - 1
        yield start, start + size
        start += size


def fold(hashes: Sequence[bytes]) -> bytes:
    """Return the root over perfect subtrees that come largest first."""
    if not hashes:
        return EMPTY_ROOT
    result = hashes[-1]
    for left in reversed(hashes[:-1]):
        result = node_hash(left, result)
    return result


class Frontier:
    """What has to be kept of a tree to let it grow: the roots of its perfect subtrees, largest first.

    Args:
        edge: Those of a tree that has leaves already, each with its level.
    """

    def __init__(self, edge: Sequence[tuple[int, bytes]] = ()) -> None:
        self.edge = list(edge)

    @classmethod
    def of(cls, size: int, subtree: Subtree) -> Frontier:
        """Return that of a tree whose subtrees are kept elsewhere."""
        edge = [((high - low).bit_length() - 1, low) for low, high in _halves(0, size)]
        return cls([(level, subtree(level, low >> level)) for level, low in edge])

    @property
    def size(self) -> int:
        """Leaves of the tree."""
        return sum(1 << level for level, _ in self.edge)

    def add(self, leaves: Sequence[bytes]) -> None:
        """Add leaves, by their hashes."""
        start, size = 0, self.size
        while start < len(leaves):
            level = (len(leaves) - start).bit_length() - 1
            if size:
                # A subtree begins at a multiple of its size.
                level = min(level, (size & -size).bit_length() - 1)
            part = perfect_root(leaves[start : start + (1 << level)])
            start += 1 << level
            size += 1 << level
            while self.edge and self.edge[-1][0] == level:
                part = node_hash(self.edge.pop()[1], part)
                level += 1
            self.edge.append((level, part))

    def root(self) -> bytes:
        """Return the tree's root."""
        return fold([part for _, part in self.edge])


def range_root(start: int, end: int, subtree: Subtree) -> bytes:
    """Return ``MTH(D[start:end])``, where ``start`` is a multiple of the largest power of two below the length.

    That holds for the whole tree and for whatever a proof names.
    """
    return fold([subtree((high - low).bit_length() - 1, low // (high - low)) for low, high in _halves(start, end)])


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """Return ``PATH(index, D[size])`` of RFC 6962, section 2.1.1: siblings from the leaf up.

    Raises:
        ValueError: The tree has no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError("no such leaf")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(range_root(middle, end, subtree))
            end = middle
        else:
            proof.append(range_root(start, middle, subtree))
            start = middle
    return proof[::-1]


def consistency_proof(old: int, size: int, subtree: Subtree) -> list[bytes]:
    """Return ``PROOF(old, D[size])`` of RFC 6962, section 2.1.2; empty where one of the trees is empty or both are one.

    Raises:
        ValueError: The old tree is larger.
    """
    if not 0 <= old <= size:
        raise ValueError("no such trees")
    proof: list[bytes] = []
    start, end, known = 0, size, True
    if not old:
        return proof
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(range_root(middle, end, subtree))
            end = middle
        else:
            proof.append(range_root(start, middle, subtree))
            start, known = middle, False
    if not known:
        proof.append(range_root(start, end, subtree))
    return proof[::-1]


def _split(count: int) -> int:
    """Return the largest power of two below ``count``."""
    return 1 << (count - 1).bit_length() - 1


def root_of_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes | None:
    """Return the root that an inclusion proof leads to, ``None`` where it has not the length that it must have.

    Algorithm: RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size or size > MAX_SIZE:
        return None
    node, last, result = index, size - 1, leaf
    for item in proof:
        if not last:
            return None
        if node & 1 or node == last:
            result = node_hash(item, result)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            result = node_hash(result, item)
        node >>= 1
        last >>= 1
    return None if last else result


def is_included(index: int, size: int, leaf: bytes, proof: Sequence[bytes], tree_root: bytes) -> bool:
    """Tell whether a proof shows that the leaf with this hash has this index in the tree."""
    return root_of_inclusion(index, size, leaf, proof) == tree_root


def is_consistent(old: int, old_root: bytes, size: int, tree_root: bytes, proof: Sequence[bytes]) -> bool:
    """Tell whether a proof shows that the tree of ``size`` leaves begins with the tree of ``old`` leaves.

    Algorithm: RFC 9162, section 2.1.4.2; and as C2SP tlog-witness demands, the empty tree has one root and no proof.
    """
    if not 0 <= old <= size or size > MAX_SIZE:
        return False
    if (not old and old_root != EMPTY_ROOT) or (not size and tree_root != EMPTY_ROOT):
        return False
    if old == size or not old:
        return not proof and (not old or old_root == tree_root)
    if not proof:
        return False
    path = list(proof)
    if not old & (old - 1):
        path.insert(0, old_root)
    node, last = old - 1, size - 1
    while node & 1:
        node >>= 1
        last >>= 1
    first = second = path[0]
    for item in path[1:]:
        if not last:
            return False
        if node & 1 or node == last:
            first = node_hash(item, first)
            second = node_hash(item, second)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            second = node_hash(second, item)
        node >>= 1
        last >>= 1
    return not last and first == old_root and second == tree_root
