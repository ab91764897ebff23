"""Attacks with references, digests and versions: the right evidence for the wrong thing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealflow import ArtifactRef, StoredEvidence
from sealflow.errors import ArtifactError, UsageError
from sealflow.hashing import Digest, dir_hash, sha256_hex
from tests.attacks.world import FILE, TREE, World, copy_evidence

# --- A tree, a file, and one that poses as the other ---


def _listing(files: dict[str, bytes]) -> bytes:
    """Return the text whose SHA-256 is the dirHash of the files."""
    return "".join(f"{sha256_hex(data)}  {name}\n" for name, data in sorted(files.items())).encode()


@pytest.mark.parametrize("kind", ["tree"])
def test_file_that_holds_the_listing_of_a_signed_tree(world: World) -> None:
    listing = _listing(TREE)
    assert sha256_hex(listing) == world.signed.ref.digest.hex
    posing = world.folder / "posing" / "model"
    posing.parent.mkdir()
    posing.write_bytes(listing)
    evidence = posing.parent / "model.evidence" / f"sha256-{sha256_hex(listing)}"
    evidence.mkdir(parents=True)
    for path in world.objects():
        (evidence / path.name).write_bytes(path.read_bytes())
    target: Any = str(posing)
    if world.pinned:
        target = replace(world.signed.ref, uri=f"file://{posing}")
    world.refuses({"EVIDENCE_OF_OTHER_ARTIFACT", "FILE_MISSING"}, 3, target)
    # Nor does a reference that says the digest is a file's.
    forged = ArtifactRef(f"file://{posing}", Digest("sha256", sha256_hex(listing)), f"file://{posing}.evidence")
    world.refuses({"EVIDENCE_OF_OTHER_ARTIFACT", "FILE_MISSING"}, 3, forged)


@pytest.mark.parametrize("kind", ["file"])
def test_tree_that_holds_the_signed_file_alone(world: World) -> None:
    tree = world.folder / "tree" / "model"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(FILE)
    digest = dir_hash([("model", sha256_hex(FILE))])
    evidence = tree.parent / "model.evidence" / digest.path_segment
    evidence.mkdir(parents=True)
    for path in world.objects():
        (evidence / path.name).write_bytes(path.read_bytes())
    target: Any = replace(world.signed.ref, uri=f"file://{tree}") if world.pinned else str(tree)
    world.refuses({"EVIDENCE_OF_OTHER_ARTIFACT", "DIGEST_MISMATCH"}, 3, target)


def test_file_out_of_a_signed_tree_of_one(tmp_path: Path, given: str, way: str) -> None:
    world = World(tmp_path / "w", "tree", given == "pinned", way == "held")
    for name in ("b.bin", "sub/c.json"):
        (world.artifact / name).unlink()
    world.signed = world.sign()
    file = world.artifact / "a.bin"
    store = world.folder / "store"
    evidence = store / f"sha256-{sha256_hex(file.read_bytes())}"
    evidence.mkdir(parents=True)
    for path in world.objects():
        (evidence / path.name).write_bytes(path.read_bytes())
    target: Any = replace(world.signed.ref, uri=f"file://{file}") if world.pinned else str(file)
    world.refuses({"EVIDENCE_OF_OTHER_ARTIFACT", "DIGEST_MISMATCH"}, 3, target, evidence_store=str(store))


# --- Versions ---


def test_rollback(world: World) -> None:
    """An old version with its old evidence is truly signed: only a pinned digest tells it from the new one."""
    old = {path: path.read_bytes() for path in sorted(world.artifact.rglob("*")) if path.is_file()} or {
        world.artifact: world.artifact.read_bytes()
    }
    world.victim.write_bytes(b"version 2")
    world.signed = world.sign()
    world.passes()
    for path, data in old.items():
        path.write_bytes(data)
    if world.pinned:
        world.refuses({"FILE_CHANGED", "DIGEST_MISMATCH"})
    else:
        assert "FRESHNESS_NOT_CHECKED" in world.passes().noted


def test_pinned_check_does_not_warn_of_freshness(world: World) -> None:
    assert ("FRESHNESS_NOT_CHECKED" in world.passes().noted) is not world.pinned


def test_old_evidence_for_new_bytes(world: World) -> None:
    world.victim.write_bytes(b"version 2")
    new = world.sign().ref.digest.path_segment
    for path in (world.store / new).iterdir():
        path.unlink()
    for path in world.objects():
        (world.store / new / path.name).write_bytes(path.read_bytes())
    world.refuses({"EVIDENCE_OF_OTHER_ARTIFACT", "FILE_CHANGED"})


def test_both_versions_side_by_side(world: World) -> None:
    old = world.signed.ref
    world.victim.write_bytes(b"version 2")
    world.signed = world.sign()
    world.passes()
    world.refuses("FILE_CHANGED", 3, old)


# --- Edited references ---


@pytest.mark.parametrize("way", ["held", "gate"])
@pytest.mark.parametrize("given", ["pinned"])
def test_reference_with_another_digest(world: World) -> None:
    digest = world.signed.ref.digest
    for edited in (
        Digest(digest.algorithm, "0" * 64),
        Digest({"sha256": "dirHash", "dirHash": "sha256"}[digest.algorithm], digest.hex),
    ):
        world.refuses({"DIGEST_MISMATCH", "EVIDENCE_MISSING"}, 3, replace(world.signed.ref, digest=edited))
        # Also when the store holds the true evidence there.
        folder = world.store / edited.path_segment
        folder.mkdir()
        for path in world.objects():
            (folder / path.name).write_bytes(path.read_bytes())
        world.refuses({"DIGEST_MISMATCH", "EVIDENCE_OF_OTHER_ARTIFACT"}, 3, replace(world.signed.ref, digest=edited))


@pytest.mark.parametrize("given", ["pinned"])
def test_reference_to_another_artifact(world: World) -> None:
    other = World(world.folder / "other", world.kind)
    other.victim.write_bytes(b"others")
    other.signed = other.sign()
    world.refuses({"FILE_CHANGED", "DIGEST_MISMATCH"}, 3, replace(world.signed.ref, uri=other.signed.ref.uri))


@pytest.mark.parametrize("given", ["pinned"])
def test_reference_to_a_store_of_the_attacker(world: World) -> None:
    mallory = World(world.folder / "mallory", world.kind)
    world.victim.write_bytes(b"malicious")
    forged = world.sign(signer=mallory.trainer.signer, evidence_store=str(world.folder / "hers"))
    world.refuses("SIGNER_NOT_ALLOWED", 4, forged.ref)
    # A store that holds everything true beside everything false still gives the true answer.
    copy_evidence(world, mallory)
    world.refuses({"SIGNER_NOT_ALLOWED", "EVIDENCE_OF_OTHER_ARTIFACT"}, 4, forged.ref)


@pytest.mark.parametrize("given", ["pinned"])
def test_reference_to_an_empty_store(world: World) -> None:
    world.refuses("EVIDENCE_MISSING", 3, replace(world.signed.ref, evidence=f"file://{world.folder}/nowhere"))


REF = {
    "sealflow_ref": 1,
    "uri": "file:///tmp/x",
    "digest": "sha256:" + "0" * 64,
    "evidence": "file:///tmp/x.evidence",
    "encrypted": False,
}


def _nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    inner = value
    for _ in range(depth):
        inner["a"] = {}
        inner = inner["a"]
    return value


MALFORMED: dict[str, Any] = {
    "newer-version": REF | {"sealflow_ref": 2},
    "version-as-text": REF | {"sealflow_ref": "1"},
    "version-as-bool": REF | {"sealflow_ref": True},
    "unknown-member": REF | {"verified": True},
    "no-digest": {name: value for name, value in REF.items() if name != "digest"},
    "empty-digest": REF | {"digest": ""},
    "null-digest": REF | {"digest": None},
    "upper-case-digest": REF | {"digest": "sha256:" + "A" * 64},
    "md5-digest": REF | {"digest": "md5:" + "0" * 32},
    "two-digests": REF | {"digest": ["sha256:" + "0" * 64]},
    "digest-with-newline": REF | {"digest": "sha256:" + "0" * 64 + "\n"},
    "encrypted-as-text": REF | {"encrypted": "false"},
    "too-long": REF | {"uri": "file:///" + "x" * 3000},
    "deep": REF | {"uri": _nested(5000)},
    "lone-surrogate-in-json": json.dumps(REF | {"uri": "s3://b/\ud800"}),
    "lone-surrogate": REF | {"uri": "s3://b/\ud800"},
    "key-twice": json.dumps(REF)[:-1] + ', "digest": "sha256:' + "1" * 64 + '"}',
    "not-json": "{",
    "nan": REF | {"version_id": float("nan")},
    "web-address": REF | {"uri": "https://evil.example/model"},
    "chained-file-systems": REF | {"uri": "simplecache::https://evil.example/model"},
    "chained-later": REF | {"uri": "memory://x::https://evil.example/model"},
    "cached": REF | {"uri": "filecache:///tmp/x"},
    "local-by-another-name": REF | {"uri": "local:///etc/passwd"},
    "evidence-on-the-web": REF | {"evidence": "https://evil.example/"},
    "evidence-chained": REF | {"evidence": "memory://x::https://evil.example/"},
    "file-on-another-host": REF | {"uri": "file://evil.example/x"},
    "nul": REF | {"uri": "file:///tmp/%00x"},
    "empty-uri": REF | {"uri": ""},
    "credentials": REF | {"uri": "s3://key:secret@bucket/x"},
    "terminal-escape-in-s3-uri": REF | {"uri": "s3://bucket/\x1b[2Jx"},
}


@pytest.mark.parametrize("value", [pytest.param(value, id=name) for name, value in MALFORMED.items()])
def test_malformed_reference_is_a_usage_error(tree: World, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        tree.check(value)
    assert "\x1b" not in str(caught.value)
    assert "secret" not in str(caught.value)


# --- Subsets ---


@pytest.mark.parametrize("kind", ["tree"])
class TestSubset:
    """``files=`` opens a part of a signed whole, and only signed parts of it."""

    def test_only_the_asked_for_files_are_handed_out(self, world: World) -> None:
        outcome = world.passes(files=["a.bin"])
        assert "SUBSET_CHECKED" in outcome.noted
        assert outcome.handed_out in (None, {"a.bin": TREE["a.bin"]})
        assert outcome.verdict.digest == str(world.signed.ref.digest)

    def test_changed_file(self, world: World) -> None:
        (world.artifact / "a.bin").write_bytes(b"x")
        world.refuses("FILE_CHANGED", files=["a.bin"])
        world.passes(files=["b.bin"])

    def test_file_that_nobody_signed(self, world: World) -> None:
        (world.artifact / "evil.py").write_bytes(b"x")
        world.refuses("FILE_UNSIGNED", files=["evil.py"])
        world.refuses("FILE_UNSIGNED", files=["a.bin", "evil.py"])

    def test_file_that_is_not_there(self, world: World) -> None:
        (world.artifact / "a.bin").unlink()
        world.refuses("FILE_MISSING", files=["a.bin"])
        world.refuses("FILE_UNSIGNED", files=["nowhere.bin"])

    def test_swapped_files(self, world: World) -> None:
        (world.artifact / "a.bin").write_bytes(TREE["b.bin"])
        world.refuses("FILE_CHANGED", files=["a.bin"])

    def test_link(self, world: World) -> None:
        (world.artifact / "a.bin").rename(world.folder / "a.bin")
        (world.artifact / "a.bin").symlink_to(world.folder / "a.bin")
        world.refuses("ARTIFACT_REFUSED", files=["a.bin"])

    def test_link_behind_a_folder(self, world: World) -> None:
        (world.artifact / "sub").rename(world.folder / "sub")
        (world.artifact / "sub").symlink_to(world.folder / "sub")
        world.refuses("ARTIFACT_REFUSED", files=["sub/c.json"])

    @pytest.mark.parametrize(
        "name",
        ["../trainer.pem", "/etc/passwd", "a.bin/../../x", "./a.bin", "sub//c.json", "", "a\0b", "sub/", 5, None],
    )
    def test_hostile_name(self, world: World, name: Any) -> None:
        with pytest.raises(UsageError):
            world.check(files=[name])
        assert list(world.tmp.iterdir()) == []

    def test_empty_list(self, world: World) -> None:
        with pytest.raises(UsageError):
            world.check(files=[])

    def test_provenance_alone_cannot_vouch_for_a_part(self, world: World) -> None:
        world.refuses("SIGNATURE_MISSING", files=["a.bin"], require="provenance", identities=str(world.stranger.public))
        world.remove("signature")
        world.refuses("SIGNATURE_MISSING", files=["a.bin"], require="provenance")

    def test_evidence_of_a_tree_that_shares_the_file(self, world: World) -> None:
        """Another tree of the same signer holds the same file; a pinned check must not take its word."""
        (world.artifact / "b.bin").write_bytes(b"other")
        other = world.sign(name="another-model").ref
        (world.artifact / "b.bin").write_bytes(TREE["b.bin"])
        world.remove()
        for path in (world.store / other.digest.path_segment).iterdir():
            (world.evidence / path.name).write_bytes(path.read_bytes())
        if world.pinned:
            world.refuses("EVIDENCE_OF_OTHER_ARTIFACT", files=["a.bin"])
        else:
            # By path nothing says which tree is meant, so the name must.
            assert "FRESHNESS_NOT_CHECKED" in world.passes(files=["a.bin"]).noted
            world.refuses("NAME_MISMATCH", files=["a.bin"], name="model")

    def test_stranger(self, world: World) -> None:
        world.remove()
        world.sign(signer=world.stranger.signer)
        world.refuses("SIGNER_NOT_ALLOWED", 4, files=["a.bin"])

    def test_in_a_store_of_many_artifacts(self, world: World) -> None:
        for number in range(40):
            (world.store / f"dirHash-{number:064x}").mkdir()
        world.passes(files=["a.bin"])

    def test_in_a_store_of_too_many_artifacts(self, world: World) -> None:
        for number in range(3000):
            (world.store / f"dirHash-{number:064x}").mkdir()
        if world.pinned:
            world.passes(files=["a.bin"])
        else:
            outcome = world.check(files=["a.bin"])
            assert outcome.status == "passed" or outcome.code == "EVIDENCE_TOO_MUCH"


@pytest.mark.parametrize("kind", ["file"])
def test_subset_of_a_file(world: World) -> None:
    with pytest.raises(UsageError):
        world.check(files=["model"])


# --- Signed manifests with hostile names: an allowed signer may be careless, or hostile ---


@pytest.mark.parametrize(
    "names",
    [
        ["../outside"],
        ["/etc/passwd"],
        ["a/../../b"],
        ["a//b"],
        ["a/"],
        ["./a"],
        [""],
        ["a\0b"],
        ["a\\b"],
        ["a\x1b[2Jb"],
        ["a\u202eb"],
        ["a\nb"],
        ["a", "a"],
        ["model.bin", "MODEL.BIN"],
        ["stra\u00dfe", "STRASSE"],
        ["\u00e9", "e\u0301"],
        ["a", "a/b"],
        ["A", "a/b"],
        ["x" * 300],
        ["/".join("a" * 1 for _ in range(2000))],
        [5],
        [None],
        [["a"]],
    ],
    ids=lambda names: repr(names)[:30],
)
@pytest.mark.parametrize("method", ["files", "shards"])
def test_hostile_names_in_a_signed_manifest(tree: World, names: list[Any], method: str) -> None:
    from sealflow.evidence import oms

    digests = [f"{number:064x}" for number, _ in enumerate(names)]
    serialization = {"method": method, "hash_type": "sha256", "allow_symlinks": False}
    shown = names
    if method == "shards":
        serialization["shard_size"] = 10
        shown = [f"{name}:0:5" if isinstance(name, str) else name for name in names]
    import hashlib

    root = hashlib.sha256(b"".join(bytes.fromhex(item) for item in digests)).hexdigest()
    predicate = {
        "resources": [
            {"name": name, "digest": digest, "algorithm": "sha256"} for name, digest in zip(shown, digests, strict=True)
        ],
        "serialization": serialization,
    }
    data = tree.statement(oms.PREDICATE_TYPE, predicate, {"sha256": root})
    tree.remove("signature")
    tree.plant(data)
    tree.refuses("EVIDENCE_MALFORMED")


@pytest.mark.parametrize(
    "change",
    [
        {"allow_symlinks": True},
        {"hash_type": "md5"},
        {"method": "other"},
        {"shard_size": 10},
        {"method": "shards", "shard_size": 0},
        {"method": "shards", "shard_size": -1},
        {"method": "shards", "shard_size": True},
        {"method": "shards", "shard_size": 1.5},
        {"ignore_paths": ["../x", "/etc"]},
        {"ignore_paths": [""]},
        {"ignore_paths": ["."]},
        {"ignore_paths": ["a/../.."]},
        {"ignore_paths": [5]},
        {"verify": False},
    ],
    ids=str,
)
def test_hostile_serialization_in_a_signed_manifest(tree: World, change: dict[str, Any]) -> None:
    statement = tree.payload("signature")
    statement["predicate"]["serialization"].update(change)
    data = tree.statement(statement["predicateType"], statement["predicate"], statement["subject"][0]["digest"])
    tree.remove("signature")
    tree.plant(data)
    tree.refuses("EVIDENCE_MALFORMED")


def test_one_byte_shards_cost_nothing(tree: World) -> None:
    """A signer who may speak only for itself must not make others build a list of a shard a byte."""
    import hashlib

    from sealflow.evidence import oms

    (tree.artifact / "a.bin").write_bytes(b"\0" * (32 << 20))
    tree.signed = tree.sign()
    root = hashlib.sha256(bytes(32)).hexdigest()
    predicate = {
        "resources": [{"name": "a.bin:0:1", "digest": "0" * 64, "algorithm": "sha256"}],
        "serialization": {"method": "shards", "hash_type": "sha256", "shard_size": 1, "allow_symlinks": False},
    }
    tree.plant(tree.statement(oms.PREDICATE_TYPE, predicate, {"sha256": root}))
    tree.passes()


def test_given_evidence_must_be_readable_too(tree: World) -> None:
    tree.refuses(
        "EVIDENCE_MALFORMED",
        evidence=(StoredEvidence("metadata", b"{", "provenance"),),
        only_given_evidence=True,
    )


def test_artifact_error_is_never_raised_for_hostile_trees(tree: World) -> None:
    (tree.artifact / "evil\x1b[2J").write_bytes(b"x")
    try:
        outcome = tree.check()
    except ArtifactError:
        pytest.fail("verify() raised for a refusal")
    assert outcome.code == "ARTIFACT_REFUSED"
    assert "\x1b" not in json.dumps(outcome.verdict.as_dict(), ensure_ascii=False)
