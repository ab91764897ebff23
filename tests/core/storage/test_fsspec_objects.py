"""Large objects on fsspec file systems: ``memory://``, and a file system that misbehaves."""

from __future__ import annotations

import datetime
import errno
import secrets
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest

from sealflow.errors import ArtifactError, UnavailableError, UsageError
from sealflow.storage.other import FsspecStorage
from sealflow.storage.other_objects import FsspecObject, FsspecOutgoing

storage = FsspecStorage()
A, B = b"a" * 1000, b"b" * 500


@pytest.fixture
def memory() -> Any:
    return fsspec.filesystem("memory")


@pytest.fixture
def root(memory: Any) -> Iterator[str]:
    name = f"/{secrets.token_hex(4)}"
    yield f"memory:/{name}"
    if memory.exists(name):
        memory.rm(name, recursive=True)


@pytest.fixture
def uri(root: str) -> str:
    return f"{root}/models/model.bin"


def files(memory: Any, root: str) -> list[str]:
    return [name.rpartition("/")[2] for name in memory.find(root)]


def read(found: FsspecObject, start: int, size: int) -> bytes:
    out = bytearray(size)
    found.read_into(start, memoryview(out))
    return bytes(out)


def opened(uri: str, first: int = 10) -> FsspecObject:
    found = storage.open_object(uri, first)
    assert found is not None
    return found


# --- Written ---


def test_parts_in_order_become_one_object_at_commit(memory: Any, root: str, uri: str) -> None:
    out = storage.begin(uri, overwrite=True)
    assert out.parallel == 1
    parts = [(1, out.send(1, 0, memoryview(A))), (2, out.send(2, 1000, memoryview(B)))]
    assert not memory.exists(uri)
    assert out.present() == {}
    assert out.commit(parts) is None
    assert memory.cat_file(uri) == A + B
    assert files(memory, root) == ["model.bin"]


def test_overwriting_replaces_at_commit(memory: Any, uri: str) -> None:
    memory.pipe_file(uri, b"old")
    out = storage.begin(uri, overwrite=True)
    tag = out.send(1, 0, memoryview(A))
    assert memory.cat_file(uri) == b"old"
    out.commit([(1, tag)])
    assert memory.cat_file(uri) == A
    assert storage.put(uri, B, overwrite=True) is None
    assert memory.cat_file(uri) == B


def test_nothing_is_written_without_leave_to_overwrite(memory: Any, root: str, uri: str) -> None:
    for call in (
        lambda: storage.begin(uri, overwrite=False),
        lambda: storage.put(uri, A, overwrite=False),
        lambda: storage.resume(uri, "0" * 16, overwrite=False),
    ):
        with pytest.raises(UsageError) as refused:
            call()
        assert refused.value.code == "OVERWRITE_NOT_PROTECTED"
    memory.pipe_file(uri, b"old")
    with pytest.raises(ArtifactError) as caught:
        storage.begin(uri, overwrite=False)
    assert caught.value.code == "ARTIFACT_EXISTS"
    assert files(memory, root) == ["model.bin"]


@pytest.mark.parametrize(("number", "offset"), [(1, 0), (3, 1000), (2, 999), (2, 0)])
def test_parts_out_of_order_are_refused(uri: str, number: int, offset: int) -> None:
    out = storage.begin(uri, overwrite=True)
    out.send(1, 0, memoryview(A))
    with pytest.raises(ValueError, match="one after another"):
        out.send(number, offset, memoryview(B))


def test_what_was_not_sent_so_is_not_committed(memory: Any, uri: str) -> None:
    out = storage.begin(uri, overwrite=True)
    tag = out.send(1, 0, memoryview(A))
    for wrong in ([], [(1, "x")], [(1, tag), (2, tag)], [(2, tag)]):
        with pytest.raises(UnavailableError) as caught:
            out.commit(wrong)
        assert caught.value.code == "UPLOAD_LOST"
    assert not memory.exists(uri)


