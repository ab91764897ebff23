"""What the guard directory makes of a task's environment, and of its own list of files; without building one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealflow_kfp.guard_directory import (
    ADMITTED,
    MANIFEST,
    check,
    copy_to,
    covered_places,
    guard_environment,
    own_environment,
    read_manifest,
)

ROOT = "/sealflow/guard"
OWN = guard_environment(ROOT, {})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory of two files, listed as the real one is."""
    root = tmp_path / "guard"
    (root / "lib").mkdir(parents=True)
    for name, data in {"guard": b"program", "lib/a.pyc": b"module"}.items():
        (root / name).write_bytes(data)
    (root / "guard").chmod(0o755)
    write_manifest(root, "guard", "lib/a.pyc")
    return root


def write_manifest(root: Path, *names: str) -> None:
    lines = [f"{hashlib.sha256((root / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (root / MANIFEST).write_text("".join(lines))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process's environment, put back after the test."""
    for name in list(os.environ):
        monkeypatch.delenv(name)
    yield
    os.environ.clear()


HIDDEN = [
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "GLIBC_TUNABLES",
    "GCONV_PATH",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PATH",
    "TMPDIR",
    "SEALFLOW_MOUNT",
    "SEALFLOW_TMPDIR",
    "SEALFLOW_STATE_DIR",
    "SEALFLOW_SIGNER",
    "AWS_PROFILE",
    "AWS_DATA_PATH",
    "BOTO_CONFIG",
    "RES_OPTIONS",
    "LOCALDOMAIN",
    "HOSTALIASES",
    "SSLKEYLOGFILE",
    "REQUESTS_CA_BUNDLE",
    "LC_ALL",
    "ld_preload",
]


@pytest.mark.parametrize("name", HIDDEN)
def test_what_chooses_code_or_settings_is_not_heard(name: str) -> None:
    assert guard_environment(ROOT, {name: "/evil"}) == OWN


@pytest.mark.parametrize("name", sorted(OWN))
def test_what_the_guard_sets_for_itself_nobody_else_sets(name: str) -> None:
    assert guard_environment(ROOT, {name: "/evil"})[name] == OWN[name]
    assert name not in ADMITTED
    assert OWN[name].startswith(ROOT)


def test_what_says_how_to_reach_a_store_is_heard() -> None:
    given = {name: name.lower() for name in ADMITTED}
    assert guard_environment(ROOT, given) == OWN | given


def test_what_is_remembered_stays_in_the_tasks_home() -> None:
    assert guard_environment(ROOT, {"HOME": "/home/a"})["XDG_STATE_HOME"] == "/home/a/.local/state"
    assert guard_environment(ROOT, {"HOME": "/home/a", "XDG_STATE_HOME": "/x"})["XDG_STATE_HOME"] == "/x"
    assert "XDG_STATE_HOME" not in guard_environment(ROOT, {"HOME": ""})


def test_the_command_gets_back_what_was_hidden_and_nothing_else(environment: None) -> None:
    # As the program that stands before it hands it on: a colon before each name. LC_CTYPE is Python's own doing.
    os.environ.update({":LD_PRELOAD": "/a.so", ":AWS_REGION": "x", "::A": "1", ":EMPTY": "", "LC_CTYPE": "C.UTF-8"})
    assert own_environment(ROOT) == {"LD_PRELOAD": "/a.so", "AWS_REGION": "x", ":A": "1", "EMPTY": ""}
    assert dict(os.environ) == OWN | {"AWS_REGION": "x"}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x",
        "a" * 64 + " guard",
        "a" * 63 + "  guard",
        "a" * 64 + "  /etc/passwd",
        "a" * 64 + "  ../guard",
        "a" * 64 + "  lib/../../guard",
        "a" * 64 + "  lib//guard",
        "a" * 64 + "  ./guard",
        "a" * 64 + "  ",
        "a" * 64 + "  lib/",
    ],
)
def test_a_list_that_leads_elsewhere_is_refused(directory: Path, line: str) -> None:
    (directory / MANIFEST).write_text(f"{line}\n" if line else "")
    with pytest.raises(ValueError, match=MANIFEST):
        read_manifest(str(directory))


