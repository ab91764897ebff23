"""Repositories by URL: cloned, looked at, given their data, and checked like any other."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sealflow.errors import UsageError
from sealflow.findings import Finding
from sealflow.lineage import clone as clone_module
from sealflow.lineage.check import check_repository
from sealflow.lineage.clone import Clone, cloned
from sealflow.lineage.foreign import checked_out, fetch, is_git_url, preflight, prepared, s3_environment
from sealflow.lineage.git_program import Stopped
from sealflow.lineage.git_url import check_url
from sealflow.lineage.source import data_source
from tests.core.lineage.dvcrepo import make_upstream, make_usual, running
from tests.core.lineage.elsewhere import (
    BRANCH,
    FOLDER,
    Elsewhere,
    make,
    manifest,
    object_path,
    put,
)
from tests.core.lineage.gitrepo import environment, new_repo, snapshot
from tests.core.lineage.repos import md5, out
from tests.servers.s3 import S3Server

# Real repositories, or many signatures: minutes all together.
pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path) -> Elsewhere:
    return make(tmp_path)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, which is empty again after every test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def stopped(url: str, revision: str = "HEAD", **more: Any) -> Finding:
    with pytest.raises(Stopped) as caught, cloned(url, revision, **more):
        pass
    return caught.value.finding


def decisive(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity in ("refusal", "unverifiable")]


# --- URLs ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://host/x", True), ("HTTPS://host/x.git", True), ("ssh://git@host/x", True), ("git@host:x/y.git", True),
        ("file:///srv/x.git", True), ("file:///srv/x.git/", True), ("http://host/x", True), ("git://host/x", True),
        ("ext::sh -c x", True), ("s3://bucket/x", True), ("fd::17", True),
        ("file:///srv/x", False), ("file:/srv/x", False), ("/srv/x.git", False), ("x", False), ("./a@b:c", False),
        ("../x.git", False), ("a/b@c:d", False), ("", False), ("C:x", False), ("-x", False), ("host:path", False),
    ],
)  # fmt: skip
def test_what_is_a_url(text: str, expected: bool) -> None:
    assert is_git_url(text) is expected


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("https://github.com/a/b.git", "https"), ("https://host:8443/a/b", "https"), ("https://[::1]/x", "https"),
        ("ssh://git@host.example/a/b", "ssh"), ("ssh://host:2222/~ada/x.git", "ssh"), ("git@host:a/b.git", "ssh"),
        ("git@host:~ada/b.git", "ssh"), ("file:///srv/git/x.git", "file"), ("file:///srv/a%20b", "file"),
    ],
)  # fmt: skip
def test_urls_that_are_taken(url: str, protocol: str) -> None:
    assert check_url(url) == protocol


# --- The clone ---


def test_clone_holds_the_files_and_nothing_else(place: Elsewhere, temporary: Path) -> None:
    commit = place.push({"run.sh": "#!/bin/sh\n", "a/b/c": "deep"})
    os.chmod(place.repo.root / "run.sh", 0o755)
    commit = place.push()
    with cloned(place.url) as found:
        root = Path(found.root)
        assert found == Clone(found.root, commit)
        tracked = place.repo.git("ls-files").splitlines()
        here = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and ".git" not in p.parts]
        assert sorted(here) == sorted(tracked)
        for name in tracked:
            assert (root / name).read_bytes() == (place.repo.root / name).read_bytes()
            assert bool((root / name).stat().st_mode & 0o100) is (name == "run.sh")
        assert stat.S_IMODE(root.parent.stat().st_mode) == 0o700
        assert (root / ".git/HEAD").read_text() == commit + "\n"
        assert not (root / ".git/hooks").exists()
        assert root.is_relative_to(temporary)
    assert not root.parent.exists()


def test_clone_is_removed_when_the_caller_fails(place: Elsewhere) -> None:
    roots = []

    def fail() -> None:
        with checked_out(place.url) as root:
            roots.append(os.path.isdir(root))
            raise RuntimeError(root)

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert roots == [True]
    assert not os.path.exists(str(caught.value))


@pytest.mark.parametrize(
    ("revision", "expected"),
    [
        ("HEAD", "second"), ("main", "second"), ("refs/heads/main", "second"), (BRANCH, "second"),
        ("origin/main", "second"), ("v1", "first"), ("refs/tags/v1", "first"), ("light", "first"), ("side", "side"),
        ("feature/x", "side"), ("first", "first"), ("second", "second"),
    ],
)  # fmt: skip
def test_revisions(place: Elsewhere, revision: str, expected: str) -> None:
    repo = place.repo
    commits = {"first": place.push({"x": "1"})}
    repo.git("tag", "-a", "-m", "one", "v1")
    repo.git("tag", "light")
    repo.git("branch", "side")
    commits["second"] = place.push({"x": "2"})
    repo.git("checkout", "-q", "side")
    commits["side"] = place.push({"x": "3"})
    repo.git("branch", "feature/x")
    repo.git("checkout", "-q", "main")
    place.publish()
    with cloned(place.url, commits.get(revision, revision) if revision != "side" else "side") as found:
        assert found.commit == commits[expected]


@pytest.mark.parametrize("revision", ["nothing", "refs/heads/nothing", "refs/tags/main", "0" * 40, "a" * 64])
def test_unknown_revisions(place: Elsewhere, revision: str) -> None:
    assert stopped(place.url, revision).code in ("GIT_REVISION_UNKNOWN", "GIT_HISTORY_INCOMPLETE")


def test_name_of_two_commits(place: Elsewhere) -> None:
    place.repo.git("tag", "main")
    place.push({"x": "2"})
    assert stopped(place.url, "main").code == "GIT_REVISION_UNKNOWN"
    with cloned(place.url, "refs/tags/main") as one, cloned(place.url, "refs/heads/main") as other:
        assert one.commit != other.commit


@pytest.mark.parametrize(
    "revision", ["-x", "--upload-pack=x", "a..b", "HEAD~1", "main^{commit}", "a b", "", "x\n", "@"]
)
def test_revisions_that_are_none(place: Elsewhere, revision: str) -> None:
    with pytest.raises(UsageError), cloned(place.url, revision):
        pass


def test_sha256_repository(tmp_path: Path) -> None:
    repo = new_repo(tmp_path / "work", "--object-format=sha256")
    commit = repo.commit({"x": b"1"})
    with cloned(f"file://{repo.root}/.git") as found:
        assert found.commit == commit
        assert len(commit) == 64
        assert Path(found.root, "x").read_bytes() == b"1"


def test_submodules_are_named_and_left_out(place: Elsewhere) -> None:
    place.entry("160000", "inner", "1" * 40)
    with prepared(place.url, remote=str(place.remote)) as (root, findings):
        assert [(f.code, f.severity, f.subject) for f in findings] == [("NESTED_REPOSITORY", "warning", "inner")]
        assert not os.path.exists(os.path.join(root, "inner"))


def test_empty_repository(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "x.git")], env=environment(), check=True)
    assert stopped(f"file://{tmp_path}/x.git").code == "GIT_REVISION_UNKNOWN"


def test_repository_that_is_not_there(tmp_path: Path) -> None:
    finding = stopped(f"file://{tmp_path}/nothing.git")
    assert (finding.code, finding.severity) == ("GIT_CLONE_FAILED", "unverifiable")
    assert "nothing.git" in finding.message


def test_shallow_repository(place: Elsewhere, tmp_path: Path) -> None:
    place.push({"x": "2"})
    shallow = tmp_path / "shallow.git"
    subprocess.run(
        ["git", "clone", "-q", "--bare", "--depth=1", place.url, str(shallow)], env=environment(), check=True
    )
    assert stopped(f"file://{shallow}").code == "GIT_CLONE_FAILED"


def test_without_git(place: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert stopped(place.url).code == "PROGRAM_MISSING"


def test_time_limit(place: Elsewhere) -> None:
    finding = stopped(place.url, time_limit=0.0)
    assert (finding.code, finding.severity) == ("GIT_CLONE_FAILED", "unverifiable")


def test_large_file_is_written_in_pieces(place: Elsewhere) -> None:
    data = os.urandom(40 << 20)
    (place.repo.root / "big").write_bytes(data)
    place.push()
    with cloned(place.url) as found:
        assert Path(found.root, "big").read_bytes() == data


def test_ssh_gets_the_agent_and_no_settings(place: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in the place of ssh notes how it was called, and is the server."""
    programs = tmp_path / "programs"
    programs.mkdir()
    ssh = programs / "ssh"
    ssh.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/arguments\nenv > {tmp_path}/environment\n"
        f"exec git-upload-pack {place.bare}\n"
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/agent")
    monkeypatch.setenv("GIT_SSH_COMMAND", f"touch {tmp_path}/evil")
    monkeypatch.setenv("SECRET", "x")
    with cloned("git@host.example:a/b.git") as found:
        assert Path(found.root, "dvc.yaml").exists()
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[:3] == ["-F", "none", "-T"]
    assert "-oBatchMode=yes" in arguments
    assert "-oStrictHostKeyChecking=yes" in arguments
    assert "git@host.example" in arguments
    assert arguments[-1] == "git-upload-pack 'a/b.git'"
    given = dict(line.partition("=")[::2] for line in (tmp_path / "environment").read_text().splitlines())
    assert given["SSH_AUTH_SOCK"] == "/agent"
    assert "SECRET" not in given
    assert not (tmp_path / "evil").exists()


