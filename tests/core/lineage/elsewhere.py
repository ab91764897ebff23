"""A repository on a server, and the remote with its data: what a caller names by URL."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealflow.findings import Finding
from sealflow.lineage.check import check_repository
from sealflow.lineage.foreign import prepared
from sealflow.lineage.git import check_commit
from tests.core.lineage.gitrepo import Repo, allowed, environment, new_repo, ssh_key
from tests.core.lineage.repos import lock, md5, out, write

BRANCH = "refs/remotes/origin/main"
#: Files of the folder ``data``.
FOLDER: Mapping[str, bytes] = {"a.csv": b"1,2\n", "sub/b.csv": b"3,4\n", "empty": b"", "ü é": b"x", "same": b"1,2\n"}
CONFIG = "[core]\n    remote = st\n    autostage = true\n['remote \"st\"']\n    url = {url}\n"
IGNORED = "/raw.csv\n/data\n/out.csv\n"


def manifest(files: Mapping[str, bytes]) -> bytes:
    """The ``.dir`` object of a folder."""
    return json.dumps([{"md5": md5(files[name]), "relpath": name} for name in sorted(files)], sort_keys=True).encode()


def folder_out(path: str, files: Mapping[str, bytes], **more: Any) -> dict[str, Any]:
    """An entry of a .dvc file for a folder with these files."""
    return {
        "path": path, "hash": "md5", "md5": md5(manifest(files)) + ".dir", "nfiles": len(files),
        "size": sum(map(len, files.values())), **more,
    }  # fmt: skip


def object_path(digest: str, legacy: bool = False) -> str:
    return f"{'' if legacy else 'files/md5/'}{digest[:2]}/{digest[2:]}"


def put(remote: Path, data: bytes | str, *, digest: str = "", mode: int = 0o644) -> Path:
    """Put an object onto a remote in a folder, under its own digest or another."""
    raw = data if isinstance(data, bytes) else data.encode()
    path = remote / object_path(digest or md5(raw))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    path.chmod(mode)
    return path


def put_folder(remote: Path, files: Mapping[str, bytes]) -> Path:
    for data in files.values():
        put(remote, data)
    return put(remote, manifest(files), digest=md5(manifest(files)) + ".dir")


@dataclass
class Elsewhere:
    """Somebody's repository: where they work, where they push to, and where their data lies."""

    repo: Repo
    bare: Path
    remote: Path

    @property
    def url(self) -> str:
        return f"file://{self.bare}"

    def push(self, files: Mapping[str, Any] | None = None, *, again: bool = False) -> str:
        """Commit files, push everything, and return the commit's id."""
        write(self.repo.root, dict(files or {}))
        commit = self.repo.commit({})
        return self.publish(commit)

    def publish(self, commit: str = "") -> str:
        if self.bare.exists():
            shutil.rmtree(self.bare)
        subprocess.run(
            ["git", "clone", "-q", "--bare", str(self.repo.root), str(self.bare)], env=environment(), check=True
        )
        return commit

    def entry(self, mode: str, name: str, content: bytes | str) -> None:
        """Add an entry to the tree of the newest commit that no file system would hold, and push."""
        oid = content if isinstance(content, str) else self.repo.store(content, "blob")
        kind = {"160000": "commit", "040000": "tree"}.get(mode, "blob")
        listed = self.repo.git("ls-tree", "HEAD").splitlines()
        tree = self.repo.git(
            "mktree", "--missing", data="\n".join([*listed, f"{mode} {kind} {oid}\t{name}"]).encode() + b"\n"
        )
        self.repo.head(self.repo.git("commit-tree", "-p", "HEAD", "-m", "Odd", tree))
        self.publish()

    def look(self, revision: str = "HEAD", **more: Any) -> list[Finding]:
        """Prepare, check L1 to L3, and return what decides; nothing when all is well."""
        given = {"remote": str(self.remote), **more}
        targets: Sequence[str] = given.get("targets", ())
        with prepared(self.url, revision, **given) as (root, findings):
            found = [*findings]
            if root:
                checked = check_repository(root, targets, level="L3")
                commit = check_commit(root, files=checked.read, allowed_signers=allowed(ssh_key()), branch=BRANCH)
                found += [*checked.findings, *commit.findings]
        return [finding for finding in found if finding.severity in ("refusal", "unverifiable")]

    def codes(self, revision: str = "HEAD", **more: Any) -> set[str]:
        return {finding.code for finding in self.look(revision, **more)}


def make(folder: Path, *, url: str = "") -> Elsewhere:
    """A file, a folder and a stage; the data lies on the remote alone."""
    repo = new_repo(folder / "work")
    remote = folder / "remote"
    for data in ("1\n", "2\n"):
        put(remote, data)
    put_folder(remote, FOLDER)
    found = Elsewhere(repo, folder / "server" / "repo.git", remote)
    found.bare.parent.mkdir()
    found.push(
        {
            ".dvc/config": CONFIG.format(url=url or remote),
            ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
            ".dvcignore": "# nothing\n",
            ".gitignore": IGNORED,
            "raw.csv.dvc": {"outs": [out("raw.csv", "1\n")]},
            "data.dvc": {"outs": [folder_out("data", FOLDER)]},
            "params.yaml": {"lr": 0.1},
            "code/train.sh": "#!/bin/sh\n",
            "dvc.yaml": {
                "stages": {"make": {"cmd": "go", "deps": ["raw.csv", "data"], "outs": ["out.csv"], "params": ["lr"]}}
            },
            "dvc.lock": lock(
                make={
                    "cmd": "go",
                    "deps": [folder_out("data", FOLDER), out("raw.csv", "1\n")],
                    "outs": [out("out.csv", "2\n")],
                    "params": {"params.yaml": {"lr": 0.1}},
                }
            ),
        }
    )
    return found
