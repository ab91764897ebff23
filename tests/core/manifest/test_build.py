"""From bytes to a manifest: one read, constant memory, nothing that changes meanwhile."""

from __future__ import annotations

import hashlib
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.errors import ArtifactError, UnavailableError
from sealflow.hashing import CHUNK
from sealflow.manifest import Manifest, Resource, Serialization, build_manifest
from sealflow.storage import Storages
from sealflow.storage.local import LocalReader, LocalStorage
from tests.trees import SHAPES, write_tree

SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7]


def build(path: Path, **options: object) -> Manifest:
    storage = Storages().for_uri(str(path))
    location = storage.locate(str(path))
    assert location is not None
    return build_manifest(storage, location, **options)  # type: ignore[arg-type]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_file_in_code_point_order(tmp_path: Path, shape: str) -> None:
    files = SHAPES[shape]
    manifest = build(write_tree(tmp_path / "model", files))
    assert manifest.resources == tuple(Resource(name, sha256(files[name])) for name in sorted(files))
    assert manifest.size == sum(map(len, files.values()))
    assert (manifest.kind, manifest.name) == ("tree", "model")


@pytest.mark.parametrize("size", SIZES)
def test_sizes_around_the_read_size(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    manifest = build(path)
    assert manifest.resources == (Resource("model.bin", sha256(data)),)
    assert str(manifest.digest) == f"sha256:{sha256(data)}"


@pytest.mark.parametrize("serialization", [("files", "sha256", 0), ("shards", "sha256", 1000), ("files", "blake2b", 0)])
def test_parallel_and_serial_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serialization: tuple[str, str, int]
) -> None:
    model = write_tree(tmp_path / "model", SHAPES["300-files"])
    how = Serialization(*serialization)  # type: ignore[arg-type]
    monkeypatch.setattr(LocalStorage, "parallel", 1)
    serial = build(model, serialization=how)
    monkeypatch.setattr(LocalStorage, "parallel", 8)
    assert build(model, serialization=how) == serial


@given(data=st.binary(max_size=50), shard_size=st.integers(1, 20), cuts=st.lists(st.integers(0, 50), max_size=5))
def test_shards_are_the_ranges_of_the_file(data: bytes, shard_size: int, cuts: list[int]) -> None:
    from sealflow.manifest.build import _Shards

    shards = _Shards("a:b", Serialization("shards", "sha256", shard_size))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        shards.update(data[start:end])
    expected = [
        Resource(f"a:b:{start}:{min(start + shard_size, len(data))}", sha256(data[start : start + shard_size]))
        for start in range(0, len(data), shard_size)
    ]
    assert shards.finish() == expected


def test_ignored_paths_leave_out_what_lies_below(tmp_path: Path) -> None:
    model = write_tree(tmp_path / "model", {"a": b"", "ab": b"", "notes/x": b"", "notes.txt": b"", "c/notes/y": b""})
    manifest = build(model, ignore=["notes", "a"])
    assert [item.name for item in manifest.resources] == ["ab", "c/notes/y", "notes.txt"]
    with pytest.raises(ArtifactError, match="holds no file"):
        build(write_tree(tmp_path / "other", {"a": b""}), ignore=["a"])


def test_a_subset_reads_only_its_files(tmp_path: Path) -> None:
    model = write_tree(tmp_path / "model", {"a": b"1", "b": b"2", "c/d": b"3"})
    manifest = build(model, files=["c/d", "a", "absent"])
    assert [item.name for item in manifest.resources] == ["a", "c/d"]
    assert manifest.size == 2


def test_a_copy_holds_the_bytes_that_were_hashed(tmp_path: Path) -> None:
    files = SHAPES["nested"] | SHAPES["empty-files"]
    model = write_tree(tmp_path / "model", files)
    copy = tmp_path / "copy"
    copy.mkdir()
    manifest = build(model, copy_to=str(copy))
    assert manifest == build(model)
    assert {path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()} == files
    with pytest.raises(FileExistsError):
        build(model, copy_to=str(copy))


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    model = write_tree(tmp_path / "model", {"a": b"x" * (CHUNK + 5), "b": b"y" * 10})
    seen: list[tuple[int, int | None]] = []
    build(model, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (CHUNK + 15, CHUNK + 15)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_an_empty_folder_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "model" / "empty").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="holds no file"):
        build(tmp_path / "model")


