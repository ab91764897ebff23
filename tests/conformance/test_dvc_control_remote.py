"""Tampered DVC remotes: what we say, with DVC itself as the control column.

Each scenario changes one thing on a remote that real DVC pushed to. DVC is asked in three ways: ``dvc status``,
``dvc status --cloud``, and ``dvc pull`` in a fresh clone, whose data are then compared with what was committed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sealflow.findings import Finding
from sealflow.lineage.check import check_repository
from sealflow.lineage.remote import check_remote, remote_url, wanted_objects
from sealflow.storage import Storages
from tests.core.lineage import dvcrepo
from tests.core.lineage.dvcrepo import Dvc
from tests.core.lineage.remotes import key_of, listing
from tests.core.lineage.repos import md5
from tests.servers.s3 import S3Server

pytestmark = [pytest.mark.oracle, pytest.mark.slow, pytest.mark.xdist_group("dvc")]

DATA = {"raw.csv": b"r\n", "data/a.csv": b"1,2\n", "data/sub/b.csv": b"3,4\n", "data/empty": b"", "data/\u00fc\n": b"x"}
FOLDER = {name.removeprefix("data/"): data for name, data in DATA.items() if name.startswith("data/")}
RAW = key_of(md5(DATA["raw.csv"]))
IN_FOLDER = key_of(md5(FOLDER["a.csv"]))
LISTING = key_of(f"{md5(listing(FOLDER))}.dir")


@dataclass(frozen=True)
class World:
    """DVC, and a clean repository beside its clean remote."""

    dvc: Dvc
    usual: Path


def make(dvc: Dvc, root: Path, url: str, **options: str) -> Path:
    """Make a repository, and push its data."""
    dvc.init(root)
    dvcrepo.write(
        root, {**DATA, "dvc.yaml": "stages: {make: {cmd: wc -l < raw.csv > made, deps: [raw.csv], outs: [made]}}"}
    )
    dvc.do(root, "add", "-q", "raw.csv", "data")
    dvc.do(root, "repro")
    dvc.do(root, "remote", "add", "-d", "Storage", url)
    for name, value in options.items():
        dvc.do(root, "remote", "modify", "storage", name, value)
    dvc.do(root, "push", "-q")
    dvc.git(root, "add", "-A")
    dvc.git(root, "commit", "-qm", "all")
    return root


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    base = tmp_path_factory.mktemp("dvc-remote")
    with dvcrepo.running(base / "home") as dvc:
        make(dvc, base / "usual/repo", "../remote")
        yield World(dvc, base / "usual")


def ours(root: Path, storages: Storages | None = None, *, read: bool = False) -> tuple[Finding, ...]:
    """What we say of the remote, by the repository's own words."""
    checked = check_repository(str(root), level="L2")
    found: list[Finding] = []
    for name, wanted in wanted_objects(checked.stages, checked.contents).items():
        url = remote_url(checked.read[".dvc/config"], name or None)
        found += check_remote(url, wanted, storages=storages or Storages(), read=read, root=str(root))
    return tuple(found)


def codes(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(finding.code, finding.subject) for finding in findings]


def state(root: Path) -> dict[str, Any]:
    """Every byte, mode and time below a folder, but for the times at which something was looked at."""
    found = {}
    for path in [root, *root.rglob("*")]:
        info = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (info.st_mode, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_nlink, data)
    return found


# --- A remote in a folder ---


def put(key: str, data: bytes, mode: int) -> Callable[[Path], None]:
    def tamper(remote: Path) -> None:
        (remote / key).chmod(0o644)
        (remote / key).write_bytes(data)
        (remote / key).chmod(mode)

    return tamper


def remove(key: str) -> Callable[[Path], None]:
    return lambda remote: (remote / key).unlink()


def flip(key: str, mode: int) -> Callable[[Path], None]:
    """Other bytes of the same number, and the times of before."""

    def tamper(remote: Path) -> None:
        import os

        info = (remote / key).stat()
        data = (remote / key).read_bytes()
        put(key, bytes([data[0] ^ 1]) + data[1:], mode)(remote)
        os.utime(remote / key, ns=(info.st_atime_ns, info.st_mtime_ns))

    return tamper


