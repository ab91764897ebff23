"""What holds for every change of that kind, not only for those that somebody thought of."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sealflow
from sealflow.errors import SealflowError
from sealflow.hashing import Digest, sha256_hex
from tests.attacks.world import World

# Hundreds of examples, each signed and verified anew.
pytestmark = pytest.mark.slow

_numbers = itertools.count()


@pytest.fixture(scope="module", params=["file", "tree"])
def signed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("signed") / "world", request.param)


def _status(world: World, target: Any = None, **options: Any) -> str:
    options.setdefault("identities", str(world.trainer.public))
    return sealflow.verify(target or str(world.artifact), **options).status


def _with(path: Path, data: bytes, check: Callable[[], object]) -> object:
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        return check()
    finally:
        path.write_bytes(before)


def _mutate(data: bytes, position: int, change: int, how: str) -> bytes:
    position %= len(data)
    if how == "flip":
        return data[:position] + bytes([data[position] ^ (change % 255 + 1)]) + data[position + 1 :]
    if how == "cut":
        return data[:position]
    if how == "drop":
        return data[:position] + data[position + 1 :]
    return data[:position] + bytes([change % 256]) + data[position:]


mutations = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(["flip", "cut", "drop", "insert"]))


@given(mutation=mutations, file=st.integers(0, 10), pinned=st.booleans())
def test_any_change_of_the_artifact_is_refused(
    signed: World, mutation: tuple[int, int, str], file: int, pinned: bool
) -> None:
    files = sorted(path for path in [signed.artifact, *signed.artifact.rglob("*")] if path.is_file())
    path = files[file % len(files)]
    target = signed.signed.ref if pinned else None
    data = _mutate(path.read_bytes(), *mutation)
    if data == path.read_bytes():
        return
    assert _with(path, data, lambda: _status(signed, target)) == "failed"


@given(
    mutation=mutations, kind=st.sampled_from(["signature", "provenance"]), renamed=st.booleans(), pinned=st.booleans()
)
def test_any_change_of_the_evidence_is_refused_unless_it_says_the_same(
    signed: World, mutation: tuple[int, int, str], kind: str, renamed: bool, pinned: bool
) -> None:
    """Under its old name every change shows. Under a fitting one only a change outside of all that is signed passes."""
    (path,) = signed.objects(kind)
    before = path.read_bytes()
    data = _mutate(before, *mutation)
    if data == before:
        return
    target = signed.signed.ref if pinned else None
    if not renamed:
        assert _with(path, data, lambda: _status(signed, target)) == "failed"
        return
    path.unlink()
    planted = signed.plant(data, kind)
    try:
        status = _status(signed, target)
    finally:
        planted.unlink()
        path.write_bytes(before)
    if status == "passed":
        from sealflow.evidence.bundle import parse_bundle

        assert parse_bundle(data).payload == parse_bundle(before).payload
    else:
        assert status == "failed"


@given(position=st.integers(0, 63), change=st.integers(1, 15))
def test_any_change_of_a_references_digest_is_refused(signed: World, position: int, change: int) -> None:
    digest = signed.signed.ref.digest
    digit = format(int(digest.hex[position], 16) ^ change, "x")
    edited = Digest(digest.algorithm, digest.hex[:position] + digit + digest.hex[position + 1 :])
    assert _status(signed, replace(signed.signed.ref, digest=edited)) == "failed"


@given(mutation=mutations)
def test_any_change_of_a_reference_is_refused_or_means_the_same_bytes(
    signed: World, mutation: tuple[int, int, str]
) -> None:
    text = signed.signed.ref.to_json()
    data = _mutate(text.encode(), *mutation)
    try:
        changed = data.decode()
        if not changed.startswith("{"):
            return
        verdict = sealflow.verify(changed, identities=str(signed.trainer.public))
    except (SealflowError, UnicodeDecodeError):
        return
    assert not verdict.passed or verdict.digest == str(signed.signed.ref.digest)


# --- Monotony: evidence can only add to what is proved ---

junk = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([b"{}", b"null", b"[]", b'{"mediaType":""}', b"[" * 100, b'"\\ud800"']),
)


@given(objects=st.lists(st.tuples(st.sampled_from(["signature", "provenance", "summary"]), junk), max_size=4))
def test_arbitrary_objects_change_no_answer(signed: World, objects: list[tuple[str, bytes]]) -> None:
    real = {path: path.read_bytes() for path in signed.objects()}
    planted = [signed.plant(data, kind) for kind, data in objects]
    try:
        assert _status(signed) == "passed"
        for path in real:
            path.unlink()
            assert _status(signed) == "failed"
            path.write_bytes(real[path])
    finally:
        for path in planted:
            path.unlink(missing_ok=True)
        for path, data in real.items():
            path.write_bytes(data)


@given(
    kept=st.sets(st.sampled_from(["signature", "provenance", "other-signature", "other-provenance"])),
    allowed=st.sampled_from(["trainer", "stranger", "both", "nobody"]),
    require=st.sampled_from([("signature",), ("provenance",), ("signature", "provenance")]),
)
@settings(max_examples=60)
def test_removing_evidence_never_turns_a_refusal_into_a_pass(
    tmp_path_factory: pytest.TempPathFactory, kept: set[str], allowed: str, require: tuple[str, ...]
) -> None:
    world = _two_signers(tmp_path_factory)
    pieces = {"trainer": {"signature", "provenance"}, "stranger": {"other-signature", "other-provenance"}}
    identities = {
        "trainer": [str(world.trainer.public)],
        "stranger": [str(world.stranger.public)],
        "both": [str(world.trainer.public), str(world.stranger.public)],
        "nobody": [],
    }[allowed]
    valid = set().union(*(names for who, names in pieces.items() if allowed in (who, "both")))
    expected = all(any(name.endswith(kind) for name in kept & valid) for kind in require)
    store = world.folder / f"store-{next(_numbers)}"
    folder = store / world.signed.ref.digest.path_segment
    folder.mkdir(parents=True)
    for name in kept:
        data = _PIECES[name]
        (folder / f"{name.removeprefix('other-')}-{sha256_hex(data)}.json").write_bytes(data)
    status = _status(world, identities=identities, require=require, evidence_store=str(store))
    assert (status == "passed") is expected


_PIECES: dict[str, bytes] = {}
_made: list[World] = []


def _two_signers(factory: pytest.TempPathFactory) -> World:
    if not _made:
        world = World(factory.mktemp("two") / "world", "tree")
        for kind in ("signature", "provenance"):
            _PIECES[kind] = world.objects(kind)[0].read_bytes()
        world.remove()
        world.sign(signer=world.stranger.signer)
        for kind in ("signature", "provenance"):
            _PIECES[f"other-{kind}"] = world.objects(kind)[0].read_bytes()
        _made.append(world)
    return _made[0]