# --- What is looked at first ---


def test_usual_repository_is_taken(place: Elsewhere) -> None:
    with checked_out(place.url) as root:
        assert preflight(root, remotes=[str(place.remote)]) == ()


def test_repository_that_dvc_made_is_taken(tmp_path: Path) -> None:
    with running(tmp_path / "dvc") as dvc:
        root = make_usual(dvc, tmp_path / "usual", make_upstream(dvc, tmp_path / "upstream"))
        # Imports are refused, and so are names that no terminal shows.
        dvc.do(root, "remove", "shared.csv.dvc")
        (root / "data/line\nfeed").unlink()
        dvc.do(root, "add", "-q", "data")
        dvc.do(root, "repro")
        dvc.do(root, "remote", "add", "-q", "-d", "st", str(tmp_path / "remote"))
        dvc.do(root, "push", "-q")
        dvc.git(root, "add", "-A")
        dvc.git(root, "commit", "-qm", "no import")
    with prepared(f"file://{root}/.git", "main", remote=str(tmp_path / "remote")) as (clone, findings):
        assert findings == ()
        here = {str(path.relative_to(clone)) for path in Path(clone).rglob("*") if path.is_file()}
        assert here >= {"data/ü é.txt", "data/empty", "model/weights.bin", "grid/2/out.txt", "log.txt", "score.json"}
        assert decisive(check_repository(clone, level="L3").findings) == []