EVIL = listing({**FOLDER, "a.csv": b"r\n"})
MISSING, CORRUPT = "REMOTE_MISSING", "REMOTE_CORRUPT"
IN_SYNC, NEW = "in sync", "not in sync"
TRUE, WRONG, REFUSED = "true data", "wrong data", "error"

# Name, how, then DVC: status --cloud, pull in a clone, status of the clone, whether it changed the remote; then ours.
SCENARIOS: list[tuple[str, Callable[[Path], None], str, str, str, bool, list[tuple[str, str]]]] = [
    ("nothing", lambda remote: None, IN_SYNC, TRUE, "clean", False, []),
    ("object-missing", remove(RAW), NEW, REFUSED, "changed", False, [(MISSING, "raw.csv")]),
    # Where it finds the listing of a folder, DVC takes the files in it for found.
    ("object-in-folder-missing", remove(IN_FOLDER), IN_SYNC, REFUSED, "changed", False, [(MISSING, "data/a.csv")]),
    ("object-overwritten-0444", put(RAW, b"E\n", 0o444), IN_SYNC, WRONG, "clean", False, [(CORRUPT, "raw.csv")]),
    ("object-overwritten-0444-times-kept", flip(RAW, 0o444), IN_SYNC, WRONG, "clean", False, [(CORRUPT, "raw.csv")]),
    ("object-longer-0444", put(RAW, b"evil\n", 0o444), IN_SYNC, WRONG, "clean", False, [(CORRUPT, "raw.csv")]),
    ("object-emptied-0444", put(RAW, b"", 0o444), IN_SYNC, WRONG, "clean", False, [(CORRUPT, "raw.csv")]),
    ("object-in-folder-overwritten-0444", put(IN_FOLDER, b"9,9\n", 0o444), IN_SYNC, WRONG, "clean", False,
     [(CORRUPT, "data/a.csv")]),
    ("object-overwritten-0644", put(RAW, b"E\n", 0o644), NEW, REFUSED, "changed", True, [(CORRUPT, "raw.csv")]),
    ("object-in-folder-overwritten-0644", put(IN_FOLDER, b"9,9\n", 0o644), IN_SYNC, WRONG, "clean", False,
     [(CORRUPT, "data/a.csv")]),
    ("listing-missing", remove(LISTING), NEW, REFUSED, "changed", False, [(MISSING, "data")]),
    ("listing-tampered-0444", put(LISTING, EVIL, 0o444), IN_SYNC, WRONG, "changed", False, [(CORRUPT, "data")]),
    ("listing-tampered-0644", put(LISTING, EVIL, 0o644), IN_SYNC, WRONG, "changed", False, [(CORRUPT, "data")]),
]  # fmt: skip


def cloud(dvc: Dvc, root: Path) -> str:
    answer = dvc(root, "status", "--cloud", "--json")
    if answer.status:
        return REFUSED
    return IN_SYNC if json.loads(answer.output.strip().splitlines()[-1]) == {} else NEW


def pulled(dvc: Dvc, clone: Path) -> str:
    answer = dvc(clone, "pull")
    if answer.status:
        return REFUSED
    return TRUE if all((clone / name).read_bytes() == data for name, data in DATA.items()) else WRONG


@pytest.mark.parametrize(
    ("tamper", "in_cloud", "after_pull", "of_clone", "changed", "expected"),
    [row[1:] for row in SCENARIOS],
    ids=[row[0] for row in SCENARIOS],
)
def test_folder(
    world: World,
    tmp_path: Path,
    tamper: Callable[[Path], None],
    in_cloud: str,
    after_pull: str,
    of_clone: str,
    changed: bool,
    expected: list[tuple[str, str]],
) -> None:
    base = dvcrepo.copy(world.usual, tmp_path / "w")
    repo, remote = base / "repo", base / "remote"
    tamper(remote)
    before = state(base)
    assert codes(ours(repo)) == expected
    assert state(base) == before, "the check changed something"
    # DVC on copies of its own, for it may remove what it looks at.
    asked, cloned = dvcrepo.copy(base, tmp_path / "asked"), dvcrepo.copy(base, tmp_path / "cloned")
    assert world.dvc.status(asked / "repo").word == "clean"
    assert cloud(world.dvc, asked / "repo") == in_cloud
    left = {path.relative_to(asked / "remote") for path in (asked / "remote").rglob("*") if path.is_file()}
    here = {path.relative_to(remote) for path in remote.rglob("*") if path.is_file()}
    assert (left != here) is changed
    world.dvc.git(cloned, "clone", "-q", "repo", "clone")
    assert pulled(world.dvc, cloned / "clone") == after_pull
    assert world.dvc.status(cloned / "clone").word == of_clone


