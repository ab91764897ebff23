"""The two digests over a manifest."""

from __future__ import annotations

import hashlib

import pytest

from sealflow.manifest import Manifest, Resource, Serialization

ONE = hashlib.sha256(b"1").hexdigest()
TWO = hashlib.sha256(b"2").hexdigest()


def test_the_root_is_over_raw_digests_in_order() -> None:
    manifest = Manifest("tree", "m", (Resource("a", ONE), Resource("b", TWO)))
    assert manifest.root_digest == hashlib.sha256(bytes.fromhex(ONE) + bytes.fromhex(TWO)).hexdigest()
    assert manifest.root_digest != Manifest("tree", "m", manifest.resources[::-1]).root_digest
    # By the specification it ignores names, which is why nothing of ours refers to it.
    assert manifest.root_digest == Manifest("tree", "m", (Resource("x", ONE), Resource("y", TWO))).root_digest


def test_the_artifact_digest_follows_from_whole_files_under_sha256_only() -> None:
    resources = (Resource("a", ONE),)
    assert str(Manifest("file", "a", resources).digest) == f"sha256:{ONE}"
    assert str(Manifest("tree", "a", resources).digest).startswith("dirHash:")
    assert Manifest("file", "a", resources, Serialization("files", "blake3")).artifact_digest("file") is None
    assert Manifest("tree", "a", resources, Serialization("shards", "sha256", 1)).artifact_digest("tree") is None
    assert Manifest("file", "a", (*resources, Resource("b", TWO))).artifact_digest("file") is None
    assert Manifest("tree", "a", ()).artifact_digest("tree") is None


@pytest.mark.parametrize("kind", ["file", "tree"])
def test_a_file_is_never_the_tree_that_holds_it(kind: str) -> None:
    manifest = Manifest("file", "a", (Resource("a", ONE),))
    other = "tree" if kind == "file" else "file"
    assert manifest.artifact_digest(kind) != manifest.artifact_digest(other)  # type: ignore[arg-type]
