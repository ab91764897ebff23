"""Attacks on the artifact's bytes, names and shape."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.attacks.world import Attack, World


def _flip(world: World) -> None:
    data = bytearray(world.victim.read_bytes())
    data[len(data) // 2] ^= 1
    world.victim.write_bytes(data)


def _truncate(world: World) -> None:
    world.victim.write_bytes(world.victim.read_bytes()[:-1])


def _empty(world: World) -> None:
    world.victim.write_bytes(b"")


def _append(world: World) -> None:
    world.victim.write_bytes(world.victim.read_bytes() + b"\0")


def _swap(world: World) -> None:
    first, second = world.artifact / "a.bin", world.artifact / "b.bin"
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)


def _add(world: World) -> None:
    (world.artifact / "evil.py").write_bytes(b"import os")


def _add_empty(world: World) -> None:
    (world.artifact / "sub" / "__init__.py").write_bytes(b"")


def _remove(world: World) -> None:
    world.victim.unlink()


def _rename(world: World) -> None:
    world.victim.rename(world.victim.with_name("renamed.bin"))


def _rename_into_folder(world: World) -> None:
    world.victim.rename(world.artifact / "sub" / "a.bin")


def _symlink(world: World) -> None:
    elsewhere = world.folder / "elsewhere"
    shutil.copy(world.victim, elsewhere)
    world.victim.unlink()
    world.victim.symlink_to(elsewhere)


def _symlinked_folder(world: World) -> None:
    (world.artifact / "sub").rename(world.folder / "sub")
    (world.artifact / "sub").symlink_to(world.folder / "sub")


def _added_symlink(world: World) -> None:
    (world.artifact / "link").symlink_to("/etc/passwd")


def _added_symlink_loop(world: World) -> None:
    (world.artifact / "loop").symlink_to(world.artifact)


def _fifo(world: World) -> None:
    world.victim.unlink()
    os.mkfifo(world.victim)


def _socket(world: World) -> None:
    world.victim.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(world.victim.parent)
        try:
            server.bind(world.victim.name)
        finally:
            os.chdir(here)


def _folder(world: World) -> None:
    world.victim.unlink()
    world.victim.mkdir()


def _folder_with_the_file(world: World) -> None:
    data = world.victim.read_bytes()
    world.victim.unlink()
    world.victim.mkdir()
    (world.victim / world.victim.name).write_bytes(data)


def _gone(world: World) -> None:
    if world.kind == "tree":
        shutil.rmtree(world.artifact)
    else:
        world.artifact.unlink()


def _emptied(world: World) -> None:
    shutil.rmtree(world.artifact)
    world.artifact.mkdir()


def _file_instead_of_tree(world: World) -> None:
    shutil.rmtree(world.artifact)
    world.artifact.write_bytes(b"x")


REFUSED = {"ARTIFACT_REFUSED"}
CHANGED = {"FILE_CHANGED"}
MISSING = {"FILE_MISSING"}

ON_ANY: dict[str, tuple[Attack, set[str]]] = {
    "one-bit-flipped": (_flip, CHANGED),
    "last-byte-cut-off": (_truncate, CHANGED),
    "emptied-file": (_empty, CHANGED),
    "byte-appended": (_append, CHANGED),
    "file-replaced-by-symlink-to-equal-bytes": (_symlink, REFUSED),
    "file-replaced-by-fifo": (_fifo, REFUSED),
    "file-replaced-by-socket": (_socket, REFUSED),
    "artifact-gone": (_gone, {"ARTIFACT_MISSING"}),
}
ON_TREES: dict[str, tuple[Attack, set[str]]] = {
    "two-files-swapped": (_swap, CHANGED),
    "file-added": (_add, {"FILE_UNSIGNED"}),
    "empty-file-added": (_add_empty, {"FILE_UNSIGNED"}),
    "file-removed": (_remove, MISSING),
    "file-renamed-with-equal-content": (_rename, MISSING),
    "file-moved-into-folder": (_rename_into_folder, MISSING),
    "folder-replaced-by-symlink": (_symlinked_folder, REFUSED),
    "symlink-added": (_added_symlink, REFUSED),
    "symlink-loop-added": (_added_symlink_loop, REFUSED),
    "file-replaced-by-empty-folder": (_folder, MISSING),
    "file-replaced-by-folder-with-it": (_folder_with_the_file, MISSING),
    "all-files-removed": (_emptied, REFUSED),
    "tree-replaced-by-file": (_file_instead_of_tree, {"FILE_MISSING", "DIGEST_MISMATCH"}),
}


def _case(attacks: dict[str, tuple[Attack, set[str]]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("attack", "codes"), [pytest.param(attack, codes, id=name) for name, (attack, codes) in attacks.items()]
    )


def test_the_untouched_artifact_passes(world: World) -> None:
    # Otherwise every refusal below proves nothing.
    outcome = world.passes()
    assert outcome.verdict.digest == str(world.signed.ref.digest)
    if world.held:
        assert outcome.handed_out == world.content()


@_case(ON_ANY)
def test_changed_bytes(world: World, attack: Attack, codes: set[str]) -> None:
    attack(world)
    world.refuses(codes)


@_case(ON_TREES)
@pytest.mark.parametrize("kind", ["tree"])
def test_changed_tree(world: World, attack: Attack, codes: set[str]) -> None:
    attack(world)
    world.refuses(codes)


@pytest.mark.parametrize("kind", ["file"])
def test_file_replaced_by_folder_with_the_file_in_it(world: World) -> None:
    _folder_with_the_file(world)
    world.refuses({"EVIDENCE_OF_OTHER_ARTIFACT", "DIGEST_MISMATCH", "EVIDENCE_MISSING", "FILE_MISSING"})


@pytest.mark.parametrize("kind", ["tree"])
def test_empty_folders_are_unsigned_so_the_copy_has_none(world: World) -> None:
    # No digest that OMS or in-toto knows covers a folder without files: the gate cannot see it, the copy drops it.
    (world.artifact / "sub" / "empty").mkdir()
    outcome = world.passes()
    if world.held:
        assert "sub/empty" not in {os.path.dirname(name) for name in outcome.handed_out or ()}


@pytest.mark.parametrize("kind", ["tree"])
@pytest.mark.parametrize("name", [".git", ".github", ".gitattributes", ".gitignore"])
def test_names_that_other_verifiers_skip(world: World, name: str) -> None:
    path = world.artifact / name
    if name in (".git", ".github"):
        path.mkdir()
        path /= "evil.so"
    path.write_bytes(b"\x7fELF")
    if world.held and world.pinned:
        # The copy leaves out what nobody signed, folders included.
        outcome = world.passes()
        assert outcome.handed_out is not None
        assert not any(item.startswith(".git") for item in outcome.handed_out)
    else:
        world.refuses({"FILE_IGNORED", "FILE_UNSIGNED", "EVIDENCE_MISSING"})


@pytest.mark.parametrize("kind", ["tree"])
@pytest.mark.parametrize("given", ["path"])
def test_names_that_other_verifiers_skip_only_at_the_root(world: World) -> None:
    (world.artifact / "sub" / ".git").mkdir()
    (world.artifact / "sub" / ".git" / "evil.so").write_bytes(b"x")
    world.refuses("FILE_UNSIGNED")


def test_the_copy_has_nothing_of_the_source_but_its_bytes(world: World) -> None:
    os.chmod(world.victim, 0o777)
    outcome = world.passes()
    assert outcome.handed_out is None or outcome.handed_out == world.content()
