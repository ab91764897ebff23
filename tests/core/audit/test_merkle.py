"""The Merkle tree against RFC 6962's own recursive definitions and its published roots."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow.audit import merkle

# The first leaves and roots of Google's certificate-transparency test data (merkletree/merkle_tree_test.cc).
LEAVES = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                                           "606162636465666768696a6b6c6d6e6f")]  # fmt: skip
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = split(len(leaves))
    return hashlib.sha256(b"\1" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962, 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def proof(m: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962, 2.1.2."""
    return subproof(m, leaves, True)


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def subtrees(leaves: list[bytes]) -> merkle.Subtree:
    return lambda level, index: mth(leaves[index << level : (index + 1) << level])


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@pytest.mark.parametrize("size", range(9))
def test_the_published_roots(size: int) -> None:
    leaves = LEAVES[:size]
    assert mth(leaves).hex() == ROOTS[size]
    assert merkle.root([merkle.leaf_hash(leaf) for leaf in leaves]).hex() == ROOTS[size]
    assert merkle.range_root(0, size, subtrees(leaves)).hex() == ROOTS[size]


@pytest.mark.parametrize("size", range(1, 34))
def test_every_proof_of_small_trees(size: int) -> None:
    leaves = numbered(size)
    tree = mth(leaves)
    for index in range(size):
        made = merkle.inclusion_proof(index, size, subtrees(leaves))
        assert made == path(index, leaves)
        assert merkle.is_included(index, size, merkle.leaf_hash(leaves[index]), made, tree)
    for old in range(1, size + 1):
        made = merkle.consistency_proof(old, size, subtrees(leaves))
        assert made == proof(old, leaves)
        assert merkle.is_consistent(old, mth(leaves[:old]), size, tree, made)
    assert merkle.consistency_proof(0, size, subtrees(leaves)) == []
    assert merkle.is_consistent(0, merkle.EMPTY_ROOT, size, tree, [])


@pytest.mark.slow
@given(st.integers(1, 2000), st.data())
@settings(max_examples=60, deadline=None)
def test_proofs_of_any_size(size: int, data: st.DataObject) -> None:
    leaves = numbered(size)
    tree = merkle.root([merkle.leaf_hash(leaf) for leaf in leaves])
    assert tree == mth(leaves)
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    included = merkle.inclusion_proof(index, size, subtrees(leaves))
    consistent = merkle.consistency_proof(old, size, subtrees(leaves))
    assert included == path(index, leaves)
    assert consistent == proof(old, leaves)
    leaf = merkle.leaf_hash(leaves[index])
    before = mth(leaves[:old])
    assert merkle.is_included(index, size, leaf, included, tree)
    assert merkle.is_consistent(old, before, size, tree, consistent)
    # Nothing else is taken.
    other = hashlib.sha256(b"other").digest()
    assert not merkle.is_included(index, size, other, included, tree)
    assert not merkle.is_included(index, size, leaf, included, other)
    assert not merkle.is_included(index, size, leaf, [*included, other], tree)
    assert not merkle.is_consistent(old, other, size, tree, consistent)
    assert not merkle.is_consistent(old, before, size, other, consistent)
    assert not merkle.is_consistent(old, before, size, tree, [*consistent, other])
    for at in range(len(included)):
        assert not merkle.is_included(index, size, leaf, included[:at] + included[at + 1 :], tree)
        assert not merkle.is_included(index, size, leaf, [*included[:at], other, *included[at + 1 :]], tree)
    for at in range(len(consistent)):
        assert not merkle.is_consistent(old, before, size, tree, consistent[:at] + consistent[at + 1 :])
        changed = [*consistent[:at], other, *consistent[at + 1 :]]
        assert not merkle.is_consistent(old, before, size, tree, changed)
    wrong = data.draw(st.integers(0, size - 1).filter(lambda number: number != index)) if size > 1 else size
    assert not merkle.is_included(wrong, size, leaf, included, tree)


@pytest.mark.parametrize(
    ("old", "size", "roots"),
    [
        (0, 0, (b"x" * 32, b"x" * 32)),
        (0, 3, (b"x" * 32, mth(numbered(3)))),
        (3, 2, (mth(numbered(3)), mth(numbered(2)))),
        (-1, 2, (merkle.EMPTY_ROOT, mth(numbered(2)))),
        (2, 3, (mth(numbered(2)), mth(numbered(3)))),
        (3, 3, (mth(numbered(3)), mth([b"a", b"b", b"c"]))),
        (1, merkle.MAX_SIZE + 1, (mth(numbered(1)), merkle.EMPTY_ROOT)),
    ],
    ids=["a root of nothing", "a root of nothing before", "shrunk", "negative", "no proof", "forked", "too large"],
)
def test_trees_that_are_not_consistent(old: int, size: int, roots: tuple[bytes, bytes]) -> None:
    assert not merkle.is_consistent(old, roots[0], size, roots[1], [])


@pytest.mark.parametrize(("index", "size"), [(1, 1), (-1, 1), (0, 0), (0, merkle.MAX_SIZE + 1)])
def test_no_such_leaf(index: int, size: int) -> None:
    leaf = merkle.leaf_hash(b"0")
    assert not merkle.is_included(index, size, leaf, [], leaf)
    with pytest.raises(ValueError, match="no such"):
        merkle.inclusion_proof(min(index, size - 1) if index < 0 else size, size, subtrees([]))
    with pytest.raises(ValueError, match="no such"):
        merkle.consistency_proof(size + 1, size, subtrees([]))


@pytest.mark.slow
@given(st.lists(st.integers(0, 70), max_size=8))
def test_a_frontier_grows_to_the_root_in_whatever_pieces_leaves_come(pieces: list[int]) -> None:
    leaves = [b"%d" % number for number in range(sum(pieces))]
    frontier = merkle.Frontier()
    at = 0
    for piece in pieces:
        frontier.add([merkle.leaf_hash(leaf) for leaf in leaves[at : at + piece]])
        at += piece
        assert frontier.size == at
        assert frontier.root() == mth(leaves[:at])
        assert merkle.Frontier(frontier.edge).root() == frontier.root()


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_frontier_begins_with_a_tree_that_is_kept_elsewhere(size: int, more: int) -> None:
    hashes = [merkle.leaf_hash(b"%d" % number) for number in range(size + more)]

    def subtree(level: int, index: int) -> bytes:
        return merkle.perfect_root(hashes[index << level : (index + 1) << level])

    frontier = merkle.Frontier.of(size, subtree)
    assert (frontier.size, frontier.root()) == (size, merkle.root(hashes[:size]))
    frontier.add(hashes[size:])
    assert frontier.root() == merkle.root(hashes)
