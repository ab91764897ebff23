"""Whatever a URL, a configuration, a file of DVC or a list of files says, only our own answers come out."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealflow.errors import UsageError
from sealflow.findings import Finding, printable
from sealflow.lineage import clone
from sealflow.lineage.clone import is_git_name, tail
from sealflow.lineage.fetch import _listed, fetch
from sealflow.lineage.git_program import Stopped
from sealflow.lineage.git_url import check_url, is_git_url
from sealflow.lineage.preflight import canonical_remote, preflight, refused_place
from sealflow.lineage.source import data_source
from tests.core.lineage.elsewhere import FOLDER, manifest, put_folder
from tests.core.lineage.gitrepo import snapshot
from tests.core.lineage.repos import md5, out, write
from tests.fuzz.test_lineage import DVC_FILE, LOCK, PIPELINE, mutated

# Many examples each.
pytestmark = pytest.mark.slow

REMOTE = "s3://bucket/x"
CONFIG = (
    f"[core]\n    remote = st\n['remote \"st\"']\n    url = {REMOTE}\n    jobs = 4\n[cache]\n    type = copy\n".encode()
)
URLS = [
    "https://host/x.git",
    "ssh://git@host:22/x",
    "git@host:a/b",
    "file:///srv/x.git",
    "ext::sh -c x",
    "https://a:b@c/d",
]
SEEDS = {".dvc/config": CONFIG, "x.dvc": DVC_FILE, "dvc.yaml": PIPELINE, "dvc.lock": LOCK}
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "repository", {})


@given(
    st.one_of(
        mutated([url.encode() for url in URLS]).map(lambda raw: raw.decode("utf-8", "surrogateescape")), st.text()
    )
)
def test_urls(text: str) -> None:
    try:
        protocol = check_url(text)
    except UsageError:
        return
    assert protocol in ("https", "ssh", "file")
    assert text.isascii()
    assert text.isprintable()
    assert not text.startswith("-")
    assert not set(" '\"`$;|&<>\\\n?#") & set(text)
    assert "::" not in text.partition("/")[0] or "[" in text
    assert protocol == "file" or is_git_url(text)
    if protocol == "https":
        assert "@" not in text.split("/")[2]


@given(st.text())
def test_remotes(text: str) -> None:
    try:
        found = data_source(text)
    except UsageError:
        return
    assert found.startswith(("/", "s3://"))
    assert canonical_remote(found) == canonical_remote(canonical_remote(found))


@SHARED
@given(name=st.sampled_from(sorted(SEEDS)), data=st.data())
def test_what_is_looked_at_first(root: Path, name: str, data: st.DataObject) -> None:
    write(root, {name: data.draw(mutated([SEEDS[name]]))})
    before = snapshot(root)
    found = preflight(str(root), remotes=[REMOTE])
    assert all(isinstance(finding, Finding) and finding.severity in ("refusal", "unverifiable") for finding in found)
    assert snapshot(root) == before


@SHARED
@given(option=st.from_regex(r"[a-z_]{1,20}", fullmatch=True), section=st.sampled_from(["core", "cache", "remote", "x"]))
def test_only_known_settings_pass(root: Path, option: str, section: str) -> None:
    name = "'remote \"st\"'" if section == "remote" else section
    write(root, {".dvc/config": f"[{name}]\n{option} = /tmp/elsewhere\n"})
    known = {
        "core": {
            "analytics",
            "autostage",
            "check_update",
            "checksum_jobs",
            "experiments",
            "interactive",
            "no_scm",
            "remote",
        },
        "cache": {"protected", "slow_link_warning", "type", "verify"},
    }.get(section, set())
    assert bool(preflight(str(root), remotes=[REMOTE])) is (option not in known)


@given(mutated([manifest(FOLDER), b'[{"md5": "%s", "relpath": "../x"}]' % md5("1").encode()]))
def test_lists_of_files(data: bytes) -> None:
    try:
        listed = _listed("data", data)
    except Stopped:
        return
    for name, digest in listed.items():
        assert os.path.normpath(f"/r/data/{name}") == f"/r/data/{name}"
        assert len(digest) == 32
        assert set(digest) <= set("0123456789abcdef")


@given(st.text(max_size=40))
def test_places_of_data(text: str) -> None:
    if not refused_place(text):
        assert os.path.normpath(f"/r/{text}") == f"/r/{text}"
        assert not any(is_git_name(part) or is_git_name(part, ".dvc") for part in text.split("/"))


@given(st.binary(max_size=600), st.text("abc019/+", min_size=6, max_size=20), st.binary(max_size=40))
def test_what_is_repeated(before: bytes, secret: str, after: bytes) -> None:
    said = tail(before + secret.encode() + after, [secret])
    assert secret not in said
    assert printable(said, len(said)) == said
    assert len(said) <= 300


@SHARED
@given(
    files=st.dictionaries(st.text(max_size=12), st.sampled_from([b"", b"1\n", b"x"]), max_size=5),
    name=st.text(max_size=8),
)
def test_fetching(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], name: str) -> None:
    """Folders and names of all sorts: what is written is what was named, and lies where it was named."""
    with tempfile.TemporaryDirectory() as folder:
        remote, root = Path(folder, "remote"), write(Path(folder, "private/repository"), {})
        put_folder(remote, files)
        body = manifest(files)
        entry = {"path": name, "hash": "md5", "md5": md5(body) + ".dir"}
        try:
            write(root, {"x.dvc": json.dumps({"outs": [entry, out("plain", "1\n")]})})
        except UnicodeEncodeError:
            return
        clone._OURS.add(str(root))
        try:
            fetch(str(root), remote=str(remote))
        finally:
            clone._OURS.discard(str(root))
        there = {path.relative_to(folder).parts[0] for path in Path(folder).rglob("*")}
        assert there == {"remote", "private"}
        assert {path.name for path in (root / "..").iterdir()} == {"repository"}
        for path in root.rglob("*"):
            if path.is_file() and ".dvc" not in path.relative_to(root).parts and path.name != "x.dvc":
                relative = str(path.relative_to(root))
                assert (
                    relative == "plain"
                    or files[relative.removeprefix(f"{os.path.normpath(name)}/")] == path.read_bytes()
                )
