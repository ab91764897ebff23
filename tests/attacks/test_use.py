"""Attacks in time: bytes that change between check and use, while they are read, or when the disk is full."""

from __future__ import annotations

import os
import resource
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.verify import held
from sealflow.errors import UnavailableError
from sealflow.manifest import build_manifest
from sealflow.storage import Entry, Storages
from sealflow.storage.local import LocalReader, LocalStorage
from tests.attacks.world import TREE, World, read_all


def _identities(world: World) -> dict[str, str]:
    return {"trainer": str(world.trainer.public)}


# --- Between check and use ---


@pytest.mark.parametrize("way", ["held"])
def test_source_exchanged_after_the_check(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_TMPDIR", str(world.tmp))
    before = world.content()
    target: Any = world.signed.ref if world.pinned else str(world.artifact)
    with held(target, identities=_identities(world)) as (path, verdict):
        world.victim.write_bytes(b"malicious")
        (world.folder / "later").write_bytes(b"x")
        assert read_all(Path(path)) == before
        assert verdict.held
        assert os.stat(world.tmp / os.listdir(world.tmp)[0]).st_mode & 0o777 == 0o700
    assert os.listdir(world.tmp) == []


def test_copy_is_gone_when_the_body_fails(tree: World) -> None:
    class BodyError(Exception):
        pass

    with pytest.raises(BodyError), sealflow.verified(str(tree.artifact), identities=_identities(tree)):
        raise BodyError
    os.environ["SEALFLOW_TMPDIR"] = str(tree.tmp)
    assert os.listdir(tree.tmp) == []


def test_changing_the_copy_changes_nothing_else(tree: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_TMPDIR", str(tree.tmp))
    with sealflow.verified(str(tree.artifact), identities=_identities(tree)) as path:
        (Path(path) / "a.bin").write_bytes(b"mine")
    assert tree.content() == TREE


# --- While it is read ---


class _Interfering(LocalReader):
    """Does something to the artifact in the middle of each read of one file."""

    name = "a.bin"
    action: Any = None

    def read(self, entry: Entry, consume: Any) -> int:
        done = False

        def step(piece: Any) -> None:
            nonlocal done
            consume(piece)
            if entry.name in (self.name, "model") and not done:
                done = True
                _Interfering.action()

        return super().read(entry, step)


@pytest.fixture
def interfere(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(action: Any) -> None:
        monkeypatch.setattr(_Interfering, "action", staticmethod(action))
        monkeypatch.setattr("sealflow.storage.local.LocalReader", _Interfering)

    return install


def _rewrite(world: World) -> None:
    data = world.victim.read_bytes()
    world.victim.write_bytes(bytes(len(data)))


def _append(world: World) -> None:
    with world.victim.open("ab") as file:
        file.write(b"x")


def _exchange(world: World) -> None:
    other = world.victim.with_name("other")
    shutil.copy2(world.victim, other)
    os.rename(other, world.victim)


def _link(world: World) -> None:
    shutil.copy2(world.victim, world.folder / "elsewhere")
    world.victim.unlink()
    world.victim.symlink_to(world.folder / "elsewhere")


def _vanish(world: World) -> None:
    world.victim.unlink()


@pytest.mark.parametrize("action", [_rewrite, _append, _exchange, _link, _vanish])
def test_changed_while_it_was_read(world: World, interfere: Any, action: Any) -> None:
    interfere(lambda: action(world))
    world.refuses("ARTIFACT_CHANGED")


@pytest.mark.parametrize("kind", ["tree"])
@pytest.mark.parametrize("given", ["path"])
def test_folder_exchanged_for_a_link_while_it_is_read(world: World, interfere: Any) -> None:
    elsewhere = world.folder / "elsewhere"
    shutil.copytree(world.artifact / "sub", elsewhere)
    (elsewhere / "c.json").write_bytes(b"malicious")

    def exchange() -> None:
        shutil.rmtree(world.artifact / "sub")
        (world.artifact / "sub").symlink_to(elsewhere)

    interfere(exchange)
    world.refuses("ARTIFACT_REFUSED")


@pytest.mark.parametrize("kind", ["tree"])
@pytest.mark.parametrize("given", ["path"])
def test_whole_artifact_exchanged_for_a_link_while_it_is_read(world: World, interfere: Any) -> None:
    """The folder stays open: what is read is what was listed, whatever its name means meanwhile."""
    elsewhere = world.folder / "elsewhere"
    shutil.copytree(world.artifact, elsewhere)
    (elsewhere / "b.bin").write_bytes(b"malicious")

    def exchange() -> None:
        world.artifact.rename(world.folder / "moved")
        world.artifact.symlink_to(elsewhere)

    interfere(exchange)
    outcome = world.passes()
    assert outcome.handed_out in (None, TREE)


def test_many_threads_share_a_reader(tmp_path: Path) -> None:
    """Each thread keeps a folder open; none may close or read another's."""
    names = [f"{folder}/{inner}/{number}" for folder in "abc" for inner in "xyz" for number in range(40)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    storage = LocalStorage()
    location = storage.locate(str(tmp_path))
    assert location is not None
    before = set(os.listdir("/proc/self/fd"))
    wrong: list[str] = []
    with storage.open(location) as reader:

        def work(order: int) -> None:
            for name in names[::order] * 3:
                pieces: list[bytes] = []
                reader.read(Entry(name), lambda piece, pieces=pieces: pieces.append(bytes(piece)))
                if b"".join(pieces) != name.encode():
                    wrong.append(name)

        threads = [threading.Thread(target=work, args=(order,)) for order in (1, -1, 7, -7, 13, -13)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert set(os.listdir("/proc/self/fd")) <= before


def test_refusals_leak_no_descriptors(tree: World) -> None:
    deep = tree.artifact / "sub" / "deeper"
    deep.mkdir()
    (deep / "x").write_bytes(b"x")
    storage = LocalStorage()
    location = storage.locate(str(tree.artifact))
    assert location is not None
    tree.check()  # the run's audit chain keeps its file open
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with storage.open(location) as reader, pytest.raises(sealflow.SealflowError):
            reader.read(Entry("sub/deeper/nowhere/x"), lambda _: None)
    tree.victim.unlink()
    os.mkfifo(tree.victim)
    for _ in range(20):
        tree.check()
    assert len(os.listdir("/proc/self/fd")) == before


# --- No room ---


@pytest.mark.parametrize("way", ["held"])
@pytest.mark.parametrize("size", [5_000, 3 << 20])
def test_copy_that_is_cut_short_is_never_handed_out(world: World, size: int) -> None:
    """A full disk makes the system write less than it was given, without an error at first."""
    world.victim.write_bytes(os.urandom(size))
    world.signed = world.sign()
    world.passes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Only the copy is larger; the audit log stays below.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))
    try:
        world.refuses("BACKEND_UNAVAILABLE", 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(world.tmp) == []


def test_no_place_for_the_copy(tree: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_TMPDIR", "/nowhere/at/all")
    with pytest.raises(UnavailableError), sealflow.verified(str(tree.artifact), identities=_identities(tree)):
        pytest.fail("handed out")


# --- The way to the artifact may lead through links; the artifact is none ---


def test_link_on_the_way(world: World) -> None:
    way = world.folder.parent / "way"
    way.symlink_to(world.folder)
    world.passes(str(way / "model"), evidence_store=str(world.store))


def test_link_as_the_artifact(world: World) -> None:
    link = world.folder / "link"
    link.symlink_to(world.artifact)
    world.refuses("ARTIFACT_REFUSED", 3, str(link), evidence_store=str(world.store))


def test_manifest_is_of_the_copied_bytes(tree: World) -> None:
    storages = Storages()
    storage = storages.for_uri(str(tree.artifact))
    location = storage.locate(str(tree.artifact))
    assert location is not None
    copy = tree.folder / "copy"
    copy.mkdir()
    manifest = build_manifest(storage, location, copy_to=str(copy))
    again = storage.locate(str(copy))
    assert again is not None
    assert build_manifest(storage, again).digest == manifest.digest
