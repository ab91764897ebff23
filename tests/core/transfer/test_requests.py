"""What small artifacts, openings and random reads ask of a store: requests and bytes, which no machine makes faster.

What each call of the storage protocol costs in S3 is counted in ``tests/core/storage/test_s3_objects.py``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sealflow.actions.reading import Reading, reading
from sealflow.storage import Location
from sealflow.transfer.send import Shape
from tests.core.transfer.stores import FolderObject, FolderOutgoing, FolderStore
from tests.core.transfer.world import Sender, shaped

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class CountingObject(FolderObject):
    """An object that counts what is read of it."""

    def read_into(self, start: int, out: memoryview) -> None:
        assert isinstance(self.store, CountingStore)
        self.store.count("range", len(out))
        super().read_into(start, out)


class CountingStore(FolderStore):
    """A store that writes down each request that S3 would get, and how many bytes it brings."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.requests: list[tuple[str, int]] = []

    def count(self, what: str, size: int = 0) -> None:
        self.requests.append((what, size))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.requests]

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.requests)

    def locate(self, uri: str) -> Location | None:
        self.count("head")
        self.count("list")
        return super().locate(uri)

    def get(self, uri: str, limit: int) -> bytes | None:
        data = super().get(uri, limit)
        self.count("get", len(data or b""))
        return data

    def list_objects(self, uri: str, limit: int) -> list[str]:
        self.count("list")
        return super().list_objects(uri, limit)

    def list_folders(self, uri: str, limit: int) -> list[str]:
        self.count("list")
        return super().list_folders(uri, limit)

    def create(self, uri: str, data: bytes) -> bool:
        self.count("put")
        return super().create(uri, data)

    def open_object(self, uri: str, first: int, version_id: str | None = None) -> FolderObject | None:
        found = super().open_object(uri, first, version_id)
        self.count("open", len(found.head) if found else 0)
        return found and CountingObject(found.store, found.uri, found.size, found.pin, found.version_id, found.head)

    def begin(self, uri: str, *, overwrite: bool) -> FolderOutgoing:
        self.count("begin")
        return super().begin(uri, overwrite=overwrite)

    def put(self, uri: str, data: Any, *, overwrite: bool) -> str | None:
        self.count("put")
        return super().put(uri, data, overwrite=overwrite)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "counted")


def sender_of(folder: Path, store: CountingStore, content: bytes) -> Sender:
    sender = Sender(folder / "world", files={"model": content})
    sender.store = store
    return sender


@contextmanager
def opened(sender: Sender, target: Any) -> Iterator[Reading]:
    with reading(target, **sender.options()) as artifact:
        yield artifact


def test_a_small_artifact_is_five_writes(tmp_path: Path, store: CountingStore) -> None:
    """The list of digests, two statements under two names, the object."""
    sender = sender_of(tmp_path, store, b"x" * KIB)
    sender.upload(overwrite=True)
    assert store.names == ["put"] * 5
    store.requests.clear()
    sender.upload(destination="s3://bucket/another.sealed")
    assert store.names == ["head", "list"] + ["put"] * 5


def test_a_small_artifact_comes_by_nine_requests(tmp_path: Path, store: CountingStore) -> None:
    sender = sender_of(tmp_path, store, b"x" * KIB)
    ref = sender.upload().ref
    store.requests.clear()
    sender.download(ref)
    assert sender.copy()
    assert sorted(store.names) == sorted(["open", "list", "get", "get", "get", "range", "range", "list", "get"])
    assert store.bytes < 32 * KIB


def test_an_artifact_of_10_gib_opens_by_six_requests_and_8_mib(tmp_path: Path, store: CountingStore) -> None:
    """As many frames as 10 GiB have, each of a few bytes: all but the last of them are not read, only their digests."""
    frame = Shape.of(10 * GIB, 10_000).frame
    frames = 10 * GIB // frame
    sender = sender_of(tmp_path, store, bytes(64 * frames))
    with shaped(64, frames):
        ref = sender.upload(overwrite=True).ref
    store.requests.clear()
    with opened(sender, ref) as artifact:
        assert artifact.files[0].size == 64 * frames
        assert sorted(store.names) == ["get"] * 3 + ["list", "open", "range"]
        assert len(store.names) <= 6
        listed = max(size for name, size in store.requests if name == "get")
        assert listed >= 32 * frames
        # The end that is read first lies in two frames of the true length at most.
        tail = max(size for name, size in store.requests if name == "range")
        assert store.bytes - tail + 2 * (frame + 32) <= 8 * MIB


def test_64_kib_somewhere_are_one_request_and_two_frames(tmp_path: Path, store: CountingStore) -> None:
    frame = Shape.of(GIB, 10_000).frame
    assert frame == 256 * KIB
    content = random.Random(4).randbytes(5 * frame + 12345)
    sender = sender_of(tmp_path, store, content)
    ref = sender.upload(overwrite=True).ref
    with opened(sender, ref) as artifact:
        name = artifact.files[0].name
        (member,) = artifact.files
        within, end = 0, len(content) - 64 * KIB
        for at in [0, 1, frame - 1, 3 * frame - 70_000, end, *range(0, end, 99_991)]:
            store.requests.clear()
            assert artifact.read(name, at, 64 * KIB) == content[at : at + 64 * KIB]
            first, last = (member.offset + at) // frame, (member.offset + at + 64 * KIB - 1) // frame
            ((what, size),) = store.requests
            assert what == "range"
            assert size <= (last - first + 1) * (frame + 40)
            assert last - first <= 1
            within += first == last
        assert within > 5
