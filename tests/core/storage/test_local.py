"""Folders and files: canonical names, create-once objects, listings."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.errors import ArtifactError, EvidenceError, UnavailableError, UsageError
from sealflow.storage import Storages
from sealflow.storage.local import LocalStorage, to_path, to_uri

storage = LocalStorage()


@given(st.lists(st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1), min_size=1))
def test_paths_and_uris_round_trip(parts: list[str]) -> None:
    path = os.path.normpath("/" + "/".join(parts))
    assert to_path(to_uri(path)) == path
    assert storage.canonical(storage.canonical(path)) == storage.canonical(path)


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("/a/b", "file:///a/b"),
        ("/a/./b/../c/", "file:///a/c"),
        ("file:/a/b", "file:///a/b"),
        ("file:///a/b/", "file:///a/b"),
        ("file://localhost/a", "file:///a"),
        ("/a b/%41?x#y", "file:///a%20b/%2541%3Fx%23y"),
        ("file:///a%20b", "file:///a%20b"),
        ("/größe", "file:///gr%C3%B6%C3%9Fe"),
    ],
)
def test_canonical(given_text: str, expected: str) -> None:
    assert storage.canonical(given_text) == expected


@pytest.mark.parametrize(
    "uri", ["file://host/a", "file:///a?b", "file:///a#b", "", "/a\0b", "file:///a%00b", "file://host"]
)
def test_no_plain_path(uri: str) -> None:
    with pytest.raises(UsageError):
        storage.canonical(uri)


def test_locate(tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"x")
    file = storage.locate(str(tmp_path / "file.bin"))
    assert file is not None
    assert (file.kind, file.name) == ("file", "file.bin")
    tree = storage.locate(str(tmp_path) + "/")
    assert tree is not None
    assert (tree.kind, tree.name) == ("tree", tmp_path.name)
    assert storage.locate(str(tmp_path / "absent")) is None
    assert storage.locate(str(tmp_path / "file.bin" / "below")) is None


def test_create_is_once_and_whole(tmp_path: Path) -> None:
    uri = str(tmp_path / "store" / "id" / "object.json")
    assert storage.create(uri, b"first")
    assert not storage.create(uri, b"second")
    assert Path(uri).read_bytes() == b"first"
    assert os.listdir(tmp_path / "store" / "id") == ["object.json"], "no temporary file stays behind"


def test_create_races_have_one_winner(tmp_path: Path) -> None:
    uri = str(tmp_path / "object.json")
    start = threading.Barrier(8)
    won: list[int] = []

    def work(number: int) -> None:
        start.wait()
        if storage.create(uri, b"%d" % number * 1000):
            won.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert Path(uri).read_bytes() == b"%d" % won[0] * 1000


def test_create_does_not_follow_or_replace_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"untouched")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    (tmp_path / "folder").mkdir()
    for name in ("link", "dangling", "folder"):
        assert not storage.create(str(tmp_path / name), b"evil")
    assert (tmp_path / "target").read_bytes() == b"untouched"
    assert not (tmp_path / "absent").exists()


def test_a_failed_create_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnavailableError, match="No space left"):
        storage.create(str(tmp_path / "store" / "object.json"), b"data")
    assert os.listdir(tmp_path / "store") == []


def test_get(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"12345")
    assert storage.get(str(tmp_path / "object"), 5) == b"12345"
    assert storage.get(str(tmp_path / "absent"), 5) is None
    with pytest.raises(EvidenceError, match="more than 4 bytes"):
        storage.get(str(tmp_path / "object"), 4)
    (tmp_path / "link").symlink_to("object")
    with pytest.raises(ArtifactError, match="symbolic link"):
        storage.get(str(tmp_path / "link"), 5)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(EvidenceError, match="not a regular file"):
        storage.get(str(tmp_path / "fifo"), 5)
    with pytest.raises(EvidenceError, match="not a regular file"):
        storage.get(str(tmp_path), 5)


def test_listings(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).write_bytes(b"")
        (tmp_path / f"folder-{name}").mkdir()
    assert storage.list_objects(str(tmp_path), 10) == ["a", "b", "c"]
    assert storage.list_folders(str(tmp_path), 10) == ["folder-a", "folder-b", "folder-c"]
    assert len(storage.list_objects(str(tmp_path), 1)) == 2
    assert storage.list_objects(str(tmp_path / "absent"), 10) == []


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("/a", "LocalStorage"),
        ("a/b:c", "LocalStorage"),
        ("file:///a", "LocalStorage"),
        ("file:/a", "LocalStorage"),
        ("s3://b/k", "S3Storage"),
        ("s3a://b/k", "S3Storage"),
        ("minio://b/k", "S3Storage"),
        ("gs://b/k", "FsspecStorage"),
        ("memory://b/k", "FsspecStorage"),
    ],
)
def test_which_storage_reads_a_location(uri: str, kind: str) -> None:
    assert type(Storages().for_uri(uri)).__name__ == kind


@pytest.mark.parametrize(
    "uri", ["simplecache::s3://b/k", "zip://x::file:///a", "http://x/y", "https://x/y", "awskms:alias/x", "oci:image"]
)
def test_what_is_no_storage(uri: str) -> None:
    with pytest.raises(UsageError):
        Storages().for_uri(uri)


@pytest.mark.parametrize(
    "path",
    ["/a", "/a/b.c/d-e_f", "/a/.b", "/a/..", "/a/./b", "/a//b", "/a/", "//a", "/", "/a b", "/a%2Fb", "/a%", "/\u00e9",
     "/a.", "/a..b", "/..a/b", "/a;b:c@d", "/a/..b", "/~", "/a,b+c=d!$&'()*"],
)  # fmt: skip
def test_a_usual_location_needs_no_parser_and_means_the_same(path: str) -> None:
    assert to_path(f"file://{path}") == to_path(f"file://localhost{path}")
