"""Attacks by those who own the repository, the Git server, or the remote that a caller names by URL.

Each is a row with a name. Besides the answer, each proves that nothing was run and nothing written: a marker that the
attack would have made does not exist, and a server that it would have called saw nobody.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sealflow.errors import UsageError
from sealflow.findings import Finding
from sealflow.lineage import clone as clone_module
from sealflow.lineage.clone import cloned, is_git_name, tail
from sealflow.lineage.fetch import fetch
from sealflow.lineage.foreign import checked_out, preflight, prepared
from sealflow.lineage.git_program import Stopped
from sealflow.lineage.git_url import check_url
from sealflow.lineage.source import data_source
from tests.core.lineage.dvcrepo import running
from tests.core.lineage.elsewhere import FOLDER, Elsewhere, folder_out, make, manifest, object_path, put
from tests.core.lineage.gitrepo import environment, snapshot
from tests.core.lineage.repos import lock, md5, out
from tests.pki import DAY, NOW, private_pem

# Real repositories, or many signatures: minutes all together.
pytestmark = pytest.mark.slow


class Listener:
    """A server that counts who connects."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.seen = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.seen += 1
                connection.close()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "MARKER"
    yield path
    assert not path.exists(), "something was run"


@pytest.fixture
def listener() -> Iterator[Listener]:
    server = Listener()
    yield server
    server.close()
    assert server.seen == 0, "somebody was called"


@pytest.fixture
def place(tmp_path: Path) -> Elsewhere:
    return make(tmp_path)


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == [], "something was left behind"


def stopped(url: str, revision: str = "HEAD", **more: Any) -> Finding:
    with pytest.raises(Stopped) as caught, cloned(url, revision, **more):
        pass
    return caught.value.finding


# --- URLs ---

