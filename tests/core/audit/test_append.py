"""Appending: the objects of a log against the definition of C2SP tlog-tiles."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow.audit import merkle, tiles
from sealflow.audit.append import append
from sealflow.errors import EvidenceError, UsageError
from tests.core.audit.test_merkle import mth, numbered


def grown(objects: dict[str, bytes], size: int, lines: list[bytes], root: bytes) -> tuple[int, bytes]:
    added = append(lambda name, limit: objects.get(name), size, lines, root=root)
    for name, data in added.objects:
        assert objects.setdefault(name, data) == data
    return added.size, added.root


def made(*batches: list[bytes]) -> tuple[dict[str, bytes], int, bytes]:
    objects: dict[str, bytes] = {}
    size, root = 0, merkle.EMPTY_ROOT
    for lines in batches:
        size, root = grown(objects, size, lines, root)
    return objects, size, root


def expected_tile(leaves: list[bytes], level: int, number: int, width: int) -> bytes:
    """``MTH(D[(n * 256 + i) * 256**l : (n * 256 + i + 1) * 256**l])`` for each i."""
    step = 256**level
    first = number * 256
    return b"".join(mth(leaves[(first + i) * step : (first + i + 1) * step]) for i in range(width))


def test_the_layout_of_the_specification() -> None:
    leaves = numbered(70_000)
    objects, size, root = made(leaves)
    assert size == 70_000
    assert root == merkle.root([merkle.leaf_hash(leaf) for leaf in leaves])
    names = {tiles.tile_name(0, number) for number in range(273)}
    names |= {"tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"}
    names |= {tiles.tile_name(None, number) for number in range(273)} | {"tile/entries/273.p/112"}
    assert set(objects) == names
    for name, data in objects.items():
        level, number, width = tiles.parse_tile_name(name)
        if level is None:
            assert tiles.split_bundle(data, width, name) == leaves[number * 256 : number * 256 + width]
        else:
            assert data == expected_tile(leaves, level, number, width)


@pytest.mark.slow
@given(st.lists(st.integers(0, 700), max_size=8))
@settings(max_examples=40, deadline=None)
def test_batches_come_to_the_same_as_one(counts: list[int]) -> None:
    leaves = numbered(sum(counts))
    batches = []
    for count in counts:
        start = sum(map(len, batches))
        batches.append(leaves[start : start + count])
    objects, size, root = made(*batches)
    assert (size, root) == (len(leaves), mth(leaves))
    at_once, _, _ = made(leaves)
    assert at_once.items() <= objects.items()
    tree = tiles.Tree(lambda name, limit: at_once.get(name), size)
    assert tree.root() == root
    for index in range(0, size, 97):
        proof = tree.inclusion_proof(index)
        assert merkle.is_included(index, size, merkle.leaf_hash(tree.entry(index)), proof, root)
        assert merkle.is_consistent(index, mth(leaves[:index]), size, root, tree.consistency_proof(index))


def test_the_edge_may_have_grown_into_full_tiles() -> None:
    # Somebody who died before the checkpoint wrote what lies beyond it; partial tiles may be gone by then.
    leaves = numbered(600)
    objects, _, _ = made(leaves[:300], leaves)
    objects, size, root = made(leaves[:300], leaves[300:])
    whole = {name: data for name, data in objects.items() if name not in ("tile/0/001.p/44", "tile/entries/001.p/44")}
    added = append(lambda name, limit: whole.get(name), 300, leaves[300:], root=mth(leaves[:300]))
    assert (added.size, added.root) == (size, root)
    assert dict(added.objects).items() <= objects.items()


def test_nothing_to_append_writes_nothing() -> None:
    objects, size, root = made(numbered(300))
    assert append(lambda name, limit: objects.get(name), size, [], root=root) == (size, root, [])


@pytest.mark.parametrize(
    ("name", "code"),
    [("tile/0/001.p/44", "LOG_ALTERED"), ("tile/1/000.p/1", "LOG_ALTERED"), ("tile/entries/001.p/44", "LOG_ALTERED")],
)
def test_an_altered_edge_is_never_signed_over(name: str, code: str) -> None:
    objects, size, root = made(numbered(300))
    for altered in (bytes((objects[name][-1] ^ 1,)), b"", b"longer"):
        changed = objects | {name: objects[name][:-1] + altered}
        with pytest.raises(EvidenceError) as caught:
            append(lambda name, limit, changed=changed: changed.get(name), size, [b"new"], root=root)
        assert caught.value.code == code
    with pytest.raises(EvidenceError) as caught:
        append(lambda wanted, limit: None if wanted == name else objects.get(wanted), size, [b"new"], root=root)
    assert caught.value.code == "LOG_TRUNCATED"


@pytest.mark.parametrize("line", [b"", b"x" * 65_536])
def test_an_entry_has_to_fit_into_a_bundle(line: bytes) -> None:
    with pytest.raises(UsageError):
        append(lambda name, limit: None, 0, [b"fine", line], root=merkle.EMPTY_ROOT)
    largest, _, _ = made([b"x" * 65_535])
    assert tiles.split_bundle(largest["tile/entries/000.p/1"], 1, "") == [b"x" * 65_535]