HARMLESS = {
    "core": "[core]\nremote = st\nanalytics = false\ncheck_update = false\nautostage = true\nchecksum_jobs = 4\n",
    "cache": "[cache]\ntype = reflink,copy\nslow_link_warning = false\nprotected = true\n",
    "parsing": "[parsing]\nbool = boolean_optional\nlist = append\n",
    "remote": "['remote \"st\"']\nurl = {url}\njobs = 4\nverify = true\nregion = eu-west-1\n",
    "remote-with-a-slash": "['remote \"st\"']\nurl = {url}/\n",
    "remote-as-uri": "['remote \"st\"']\nurl = file://{url}\n",
    "two-remotes": "['remote \"a\"']\nurl = {url}\n['remote \"b\"']\nurl = s3://other/x\n",
    "empty": "",
}


@pytest.mark.parametrize("config", HARMLESS.values(), ids=HARMLESS)
def test_harmless_settings(place: Elsewhere, config: str) -> None:
    place.push({".dvc/config": config.replace("{url}", str(place.remote))})
    assert place.codes(remotes=["s3://other/x/"]) == set()


# --- Data from a folder ---


def test_whole_way_to_level_three(place: Elsewhere) -> None:
    before = snapshot(place.remote), snapshot(place.bare), snapshot(place.repo.root)
    assert place.look() == []
    assert place.look("main") == []
    assert (snapshot(place.remote), snapshot(place.bare), snapshot(place.repo.root)) == before