def test_dvc_sees_nothing_that_we_do_not() -> None:
    for name, _, in_cloud, after_pull, of_clone, _, expected in SCENARIOS:
        assert bool(expected) >= ((in_cloud, after_pull, of_clone) != (IN_SYNC, TRUE, "clean")), name
    deceived = [name for name, _, in_cloud, after_pull, _, _, expected in SCENARIOS if expected and in_cloud == IN_SYNC]
    assert len(deceived) >= 5


# --- A remote in S3 ---


@pytest.fixture(scope="module")
def dvc_s3(tmp_path_factory: pytest.TempPathFactory, dvc_s3_python: Path, s3_server: S3Server) -> Iterator[Dvc]:
    """DVC with S3, in an environment of its own."""
    folder = tmp_path_factory.mktemp("dvc-s3-home")
    with dvcrepo.running(folder / "home", dvc_s3_python, **s3_server.environment) as dvc:
        yield dvc


# As above, without what DVC changes: in S3 it changes nothing.
IN_S3: list[tuple[str, str, bytes | None, str, str, str, list[tuple[str, str]]]] = [
    ("nothing", RAW, DATA["raw.csv"], IN_SYNC, TRUE, "clean", []),
    ("object-missing", RAW, None, NEW, REFUSED, "changed", [(MISSING, "raw.csv")]),
    ("object-overwritten", RAW, b"E\n", IN_SYNC, WRONG, "clean", [(CORRUPT, "raw.csv")]),
    ("object-longer", RAW, b"evil\n", IN_SYNC, WRONG, "clean", [(CORRUPT, "raw.csv")]),
    ("object-in-folder-overwritten", IN_FOLDER, b"9,9\n", IN_SYNC, WRONG, "clean", [(CORRUPT, "data/a.csv")]),
    ("listing-tampered", LISTING, EVIL, IN_SYNC, WRONG, "changed", [(CORRUPT, "data")]),
]


@pytest.fixture(scope="module")
def pushed(dvc_s3: Dvc, s3_server: S3Server) -> tuple[Path, str]:
    """A clean repository and the bucket that it was pushed to."""
    bucket = s3_server.make_bucket()
    root = dvc_s3.folder.parent / "usual"
    return make(dvc_s3, root, f"s3://{bucket}/dvc", endpointurl=s3_server.endpoint_url), bucket


@pytest.mark.parametrize(
    ("key", "data", "in_cloud", "after_pull", "of_clone", "expected"),
    [row[1:] for row in IN_S3],
    ids=[row[0] for row in IN_S3],
)
def test_s3(
    dvc_s3: Dvc,
    pushed: tuple[Path, str],
    s3_server: S3Server,
    tmp_path: Path,
    key: str,
    data: bytes | None,
    in_cloud: str,
    after_pull: str,
    of_clone: str,
    expected: list[tuple[str, str]],
) -> None:
    usual, bucket = pushed
    client = s3_server.client()
    where = {"Bucket": bucket, "Key": f"dvc/{key}"}
    whole = client.get_object(**where)["Body"].read()

    def held() -> Any:
        return [(item["Key"], item["ETag"], item["LastModified"])
                for item in client.list_objects_v2(Bucket=bucket)["Contents"]]  # fmt: skip

    try:
        client.delete_object(**where) if data is None else client.put_object(**where, Body=data)
        before = held()
        for read in (False, True):
            assert codes(ours(usual, Storages(client), read=read)) == expected
        assert held() == before
        repo = dvcrepo.copy(usual, tmp_path / "repo")
        assert dvc_s3.status(repo).word == "clean"
        assert cloud(dvc_s3, repo) == in_cloud
        dvc_s3.git(tmp_path, "clone", "-q", "repo", "clone")
        assert pulled(dvc_s3, tmp_path / "clone") == after_pull
        assert dvc_s3.status(tmp_path / "clone").word == of_clone
    finally:
        client.put_object(**where, Body=whole)