# --- What is not a regular file ---


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        # The address has a limit of about 100 bytes, the path may be longer.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            server.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)


def linked_file(path: Path) -> None:
    path.symlink_to(__file__)


def linked_folder(path: Path) -> None:
    path.symlink_to(Path(__file__).parent)


def dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


SPECIAL: dict[str, tuple[Callable[[Path], None], str]] = {
    "fifo": (fifo, "a named pipe"),
    "socket": (unix_socket, "a socket"),
    "linked-file": (linked_file, "a symbolic link"),
    "linked-folder": (linked_folder, "a symbolic link"),
    "dangling-link": (dangling_link, "a symbolic link"),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("place", ["as-the-artifact", "inside", "deep-inside"])
def test_special_files_are_refused_by_name(tmp_path: Path, kind: str, place: str) -> None:
    make, word = SPECIAL[kind]
    model = write_tree(tmp_path / "model", {"a": b"1", "sub/b": b"2"})
    path = {"as-the-artifact": tmp_path / "odd", "inside": model / "odd", "deep-inside": model / "sub" / "odd"}[place]
    make(path)
    with pytest.raises(ArtifactError, match=rf"odd is {word}"):
        build(path if place == "as-the-artifact" else model)


def test_a_device_is_refused() -> None:
    with pytest.raises(ArtifactError, match="a character device"):
        build(Path("/dev/zero"))


def test_a_linked_folder_above_the_artifact_is_fine(tmp_path: Path) -> None:
    write_tree(tmp_path / "real" / "model", {"a": b"1"})
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    assert build(tmp_path / "alias" / "model") == build(tmp_path / "real" / "model")


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    model = write_tree(tmp_path / "model", {"a": b"1"})
    with open(os.fsencode(model) + b"/\xff", "wb"):
        pass
    with pytest.raises(ArtifactError, match="not valid UTF-8"):
        build(model)


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_file_or_folder_without_permission_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = write_tree(tmp_path / "model", {"a": b"1", "b/c": b"2"})
    # Root may read everything, so the refusal is made up.
    opened = os.open

    def refuse(path: object, *arguments: object, **options: object) -> int:
        if path == name:
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UnavailableError) as caught:
        build(model)
    assert caught.value.code == "PERMISSION_DENIED"


# --- What changes while it is read ---


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"x")


def shorten(path: Path) -> None:
    os.truncate(path, 1)


def same_size(path: Path) -> None:
    path.write_bytes(b"z" * path.stat().st_size)