def test_the_remote_may_be_a_file_url(place: Elsewhere) -> None:
    assert place.codes(remote=f"file://{place.remote}") == set()


def test_no_remote_fetches_nothing(place: Elsewhere) -> None:
    assert place.codes(remote=None, remotes=[str(place.remote)]) == {"DATA_MISSING"}


def test_targets_fetch_what_they_need(place: Elsewhere) -> None:
    (place.remote / object_path(md5("2\n"))).unlink()
    assert place.codes(targets=["data.dvc"]) == set()
    assert place.codes(targets=["make"]) == {"REMOTE_MISSING"}
    with prepared(place.url, remote=str(place.remote), targets=["raw.csv"]) as (root, findings):
        assert findings == ()
        assert os.path.exists(os.path.join(root, "raw.csv"))
        assert not os.path.exists(os.path.join(root, "data"))


def test_unknown_target(place: Elsewhere) -> None:
    with (
        pytest.raises(UsageError, match="names no stage"),
        prepared(place.url, remote=str(place.remote), targets=["nothing"]),
    ):
        pass


def test_legacy_and_listed_data(place: Elsewhere) -> None:
    """Digests of DVC 2 lie elsewhere on the remote; a folder may be listed in its .dvc file."""
    text = b"a\r\nb\r\n"
    digest = md5(b"a\nb\n")
    path = place.remote / object_path(digest, legacy=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    listed = [{"relpath": name, "md5": md5(data), "size": len(data)} for name, data in FOLDER.items()]
    place.push(
        {
            "old.txt.dvc": {"outs": [{"path": "old.txt", "md5": digest, "size": len(text)}]},
            "listed.dvc": {"outs": [{"path": "listed", "hash": "md5", "files": listed}]},
            ".gitignore": "/raw.csv\n/data\n/out.csv\n/old.txt\n/listed\n",
        }
    )
    with prepared(place.url, remote=str(place.remote)) as (root, findings):
        assert findings == ()
        assert Path(root, "old.txt").read_bytes() == text
        assert Path(root, "listed/sub/b.csv").read_bytes() == FOLDER["sub/b.csv"]


def test_what_the_commit_holds_is_left_alone(place: Elsewhere) -> None:
    place.push({".gitignore": "/data\n/out.csv\n", "raw.csv": "mine\n"})
    assert place.codes() == {"DATA_MISMATCH", "SIZE_MISMATCH"}


def test_many_equal_files(place: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where links are not possible the bytes are copied."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(31, "Too many links")

    monkeypatch.setattr(os, "link", fails)
    assert place.codes() == set()


TAMPERED: dict[str, tuple[Any, set[str]]] = {
    "other-bytes": (lambda p: put(p.remote, "evil", digest=md5("1\n")), {"REMOTE_CORRUPT"}),
    "other-bytes-read-only": (lambda p: put(p.remote, "evil", digest=md5("1\n"), mode=0o444), {"REMOTE_CORRUPT"}),
    "other-bytes-in-a-folder": (lambda p: put(p.remote, "evil", digest=md5("3,4\n")), {"REMOTE_CORRUPT"}),
    "other-folder": (
        lambda p: put(p.remote, manifest({"x": b"1\n"}), digest=md5(manifest(FOLDER)) + ".dir"),
        {"REMOTE_CORRUPT"},
    ),
    "missing": (lambda p: (p.remote / object_path(md5("1\n"))).unlink(), {"REMOTE_MISSING"}),
    "missing-in-a-folder": (lambda p: (p.remote / object_path(md5("3,4\n"))).unlink(), {"REMOTE_MISSING"}),
    "missing-folder": (
        lambda p: (p.remote / object_path(md5(manifest(FOLDER)) + ".dir")).unlink(),
        {"REMOTE_MISSING"},
    ),
    "lock": (lambda p: p.push({"raw.csv.dvc": {"outs": [out("raw.csv", "2\n")]}}), {"CHAIN_BREAK", "DATA_MISMATCH"}),
    "parameters": (lambda p: p.push({"params.yaml": {"lr": 0.2}}), {"PARAMS_DRIFT"}),
    "unsigned": (lambda p: (setattr(p.repo, "key", None), p.push({"x": "y"})), {"COMMIT_UNSIGNED"}),
}


@pytest.mark.parametrize(("tamper", "expected"), TAMPERED.values(), ids=TAMPERED)
def test_tampered(place: Elsewhere, tamper: Any, expected: set[str]) -> None:
    tamper(place)
    before = snapshot(place.remote)
    assert place.codes() >= expected
    assert snapshot(place.remote) == before


def test_commit_beside_the_branch(place: Elsewhere) -> None:
    place.repo.git("checkout", "-q", "-b", "side")
    commit = place.push({"x": "y"})
    place.repo.git("checkout", "-q", "main")
    place.publish()
    assert place.codes(commit) == {"COMMIT_NOT_ON_BRANCH"}
    assert place.codes("side") == {"COMMIT_NOT_ON_BRANCH"}


def test_remote_that_is_not_there(place: Elsewhere, tmp_path: Path) -> None:
    (finding,) = place.look(remote=str(tmp_path / "nothing"), remotes=[str(place.remote)])
    assert (finding.code, finding.severity) == ("DATA_FETCH_FAILED", "unverifiable")


def test_limits_of_folders(place: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_MAX_FOLDERS", "MAX_FILES"):
        with monkeypatch.context() as patch:
            patch.setattr(f"sealflow.lineage.fetch.{name}", 5)
            assert place.codes() == {"DATA_FETCH_FAILED"}


@pytest.mark.parametrize(("option", "value"), [("size_limit", 3), ("time_limit", 0.0)])
def test_limits_of_data(place: Elsewhere, option: str, value: float) -> None:
    (finding,) = place.look(**{option: value})
    assert (finding.code, finding.severity) == ("DATA_FETCH_FAILED", "unverifiable")


def test_data_goes_into_clones_alone(place: Elsewhere) -> None:
    with pytest.raises(UsageError, match="private clone"):
        fetch(str(place.repo.root), remote=str(place.remote))
    with checked_out(place.url) as root:
        pass
    with pytest.raises(UsageError, match="private clone"):
        fetch(root, remote=str(place.remote))


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("s3://bucket", "s3://bucket"), ("s3://bucket/", "s3://bucket"), ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("/srv/x", "/srv/x"), ("file:///srv/x", "/srv/x"),
    ],
)  # fmt: skip
def test_places_of_data(remote: str, expected: str) -> None:
    assert data_source(remote) == expected


# --- DVC ---


def fake_dvc(folder: Path, body: str) -> str:
    """A program in the place of the interpreter that has DVC."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return str(program)


def with_dvc(place: Elsewhere, program: str, **more: Any) -> Finding:
    (finding,) = place.look(remote="s3://bucket/x", remotes=[str(place.remote)], python=program, **more)
    return finding


def test_dvc_sees_what_it_is_handed_and_nothing_else(
    place: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_PROFILE", "AWS_SECRET_ACCESS_KEY", "DVC_STUDIO_TOKEN", "PYTHONPATH", "GIT_DIR", "SECRET"):
        monkeypatch.setenv(name, "ambient")
    program = fake_dvc(tmp_path, f"env > {tmp_path}/environment; pwd > {tmp_path}/folder; find . -type f | sort > "
                       f"{tmp_path}/files; printf '%s\\n' \"$@\" > {tmp_path}/arguments; exit 1")  # fmt: skip
    with_dvc(place, program, environment={"AWS_ACCESS_KEY_ID": "AKIDKEY", "HTTPS_PROXY": "http://p"})
    given = dict(line.partition("=")[::2] for line in (tmp_path / "environment").read_text().splitlines())
    assert "ambient" not in given.values()
    assert given["AWS_ACCESS_KEY_ID"] == "AKIDKEY"
    assert given["AWS_EC2_METADATA_DISABLED"] == "true"
    folder = (tmp_path / "folder").read_text().strip()
    private = os.path.dirname(folder)
    for name in ("HOME", "DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "TMPDIR"):
        assert given[name].startswith(private + "/home")
    assert set(given) <= {
        "PATH", "HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TMPDIR", "LC_ALL", "TZ", "DVC_SITE_CACHE_DIR",
        "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_NO_ANALYTICS", "PYTHONDONTWRITEBYTECODE",
        "AWS_EC2_METADATA_DISABLED", "AWS_ACCESS_KEY_ID", "HTTPS_PROXY", "PWD", "OLDPWD", "SHLVL", "_",
    }  # fmt: skip
    assert (tmp_path / "files").read_text().split() == ["./.dvc/config", "./m0.dvc"]
    assert (tmp_path / "arguments").read_text().split() == ["-I", "-m", "dvc", "update", "--", "m0.dvc"]


def test_failure_of_dvc_says_no_secrets(place: Elsewhere, tmp_path: Path) -> None:
    program = fake_dvc(
        tmp_path, 'echo "ERROR: $AWS_SECRET_ACCESS_KEY is wrong at https://user:pass@host/x\033[31m" >&2; exit 255'
    )
    finding = with_dvc(place, program, environment={"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI"})
    assert (finding.code, finding.severity) == ("DATA_FETCH_FAILED", "unverifiable")
    assert "ERROR: *** is wrong at https://***@host/x" in finding.message
    assert "\033" not in finding.message
    assert "wJalr" not in str(finding.as_dict())


@pytest.mark.parametrize(
    ("said", "subject"),
    [
        ("/usr/bin/python: No module named dvc", "dvc"),
        ("ERROR: s3 is supported, but requires 'dvc-s3' to be installed", "dvc-s3"),
    ],
)
def test_without_dvc(place: Elsewhere, tmp_path: Path, said: str, subject: str) -> None:
    finding = with_dvc(place, fake_dvc(tmp_path, f'echo "{said}" >&2; exit 1'))
    assert (finding.code, finding.severity, finding.subject) == ("EXTRA_MISSING", "unverifiable", subject)


def test_dvc_that_brings_nothing(place: Elsewhere, tmp_path: Path) -> None:
    """It exits with 0 also when objects are not there."""
    assert place.codes(remote="s3://bucket/x", remotes=[str(place.remote)], python=fake_dvc(tmp_path, "exit 0")) == {
        "REMOTE_MISSING"
    }


def test_dvc_that_hangs_or_floods(place: Elsewhere, tmp_path: Path) -> None:
    hangs = with_dvc(place, fake_dvc(tmp_path, "sleep 60"), time_limit=1.0)
    floods = with_dvc(place, fake_dvc(tmp_path, "yes"), time_limit=30.0)
    fills = with_dvc(place, fake_dvc(tmp_path, "head -c 9000000 /dev/zero > x; sleep 60"), size_limit=1 << 20)
    assert {finding.code for finding in (hangs, floods, fills)} == {"DATA_FETCH_FAILED"}


@pytest.mark.parametrize("name", ["PATH", "HOME", "PYTHONPATH", "LD_PRELOAD", "DVC_SITE_CACHE_DIR", "GIT_DIR", "aws_x"])
def test_variables_that_are_not_handed_over(place: Elsewhere, name: str) -> None:
    with pytest.raises(UsageError), prepared(place.url, remote=str(place.remote), environment={name: "x"}):
        pass


def test_credentials_of_a_client() -> None:
    client = S3Server("http://127.0.0.1:9", "AKIA", "secret", "none", region="eu-west-1").client()
    assert s3_environment(client) == {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def test_limits_are_those_of_the_document() -> None:
    assert (clone_module.TIME_LIMIT, clone_module.SIZE_LIMIT) == (900.0, 4 << 30)
