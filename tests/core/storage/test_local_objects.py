"""Large files of this machine: written by parts, seen whole or not at all, read by ranges of one version."""

from __future__ import annotations

import datetime
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealflow.errors import ArtifactError, UnavailableError
from sealflow.storage import Location, OpenObject
from sealflow.storage.local import LocalStorage, to_uri

storage = LocalStorage()
A, B = b"a" * 1000, b"b" * 500


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "model.bin"


@pytest.fixture(autouse=True)
def _mask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def opened(path: Path, first: int = 10) -> OpenObject:
    found = storage.open_object(str(path), first)
    assert found is not None
    return found


def read(found: OpenObject, start: int, size: int) -> bytes:
    out = bytearray(size)
    found.read_into(start, memoryview(out))
    return bytes(out)


# --- Written ---


def test_parts_in_any_order_become_one_file_at_commit(target: Path) -> None:
    out = storage.begin(str(target), overwrite=False)
    second = out.send(2, 1000, memoryview(B))
    first = out.send(1, 0, memoryview(A))
    assert first != second
    assert not target.exists()
    (partial,) = target.parent.iterdir()
    assert partial.name == f".model.bin.{out.token}.partial"
    assert stat.S_IMODE(partial.stat().st_mode) == 0o600
    assert out.commit([(1, first), (2, second)]) is None
    assert target.read_bytes() == A + B
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(target.parent) == ["model.bin"]


def test_a_part_sent_again_replaces_the_first(target: Path) -> None:
    out = storage.begin(str(target), overwrite=False)
    out.send(1, 0, memoryview(b"x" * 2000))
    tag = out.send(1, 0, memoryview(A))
    out.commit([(1, tag)])
    assert target.read_bytes() == A