def test_a_copy_is_whole_or_cannot_be_started(directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    assert copy_to(str(directory), str(target)).startswith("copied ")
    assert copy_to(str(directory), str(target)).startswith("copied ")
    assert (target / "guard").stat().st_mode & 0o777 == 0o755
    (directory / "lib" / "a.pyc").write_bytes(b"another")
    (target / "guard").unlink()
    with pytest.raises(ValueError, match=r"lib/a\.pyc is not the file that was built"):
        copy_to(str(directory), str(target))
    assert not (target / "guard").exists()
    assert not (target / "lib" / "a.pyc").exists()


def test_a_copy_goes_through_no_link(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "target" / "guard").symlink_to(victim)
    copy_to(str(directory), str(tmp_path / "target"))
    assert victim.read_text() == "kept"
    assert not (tmp_path / "target" / "guard").is_symlink()


def test_a_copy_goes_into_no_folder_that_is_elsewhere(directory: Path, tmp_path: Path) -> None:
    for name in ("target", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "target" / "lib").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="lib is no folder"):
        copy_to(str(directory), str(tmp_path / "target"))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_everybody_can_read_a_copy_whatever_the_umask(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    before = os.umask(0o077)
    try:
        copy_to(str(directory), str(tmp_path / "target"))
    finally:
        os.umask(before)
    found = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "target").rglob("*")}
    assert found["lib"] == found["guard"] == "0o755"
    assert found["a.pyc"] == oct((directory / "lib" / "a.pyc").stat().st_mode & 0o777)


def test_a_copy_needs_a_folder_of_its_own(directory: Path, tmp_path: Path) -> None:
    for target in (directory, tmp_path / "missing", directory / "guard"):
        with pytest.raises(ValueError, match="no folder to copy to"):
            copy_to(str(directory), str(target))


@pytest.mark.parametrize("what", ["changed", "more", "link", "link-to-a-folder", "missing"])
def test_a_directory_that_is_not_the_one_that_was_built_is_told(directory: Path, what: str) -> None:
    if what == "changed":
        (directory / "lib" / "a.pyc").write_bytes(b"another")
    elif what == "more":
        (directory / "lib" / "b.pyc").write_bytes(b"")
    elif what == "link":
        (directory / "lib" / "b.pyc").symlink_to("a.pyc")
    elif what == "link-to-a-folder":
        (directory / "more").symlink_to("lib")
    else:
        (directory / "lib" / "a.pyc").unlink()
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        check(str(directory))
    assert {"changed": "a.pyc is not", "missing": "a.pyc"}.get(what, "does not belong") in str(caught.value)


MOUNTS = """\
1 0 0:50 / / rw,relatime master:1 - overlay overlay rw
2 1 0:51 / /proc rw - proc proc rw
3 1 0:52 / /dev rw - tmpfs tmpfs rw
4 1 8:1 /var/lib/kubelet/pods/x/volumes/kubernetes.io~empty-dir/sealflow-guard /sealflow/guard ro - ext4 /dev/sda1 rw
5 1 0:60 / {run}/sealflow ro - tmpfs tmpfs rw
6 1 0:61 /data /etc/sealflow ro - ext4 /dev/sda1 rw
7 1 8:1 /x /opt/my\\040files rw - ext4 /dev/sda1 rw
8 1 8:1 /y /etc/sealflow2 rw - ext4 /dev/sda1 rw
"""
TABLE = MOUNTS.format(run=os.path.realpath("/var/run"))


@pytest.mark.parametrize(
    ("point", "covered"),
    [
        ("/sealflow/guard", ["/sealflow/guard"]),
        ("/sealflow/guard/lib", ["/sealflow/guard"]),
        (f"{os.path.realpath('/var/run')}/sealflow", ["/var/run/sealflow"]),
        ("/etc/sealflow", ["/etc/sealflow"]),
        ("/etc/sealflow/admin.json", ["/etc/sealflow"]),
        ("/etc/sealflow/\\134x\\040y", ["/etc/sealflow"]),
        ("/etc/s\\145alflow", ["/etc/sealflow"]),
        ("/sealflow", []),
        ("/data", []),
        ("/etc/sealflower", []),
        ("/etc/\\", []),
    ],
)
def test_what_is_mounted_over_keys_and_policy_is_seen_wherever_its_path_led(point: str, covered: list[str]) -> None:
    assert covered_places(ROOT, TABLE.encode()) == []
    table = f"{TABLE}9 1 0:70 / {point} rw - tmpfs tmpfs rw\n".encode()
    assert covered_places(ROOT, table) == covered


@pytest.mark.parametrize("table", [b"", b"\n", b"1 2 3", b"\xff" * 100, b"1 0 0:1 / \\999 rw\n1 0 0:1 / \\ rw\n"])
def test_a_list_of_mounts_that_is_none_harms_nothing(table: bytes) -> None:
    assert covered_places(ROOT, table) == []
