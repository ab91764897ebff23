"""Any other fsspec file system, on ``memory://``."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest

import sealflow
from sealflow.errors import ArtifactError, EvidenceError, UsageError
from sealflow.manifest import build_manifest
from sealflow.storage import Storages
from sealflow.storage.other import FsspecStorage
from tests.pki import KeyPair, write_key
from tests.trees import SHAPES, flip_byte, write_tree

storage = FsspecStorage()


@pytest.fixture
def root() -> Iterator[str]:
    """A fresh folder in memory."""
    fs = fsspec.filesystem("memory")
    name = f"/{secrets.token_hex(4)}"
    yield f"memory:/{name}"
    if fs.exists(name):
        fs.rm(name, recursive=True)


def put(root: str, files: Any) -> str:
    fs = fsspec.filesystem("memory")
    for name, data in files.items():
        fs.pipe_file(f"{root}/model/{name}", data)
    return f"{root}/model"


@pytest.mark.parametrize("shape", ["nested", "unicode-names", "code-point-order-is-not-part-order", "empty-files"])
def test_same_digest_as_on_disk(root: str, tmp_path: Any, shape: str) -> None:
    uri = put(root, SHAPES[shape])
    location = storage.locate(uri)
    assert location is not None
    local = Storages().for_uri(str(tmp_path))
    on_disk = local.locate(str(write_tree(tmp_path / "model", SHAPES[shape])))
    assert on_disk is not None
    assert build_manifest(storage, location).resources == build_manifest(local, on_disk).resources


@pytest.fixture
def keys(tmp_path: Any) -> KeyPair:
    return write_key(tmp_path)


def test_sign_and_verify(root: str, keys: KeyPair, tmp_path: Any) -> None:
    uri = put(root, SHAPES["nested"])
    ref = sealflow.sign(uri, signer=keys.signer)
    assert ref.evidence == f"{uri}.evidence"
    assert sealflow.verify(ref, identities=str(keys.public)).passed
    assert sealflow.verify(uri, identities=str(keys.public)).passed
    with sealflow.verified(ref, identities=str(keys.public)) as copy, open(f"{copy}/top.txt", "rb") as file:
        assert file.read() == b"top"
    fsspec.filesystem("memory").pipe_file(f"{uri}/top.txt", b"tap")
    verdict = sealflow.verify(ref, identities=str(keys.public))
    assert [f.code for f in verdict.findings if f.severity == "refusal"][:1] == ["FILE_CHANGED"]


def test_single_file(root: str, keys: KeyPair) -> None:
    uri = put(root, {"model.bin": b"weights"}) + "/model.bin"
    ref = sealflow.sign(uri, signer=keys.signer, evidence_store=f"{root}/evidence")
    assert str(ref.digest).startswith("sha256:")
    assert sealflow.verify(ref, identities=str(keys.public)).passed


def test_objects(root: str) -> None:
    uri = f"{root}/store/object.json"
    assert storage.get(uri, 10) is None
    assert storage.create(uri, b"12345")
    assert not storage.create(uri, b"other")
    assert storage.get(uri, 5) == b"12345"
    with pytest.raises(EvidenceError):
        storage.get(uri, 4)
    assert storage.list_objects(f"{root}/store", 5) == ["object.json"]
    assert storage.list_folders(root, 5) == ["store"]
    assert storage.list_objects(f"{root}/absent", 5) == []


def test_nothing_there(root: str, keys: KeyPair) -> None:
    assert storage.locate(f"{root}/absent") is None
    with pytest.raises(ArtifactError):
        sealflow.sign(f"{root}/absent", signer=keys.signer)


def test_a_change_between_listing_and_reading(root: str) -> None:
    uri = put(root, {"a": b"1"})
    location = storage.locate(uri)
    assert location is not None
    entries = storage.entries(location)
    fsspec.filesystem("memory").pipe_file(f"{uri}/a", b"2")
    with storage.open(location) as reader, pytest.raises(ArtifactError) as caught:
        reader.read(entries[0], lambda piece: None)
    assert caught.value.code == "ARTIFACT_CHANGED"


@pytest.mark.parametrize("uri", ["sftp://user:secret@host/x", "gs://b/k?token=secret", "nonsense://x/y"])
def test_refused_locations(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        storage.locate(uri)
    assert "secret" not in str(caught.value)


def test_flip_byte_helper_changes_one_bit(tmp_path: Any) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\x00\x00")
    flip_byte(path, 1)
    assert path.read_bytes() == b"\x00\x01"
