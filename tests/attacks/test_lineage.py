"""Hostile DVC repositories: what they try against the machine that checks them, and against the verdict."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sealflow.actions.lineage import check_lineage
from sealflow.findings import Verdict
from tests.core.lineage.repos import check, lock, md5, out, simple, write


@pytest.fixture(autouse=True)
def _log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))


def snapshot(root: Path) -> dict[str, Any]:
    found = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            info = os.lstat(os.path.join(folder, name))
            found[os.path.join(folder, name)] = (
                info.st_mode,
                info.st_mtime_ns,
                info.st_ctime_ns,
                info.st_ino,
                info.st_size,
            )
    return found


@pytest.mark.slow
def test_nothing_is_written_and_nothing_is_run(tmp_path: Path) -> None:
    root = simple(tmp_path / "r")
    touch = f"touch {tmp_path}/owned"
    write(
        root,
        {
            "dvc.yaml": {"stages": {"make": {"cmd": touch, "outs": ["$(" + touch + ")", "`" + touch + "`"]}}},
            "params.py": f"import os; os.system({touch!r})\n",
            ".dvc/config": f"[core]\n    hardlink_lock = true\n[hooks]\n    x = {touch}\n",
            "sitecustomize.py": f"import os; os.system({touch!r})\n",
            "yaml.py": f"import os; os.system({touch!r})\n",
        },
    )
    before = snapshot(root)
    command = [sys.executable, "-m", "sealflow", "lineage", "check", str(root)]
    if subprocess.run([sys.executable, "-c", "import sealflow.__main__"], capture_output=True).returncode:
        command = [sys.executable, "-c", "from sealflow.cli import main; main()", "lineage", "check", str(root)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert snapshot(root) == before
    assert not (tmp_path / "owned").exists()


def test_a_read_only_repository_can_be_checked(tmp_path: Path) -> None:
    root = simple(tmp_path / "r")
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert check_lineage(str(root)).passed
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755)


def test_modes_and_times_earn_no_trust(tmp_path: Path) -> None:
    root = simple(tmp_path / "r")
    path = root / "out.csv"
    info = path.stat()
    path.write_text("3\n")
    path.chmod(0o444)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert check(root) == {"DATA_MISMATCH"}


# --- Paths ---


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../secret", "x/../../secret", "./../r/../secret", "//etc/passwd", "file:///etc/passwd",
     "s3://bucket/key", "remote://storage/x", "ssh://host/x", "azure://x", "C:\\secret", "\\\\host\\share", "~/secret"],
)  # fmt: skip
def test_no_path_leads_out(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("s")
    (tmp_path / "r").mkdir()
    entry = {"path": path, "hash": "md5", "md5": md5("s"), "size": 1}
    root = write(tmp_path / "r", {"x.dvc": {"outs": [entry]}})
    assert check(root) & {"DATA_EXTERNAL", "DATA_MISSING"}
    root = write(
        tmp_path / "q",
        {
            "dvc.yaml": {"stages": {"s": {"cmd": "x", "deps": [path]}}},
            "dvc.lock": lock(s={"cmd": "x", "deps": [entry]}),
        },
    )
    assert check(root) & {"DATA_EXTERNAL", "DATA_MISSING"}


@pytest.mark.parametrize("wdir", ["..", "/", "/tmp", "a/../..", "../r/.."])
def test_no_working_folder_leads_out(tmp_path: Path, wdir: str) -> None:
    (tmp_path / "secret").write_text("s")
    root = write(
        tmp_path / "r",
        {
            "dvc.yaml": {"stages": {"s": {"cmd": "x", "wdir": wdir, "deps": ["secret"], "params": ["k"]}}},
            "dvc.lock": lock(s={"cmd": "x", "deps": [out("secret", "s")], "params": {"params.yaml": {"k": 1}}}),
        },
    )
    assert "DATA_EXTERNAL" in check(root)
    root = write(tmp_path / "q", {"x.dvc": {"wdir": wdir, "outs": [out("secret", "s")]}})
    assert check(root) == {"DATA_EXTERNAL"}


@pytest.mark.parametrize("path", ["../p.yaml", "/etc/passwd", "sub/../../p.yaml"])
def test_no_parameters_from_outside(tmp_path: Path, path: str) -> None:
    (tmp_path / "p.yaml").write_text("k: 1\n")
    root = write(
        tmp_path / "r",
        {
            "dvc.yaml": {"stages": {"s": {"cmd": "x", "params": [{path: ["k"]}]}}},
            "dvc.lock": lock(s={"cmd": "x", "params": {path: {"k": 1}}}),
        },
    )
    assert "DATA_EXTERNAL" in check(root)
    write(root, {"dvc.yaml": {"vars": [path], "stages": {"s": {"cmd": "x"}}}})
    assert check(root) == {"TEMPLATE_UNRESOLVED"}


@pytest.mark.parametrize("name", ["dvc.yaml", "dvc.lock", "params.yaml", "x.dvc", ".dvc/config"])
@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "socket"])
def test_files_of_dvc_that_are_no_files(tmp_path: Path, name: str, kind: str) -> None:
    root = write(simple(tmp_path / "r"), {"x.dvc": {"outs": [out("in.csv", "1\n")]}, ".dvc/config": ""})
    path = root / name
    content = path.read_bytes()
    path.unlink()
    if kind == "link":
        (tmp_path / "real").write_bytes(content)
        path.symlink_to(tmp_path / "real")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        server = socket.socket(socket.AF_UNIX)
        server.bind(os.path.relpath(path))
        server.close()
    found = check(root)
    if kind == "folder" and name in ("dvc.yaml", "x.dvc"):
        # A folder of that name is no file of DVC; one whose stages the lock holds is missed.
        assert found == (set() if name == "x.dvc" else {"DATA_REFUSED"})
    else:
        assert found, (name, kind)


@pytest.mark.parametrize("kind", ["fifo", "socket", "link", "link-loop", "dangling"])
@pytest.mark.parametrize("place", ["data/x", "data", "data/deep/x"])
def test_data_that_is_no_data(tmp_path: Path, kind: str, place: str) -> None:
    root = tmp_path / "r"
    listing = json.dumps([{"md5": md5("x"), "relpath": "x"}])
    write(root, {"data.dvc": {"outs": [{"path": "data", "hash": "md5", "md5": md5(listing) + ".dir"}]}})
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind(os.path.relpath(path))
        server.close()
    else:
        target = {"link": tmp_path / "outside", "link-loop": path, "dangling": Path("nowhere")}[kind]
        (tmp_path / "outside").mkdir()
        path.symlink_to(target)
    start = time.monotonic()
    assert check(root) == {"DATA_REFUSED"}
    assert time.monotonic() - start < 60


def test_a_cache_in_the_configuration_opens_no_other_files(tmp_path: Path) -> None:
    """cache.dir is the repository's word; a link may lead to an object there, and to nothing else."""
    (tmp_path / "secret").write_text("s")
    root = write(tmp_path / "r", {"s.dvc": {"outs": [out("s", "s")]}, ".dvc/config": f"[cache]\ndir = {tmp_path}\n"})
    (root / "s").symlink_to(tmp_path / "secret")
    assert check(root) == {"DATA_REFUSED"}