def test_many_threads_send(target: Path) -> None:
    out = storage.begin(str(target), overwrite=False)
    tags: dict[int, str] = {}
    parts = [os.urandom(10_000) for _ in range(out.parallel * 4)]

    def work(numbers: range) -> None:
        for number in numbers:
            tags[number] = out.send(number, (number - 1) * 10_000, memoryview(parts[number - 1]))

    threads = [
        threading.Thread(target=work, args=(range(1 + i, len(parts) + 1, out.parallel),)) for i in range(out.parallel)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.commit(sorted(tags.items()))
    assert target.read_bytes() == b"".join(parts)


@pytest.mark.parametrize(
    "parts", ["a part that was not sent", "a tag of other bytes", "a hole", "the wrong order"], ids=lambda name: name
)
def test_what_was_not_sent_so_is_not_committed(target: Path, parts: str) -> None:
    out = storage.begin(str(target), overwrite=False)
    one, two = out.send(1, 0, memoryview(A)), out.send(2, 1000, memoryview(B))
    wrong = {
        "a part that was not sent": [(1, one), (2, two), (3, one)],
        "a tag of other bytes": [(1, two), (2, two)],
        "a hole": [(2, two)],
        "the wrong order": [(2, two), (1, one)],
    }[parts]
    with pytest.raises(UnavailableError) as caught:
        out.commit(wrong)
    assert caught.value.code == "UPLOAD_LOST"
    assert not target.exists()
    out.commit([(1, one), (2, two)])
    assert target.read_bytes() == A + B


def test_what_lies_there_is_refused_at_once(target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"old")
    for call in (
        lambda: storage.begin(str(target), overwrite=False),
        lambda: storage.put(str(target), A, overwrite=False),
    ):
        with pytest.raises(ArtifactError) as caught:
            call()
        assert caught.value.code == "ARTIFACT_EXISTS"
    assert target.read_bytes() == b"old"
    assert os.listdir(target.parent) == ["model.bin"]


def test_what_came_meanwhile_is_refused_at_commit_and_the_upload_is_kept(target: Path) -> None:
    out = storage.begin(str(target), overwrite=False)
    tag = out.send(1, 0, memoryview(A))
    target.write_bytes(b"theirs")
    with pytest.raises(ArtifactError) as caught:
        out.commit([(1, tag)])
    assert caught.value.code == "ARTIFACT_EXISTS"
    assert target.read_bytes() == b"theirs"
    target.unlink()
    out.commit([(1, tag)])
    assert target.read_bytes() == A


def test_what_came_in_the_very_moment_of_commit_is_not_replaced(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = storage.begin(str(target), overwrite=False)
    tag = out.send(1, 0, memoryview(A))
    link = os.link

    def late(source: str, name: str) -> None:
        target.write_bytes(b"theirs")
        link(source, name)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(ArtifactError) as caught:
        out.commit([(1, tag)])
    assert caught.value.code == "ARTIFACT_EXISTS"
    assert target.read_bytes() == b"theirs"


def test_a_link_that_was_made_though_its_answer_was_lost_is_a_success(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = storage.begin(str(target), overwrite=False)
    tag = out.send(1, 0, memoryview(A))
    link = os.link

    def twice(source: str, name: str) -> None:
        link(source, name)
        link(source, name)

    monkeypatch.setattr(os, "link", twice)
    out.commit([(1, tag)])
    assert target.read_bytes() == A
    assert os.listdir(target.parent) == ["model.bin"]


def test_overwriting_replaces_at_commit(target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"old")
    out = storage.begin(str(target), overwrite=True)
    tag = out.send(1, 0, memoryview(A))
    assert target.read_bytes() == b"old"
    out.commit([(1, tag)])
    assert target.read_bytes() == A
    assert storage.put(str(target), B, overwrite=True) is None
    assert target.read_bytes() == B
    assert os.listdir(target.parent) == ["model.bin"]


@pytest.mark.parametrize("kind", ["folder", "link", "dangling link", "named pipe"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_only_a_file_is_ever_replaced(tmp_path: Path, kind: str, overwrite: bool) -> None:
    target = tmp_path / "there"
    (tmp_path / "other").write_bytes(b"untouched")
    make = {
        "folder": target.mkdir,
        "link": lambda: target.symlink_to(tmp_path / "other"),
        "dangling link": lambda: target.symlink_to(tmp_path / "absent"),
        "named pipe": lambda: os.mkfifo(target),
    }[kind]
    out = storage.begin(str(target), overwrite=overwrite)
    tag = out.send(1, 0, memoryview(A))
    make()
    for call in (
        lambda: storage.begin(str(target), overwrite=overwrite),
        lambda: storage.put(str(target), A, overwrite=overwrite),
        lambda: out.commit([(1, tag)]),
    ):
        with pytest.raises(ArtifactError):
            call()
    assert (tmp_path / "other").read_bytes() == b"untouched"
    assert not (tmp_path / "absent").exists()


def test_abort_removes_it_and_is_no_error_twice(target: Path) -> None:
    out = storage.begin(str(target), overwrite=False)
    out.send(1, 0, memoryview(A))
    out.abort()
    assert os.listdir(target.parent) == []
    out.abort()
    assert storage.resume(str(target), out.token, overwrite=False) is None


def test_a_resumed_upload_starts_over_in_its_own_file(target: Path) -> None:
    token = storage.begin(str(target), overwrite=False).token
    begun = storage.begin(str(target), overwrite=False)
    begun.send(1, 0, memoryview(b"x" * 5000))
    out = storage.resume(str(target), begun.token, overwrite=False)
    assert out is not None
    assert (out.token, out.present()) == (begun.token, {})
    tag = out.send(1, 0, memoryview(A))
    out.commit([(1, tag)])
    assert target.read_bytes() == A
    assert storage.resume(str(target), begun.token, overwrite=True) is None
    assert [item.token for item in storage.unfinished(str(target), 9)] == [token]


@pytest.mark.parametrize("token", ["../../../etc/passwd", "", "x", "0123456789abcdeF", "0" * 15, "0" * 17, "0" * 16])
def test_a_token_that_names_none_of_ours(target: Path, token: str) -> None:
    assert storage.resume(str(target), token, overwrite=True) is None


@pytest.mark.parametrize("planted", ["link", "second name", "folder"])
def test_a_planted_partial_is_not_written_to(tmp_path: Path, planted: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    partial = tmp_path / f".model.bin.{'0' * 16}.partial"
    {
        "link": lambda: partial.symlink_to(victim),
        "second name": lambda: os.link(victim, partial),
        "folder": partial.mkdir,
    }[planted]()
    with pytest.raises((ArtifactError, UnavailableError)):
        storage.resume(str(tmp_path / "model.bin"), "0" * 16, overwrite=True)
    assert victim.read_bytes() == b"untouched"


def test_unfinished_uploads_are_listed_and_removed(tmp_path: Path) -> None:
    long = "ä" * 120
    names = ["model.bin", "sub/model.bin", f"sub/{long}", "model.bin.x"]
    begun = {name: storage.begin(str(tmp_path / name), overwrite=False).token for name in names}
    (tmp_path / f".model.bin.{'1' * 16}.partial").symlink_to("elsewhere")
    found = storage.unfinished(str(tmp_path), 9)
    assert {item.token for item in found} == set(begun.values())
    assert all(
        abs(datetime.datetime.now(datetime.timezone.utc) - item.since) < datetime.timedelta(minutes=1) for item in found
    )
    (one,) = storage.unfinished(str(tmp_path / "model.bin"), 9)
    assert (one.uri, one.token) == (to_uri(str(tmp_path / "model.bin")), begun["model.bin"])
    assert [item.token for item in storage.unfinished(str(tmp_path / "sub" / long), 9)] == [begun[f"sub/{long}"]]
    assert len(storage.unfinished(str(tmp_path), 1)) == 2
    for item in found:
        upload = storage.resume(item.uri, item.token, overwrite=True)
        assert upload is not None
        upload.abort()
    assert storage.unfinished(str(tmp_path), 9) == []
    assert storage.unfinished(str(tmp_path / "absent" / "x"), 9) == []


def test_put_is_whole_and_leaves_nothing_else(target: Path) -> None:
    assert storage.put(str(target), memoryview(A), overwrite=False) is None
    assert target.read_bytes() == A
    assert os.listdir(target.parent) == ["model.bin"]


@pytest.mark.parametrize("number", [28, 122], ids=["no space", "quota"])
def test_no_room(target: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    out = storage.begin(str(target), overwrite=False)
    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(os, "fsync", full)
    for call in (
        lambda: out.send(1, 0, memoryview(A)),
        lambda: out.commit([]),
        lambda: storage.put(str(target), A, overwrite=True),
    ):
        with pytest.raises(UnavailableError) as caught:
            call()
        assert caught.value.code == "NO_SPACE"
        assert "Make room" in caught.value.next_step
    assert not target.exists()


def test_no_room_on_a_file_system_that_is_full() -> None:
    if not os.path.exists("/dev/full"):
        pytest.fail("There is no /dev/full to try it with.")
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space") as caught:
        full.write(b"x")
    from sealflow.storage.files import translate

    assert translate(caught.value, "x").code == "NO_SPACE"


# --- Read ---


def test_ranges_of_an_open_object(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(range(256)))
    with opened(path, 16) as found:
        assert (found.size, found.head, found.version_id, found.uri) == (256, bytes(range(16)), None, to_uri(str(path)))
        assert read(found, 250, 6) == bytes(range(250, 256))
        assert read(found, 256, 0) == b""
        for start, size in ((250, 7), (-1, 1), (257, 0)):
            with pytest.raises(ValueError, match="range"):
                read(found, start, size)
    assert opened(path, 1000).head == bytes(range(256))
    assert storage.open_object(str(tmp_path / "absent"), 1) is None
    assert storage.open_object(str(path / "below"), 1) is None


def test_an_empty_object(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with opened(tmp_path / "x") as found:
        assert (found.size, found.head) == (0, b"")


@pytest.mark.parametrize("change", ["written into", "grown", "cut", "replaced", "removed"])
def test_a_file_that_is_not_the_opened_one_any_more(tmp_path: Path, change: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(A)
    os.utime(path, (1, 1))
    with opened(path) as found:
        assert read(found, 10, 10) == A[10:20]
        (tmp_path / "new").write_bytes(A)
        {
            "written into": lambda: path.write_bytes(b"x" * 1000),
            "grown": lambda: os.truncate(path, 2000),
            "cut": lambda: os.truncate(path, 500),
            "replaced": lambda: os.replace(tmp_path / "new", path),
            "removed": path.unlink,
        }[change]()
        with pytest.raises(ArtifactError) as caught:
            read(found, 10, 10)
        assert caught.value.code == "ARTIFACT_CHANGED"


@pytest.mark.parametrize("kind", ["link", "folder", "named pipe"])
def test_what_is_no_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    (tmp_path / "real").write_bytes(A)
    path = tmp_path / "x"
    {"link": lambda: path.symlink_to("real"), "folder": path.mkdir, "named pipe": lambda: os.mkfifo(path)}[kind]()
    with pytest.raises(ArtifactError):
        storage.open_object(str(path), 1)


def test_there_are_no_versions(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(A)
    with pytest.raises(ArtifactError, match="no versions"):
        storage.open_object(str(tmp_path / "x"), 1, "v1")


def test_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(A)
    before = len(os.listdir("/proc/self/fd"))
    with opened(tmp_path / "x"):
        pass
    with pytest.raises(ArtifactError):
        storage.open_object(str(tmp_path), 1)
    storage.begin(str(tmp_path / "left"), overwrite=False)
    storage.begin(str(tmp_path / "y"), overwrite=False).abort()
    assert len(os.listdir("/proc/self/fd")) == before


# --- Sizes ---


def test_entries_with_sizes_say_who_may_execute(tmp_path: Path) -> None:
    (tmp_path / "t" / "sub").mkdir(parents=True)
    for name, mode in (("run.sh", 0o755), ("sub/data", 0o644), ("group", 0o651)):
        (tmp_path / "t" / name).write_bytes(name.encode())
        (tmp_path / "t" / name).chmod(mode)
    tree = Location(to_uri(str(tmp_path / "t")), "tree", "t")
    assert [(e.name, e.size, e.executable) for e in storage.entries(tree, sizes=True)] == [
        ("group", 5, False),
        ("run.sh", 6, True),
        ("sub/data", 8, False),
    ]
    assert not any(e.executable for e in storage.entries(tree))
    file = Location(to_uri(str(tmp_path / "t" / "run.sh")), "file", "run.sh")
    assert storage.entries(file, sizes=True) == [("run.sh", 6, None, True)]
    assert storage.entries(file) == [("run.sh", 6, None, False)]


def test_sizes_of_more_files_than_are_measured_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealflow.storage.local._SIZES_UP_TO", 1)
    for name in "abc":
        (tmp_path / name).write_bytes(b"12345")
    tree = Location(to_uri(str(tmp_path)), "tree", tmp_path.name)
    assert [e.size for e in storage.entries(tree)] == [None] * 3
    assert [e.size for e in storage.entries(tree, sizes=True)] == [5] * 3