def test_dvc_uploads_large_files_in_parts(dvc_s3: Dvc, s3_server: S3Server, tmp_path: Path) -> None:
    """Then no ETag is an MD5, and only reading tells."""
    bucket = s3_server.make_bucket()
    root = make(dvc_s3, tmp_path / "repo", f"s3://{bucket}", endpointurl=s3_server.endpoint_url)
    storages = Storages(s3_server.client())
    with (root / "large").open("wb") as file:
        file.truncate(100 << 20)
    dvc_s3.do(root, "add", "-q", "large")
    dvc_s3.do(root, "push", "-q")
    assert codes(ours(root, storages)) == [("REMOTE_UNPROVED", "large")]
    assert ours(root, storages, read=True) == ()


# --- No false alarms ---

PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs", "Co", "Cn"]), min_size=1, max_size=8)
NAMES = st.lists(
    PARTS.filter(lambda part: part.strip(" .") and part[0] not in ".-" and not part.endswith((".dvc", " "))),
    min_size=1,
    max_size=3,
)
CONTENTS = st.binary(max_size=20) | st.sampled_from([b"", b"a\r\nb\r\n", b"\0" * 70_000, bytes(range(256)) * 1500])
# DVC takes a second for each, and shrinking would ask it a hundred times.
FEW = settings(
    max_examples=max(8, settings().max_examples // 6),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


def tree(files: list[tuple[list[str], bytes]]) -> dict[str, str | bytes]:
    """Names that can lie side by side."""
    found: dict[str, str | bytes] = {}
    for parts, data in files:
        name = "/".join(parts)
        above = {"/".join(parts[:level]) for level in range(1, len(parts))}
        if not above & found.keys() and not any(other.startswith(name + "/") for other in found):
            found[name] = data
    return found


@pytest.mark.timeout(1200)
@FEW
@given(st.lists(st.tuples(NAMES, CONTENTS), max_size=6), CONTENTS)
def test_what_dvc_pushed_is_whole(world: World, files: list[tuple[list[str], bytes]], single: bytes) -> None:
    base = world.usual.parent / "generated"
    root = base / "repo"
    if not root.exists():
        world.dvc.init(root)
        world.dvc.do(root, "remote", "add", "-d", "storage", "../remote, with a comma # and more")
    for path in (root / "data", base / "remote, with a comma # and more"):
        shutil.rmtree(path, ignore_errors=True)
    dvcrepo.write(root, {f"data/{name}": data for name, data in tree(files).items()})
    dvcrepo.write(root, {"data/one": b"1", "single": single})
    world.dvc.do(root, "add", "-q", "data", "single")
    world.dvc.do(root, "push", "-q")
    assert ours(root) == ()
    # And every object counts.
    for path in [path for path in base.rglob("remote*/files/md5/*/*") if path.is_file()]:
        data = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(data + b"!")
        assert {code for code, _ in codes(ours(root))} == {CORRUPT}
        path.write_bytes(data)


def test_a_repository_with_everything_in_it(world: World, tmp_path: Path) -> None:
    """An import stays on the remote of its origin; metrics outside of the cache, on none."""
    upstream = dvcrepo.make_upstream(world.dvc, tmp_path / "upstream")
    root = dvcrepo.make_usual(world.dvc, tmp_path / "repo", upstream)
    for name in ("storage", "other"):
        world.dvc.do(root, "remote", "add", name, f"../{name}")
    world.dvc.do(root, "remote", "default", "storage")
    text = (root / "raw.csv.dvc").read_text()
    (root / "raw.csv.dvc").write_text(text + "  remote: other\n")
    world.dvc.do(root, "push", "-q")
    assert ours(root) == ()
    shutil.rmtree(tmp_path / "other")
    (tmp_path / "other").mkdir()
    assert codes(ours(root)) == [(MISSING, "raw.csv")]