def test_an_object_in_the_cache_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    root = write(tmp_path / "r", {"s.dvc": {"outs": [out("s", "s")]}})
    place = root / ".dvc/cache/files/md5" / md5("s")[:2] / md5("s")[2:]
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "secret")
    (root / "s").symlink_to(place)
    assert check(root) == {"DATA_REFUSED"}


# --- Bombs ---


def yaml_bomb() -> str:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 10)}]" for n in range(9)]
    return "\n".join(lines)


@pytest.mark.parametrize("name", ["dvc.yaml", "dvc.lock", "params.yaml", "x.dvc"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(yaml_bomb(), id="references"),
        pytest.param("[" * 100_000, id="depth"),
        pytest.param("{a: " * 50_000, id="depth-of-mappings"),
        pytest.param("- " * 100_000, id="depth-of-lists"),
        pytest.param("a: " + "9" * 100_000, id="huge-number"),
        pytest.param("? " * 50_000, id="keys-of-keys"),
        pytest.param("a: !!python/object/apply:os.system ['touch owned']", id="tag"),
    ],
)
def test_bombs(tmp_path: Path, name: str, content: str) -> None:
    root = write(simple(tmp_path / "r"), {name: content})
    start = time.monotonic()
    assert check(root)
    assert time.monotonic() - start < 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "pipeline",
    [
        pytest.param({"s": {"matrix": {c: list(range(100)) for c in "abcdefgh"}, "cmd": "x"}}, id="matrix"),
        pytest.param({"s": {"foreach": list(range(50_000)), "do": {"cmd": "x"}}}, id="foreach"),
        pytest.param({"s": {"cmd": "${big}" * 40_000}}, id="growing-text"),
    ],
)
def test_templates_that_grow(tmp_path: Path, pipeline: dict[str, Any]) -> None:
    root = write(tmp_path / "r", {"dvc.yaml": {"vars": [{"big": "x" * 1000}], "stages": pipeline}})
    start = time.monotonic()
    assert check(root) == {"TEMPLATE_UNRESOLVED"}
    assert time.monotonic() - start < 20