def test_a_folder_is_not_replaced(memory: Any, uri: str) -> None:
    out = storage.begin(uri, overwrite=True)
    tag = out.send(1, 0, memoryview(A))
    memory.pipe_file(f"{uri}/inside", b"1")
    for call in (lambda: storage.begin(uri, overwrite=True), lambda: out.commit([(1, tag)])):
        with pytest.raises(ArtifactError):
            call()
    assert memory.cat_file(f"{uri}/inside") == b"1"


@pytest.mark.parametrize("sent", [0, 1])
def test_abort(memory: Any, root: str, uri: str, sent: int) -> None:
    out = storage.begin(uri, overwrite=True)
    tags = [(number, out.send(number, 0, memoryview(A))) for number in range(1, sent + 1)]
    out.abort()
    out.abort()
    assert not memory.exists(root) or files(memory, root) == []
    with pytest.raises(UnavailableError) as caught:
        out.commit(tags)
    assert caught.value.code == "UPLOAD_LOST"


def test_what_was_left_is_listed_and_starts_over_or_goes(memory: Any, root: str, uri: str) -> None:
    token = "0123456789abcdef"
    memory.pipe_file(f"{uri}.{token}.partial", b"left")
    memory.pipe_file(f"{root}/models/model.bin-2.{token}.partial", b"of another")
    memory.pipe_file(f"{root}/models/model.bin.x.partial", b"no token")
    (one,) = storage.unfinished(uri, 9)
    assert (one.uri, one.token) == (uri, token)
    assert abs(datetime.datetime.now(datetime.timezone.utc) - one.since) < datetime.timedelta(minutes=1)
    assert [item.uri for item in storage.unfinished(root, 9)] == [uri, f"{uri}-2"]
    assert len(storage.unfinished(root, 0)) == 1
    out = storage.resume(uri, token, overwrite=True)
    assert out is not None
    out.commit([(1, out.send(1, 0, memoryview(A)))])
    assert memory.cat_file(uri) == A
    other = storage.resume(f"{uri}-2", token, overwrite=True)
    assert other is not None
    other.abort()
    assert storage.unfinished(root, 9) == []
    assert storage.unfinished(f"{root}/absent/x", 9) == []


@pytest.mark.parametrize("wrong", ["", "../../x", "0" * 15, "0" * 16])
def test_a_token_that_names_none_of_ours(uri: str, wrong: str) -> None:
    assert storage.resume(uri, wrong, overwrite=True) is None


# --- Read ---


def test_ranges_of_an_open_object(memory: Any, uri: str) -> None:
    memory.pipe_file(uri, bytes(range(256)))
    with opened(uri, 16) as found:
        assert (found.size, found.head, found.version_id, found.uri) == (256, bytes(range(16)), None, uri)
        assert read(found, 250, 6) == bytes(range(250, 256))
        assert read(found, 256, 0) == b""
        for start, size in ((250, 7), (-1, 1)):
            with pytest.raises(ValueError, match="range"):
                read(found, start, size)
    memory.pipe_file(uri, b"")
    assert (opened(uri).size, opened(uri).head) == (0, b"")
    assert storage.open_object(f"{uri}-absent", 1) is None


@pytest.mark.parametrize("change", ["replaced", "grown", "cut", "removed"])
def test_an_object_that_is_another_one_now(memory: Any, uri: str, change: str) -> None:
    memory.pipe_file(uri, A)
    found = opened(uri)
    if change == "removed":
        memory.rm(uri)
    else:
        memory.pipe_file(uri, b"x" * {"replaced": 1000, "grown": 2000, "cut": 15}[change])
    with pytest.raises(ArtifactError) as caught:
        read(found, 10, 10)
    assert caught.value.code == "ARTIFACT_CHANGED"


def test_what_cannot_be_opened(memory: Any, uri: str) -> None:
    memory.pipe_file(f"{uri}/inside", b"1")
    with pytest.raises(ArtifactError, match="regular file"):
        storage.open_object(uri, 1)
    with pytest.raises(ArtifactError, match="versions"):
        storage.open_object(uri, 1, "v1")


