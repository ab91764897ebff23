"""The evidence store: created once, never rewritten, and never inside what it speaks about."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.errors import EvidenceError, UnavailableError, UsageError
from sealflow.evidence import EvidenceStore, default_store
from sealflow.evidence.store import MAX_NAMES, MAX_OBJECTS, MAX_OTHERS
from sealflow.hashing import Digest, sha256_hex
from sealflow.storage import Storages
from sealflow.storage.local import LocalStorage
from tests.pki import write_key
from tests.trees import write_tree

DIGEST = Digest("dirHash", "ab" * 32)


@pytest.fixture
def store(tmp_path: Path) -> EvidenceStore:
    return EvidenceStore(str(tmp_path / "store"), Storages())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store" / DIGEST.path_segment


def test_put_and_collect(store: EvidenceStore, folder: Path) -> None:
    name = store.put(DIGEST, "signature", b"bundle")
    assert name == f"signature-{sha256_hex(b'bundle')}.json"
    (item,) = store.collect(DIGEST).objects
    assert (item.name, item.data, item.kind, item.altered) == (name, b"bundle", "signature", False)
    assert (folder / name).read_bytes() == b"bundle"


def test_storing_the_same_bytes_again_is_a_success(store: EvidenceStore, folder: Path) -> None:
    name = store.put(DIGEST, "signature", b"bundle")
    before = (folder / name).stat()
    assert store.put(DIGEST, "signature", b"bundle") == name
    after = (folder / name).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_an_object_that_was_written_over(store: EvidenceStore, folder: Path) -> None:
    name = store.put(DIGEST, "signature", b"bundle")
    (folder / name).write_bytes(b"other")
    (item,) = store.collect(DIGEST).objects
    assert item.altered
    with pytest.raises(EvidenceError) as caught:
        store.put(DIGEST, "signature", b"bundle")
    assert caught.value.code == "EVIDENCE_ALTERED"


def test_many_writers_at_once(store: EvidenceStore) -> None:
    start = threading.Barrier(6)
    errors: list[Exception] = []

    def work(number: int) -> None:
        start.wait()
        try:
            store.put(DIGEST, "signature", b"the same")
            store.put(DIGEST, "provenance", b"%d" % number)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store.collect(DIGEST).objects) == 7


FOREIGN = ["readme.txt", "signature.json", "signature-abc.json", f"Signature-{'a' * 64}.json",
           f"signature-{'A' * 64}.json",
           f"signature-{'a' * 64}.json.bak", f"-{'a' * 64}.json", f"signature-{'a' * 64}.sig"]  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_objects_are_named_and_not_read(store: EvidenceStore, folder: Path, name: str) -> None:
    store.put(DIGEST, "signature", b"bundle")
    (folder / name).write_bytes(b"anything")
    found = store.collect(DIGEST)
    assert found.foreign == (name,)
    assert len(found.objects) == 1


def plant(folder: Path, kind: str, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        data = b"%d" % number
        (folder / f"{kind}-{sha256_hex(data)}.json").write_bytes(data)


@pytest.mark.parametrize("kind", MAX_OBJECTS)
def test_each_kind_has_its_own_share(store: EvidenceStore, folder: Path, kind: str) -> None:
    other = min(MAX_OBJECTS.keys() - {kind})
    plant(folder, kind, MAX_OBJECTS[kind])
    plant(folder, other, 3)
    exactly = store.collect(DIGEST)
    assert not exactly.too_much
    assert len(exactly.objects) == MAX_OBJECTS[kind] + 3
    data = b"one more"
    (folder / f"{kind}-{sha256_hex(data)}.json").write_bytes(data)
    more = store.collect(DIGEST)
    assert more.too_much
    assert sum(item.kind == other for item in more.objects) == 3


def test_other_kinds_crowd_out_nothing(store: EvidenceStore, folder: Path) -> None:
    plant(folder, "gossip", MAX_OTHERS + 10)
    store.put(DIGEST, "signature", b"bundle")
    found = store.collect(DIGEST)
    assert not found.too_much
    assert sum(item.kind == "signature" for item in found.objects) == 1
    assert len(found.objects) == MAX_OTHERS + 1


@pytest.mark.slow
def test_more_names_than_are_looked_at(store: EvidenceStore, folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(MAX_NAMES + 1):
        (folder / f"{number}").touch()
    assert store.collect(DIGEST).too_much


def test_an_object_that_cannot_be_read_keeps_no_other_from_it(store: EvidenceStore, folder: Path) -> None:
    name = store.put(DIGEST, "signature", b"bundle")
    (folder / f"provenance-{'a' * 64}.json").symlink_to(folder / name)
    os.mkfifo(folder / f"provenance-{'b' * 64}.json")
    (folder / f"provenance-{'c' * 64}.json").write_bytes(b"x" * ((1 << 20) + 1))
    found = store.collect(DIGEST)
    assert [item.name for item in found.objects] == [name]
    assert {unread for unread, _ in found.unread} == {f"provenance-{letter * 64}.json" for letter in "abc"}


def test_a_store_that_cannot_be_listed_is_unavailable(store: EvidenceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any) -> None:
        raise UnavailableError("no", code="PERMISSION_DENIED")

    monkeypatch.setattr(LocalStorage, "list_objects", denied)
    with pytest.raises(UnavailableError):
        store.collect(DIGEST)


def test_digests(store: EvidenceStore, tmp_path: Path) -> None:
    others = [Digest("sha256", f"{number:02x}" * 32) for number in range(5)]
    for digest in others:
        store.put(digest, "signature", b"x")
    (tmp_path / "store" / "nonsense").mkdir()
    (tmp_path / "store" / f"md5-{'a' * 64}").mkdir()
    assert set(store.digests(10)) == set(others)
    assert len(store.digests(2)) == 2


# --- Where the default store may lie ---


def test_beside_the_artifact(tmp_path: Path) -> None:
    assert default_store(str(tmp_path / "model"), Storages()) == f"file://{tmp_path}/model.evidence"
    assert default_store(str(tmp_path / "model") + "/", Storages()) == f"file://{tmp_path}/model.evidence"
    assert default_store("s3://bucket/model/", Storages()) == "s3://bucket/model.evidence"


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        default_store(str(path), Storages())
    assert caught.value.code == "EVIDENCE_STORE_INSIDE_TREE"
    assert "evidence_store" in caught.value.next_step
    return caught.value.message


@pytest.mark.parametrize("inner", ["weights.bin", "sub/deep/weights.bin"])
def test_not_inside_a_signed_tree(tmp_path: Path, inner: str) -> None:
    keys = write_key(tmp_path)
    write_tree(tmp_path / "model", {inner: b"x"})
    sealflow.sign(tmp_path / "model", signer=keys.signer)
    assert "which is signed" in refused(tmp_path / "model" / inner)
    with pytest.raises(UsageError, match="which is signed"):
        sealflow.sign(tmp_path / "model" / inner, signer=keys.signer)
    # Named openly, another place is fine, and the tree still verifies.
    ref = sealflow.sign(tmp_path / "model" / inner, signer=keys.signer, evidence_store=str(tmp_path / "store"))
    assert sealflow.verify(ref, identities=str(keys.public)).passed
    assert sealflow.verify(tmp_path / "model", identities=str(keys.public)).passed


def test_not_inside_a_folder_that_dvc_tracks(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", {"sub/a.csv": b"x"})
    (tmp_path / "data.dvc").write_text("outs:\n- path: data\n")
    assert "which DVC tracks" in refused(tmp_path / "data" / "sub" / "a.csv")
    default_store(str(tmp_path / "data"), Storages())


def test_not_inside_an_output_of_a_dvc_stage(tmp_path: Path) -> None:
    write_tree(tmp_path, {"models/final/a.bin": b"x", "other/b.bin": b"y", ".dvc/config": b""})
    lock = "schema: '2.0'\nstages:\n  train:\n    cmd: x\n    outs:\n    - path: models/final\n      md5: abc.dir\n"
    (tmp_path / "dvc.lock").write_text(lock)
    assert "output of a stage" in refused(tmp_path / "models" / "final" / "a.bin")
    default_store(str(tmp_path / "models" / "final"), Storages())
    default_store(str(tmp_path / "other" / "b.bin"), Storages())


def test_a_lock_above_the_repository_says_nothing(tmp_path: Path) -> None:
    write_tree(tmp_path, {"repo/models/a.bin": b"x", "repo/.dvc/config": b""})
    (tmp_path / "dvc.lock").write_text("stages: {train: {outs: [{path: repo/models}]}}")
    default_store(str(tmp_path / "repo" / "models" / "a.bin"), Storages())


@pytest.mark.parametrize("text", ["stages: [", "stages: {train: {outs: [{}]}}", "stages: 1", "\0", "{" * 3000])
def test_a_lock_that_cannot_be_read_clears_no_place(tmp_path: Path, text: str) -> None:
    write_tree(tmp_path, {"models/a.bin": b"x", ".dvc/config": b""})
    (tmp_path / "dvc.lock").write_text(text)
    assert "DVC" in refused(tmp_path / "models" / "a.bin")


def test_an_oversized_lock_clears_no_place(tmp_path: Path) -> None:
    write_tree(tmp_path, {"models/a.bin": b"x", ".dvc/config": b""})
    (tmp_path / "dvc.lock").write_text("# " + "x" * (17 << 20) + "\nstages: {train: {outs: [{path: models}]}}\n")
    assert "DVC" in refused(tmp_path / "models" / "a.bin")


@pytest.mark.parametrize("place", [".", "evidence", "sub/evidence"])
def test_a_store_inside_the_artifact_is_refused(tmp_path: Path, place: str) -> None:
    keys = write_key(tmp_path)
    model = write_tree(tmp_path / "model", {"a": b"1"})
    with pytest.raises(UsageError) as caught:
        sealflow.sign(model, signer=keys.signer, evidence_store=str(model / place))
    assert caught.value.code == "EVIDENCE_STORE_INSIDE_TREE"
    assert sorted(path.name for path in model.rglob("*")) == ["a"]