def test_a_listing_in_the_cache_that_is_a_bomb(tmp_path: Path) -> None:
    text = "[" * 100_000
    place = f".dvc/cache/files/md5/{md5(text)[:2]}/{md5(text)[2:]}.dir"
    entry = {"path": "d", "hash": "md5", "md5": md5(text) + ".dir"}
    root = write(tmp_path / "r", {place: text, "d/x": "x", "d.dvc": {"outs": [entry]}})
    assert check(root) == {"DATA_MISMATCH", "CACHE_CORRUPT"}


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a//b", ".", "", "a/./b", "a\0b"])
def test_listings_that_leave_their_folder(tmp_path: Path, name: str) -> None:
    text = json.dumps([{"md5": md5("x"), "relpath": name}])
    place = f".dvc/cache/files/md5/{md5(text)[:2]}/{md5(text)[2:]}.dir"
    entry = {"path": "d", "hash": "md5", "md5": md5(text) + ".dir"}
    root = write(tmp_path / "r", {place: text, "d/x": "x", "d.dvc": {"outs": [entry]}})
    assert check(root) == {"DATA_MISMATCH", "DIR_MANIFEST_ESCAPE"}


# --- What the reader of a verdict sees ---


def shown(verdict: Verdict) -> str:
    return "".join([verdict.summary(), *(item.line() for item in verdict.findings), json.dumps(verdict.as_dict())])


@pytest.mark.parametrize("evil", ["\x1b[2J", "\u202e", "\n", "\r", "\u2028", "\x9b"])
def test_names_cannot_write_on_the_terminal(tmp_path: Path, evil: str) -> None:
    name = f"a{evil}b"
    root = write(
        tmp_path / "r",
        {
            "dvc.yaml": {"stages": {
                name: {"cmd": "x", "deps": [name], "outs": [name + "2"], "params": [{name + ".yaml": [name]}]},
                "t": {"cmd": "${" + name + "}"},
            }},
            "dvc.lock": lock(**{name: {"cmd": name, "deps": [out(name, "1")], "outs": [out(name + "2", "2")],
                                       "params": {name + ".yaml": {name: name}}}, "orphan" + evil: {"cmd": "x"}}),
            name: "x", name + ".yaml": {name: 1}, f"{name}.dvc": "outs: 1", "d.dvc": {"outs": [out(name + "3", "")]},
        },
    )  # fmt: skip
    text = shown(check_lineage(str(root)))
    assert "CMD_DRIFT" in text
    # A bracket makes the key a pattern, which is refused in its turn.
    assert "PARAMS_DRIFT" in text or ("[" in evil and "PARAMS_UNREADABLE" in text)
    assert evil not in text


def test_a_nested_repository_hides_nothing_silently(tmp_path: Path) -> None:
    root = simple(tmp_path / "r")
    write(root / "sub", {"dvc.yaml": {"stages": {"evil": {"cmd": "x", "outs": ["o"]}}}})
    verdict = check_lineage(str(root))
    assert ("NESTED_REPOSITORY", "warning") in {(item.code, item.severity) for item in verdict.findings}
    # The root's own stages cannot be hidden this way: what they leave in the lock is orphaned.
    (root / "sub/dvc.lock").write_text("{}")
    assert check_lineage(str(root)).passed


def test_stages_inside_of_data_do_not_speak(tmp_path: Path) -> None:
    inner = json.dumps({"stages": {"evil": {"cmd": "x", "outs": ["../../out.csv"]}}})
    listing = json.dumps([{"md5": md5(inner), "relpath": "dvc.yaml"}])
    root = write(
        simple(tmp_path / "r"),
        {
            "a/data/dvc.yaml": inner,
            # Declared by a file that is read after the data's folder was walked.
            "b/x.dvc": {"wdir": "../a", "outs": [{"path": "data", "hash": "md5", "md5": md5(listing) + ".dir"}]},
        },
    )
    assert "OUT_OVERLAP" in check(root)


@pytest.mark.parametrize("path", [".git/config", ".dvc/config", "dvc.yaml", "dvc.lock", "."])
def test_an_output_over_the_repository_itself(tmp_path: Path, path: str) -> None:
    root = simple(tmp_path / "r")
    write(root, {".git/config": "[core]\n", ".dvc/config": ""})
    data = (root / path).read_bytes() if path != "." else b""
    write(root, {"x.dvc": {"outs": [out(path, data)]}})
    assert check(root)