URLS = {
    "ext": "ext::sh -c touch% MARKER",
    "ext-in-disguise": "ext::ssh://host/x",
    "fd": "fd::7",
    "transport-of-a-transport": "https::https://host/x",
    "file-helper": "file::/x",
    "option": "--upload-pack=touch MARKER",
    "short-option": "-uMARKER",
    "option-as-host": "ssh://-oProxyCommand=touch%20MARKER/x",
    "option-as-host-short": "git@-oProxyCommand=touch MARKER:x",
    "option-as-user": "ssh://-oProxyCommand=touch@host/x",
    "option-as-path": "git@host:--upload-pack=touch",
    "command-in-path": "git@host:$(touch MARKER)",
    "command-in-host": "ssh://host;touch MARKER/x",
    "quote-in-path": "git@host:x'y",
    "http": "http://host/x",
    "git-protocol": "git://host/x",
    "ftp": "ftp://host/x",
    "rsync": "rsync://host/x",
    "s3": "s3://bucket/x",
    "javascript": "javascript://x",
    "password": "https://user:hunter2hunter2@host/x",
    "token-as-user": "https://hunter2hunter2@host/x",
    "password-for-ssh": "ssh://git:hunter2hunter2@host/x",
    "two-at-signs": "https://a@hunter2hunter2@host/x",
    "token-in-query": "https://host/x?token=hunter2hunter2",
    "fragment": "https://host/x#y",
    "no-host": "https:///x",
    "no-path": "https://host",
    "upper-case": "HTTPS://host/x",
    "one-slash": "https:/host/x",
    "space": "https://host/a b",
    "line-feed": "https://host/x\n[core]",
    "carriage-return": "https://host/x\r",
    "nul": "https://host/x\0y",
    "escape": "https://host/\033[2J",
    "direction": "https://host/\u202ex",
    "letters-of-others": "https://h\u043est/x",
    "backslash": "https://host\\@other/x",
    "port-that-is-none": "https://host:99999999/x",
    "file-with-host": "file://host/x",
    "file-that-climbs": "file:///srv/../etc/x.git",
    "file-that-climbs-encoded": "file:///srv/%2e%2e/etc/x.git",
    "file-of-four-slashes": "file:////srv/x.git",
    "file-with-query": "file:///srv/x.git?y",
    "file-without-slashes": "file:srv/x.git",
    "file-with-a-line-feed": "file:///srv/x%0a.git",
    "path": "/srv/x.git",
    "relative-path": "../x.git",
    "bundle": "./x.bundle",
    "empty": "",
    "huge": "https://host/" + "a" * 100_000,
}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_urls_that_are_refused(url: str, marker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught, cloned(url):
        pass
    assert caught.value.code == "GIT_URL_REFUSED"
    assert "hunter2" not in str(caught.value)
    assert "\033" not in str(caught.value)


@pytest.mark.parametrize("revision", ["--upload-pack=touch MARKER", "-b", "refs/../x", "a:b", "x\ny", "@{-1}", "\0"])
def test_revisions_that_are_refused(revision: str, place: Elsewhere, marker: Path) -> None:
    with pytest.raises(UsageError), cloned(place.url, revision):
        pass


REMOTES = {
    "http": "http://host/x",
    "ssh": "ssh://host/x",
    "credentials": "s3://AKIA:hunter2hunter2@bucket/x",
    "query": "s3://bucket/x?versionId=hunter2hunter2",
    "quote": 's3://bucket/x"\n[core]',
    "interpolation": "s3://bucket/%(url)s",
    "climbs": "s3://bucket/../x",
    "chain": "simplecache::s3://bucket/x",
    "remote-of-the-repository": "remote://st/x",
    "name-of-a-remote": "st",
    "file-with-host": "file://host/x",
    "empty": "",
    "nul": "/srv/\0",
}


@pytest.mark.parametrize("remote", REMOTES.values(), ids=REMOTES)
def test_remotes_that_are_refused(remote: str) -> None:
    with pytest.raises(UsageError) as caught:
        data_source(remote)
    assert "hunter2" not in str(caught.value)


# --- What is in the commit ---


def _tree(place: Elsewhere, *lines: str) -> str:
    return place.repo.git("mktree", "--missing", data="\n".join(lines).encode() + b"\n")


def _raw_tree(place: Elsewhere, *entries: tuple[str, str]) -> None:
    """A commit whose tree no program of Git would write."""
    blob = place.repo.store(b"x", "blob")
    raw = b"".join(
        f"{mode} {name}\0".encode("utf-8", "surrogateescape") + bytes.fromhex(blob) for mode, name in entries
    )
    tree = place.repo.store(raw, "tree")
    text = f"tree {tree}\nauthor A <a@x> 1 +0000\ncommitter A <a@x> 1 +0000\n\nx\n"
    place.repo.head(place.repo.store(text.encode()))
    place.publish()


def _bomb(place: Elsewhere) -> None:
    """Ten folders in ten folders in ten …: a few objects that stand for ten thousand million files."""
    blob = place.repo.store(b"x", "blob")
    oid = _tree(place, *(f"100644 blob {blob}\tf{i}" for i in range(10)))
    for _ in range(10):
        oid = _tree(place, *(f"040000 tree {oid}\td{i}" for i in range(10)))
    place.entry("040000", "bomb", oid)


COMMITS: dict[str, tuple[Callable[[Elsewhere], object], set[str]]] = {
    "link-to-a-file": (lambda p: p.entry("120000", "x", b"/etc/passwd"), {"FOREIGN_REFUSED"}),
    "link-to-a-folder": (lambda p: p.entry("120000", "x", b".."), {"FOREIGN_REFUSED"}),
    "link-as-dvc-folder": (lambda p: _raw_tree(p, ("120000", ".dvc")), {"FOREIGN_REFUSED"}),
    "link-as-lock": (lambda p: _raw_tree(p, ("120000", "dvc.lock")), {"FOREIGN_REFUSED"}),
    "git-folder": (lambda p: _raw_tree(p, ("100644", ".git")), {"GIT_CLONE_FAILED"}),
    "git-folder-in-capitals": (lambda p: _raw_tree(p, ("100644", ".GIT")), {"GIT_CLONE_FAILED"}),
    "git-folder-mixed": (lambda p: _raw_tree(p, ("100644", ".gIt")), {"GIT_CLONE_FAILED"}),
    "git-folder-short": (lambda p: _raw_tree(p, ("100644", "git~1")), {"GIT_CLONE_FAILED"}),
    "git-folder-with-a-dot": (lambda p: _raw_tree(p, ("100644", ".git.")), {"GIT_CLONE_FAILED"}),
    "git-folder-with-a-space": (lambda p: _raw_tree(p, ("100644", ".git ")), {"GIT_CLONE_FAILED"}),
    "git-folder-as-a-stream": (lambda p: _raw_tree(p, ("100644", ".git::$INDEX_ALLOCATION")), {"GIT_CLONE_FAILED"}),
    "git-folder-invisible": (lambda p: _raw_tree(p, ("100644", ".g\u200cit")), {"GIT_CLONE_FAILED"}),
    "two-levels-in-one": (lambda p: _raw_tree(p, ("100644", "a/b")), {"GIT_CLONE_FAILED"}),
    "climbing-name": (lambda p: _raw_tree(p, ("100644", "..")), {"GIT_CLONE_FAILED"}),
    "climbing-path": (lambda p: _raw_tree(p, ("100644", "../x")), {"GIT_CLONE_FAILED"}),
    "absolute-name": (lambda p: _raw_tree(p, ("100644", "/tmp/x")), {"GIT_CLONE_FAILED"}),
    "dot": (lambda p: _raw_tree(p, ("100644", ".")), {"GIT_CLONE_FAILED"}),
    "empty-name": (lambda p: _raw_tree(p, ("100644", "")), {"GIT_CLONE_FAILED"}),
    "name-twice": (lambda p: _raw_tree(p, ("100644", "a"), ("100644", "a")), {"GIT_CLONE_FAILED"}),
    "file-and-folder": (lambda p: _raw_tree(p, ("100644", "a"), ("40000", "a")), {"GIT_CLONE_FAILED"}),
    "case": (lambda p: _raw_tree(p, ("100644", "README"), ("100644", "readme")), {"FOREIGN_REFUSED"}),
    "unicode-form": (lambda p: _raw_tree(p, ("100644", "u\u0308"), ("100644", "\u00fc")), {"FOREIGN_REFUSED"}),
    "backslash": (lambda p: _raw_tree(p, ("100644", "a\\b")), {"FOREIGN_REFUSED"}),
    "line-feed": (lambda p: _raw_tree(p, ("100644", "a\nb")), {"FOREIGN_REFUSED"}),
    "escape": (lambda p: _raw_tree(p, ("100644", "a\033[2J")), {"FOREIGN_REFUSED"}),
    "direction": (lambda p: _raw_tree(p, ("100644", "a\u202eb")), {"FOREIGN_REFUSED"}),
    "not-utf-8": (lambda p: _raw_tree(p, ("100644", "a\udcff")), {"FOREIGN_REFUSED"}),
    "device": (lambda p: _raw_tree(p, ("60000", "a")), {"GIT_OBJECT_CORRUPT"}),
    "settings-of-submodules-as-link": (lambda p: p.entry("120000", ".gitmodules", b"x"), {"GIT_CLONE_FAILED"}),
    "submodule-option": (
        lambda p: p.entry("100644", ".gitmodules", b'[submodule "x"]\npath = x\nurl = -u./MARKER\n'),
        {"GIT_CLONE_FAILED"},
    ),
    "submodule-command": (
        lambda p: p.entry("100644", ".gitmodules", b'[submodule "x"]\npath = x\nurl = x\nupdate = !touch MARKER\n'),
        {"GIT_CLONE_FAILED"},
    ),
    "bomb": (_bomb, {"FOREIGN_REFUSED"}),
}


@pytest.mark.parametrize(("build", "expected"), COMMITS.values(), ids=COMMITS)
def test_commits_that_are_refused(build: Any, expected: set[str], place: Elsewhere, monkeypatch: Any) -> None:
    monkeypatch.setattr(clone_module, "_MAX_FOLDERS", 2_000)
    build(place)
    assert place.codes() == expected


# Settings of submodules are a file like any other to us: they are read by nobody.
BEYOND_GIT = {
    name: build
    for name, (build, expected) in COMMITS.items()
    if "GIT_CLONE_FAILED" in expected and not name.startswith("submodule-")
}


@pytest.mark.parametrize("build", BEYOND_GIT.values(), ids=BEYOND_GIT)
def test_commits_that_git_would_let_through(build: Any, place: Elsewhere, monkeypatch: Any) -> None:
    """Git's own check of objects is one net; what we write ourselves is held by another."""
    monkeypatch.setattr(
        clone_module, "_SETTINGS", clone_module._SETTINGS.replace("fsckObjects = true", "fsckObjects = false")
    )
    build(place)
    assert place.codes() <= {"FOREIGN_REFUSED", "GIT_OBJECT_CORRUPT", "GIT_CLONE_FAILED"}
    assert place.codes()


@pytest.mark.parametrize(
    "name",
    [".git", ".GIT", ".Git", "git~1", "GIT~1", ".git.", ".git ", ".git. .", ".git::$INDEX_ALLOCATION", ".git:x",
     ".g\u200cit", "\ufeff.git", ".gi\u206at"],
)  # fmt: skip
def test_names_that_are_gits(name: str) -> None:
    assert is_git_name(name)
    assert not is_git_name("x" + name)


INERT: dict[str, dict[str, Any]] = {
    "hooks": {"hooks/post-checkout": "#!/bin/sh\ntouch MARKER\n", ".githooks/post-checkout": "#!/bin/sh\ntouch MARKER"},
    "filter": {".gitattributes": "* filter=evil\n", ".gitconfig": "[filter \"evil\"]\nsmudge = touch MARKER\n"},
    "lfs": {
        ".gitattributes": "* filter=lfs diff=lfs merge=lfs -text\n",
        ".lfsconfig": "[lfs]\nurl = http://127.0.0.1:PORT/\n",
        "big": f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1\n",
    },
    "attributes": {
        ".gitattributes": "* text eol=crlf ident working-tree-encoding=UTF-16 export-subst\n",
        "text": "$Id$ $Format:%H$\n",
    },
    "submodule-transport": {".gitmodules": '[submodule "x"]\npath = x\nurl = ext::sh -c touch% MARKER\n'},
    "submodule-listener": {".gitmodules": '[submodule "x"]\npath = x\nurl = http://127.0.0.1:PORT/x\n'},
    "python": {"dvc.py": "open('MARKER', 'w')", "dvc/__init__.py": "open('MARKER', 'w')", "sitecustomize.py":
               "open('MARKER', 'w')"},
    "commands": {"Makefile": "all:\n\ttouch MARKER\n", ".envrc": "touch MARKER", "setup.py": "open('MARKER', 'w')"},
    "patterns-that-explode": {".dvcignore": "(a+)+$\n" + "**/" * 400 + "x\n"},
}  # fmt: skip


@pytest.mark.parametrize("files", INERT.values(), ids=INERT)
def test_what_lies_in_the_commit_is_inert(
    files: dict[str, Any], place: Elsewhere, marker: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(marker.parent)
    written = {
        name: text.replace("MARKER", str(marker)).replace("PORT", str(listener.port)) for name, text in files.items()
    }
    raw = {name: text.encode() for name, text in written.items()}
    # As blobs, so that the attributes have no say in what is committed.
    for name, data in raw.items():
        place.repo.git("update-index", "--add", "--cacheinfo", f"100644,{place.repo.store(data, 'blob')},{name}")
    signing = ["-c", "gpg.format=ssh", "-c", f"user.signingKey={place.repo.key}.pub"]
    place.repo.git(*signing, "commit", "-q", "-S", "-m", "Odd")
    place.publish()
    with prepared(place.url, remote=str(place.remote)) as (root, findings):
        assert findings == ()
        for name, data in raw.items():
            assert Path(root, name).read_bytes() == data
    assert place.look() == []


def test_branches_and_tags_with_odd_names(place: Elsewhere, marker: Path) -> None:
    head = place.repo.git("rev-parse", "HEAD")
    packed = [f"{head} refs/heads/main"]
    packed += [f"{head} refs/{name}" for name in ("heads/-x", "tags/--upload-pack=x", "heads/HEAD", "weird/x")]
    (place.bare / "packed-refs").write_text("\n".join(sorted(packed)) + "\n")
    with contextlib.suppress(Stopped), cloned(place.url) as found:
        assert found.commit == head


# --- What the server is ---

SETTINGS = """\
[core]
    fsmonitor = touch MARKER
    hooksPath = HOOKS
    sshCommand = touch MARKER
    gitProxy = touch MARKER
    alternateRefsCommand = touch MARKER
    pager = touch MARKER
    editor = touch MARKER
    askPass = touch MARKER
[uploadpack]
    packObjectsHook = touch MARKER
    allowFilter = true
[credential]
    helper = !touch MARKER
[filter "evil"]
    smudge = touch MARKER
    process = touch MARKER
    required = true
[alias]
    upload-pack = !touch MARKER
[url "ext::sh -c touch% MARKER"]
    insteadOf = file://
[remote "origin"]
    promisor = true
    url = ext::sh -c touch% MARKER
    uploadpack = touch MARKER
[extensions]
    partialClone = origin
"""


def _hooks(folder: Path, marker: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("post-checkout", "post-merge", "pre-receive", "update", "reference-transaction", "post-index-change",
                 "fsmonitor-watchman", "post-upload-pack", "pre-upload-pack", "upload-pack"):  # fmt: skip
        (folder / name).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (folder / name).chmod(0o755)


def test_settings_and_hooks_of_the_server(place: Elsewhere, marker: Path, tmp_path: Path) -> None:
    _hooks(place.bare / "hooks", marker)
    (place.bare / "config").write_text(
        "[core]\n\trepositoryformatversion = 1\n\tbare = true\n"
        + SETTINGS.replace("MARKER", str(marker)).replace("HOOKS", str(place.bare / "hooks"))
    )
    assert place.look() == []


def test_object_that_the_server_promises(place: Elsewhere, marker: Path) -> None:
    """The server would run a program of its own to get an object that it lacks."""
    (place.bare / "config").write_text(
        "[core]\n\trepositoryformatversion = 1\n\tbare = true\n" + SETTINGS.replace("MARKER", str(marker))
    )
    blob = place.repo.git("rev-parse", "HEAD:params.yaml")
    for pack in (place.bare / "objects/pack").glob("*.pack"):
        data = pack.read_bytes()
        for file in place.bare.glob("objects/pack/*"):
            file.unlink()
        subprocess.run(
            ["git", "unpack-objects", "-q"], input=data, cwd=place.bare, env=environment(GIT_DIR=str(place.bare))
        )
    path = place.bare / "objects" / blob[:2] / blob[2:]
    path.unlink()
    assert stopped(place.url).code == "GIT_CLONE_FAILED"


def test_corrupt_object_of_the_server(place: Elsewhere) -> None:
    for file in place.bare.glob("objects/pack/*.pack"):
        file.chmod(0o644)
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    for file in place.bare.glob("objects/??/*"):
        file.chmod(0o644)
        file.write_bytes(file.read_bytes()[:-2])
    assert stopped(place.url).code == "GIT_CLONE_FAILED"


def test_bytes_that_git_does_not_look_at(place: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git hands out a loose object without hashing it."""
    transfer = clone_module._transfer

    def tampered(url: str, protocol: str, folder: str, root: str, *more: Any) -> None:
        transfer(url, protocol, folder, root, *more)
        (pack,) = Path(root).glob(".git/objects/pack/*.pack")
        data = pack.read_bytes()
        for file in pack.parent.iterdir():
            file.unlink()
        subprocess.run(["git", "unpack-objects", "-q"], input=data, cwd=root, env=environment(), check=True)
        blob = place.repo.git("rev-parse", "HEAD:code/train.sh")
        path = Path(root, ".git/objects", blob[:2], blob[2:])
        path.chmod(0o644)
        path.write_bytes(zlib.compress(b"blob 10\0#!/bin/ev\n"))

    monkeypatch.setattr(clone_module, "_transfer", tampered)
    assert stopped(place.url).code == "GIT_OBJECT_CORRUPT"


def test_settings_and_variables_of_the_user(
    place: Elsewhere, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(os.environ["HOME"])
    _hooks(home / "template/hooks".replace("/hooks", ""), marker)
    _hooks(home / "hooks", marker)
    settings = SETTINGS.replace("MARKER", str(marker)).replace("HOOKS", str(home / "hooks"))
    (home / ".gitconfig").write_text(
        settings + f"[init]\n    templateDir = {home}\n[clone]\n    filterSubmodules = true\n"
    )
    for name, value in {
        "GIT_DIR": "/nonexistent", "GIT_WORK_TREE": "/nonexistent", "GIT_TEMPLATE_DIR": str(home),
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"), "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.hooksPath", "GIT_CONFIG_VALUE_0": str(home / "hooks"),
        "GIT_SSH_COMMAND": f"touch {marker}", "GIT_PROXY_COMMAND": f"touch {marker}", "GIT_ASKPASS": f"touch {marker}",
        "GIT_EXEC_PATH": str(home), "GIT_TRACE": str(marker), "GIT_TRACE2": str(marker), "GIT_ALLOW_PROTOCOL": "ext",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": "/nonexistent", "GIT_NAMESPACE": "x", "GIT_EXTERNAL_DIFF": "x",
        "GIT_PAGER": f"touch {marker}", "GIT_EDITOR": f"touch {marker}",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert place.look() == []


def test_growing_beyond_the_limit(place: Elsewhere) -> None:
    (place.repo.root / "noise").write_bytes(os.urandom(3 << 20))
    place.push()
    finding = stopped(place.url, size_limit=1 << 20)
    assert (finding.code, finding.severity) == ("GIT_CLONE_FAILED", "unverifiable")
    assert "larger than the limit" in finding.message


def test_unpacking_beyond_the_limit(place: Elsewhere) -> None:
    """Zeros: little to send, much to write."""
    (place.repo.root / "zeros").write_bytes(bytes(64 << 20))
    place.push()
    finding = stopped(place.url, size_limit=8 << 20)
    assert (finding.code, finding.subject) == ("GIT_CLONE_FAILED", "zeros")


# --- Servers that speak https ---


@contextlib.contextmanager
def https(
    folder: Path, answer: Callable[[http.server.BaseHTTPRequestHandler], None]
) -> Iterator[tuple[str, list[Any]]]:
    """A server on this machine whose certificate the caller's machine trusts, and the requests that it saw."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    from cryptography.hazmat.primitives.serialization import Encoding

    pem = folder / "server.pem"
    pem.write_bytes(private_pem(key) + certificate.public_bytes(Encoding.PEM))
    (folder / "ca.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    seen: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, dict(self.headers)))
            answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"https://localhost:{server.server_address[1]}/x.git", seen
    finally:
        server.shutdown()
        server.server_close()


def test_no_credentials_for_https(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(os.environ["HOME"])
    (home / ".netrc").write_text("machine localhost login ada password hunter2hunter2\n")
    (home / ".netrc").chmod(0o600)
    (home / ".git-credentials").write_text("https://ada:hunter2hunter2@localhost\n")
    (home / ".gitconfig").write_text(
        f"[credential]\n    helper = store\n    helper = !touch {marker}\n[http]\n    extraHeader = X-Token: hunter2\n"
        "    cookieFile = /dev/null\n"
    )
    monkeypatch.setenv("GIT_ASKPASS", f"touch {marker}")

    def unauthorized(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(401)
        handler.send_header("WWW-Authenticate", 'Basic realm="x"')
        # Without a length the client takes the end of the connection for an error, and goes no further.
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with https(tmp_path, unauthorized) as (url, seen):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        monkeypatch.setenv("GIT_SSL_CAINFO", str(tmp_path / "ca.pem"))
        finding = stopped(url, time_limit=30.0)
    assert finding.code == "GIT_CLONE_FAILED"
    assert seen, finding
    assert "Authorization" not in str(seen)
    assert "hunter2" not in str(seen)


def test_certificate_that_nobody_trusts(tmp_path: Path) -> None:
    with https(tmp_path, lambda handler: handler.send_error(404)) as (url, seen):
        finding = stopped(url, time_limit=30.0)
    assert finding.code == "GIT_CLONE_FAILED"
    assert seen == []


@pytest.mark.parametrize(
    "where", ["http://127.0.0.1:PORT/x", "https://127.0.0.1:PORT/x", "file:///etc", "ext::touch x"]
)
def test_server_that_leads_elsewhere(
    where: str, tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def redirect(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header(
            "Location", where.replace("PORT", str(listener.port)) + "/info/refs?service=git-upload-pack"
        )
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with https(tmp_path, redirect) as (url, seen):
        monkeypatch.setenv("GIT_SSL_CAINFO", str(tmp_path / "ca.pem"))
        finding = stopped(url, time_limit=30.0)
    assert finding.code == "GIT_CLONE_FAILED"
    assert len(seen) == 1


def test_server_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with https(tmp_path, lambda _: time.sleep(8)) as (url, _):
        monkeypatch.setenv("GIT_SSL_CAINFO", str(tmp_path / "ca.pem"))
        began = time.monotonic()
        finding = stopped(url, time_limit=1.0)
        assert time.monotonic() - began < 6
    assert (finding.code, finding.severity) == ("GIT_CLONE_FAILED", "unverifiable")


def test_server_that_writes_to_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shout(handler: http.server.BaseHTTPRequestHandler) -> None:
        body = b"\033[2J\033]0;owned\007 see https://ada:hunter2hunter2@host/ " * 1000
        handler.send_response(403)
        handler.send_header("Content-Type", "text/plain")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with https(tmp_path, shout) as (url, _):
        monkeypatch.setenv("GIT_SSL_CAINFO", str(tmp_path / "ca.pem"))
        finding = stopped(url, time_limit=30.0)
    assert "\033" not in finding.message
    assert "hunter2" not in finding.message
    assert len(finding.message) <= 300


@pytest.mark.parametrize(
    ("said", "hidden"),
    [
        (b"fatal: unable to access 'https://ada:hunter2@host/x'", "hunter2"),
        (b"x https://hunter2@host", "hunter2"),
        (b"SignatureDoesNotMatch AWSAccessKeyId=hunter2", "hunter2"),
        (b"https://b.s3/x?X-Amz-Signature=hunter2&X-Amz-Credential=hunter2", "hunter2"),
        (b"\033[31mred", "\033"),
        (b"\xff\xfe", "\udcff"),
    ],
)
def test_what_is_repeated_holds_no_secrets(said: bytes, hidden: str) -> None:
    assert hidden not in tail(said)
    assert "hunter3" not in tail(said + b" hunter3", ["hunter3"])


# --- Settings of DVC ---

ELSEWHERE = "http://127.0.0.1:PORT"
CONFIGS = {
    "remote": f"['remote \"st\"']\nurl = {ELSEWHERE}/x\n",
    "remote-with-password": "['remote \"st\"']\nurl = https://ada:hunter2@host/x\n",
    "remote-of-another-bucket": "['remote \"st\"']\nurl = s3://other/x\n",
    "remote-that-looks-alike": "['remote \"st\"']\nurl = REMOTE/../other\n",
    "remote-inside": "['remote \"st\"']\nurl = ../data\n",
    "remote-by-remote": "['remote \"st\"']\nurl = REMOTE\n['remote \"x\"']\nurl = remote://st/../x\n",
    "remote-without-url": "['remote \"st\"']\nverify = false\n",
    "remote-with-spaces": "['  remote  \"st\"']\nurl = s3://other/x\n",
    "endpoint": f"['remote \"st\"']\nurl = REMOTE\nendpointurl = {ELSEWHERE}\n",
    "endpoint-in-capitals": f"['remote \"st\"']\nurl = REMOTE\nEndpointURL = {ELSEWHERE}\n",
    "profile": "['remote \"st\"']\nurl = REMOTE\nprofile = admin\n",
    "credentials-file": "['remote \"st\"']\nurl = REMOTE\ncredentialpath = ../creds\n",
    "aws-settings": "['remote \"st\"']\nurl = REMOTE\nconfigpath = ../aws-config\n",
    "access-key": "['remote \"st\"']\nurl = REMOTE\naccess_key_id = x\nsecret_access_key = y\nsession_token = z\n",
    "anonymous": "['remote \"st\"']\nurl = REMOTE\nallow_anonymous_login = true\n",
    "no-tls": "['remote \"st\"']\nurl = REMOTE\nuse_ssl = false\n",
    "tls-unchecked": "['remote \"st\"']\nurl = REMOTE\nssl_verify = false\n",
    "tls-own-ca": "['remote \"st\"']\nurl = REMOTE\nssl_verify = ../evil.pem\n",
    "encryption-key": "['remote \"st\"']\nurl = REMOTE\nsse_customer_key = x\n",
    "versions": "['remote \"st\"']\nurl = REMOTE\nversion_aware = true\n",
    "worktree": "['remote \"st\"']\nurl = REMOTE\nworktree = true\n",
    "links-into-the-remote": "['remote \"st\"']\nurl = REMOTE\ntype = symlink\nshared = group\n",
    "ssh-key": "['remote \"st\"']\nurl = REMOTE\nkeyfile = ~/.ssh/id_rsa\n",
    "ssh-asks": "['remote \"st\"']\nurl = REMOTE\nask_password = true\n",
    "http-password": "['remote \"st\"']\nurl = REMOTE\npassword = x\nauth = basic\nuser = y\n",
    "http-header": "['remote \"st\"']\nurl = REMOTE\ncustom_auth_header = X-Token\n",
    "http-method": "['remote \"st\"']\nurl = REMOTE\nmethod = PUT\n",
    "webdav-command": "['remote \"st\"']\nurl = REMOTE\nbearer_token_command = touch MARKER\n",
    "webhdfs-proxy": f"['remote \"st\"']\nurl = REMOTE\nproxy_to = {ELSEWHERE}\n",
    "gdrive-account": "['remote \"st\"']\nurl = REMOTE\ngdrive_service_account_json_file_path = /etc/passwd\n",
    "azure-string": f"['remote \"st\"']\nurl = REMOTE\nconnection_string = BlobEndpoint={ELSEWHERE}\n",
    "option-that-nobody-knows": "['remote \"st\"']\nurl = REMOTE\nnew_option = 1\n",
    "cache-elsewhere": "[cache]\ndir = /tmp/cache\n",
    "cache-of-somebody": "[cache]\ndir = ../../../../root/.dvc/cache\n",
    "cache-in-git": "[cache]\ndir = ../.git/objects\n",
    "cache-inside": "[cache]\ndir = ../cache\n",
    "cache-shared": "[cache]\nshared = group\n",
    "cache-of-s3": "[cache]\ns3 = st\n",
    "site-cache": "[core]\nsite_cache_dir = /tmp/x\n",
    "lock-of-hard-links": "[core]\nhardlink_lock = true\n",
    "machine": "[core]\nmachine = x\n",
    "machine-script": "['machine \"x\"']\ncloud = aws\nstartup_script = touch MARKER\n",
    "hydra-plugins": "[hydra]\nenabled = true\nplugins_path = ../evil\n",
    "hydra-module": "[hydra]\nconfig_module = os\n",
    "state": "[state]\ndir = /tmp/x\n",
    "index": "[index]\ndir = /tmp/x\n",
    "studio-token": f"[studio]\nurl = {ELSEWHERE}\ntoken = x\n",
    "studio": "[studio]\noffline = false\n",
    "push-of-experiments": "[exp]\nauto_push = true\ngit_remote = https://host/x\n",
    "database": "['db \"x\"']\nurl = postgresql://host/x\npassword = y\n",
    "template-of-plots": "[plots]\nhtml_template = /etc/passwd\n",
    "output-of-plots": "[plots]\nout_dir = /tmp/x\nauto_open = true\n",
    "features": "[feature]\nmachine = true\n",
    "section-that-nobody-knows": "[new]\n",
    "option-of-core-that-nobody-knows": "[core]\nnew = 1\n",
    "interpolation": "[core]\nremote = %(url)s\n",
    "nested-section": "[core]\n[[remote]]\nurl = x\n",
    "many-lines": '[core]\nremote = """x\n[cache]\ndir = /tmp\n"""\n',
    "no-section": "url = x\n",
    "twice": "[core]\nremote = a\n[core]\nremote = b\n",
    "not-text": b"\xff\xfe[core]",
    "nul": b"[core]\nremote = a\0b\n",
    "huge": "# " + "x" * (2 << 20),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_settings_of_dvc(config: str | bytes, place: Elsewhere, marker: Path, listener: Listener) -> None:
    text = config if isinstance(config, bytes) else (
        config.replace("REMOTE", str(place.remote)).replace("PORT", str(listener.port)).replace("MARKER", str(marker))
        .encode()
    )  # fmt: skip
    place.push({".dvc/config": text})
    for remote in (str(place.remote), None):
        # Without a remote nothing is fetched, and yet the settings are refused: other levels would follow them.
        found = place.look(remote=remote)
        assert {finding.code for finding in found} <= {
            "FOREIGN_REFUSED", "REMOTE_NOT_ALLOWED", "LINEAGE_MALFORMED", "DATA_REFUSED",
        }  # fmt: skip
        assert found
        assert "hunter2" not in str(found)


# --- Files of DVC ---


def _stage(**more: Any) -> dict[str, Any]:
    return {"dvc.yaml": {"stages": {"make": {"cmd": "touch MARKER", **more}}}, "dvc.lock": lock()}


def _dvc_file(**more: Any) -> dict[str, Any]:
    return {"x.dvc": {"outs": [out("x", "1\n")], **more}}


def _out(path: str, **more: Any) -> dict[str, Any]:
    return {"x.dvc": {"outs": [{**out(path, "1\n"), **more}]}}


FILES: dict[str, dict[str, Any]] = {
    "out-absolute": _out("/tmp/MARKER"),
    "out-climbs": _out("../MARKER"),
    "out-climbs-late": _out("a/../../MARKER"),
    "out-by-wdir": {"x.dvc": {"wdir": "..", "outs": [out("MARKER", "1\n")]}},
    "out-by-absolute-wdir": {"x.dvc": {"wdir": "/tmp", "outs": [out("MARKER", "1\n")]}},
    "out-at-url": _out("http://127.0.0.1:PORT/x"),
    "out-at-s3": _out("s3://other/x"),
    "out-at-remote": _out("remote://st/x"),
    "out-in-git": _out(".git/hooks/post-checkout"),
    "out-in-git-config": _out(".git/config"),
    "out-in-git-capitals": _out(".GIT/config"),
    "out-in-inner-git": _out("a/.git/config"),
    "out-in-dvc": _out(".dvc/config.local"),
    "out-in-dvc-capitals": _out(".DVC/config"),
    "out-as-dvc-yaml": _out("sub/dvc.yaml"),
    "out-as-lock": _out("sub/dvc.lock"),
    "out-as-dvc-file": _out("y.dvc"),
    "out-as-ignore": _out("sub/.dvcignore"),
    "out-as-attributes": _out("sub/.gitattributes"),
    "out-as-everything": _out("."),
    "out-with-line-feed": _out("a\nb"),
    "out-with-backslash": _out("..\\x"),
    "out-with-options": _out("x", fs_config={"endpoint_url": "http://127.0.0.1:PORT"}),
    "out-with-cloud-and-repo": {"x.dvc": {"outs": [{**out("x", "1\n"), "repo": {"url": "http://127.0.0.1:PORT"}}]}},
    "out-with-digest-that-climbs": {"x.dvc": {"outs": [{"path": "x", "md5": "aa/../../../x", "hash": "md5"}]}},
    "out-with-digest-of-another-kind": {"x.dvc": {"outs": [{"path": "x", "md5": "0" * 64, "hash": "sha256"}]}},
    "out-with-listed-files-that-climb": {
        "x.dvc": {"outs": [{"path": "x", "hash": "md5", "files": [{"relpath": "../y", "md5": md5("1\n")}]}]}
    },
    "import-of-repository": _dvc_file(
        frozen=True, deps=[{"path": "x", "repo": {"url": "http://127.0.0.1:PORT/x", "rev_lock": "0" * 40}}]
    ),
    "import-by-transport": _dvc_file(
        frozen=True, deps=[{"path": "x", "repo": {"url": "ext::sh -c touch% MARKER", "rev_lock": "0" * 40}}]
    ),
    "import-of-url": _dvc_file(frozen=True, deps=[{"path": "http://127.0.0.1:PORT/x", "etag": "x"}]),
    "import-of-file": _dvc_file(frozen=True, deps=[{"path": "/etc/passwd", "md5": "0" * 32}]),
    "import-of-climbing-file": _dvc_file(deps=[{"path": "../../etc/passwd", "md5": "0" * 32}]),
    "import-of-database": _dvc_file(frozen=True, deps=[{"db": {"connection": "x", "query": "select 1"}}]),
    "dep-with-options": _dvc_file(deps=[{"path": "raw.csv", "fs_config": {"key": "x"}}]),
    "unknown-field": _dvc_file(plugin="x"),
    "tag": {"x.dvc": "outs: !!python/object/apply:os.system ['touch MARKER']\n"},
    "anchors": {"x.dvc": "a: &a [x]\nouts: [*a, *a]\n"},
    "deep": {"x.dvc": "[" * 5000},
    "stage-out-absolute": _stage(outs=["/tmp/MARKER"]),
    "stage-out-climbs": _stage(outs=["../MARKER"]),
    "stage-out-at-url": _stage(outs=["s3://other/x"]),
    "stage-dep-at-url": _stage(deps=["http://127.0.0.1:PORT/x"]),
    "stage-dep-absolute": _stage(deps=["/etc/passwd"]),
    "stage-dep-of-dataset": _stage(deps=["ds://x"]),
    "stage-wdir": _stage(wdir="../..", outs=["x"]),
    "stage-out-by-template": {
        "dvc.yaml": {"vars": [{"p": "/tmp/MARKER"}], "stages": {"make": {"cmd": "x", "outs": ["${p}"]}}}
    },
    "stage-unresolved": _stage(outs=["${nothing}"]),
    "stage-params-elsewhere": _stage(params=[{"/etc/params.yaml": ["x"]}, {"../../x.yaml": ["y"]}], vars=["../x.yaml"]),
    "stage-plot-in-git": _stage(plots=[".git/x"]),
    "stage-metric-elsewhere": _stage(metrics=["/tmp/x.json"]),
    "stage-that-nobody-knows": _stage(plugin="x"),
    "lock-out-elsewhere": {
        "dvc.yaml": {"stages": {"make": {"cmd": "x", "outs": ["a"]}}},
        "dvc.lock": lock(make={"cmd": "x", "outs": [out("a", "1"), out("../b", "1")]}),
    },
    "lock-out-in-git": {
        "dvc.yaml": {"stages": {"make": {"cmd": "x", "outs": ["a"]}}},
        "dvc.lock": lock(make={"cmd": "x", "outs": [out(".git/config", "1")]}),
    },
    "lock-of-another-schema": {"dvc.lock": {"schema": "3.0", "stages": {}}},
    "lock-datasets": {"dvc.lock": {"schema": "2.0", "datasets": [{"name": "x", "type": "url", "url": "s3://x"}]}},
    "datasets": {"dvc.yaml": {"datasets": [{"name": "x", "type": "dvc", "url": "http://127.0.0.1:PORT/x"}]}},
    "plots-elsewhere": {"dvc.yaml": {"plots": [{"/etc/passwd": {"template": "linear"}}]}},
    "plots-template-elsewhere": {"dvc.yaml": {"plots": [{"x.csv": {"template": "../../t.json"}}]}},
    "plots-axis-elsewhere": {"dvc.yaml": {"plots": [{"x": {"y": {"/etc/passwd": "a"}}}]}},
    "metrics-elsewhere": {"dvc.yaml": {"metrics": ["../../x.json"]}},
    "params-elsewhere": {"dvc.yaml": {"params": ["/etc/x.yaml"]}},
    "artifact-elsewhere": {"dvc.yaml": {"artifacts": {"m": {"path": "s3://other/m", "type": "model"}}}},
    "inner-repository": {"inner/.dvc/config": "[core]\n"},
    "inner-repository-in-data": {"data2/.dvc/config": "[core]\n", "data2.dvc": {"outs": [folder_out("data2", {})]}},
    "inner-repository-capitals": {"inner/.DVC/config": "[core]\n"},
    "local-settings": {".dvc/config.local": "[cache]\ndir = /tmp/x\n", ".dvc/.gitignore": ""},
    "cache-in-commit": {f".dvc/cache/{object_path(md5('1'))}": "evil", ".dvc/.gitignore": ""},
    "state-in-commit": {".dvc/tmp/btime": "", ".dvc/.gitignore": ""},
    "plugins": {".dvc/plugins/hydra_plugins/x.py": "open('MARKER', 'w')"},
    "dvc-file-as-folder-name": {"sub/.dvc": "x"},
}  # fmt: skip


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_files_of_dvc(
    files: dict[str, Any], place: Elsewhere, marker: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(marker.parent)

    def named(value: Any) -> Any:
        text = json.dumps(value).replace("MARKER", str(marker).strip('"')).replace("PORT", str(listener.port))
        return json.loads(text)

    place.push({name: named(content) for name, content in files.items()})
    before = snapshot(place.remote)
    allowed = {"FOREIGN_REFUSED", "LINEAGE_MALFORMED", "LOCK_SCHEMA", "TEMPLATE_UNRESOLVED", "DATA_EXTERNAL",
               "PARAMS_UNREADABLE"}  # fmt: skip
    with prepared(place.url, remote=str(place.remote)) as (root, findings):
        assert root == ""
        assert {finding.code for finding in findings if finding.severity != "warning"} <= allowed
    assert snapshot(place.remote) == before


def test_links_and_devices_in_a_tree(place: Elsewhere) -> None:
    """A tree that came by another way than our clone."""
    with checked_out(place.url) as root:
        os.symlink("/etc/passwd", os.path.join(root, "a"))
        os.symlink("/etc", os.path.join(root, "code/b"))
        os.mkfifo(os.path.join(root, "c"))
        os.mkdir(os.path.join(root, "code/.git"))
        found = preflight(root, remotes=[str(place.remote)])
    assert {(finding.code, finding.subject) for finding in found} == {
        ("FOREIGN_REFUSED", name) for name in ("a", "code/b", "c", "code/.git")
    }


# --- Data ---


def _manifest(*entries: tuple[Any, Any]) -> bytes:
    return json.dumps([{"md5": digest, "relpath": name} for name, digest in entries]).encode()


ONE = md5("1\n")
MANIFESTS: dict[str, bytes] = {
    "climbs": _manifest(("../MARKER", ONE)),
    "absolute": _manifest(("/tmp/MARKER", ONE)),
    "dot": _manifest((".", ONE)),
    "not-shortest": _manifest(("a//b", ONE)),
    "into-git": _manifest((".git/config", ONE)),
    "into-git-capitals": _manifest((".GIT/config", ONE)),
    "into-dvc": _manifest((".dvc/config", ONE)),
    "digest-climbs": _manifest(("x", "aa/../../../../x")),
    "digest-of-folder": _manifest(("x", ONE + ".dir")),
    "digest-absent": _manifest(("x", None)),
    "twice": _manifest(("x", ONE), ("x", ONE)),
    "case": _manifest(("x", ONE), ("X", ONE)),
    "file-and-folder": _manifest(("x", ONE), ("x/y", ONE)),
    "line-feed": _manifest(("a\nb", ONE)),
    "backslash": _manifest(("..\\x", ONE)),
    "nul": _manifest(("a\0b", ONE)),
    "surrogate": b'[{"md5": "%s", "relpath": "\\ud800"}]' % ONE.encode(),
    "deep": b"[" * 100_000,
    "no-list": b"{}",
    "not-json": b"\x80\x02c",
    "empty": b"",
}


@pytest.mark.parametrize("data", MANIFESTS.values(), ids=MANIFESTS)
def test_folders_on_the_remote(data: bytes, place: Elsewhere, marker: Path) -> None:
    data = data.replace(b"MARKER", marker.name.encode())
    digest = md5(data) + ".dir"
    put(place.remote, data, digest=digest)
    place.push({"evil.dvc": {"outs": [{"path": "evil", "hash": "md5", "md5": digest}]}, ".gitignore": "/evil\n"})
    before = snapshot(place.remote)
    codes = place.codes()
    assert codes
    assert codes <= {"FOREIGN_REFUSED", "LINEAGE_MALFORMED", "DIR_MANIFEST_ESCAPE"}
    assert snapshot(place.remote) == before


def _link(place: Elsewhere, digest: str, target: str) -> None:
    path = place.remote / object_path(digest)
    path.unlink()
    path.symlink_to(target)


def _fifo(place: Elsewhere) -> None:
    path = place.remote / object_path(ONE)
    path.unlink()
    os.mkfifo(path)


def _folder_instead(place: Elsewhere) -> None:
    path = place.remote / object_path(ONE)
    path.unlink()
    path.mkdir()


def _linked_folder(place: Elsewhere) -> None:
    path = (place.remote / object_path(ONE)).parent
    path.rename(place.remote / "aside")
    path.symlink_to(place.remote / "aside")


OBJECTS: dict[str, Callable[[Elsewhere], object]] = {
    "link-to-a-secret": lambda p: _link(p, ONE, "/etc/passwd"),
    "link-to-nothing": lambda p: _link(p, ONE, "/nonexistent"),
    "link-to-a-device": lambda p: _link(p, ONE, "/dev/zero"),
    "link-as-folder": lambda p: _link(p, md5(manifest(FOLDER)) + ".dir", "/etc/passwd"),
    "named-pipe": _fifo,
    "folder": _folder_instead,
    "folder-by-link": _linked_folder,
}


@pytest.mark.parametrize("build", OBJECTS.values(), ids=OBJECTS)
def test_objects_on_the_remote(build: Callable[[Elsewhere], object], place: Elsewhere) -> None:
    build(place)
    assert place.codes() == {"DATA_FETCH_FAILED"}


OVERLAPS = {
    "file-in-file": ["a", "a/b"],
    "file-over-committed": ["dvc.yaml/x"],
    "file-in-folder": ["data/a.csv"],
}


@pytest.mark.parametrize("paths", OVERLAPS.values(), ids=OVERLAPS)
def test_outputs_in_one_place(paths: list[str], place: Elsewhere) -> None:
    files = {f"o{index}.dvc": {"outs": [out(path, "1\n")]} for index, path in enumerate(paths)}
    place.push({**files, ".gitignore": "/raw.csv\n/data\n/out.csv\n/a\n"})
    assert place.codes() & {"OUT_OVERLAP", "DATA_MISMATCH", "FOREIGN_REFUSED"}


# --- Why DVC is not trusted with it ---


@pytest.fixture(scope="module")
def dvc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(tmp_path_factory.mktemp("dvc")) as program:
        yield program


def _as_a_user(dvc: Any, place: Elsewhere, folder: Path) -> Path:
    """What somebody has who clones with Git and fetches with DVC."""
    subprocess.run(["git", "clone", "-q", place.url, str(folder)], env=environment(), check=True)
    dvc.do(folder, "remote", "modify", "--local", "st", "verify", "true")
    return folder


def test_dvc_deletes_what_it_finds_on_a_remote_and_we_do_not(dvc: Any, place: Elsewhere, tmp_path: Path) -> None:
    evidence = put(place.remote, "evil", digest=ONE)
    before = snapshot(place.remote)
    assert place.codes() == {"REMOTE_CORRUPT"}
    assert snapshot(place.remote) == before

    dvc(_as_a_user(dvc, place, tmp_path / "user"), "fetch")
    assert not evidence.exists(), "DVC has become careful: a remote that is a folder can be left to it"


def test_dvc_deletes_outside_of_its_cache_and_we_do_not(dvc: Any, place: Elsewhere, tmp_path: Path) -> None:
    """A digest in a .dir object becomes a path: aa/../../../../victim, from .dvc/cache/files/md5/aa."""
    data = _manifest(("x", "aa/../../../../victim"))
    digest = md5(data) + ".dir"
    put(place.remote, data, digest=digest)
    # Where the same path leads on the remote, so that there is something to fetch.
    (place.remote / "files/md5/aa").mkdir(exist_ok=True)
    (place.remote.parent / "victim").write_text("evil")
    place.push({"evil.dvc": {"outs": [{"path": "evil", "hash": "md5", "md5": digest}]}})
    assert place.codes() == {"LINEAGE_MALFORMED"}

    user = _as_a_user(dvc, place, tmp_path / "user")
    (user / ".dvc/cache/files/md5/aa").mkdir(parents=True)
    victim = user / ".dvc/victim"
    victim.write_text("precious")
    dvc(user, "fetch", "evil.dvc")
    assert not victim.exists() or victim.read_text() != "precious", "DVC looks at digests now"


def test_refusals_come_before_anything_is_fetched(place: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr("sealflow.lineage.foreign.fetch", never)
    place.push({".dvc/config": "[core]\nsite_cache_dir = /tmp/x\n"})
    assert place.codes() == {"FOREIGN_REFUSED"}


def test_fetch_holds_without_the_look_before(place: Elsewhere) -> None:
    """What the first look refuses is not written by a fetch that somebody calls alone."""
    place.push({"x.dvc": {"outs": [out(".git/config", "1\n"), out(".dvc/config.local", "1\n"), out("../x", "1\n")]}})
    with checked_out(place.url) as root:
        before = Path(root, ".git/config").read_bytes()
        (finding,) = fetch(root, remote=str(place.remote))
        assert finding.code == "FOREIGN_REFUSED"
        assert Path(root, ".git/config").read_bytes() == before
        assert not Path(root, ".dvc/config.local").exists()
        assert not Path(root, "../x").exists()


def test_every_accepted_url_is_one_argument() -> None:
    for url in ("https://host/x", "ssh://git@host/x", "git@host:x", "file:///x.git"):
        assert check_url(url)
        assert not url.startswith("-")
