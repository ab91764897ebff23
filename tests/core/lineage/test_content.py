"""Hashing as DVC does: files, folders, the old digest, links, and whatever changes meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from sealflow.errors import ArtifactError
from sealflow.lineage import content
from sealflow.lineage.content import WorkTree, directory_digest, directory_object
from tests.core.lineage.repos import md5

NAMES = [
    "a",
    "a-b/x",
    "a.txt",
    "b/x",
    'q"uote',
    "line\nfeed",
    "tab\t",
    "ü",
    "\U0001f600",
    "back\\slash",
    "\udc80",
    "é/ü",
]


def test_the_directory_object_is_json_as_python_writes_it() -> None:
    files = [(name, md5(name.encode("utf-8", "surrogateescape"))) for name in NAMES]
    expected = json.dumps([{"md5": digest, "relpath": name} for name, digest in sorted(files)], sort_keys=True).encode()
    assert directory_object(reversed(files)) == expected
    assert directory_digest(files) == hashlib.md5(expected).hexdigest() + ".dir"
    assert directory_digest([]) == "d751713988987e9331980363e24189ce.dir"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("data/a", "data/sub/b", "data/sub/deep/c", "single"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "root"


def test_a_folder_and_all_its_parts_from_one_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with WorkTree(str(tree)) as work:
        whole = work.look("data")
        assert whole is not None
        assert set(whole.files or ()) == {"a", "sub/b", "sub/deep/c"}
        assert whole.size == sum(len(name) for name in ("data/a", "data/sub/b", "data/sub/deep/c"))
        monkeypatch.setattr(os, "read", lambda *_: pytest.fail("read twice"))
        part = work.look("data/sub")
        assert part is not None
        assert part.digest == directory_digest([("b", md5("data/sub/b")), ("deep/c", md5("data/sub/deep/c"))])
        file = work.look("data/sub/deep/c")
        assert file is not None
        assert (file.digest, file.files) == (md5("data/sub/deep/c"), None)


def test_what_is_not_there(tree: Path) -> None:
    with WorkTree(str(tree)) as work:
        assert work.look("nothing") is None
        assert work.look("nothing/at/all") is None
        assert work.look("single/inside") is None
        assert work.look("data") is not None
        assert work.look("data/nothing") is None
        assert work.get("nothing", 10) is None


def test_both_digests_in_one_pass(tree: Path) -> None:
    big = os.urandom(content.CHUNK + 17)
    (tree / "data/big").write_bytes(big)
    with WorkTree(str(tree), sha256=True) as work:
        found = work.look("data")
        single = work.look("single")
    assert found is not None
    assert found.files is not None
    assert found.files["big"] == (hashlib.md5(big).hexdigest(), len(big), hashlib.sha256(big).hexdigest())
    assert found.files["a"].sha256 == hashlib.sha256(b"data/a").hexdigest()
    assert single is not None
    assert single.sha256 == hashlib.sha256(b"single").hexdigest()


def test_large_files_are_read_by_several_threads(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_LARGE", content.CHUNK)
    monkeypatch.setattr(content, "_WORKERS", 2)
    data = {f"big{index}": os.urandom(content.CHUNK + index) for index in range(4)}
    for name, value in data.items():
        (tree / "data" / name).write_bytes(value)
    with WorkTree(str(tree)) as work:
        found = work.look("data")
    assert found is not None
    assert {name: (found.files or {})[name].md5 for name in data} == {
        name: hashlib.md5(value).hexdigest() for name, value in data.items()
    }


@pytest.mark.oracle
@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n", b"a\r\nb\r\n", b"a\r\nb\n", b"\r", b"\0a\r\n", b"\xff" * 400 + b"\r\n", b"a" * 511 + b"\r\n",
        b"\x01" * 154 + b"a" * 358 + b"\r\n", b"\x01" * 153 + b"a" * 359 + b"\r\n",
        b"a" * ((1 << 20) - 1) + b"\r\n" + b"b\r\n", b"a\r\n" * 400_000, b"\0" * (1 << 20) + b"text\r\n" * 100,
        b"text\r\n" * 200_000 + b"\0\r\n",
    ],
    ids=lambda data: f"{len(data)}-{data[:6]!r}",
)  # fmt: skip
def test_the_old_digest_is_dvcs(tmp_path: Path, data: bytes) -> None:
    from dvc_data.hashfile.hash import file_md5

    (tmp_path / "file").write_bytes(data)
    with WorkTree(str(tmp_path)) as work:
        found = work.look("file", legacy=True)
        plain = work.look("file")
    assert found is not None
    assert found.digest == file_md5(str(tmp_path / "file"), name="md5-dos2unix")
    assert plain is not None
    assert plain.digest == file_md5(str(tmp_path / "file"))


def test_old_and_new_digests_do_not_mix(tree: Path) -> None:
    (tree / "data/a").write_bytes(b"x\r\n")
    with WorkTree(str(tree)) as work:
        new, old = work.look("data"), work.look("data", legacy=True)
        assert new is not None
        assert old is not None
        assert (new.files or {})["a"].md5 == md5(b"x\r\n")
        assert (old.files or {})["a"].md5 == md5(b"x\n")
        assert (old.files or {})["a"].size == 3
        part = work.look("data/sub", legacy=True)
        assert part is not None
        assert part.digest.endswith(".dir")


def refused(work: WorkTree, name: str, reason: str) -> None:
    with pytest.raises(ArtifactError, match=reason):
        work.look(name)


def test_links_and_special_files(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    (tree / "link").symlink_to(tmp_path / "outside")
    (tree / "folder-link").symlink_to(tree / "data")
    (tree / "dangling").symlink_to("nowhere")
    (tree / "data/fifo").parent.mkdir(exist_ok=True)
    with WorkTree(str(tree)) as work:
        refused(work, "link", "symbolic link")
        refused(work, "folder-link", "symbolic link")
        refused(work, "folder-link/a", "symbolic link")
        refused(work, "dangling", "symbolic link")
    os.mkfifo(tree / "data/fifo")
    os.mkfifo(tree / "fifo")
    with WorkTree(str(tree)) as work:
        refused(work, "data", "special file")
        refused(work, "fifo", "special file")
        with pytest.raises(ArtifactError, match="special file"):
            work.get("fifo", 10)


def test_links_into_the_cache_are_read_through(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    place = cache / "files/md5/ab" / ("c" * 30)
    place.parent.mkdir(parents=True)
    place.write_text("cached")
    (tree / "data/linked").symlink_to(place)
    (tree / "linked").symlink_to(place)
    with WorkTree(str(tree), [str(cache)]) as work:
        found, single = work.look("data"), work.look("linked")
    assert found is not None
    assert (found.files or {})["linked"] == (md5("cached"), 6, "")
    assert single is not None
    assert single.digest == md5("cached")
    # Only objects: a cache may be anywhere, and its settings come from the repository.
    (cache / "config").write_text("secret")
    (tree / "other").symlink_to(cache / "config")
    with WorkTree(str(tree), [str(cache), "/nowhere"]) as work:
        refused(work, "other", "does not lead into DVC's cache")


def test_limits_of_small_files(tree: Path) -> None:
    with WorkTree(str(tree)) as work:
        assert work.get("single", 6) == b"single"
        with pytest.raises(ArtifactError, match="more than 5 bytes"):
            work.get("single", 5)
        with pytest.raises(ArtifactError):
            work.get("data", 100)


def test_too_many_levels(tmp_path: Path) -> None:
    deep = tmp_path / "data"
    for _ in range(130):
        deep /= "d"
    deep.mkdir(parents=True)
    with WorkTree(str(tmp_path)) as work:
        refused(work, "data", "levels")


class Meddling:
    """Does something the first time a file is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: object) -> None:
        self._act = act
        self._read = os.read
        monkeypatch.setattr(os, "read", self)

    def __call__(self, fd: int, count: int) -> bytes:
        data = self._read(fd, count)
        act, self._act = self._act, None
        if callable(act):
            act()
        return data


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda root: (root / "data/a").write_text("changed, longer"), id="grows"),
        pytest.param(lambda root: (root / "data/a").write_text("atad/a"), id="same-size"),
        pytest.param(lambda root: (root / "data/new").write_text("x"), id="file-appears"),
        pytest.param(lambda root: (root / "data/a").unlink(), id="file-vanishes"),
        pytest.param(lambda root: (root / "single").rename(root / "data/a"), id="file-exchanged"),
    ],
)
def test_changes_while_it_is_read(tree: Path, monkeypatch: pytest.MonkeyPatch, act: object) -> None:
    for name in ("data", "data/sub", "data/a"):
        os.utime(tree / name, (1, 1))
    with WorkTree(str(tree)) as work:
        Meddling(monkeypatch, lambda: act(tree))  # type: ignore[operator]
        with pytest.raises(ArtifactError) as refusal:
            work.look("data")
    assert refusal.value.code == "ARTIFACT_CHANGED"
