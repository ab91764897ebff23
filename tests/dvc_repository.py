"""A small DVC repository, written without DVC: data that was added, and a stage that makes other data from it.

Also the same as others find it: a Git repository behind a URL, and a remote that holds the data.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

DATA = "data/points.csv"
MADE = "clean.csv"


def write_repository(root: Path, points: int = 20) -> Path:
    """Write a repository that holds at levels L1 and L2.

    Args:
        root: Its folder, which is made.
        points: Rows of data: ``x`` and ``2 x + 1``.
    """
    rows = "".join(f"{x},{2 * x + 1}\n" for x in range(points)).encode()
    written = {
        ".dvc/config": b"",
        DATA: rows,
        MADE: rows,
        f"{DATA}.dvc": f"outs:\n- md5: {_md5(rows)}\n  size: {len(rows)}\n  hash: md5\n  path: points.csv\n".encode(),
        "dvc.yaml": f"stages:\n  clean:\n    cmd: sort -n {DATA} > {MADE}\n    deps: [{DATA}]\n"
        f"    outs: [{MADE}]\n".encode(),
        "dvc.lock": "schema: '2.0'\nstages:\n  clean:\n"
        f"    cmd: sort -n {DATA} > {MADE}\n"
        f"    deps:\n    - path: {DATA}\n      hash: md5\n      md5: {_md5(rows)}\n      size: {len(rows)}\n"
        f"    outs:\n    - path: {MADE}\n      hash: md5\n      md5: {_md5(rows)}\n      size: {len(rows)}\n".encode(),
    }
    for name, content in written.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


class Published(NamedTuple):
    """A repository as others find it.

    Attributes:
        url: URL of its Git repository.
        commit: Its only commit.
        remote: Folder that is its DVC remote.
    """

    url: str
    commit: str
    remote: Path

    def corrupt(self) -> None:
        """Change the object of the data on the remote; size and times stay."""
        (path,) = (path for path in self.remote.rglob("*") if path.is_file())
        edit(path)


def publish(root: Path, folder: Path, key: Path | None = None) -> Published:
    """Commit a repository, without its data, and give the data to a remote.

    Args:
        root: The repository.
        folder: Where the Git repository and the remote are made.
        key: SSH key that signs the commit.
    """
    remote, bare = folder / "remote", folder / "published.git"
    data = (root / DATA).read_bytes()
    name = _md5(data)
    place = remote / "files" / "md5" / name[:2] / name[2:]
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    (root / ".gitignore").write_text(f"/{DATA}\n/{MADE}\n")

    def git(*arguments: str) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            **{f"GIT_{who}_{what}": "ada@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }
        done = subprocess.run(
            ["git", *arguments], cwd=root, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    signing = ["-c", "gpg.format=ssh", "-c", f"user.signingKey={key}.pub"] if key else []
    git("init", "--quiet", "--initial-branch=main")
    git("add", "--all")
    git(*signing, "commit", "--quiet", "--message", "Lock", *(["-S"] if key else []))
    git("clone", "--quiet", "--bare", str(root), str(bare))
    return Published(f"file://{bare}", git("rev-parse", "HEAD"), remote)


def edit(path: Path) -> None:
    """Change a digit and keep size, times and mode, as somebody would who does not want it to be seen."""
    before = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