def same_size_and_time(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"z" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap_inode(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"z" * before.st_size)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


def remove(path: Path) -> None:
    path.unlink()


def to_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(__file__)


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES = [append, shorten, same_size, same_size_and_time, swap_inode, remove, to_link, to_folder]


@pytest.mark.parametrize("size", [10, 3 * CHUNK], ids=["small", "large"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, change: Callable[[Path], None], size: int) -> None:
    path = write_tree(tmp_path / "model", {"sub/a": b"a" * size}) / "sub" / "a"
    storage = LocalStorage()
    location = storage.locate(str(tmp_path / "model"))
    assert location is not None
    (entry,) = storage.entries(location)
    # File times advance in ticks of some milliseconds; a change within the same tick leaves no trace in them.
    time.sleep(0.02)
    changed = []

    def consume(piece: object) -> None:
        if not changed:
            changed.append(True)
            change(path)

    with storage.open(location) as reader, pytest.raises(ArtifactError) as caught:
        reader.read(entry, consume)
    assert caught.value.code == "ARTIFACT_CHANGED"
    assert changed


@pytest.mark.parametrize("change", [append, remove, to_link, to_folder, fifo], ids=lambda change: change.__name__)
def test_a_file_that_changes_between_the_listing_and_the_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    path = write_tree(tmp_path / "model", {"a": b"1", "b": b"2"}) / "b"
    entries = LocalStorage.entries

    def then_change(self: LocalStorage, location: object) -> object:
        found = entries(self, location)  # type: ignore[arg-type]
        if change is fifo:
            path.unlink()
        change(path)
        return found

    monkeypatch.setattr(LocalStorage, "entries", then_change)
    if change is append:
        # The read sees one consistent file; the digest is the new file's.
        assert build(tmp_path / "model").resources[1] == Resource("b", sha256(b"2x"))
    else:
        with pytest.raises(ArtifactError):
            build(tmp_path / "model")


def test_a_folder_that_becomes_a_link_while_others_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_tree(tmp_path / "model", {"a/x": b"1", "b/x": b"2"})
    write_tree(tmp_path / "evil", {"x": b"2"})
    read = LocalReader.read

    def then_swap(self: LocalReader, entry: object, consume: object) -> int:
        result = read(self, entry, consume)  # type: ignore[arg-type]
        if (model / "b").is_dir() and not (model / "b").is_symlink():
            (model / "b").rename(model / "c")
            (model / "b").symlink_to(tmp_path / "evil")
        return result

    monkeypatch.setattr(LocalReader, "read", then_swap)
    with pytest.raises(ArtifactError, match="symbolic link"):
        build(model)


def test_a_folder_with_hundreds_of_subfolders_keeps_few_descriptors(tmp_path: Path) -> None:
    model = write_tree(tmp_path / "model", {f"{number:04}/{number}/x": b"1" for number in range(600)})
    # In a process of its own: what other tests left open, and their threads, have a say in this one.
    script = """
import os, resource, sys
from sealflow.manifest import build_manifest
from sealflow.storage.local import LocalStorage
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
storage = LocalStorage()
location = storage.locate(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, hard))
print(len(build_manifest(storage, location).resources))
"""
    done = subprocess.run([sys.executable, "-c", script, str(model)], capture_output=True, text=True)
    assert done.stdout == "600\n", done.stderr


def test_deep_trees(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for _ in range(60):
        path = path / "d"
    path.mkdir(parents=True)
    (path / "x").write_bytes(b"1")
    assert build(tmp_path / "model").resources[0].name == "d/" * 60 + "x"


def test_a_reader_serves_many_threads(tmp_path: Path) -> None:
    files = {f"{number % 7}/{number % 3}/{number}": b"%d" % number for number in range(200)}
    model = write_tree(tmp_path / "model", files)
    storage = LocalStorage()
    location = storage.locate(str(model))
    assert location is not None
    entries = storage.entries(location)
    found: dict[str, str] = {}

    def work(reader: LocalReader, part: int) -> None:
        for entry in entries[part::4]:
            digest = hashlib.sha256()
            reader.read(entry, digest.update)
            found[entry.name] = digest.hexdigest()

    before = len(os.listdir("/proc/self/fd"))
    with storage.open(location) as reader:
        threads = [threading.Thread(target=work, args=(reader, part)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {name: sha256(data) for name, data in files.items()}
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["one-file", "four-files"])
def test_memory_stays_constant(tmp_path: Path, layout: str) -> None:
    """256 MiB are read within 16 MiB above what the same program needs for one byte."""
    script = """
import resource, sys
from sealflow.manifest import build_manifest
from sealflow.storage import Storages
storage = Storages().for_uri(sys.argv[1])
manifest = build_manifest(storage, storage.locate(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, manifest.size)
"""
    peaks = {}
    parts = 1 if layout == "one-file" else 4
    for size in (1, 256 << 20):
        model = tmp_path / str(size)
        model.mkdir()
        for part in range(parts):
            with open(model / f"{part}.bin", "wb") as file:
                file.truncate(max(1, size // parts))
        done = subprocess.run([sys.executable, "-c", script, str(model)], capture_output=True, text=True, check=True)
        peak, read = map(int, done.stdout.split())
        assert read == max(1, size // parts) * parts
        peaks[size] = peak
    assert peaks[256 << 20] - peaks[1] < 16