# --- A file system that misbehaves ---


class Bad:
    """A file system with one fault."""

    def __init__(self, fault: str) -> None:
        self._fs = fsspec.filesystem("memory")
        self.fault = fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fs, name)

    def open(self, path: str, mode: str) -> Any:
        file = self._fs.open(path, mode)
        if self.fault in ("full", "cloud"):
            error = OSError(errno.ENOSPC, "No space left") if self.fault == "full" else RuntimeError("quota")
            file.write = lambda data: (_ for _ in ()).throw(error)
        elif self.fault == "short":
            write = file.write
            file.write = lambda data: write(data[:-1])
        return file

    def mv(self, source: str, target: str) -> None:
        if self.fault == "mv":
            raise OSError("cannot rename")
        self._fs.mv(source, target)

    def info(self, path: str) -> dict[str, Any]:
        info = dict(self._fs.info(path))
        if self.fault == "sizeless":
            info["size"] = None
        return info

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        data: bytes = self._fs.cat_file(path, start=start, end=end)
        return data[:-1] if self.fault == "short" else data


def outgoing(fault: str, uri: str) -> FsspecOutgoing:
    return FsspecOutgoing(Bad(fault), uri.removeprefix("memory:/"), uri)


@pytest.mark.parametrize(("fault", "code"), [("full", "NO_SPACE"), ("cloud", "BACKEND_UNAVAILABLE")])
def test_a_part_that_could_not_be_written_ends_the_upload(
    memory: Any, root: str, uri: str, fault: str, code: str
) -> None:
    out = outgoing(fault, uri)
    with pytest.raises(UnavailableError) as caught:
        out.send(1, 0, memoryview(A))
    assert caught.value.code == code
    for call in (lambda: out.send(1, 0, memoryview(A)), lambda: out.commit([])):
        with pytest.raises(UnavailableError) as caught:
            call()
        assert caught.value.code == "UPLOAD_LOST"
    out.abort()
    assert files(memory, root) == []


def test_a_file_that_came_out_short_is_not_committed(memory: Any, uri: str) -> None:
    out = outgoing("short", uri)
    tag = out.send(1, 0, memoryview(A))
    with pytest.raises(UnavailableError) as caught:
        out.commit([(1, tag)])
    assert caught.value.code == "UPLOAD_LOST"
    assert not memory.exists(uri)


def test_a_rename_that_failed_can_be_tried_again(memory: Any, uri: str) -> None:
    out = outgoing("mv", uri)
    tag = out.send(1, 0, memoryview(A))
    with pytest.raises(UnavailableError, match="cannot rename"):
        out.commit([(1, tag)])
    assert not memory.exists(uri)
    out._fs.fault = ""
    out.commit([(1, tag)])
    assert memory.cat_file(uri) == A


def test_a_store_that_says_too_little_or_sends_too_little(memory: Any, uri: str) -> None:
    memory.pipe_file(uri, A)
    path = uri.removeprefix("memory:/")
    with pytest.raises(UnavailableError, match="how long"):
        FsspecObject(Bad("sizeless"), path, uri, 1)
    with pytest.raises(ArtifactError) as caught:
        FsspecObject(Bad("short"), path, uri, 10)
    assert caught.value.code == "ARTIFACT_CHANGED"


def test_sizes_are_demanded_where_they_were_asked_for(memory: Any, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file(f"{root}/t/a", A)
    location = storage.locate(f"{root}/t")
    assert location is not None
    assert [entry.size for entry in storage.entries(location, sizes=True)] == [1000]
    find = memory.find
    monkeypatch.setattr(
        type(memory),
        "find",
        lambda self, path, **options: {name: info | {"size": None} for name, info in find(path, **options).items()},
    )
    assert [entry.size for entry in storage.entries(location)] == [None]
    with pytest.raises(UnavailableError, match="how long"):
        storage.entries(location, sizes=True)
