"""Git repositories made with the stock programs: git, ssh-keygen, gpg.

The fixtures beside it say loudly where one is missing.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sealflow.lineage.git import AllowedSigner, CommitCheck, check_commit

MAIN = "refs/heads/main"
LOCK = b"schema: '2.0'\nstages: {}\n"
FILES: Mapping[str, bytes | None] = {"dvc.lock": LOCK}
WHEN = "2026-03-01T12:00:00+00:00"


def environment(**more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
        "GIT_AUTHOR_DATE": WHEN,
        "GIT_COMMITTER_DATE": WHEN,
        "GIT_ALLOW_PROTOCOL": "file",
        **more,
    }


# --- Keys: made once a run ---


@functools.cache
def _keys_folder() -> tempfile.TemporaryDirectory[str]:
    # A short path: gpg's agent has a socket there.
    return tempfile.TemporaryDirectory(prefix="k", dir="/tmp")


def ssh_key(kind: str = "ed25519", bits: int = 0, owner: str = "ada") -> Path:
    """The private key's path; the public one lies beside it with .pub."""
    path = Path(_keys_folder().name) / f"{kind}-{bits}-{owner}"
    if path.exists():
        return path
    size = ["-b", str(bits)] if bits else []
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", f"{owner}@example.org", "-f", str(path)], check=True
    )
    return path


def public(key: Path) -> str:
    return Path(f"{key}.pub").read_text().strip()


ALLOWED = "ada@example.org"


def allowed(*keys: Path | str, **more: Any) -> list[AllowedSigner]:
    return [AllowedSigner(public(key) if isinstance(key, Path) else key, **more) for key in keys]


def ssh_sign(payload: bytes, key: Path, *, namespace: str = "git", digest: str = "sha512") -> str:
    """The armored SSH signature over a payload."""
    done = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-O", f"hashalg={digest}", "-f", str(key)],
        input=payload, capture_output=True, check=True,
    )  # fmt: skip
    return done.stdout.decode()


def ssh_verifies(payload: bytes, signature: str, line: str, folder: Path) -> bool:
    """What ssh-keygen says of it."""
    (folder / "signature").write_text(signature)
    (folder / "allowed").write_text(f"somebody {line}\n")
    done = subprocess.run(
        ["ssh-keygen", "-Y", "verify", "-n", "git", "-I", "somebody", "-f", "allowed", "-s", "signature"],
        input=payload, capture_output=True, cwd=folder,
    )  # fmt: skip
    return done.returncode == 0


@dataclass(frozen=True)
class Gpg:
    """A GnuPG home with secret keys."""

    home: str

    def run(self, *arguments: str, data: bytes | None = None, check: bool = True) -> bytes:
        command = ["gpg", "--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""]
        done = subprocess.run(
            [*command, *arguments], input=data, capture_output=True, env=environment(GNUPGHOME=self.home), check=check
        )
        return done.stdout

    def make(self, name: str, algorithm: str = "ed25519", expires: str = "never", at: str = "20260101T000000") -> str:
        """Make a key and return its fingerprint."""
        uid = f"{name} <{name}@example.org>"
        self.run("--faked-system-time", at, "--quick-gen-key", uid, algorithm, "sign", expires)
        lines = self.run("--with-colons", "--list-keys", uid).decode().split("\n")
        return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))

    def export(self, fingerprint: str) -> str:
        return self.run("--armor", "--export", fingerprint).decode()

    def close(self) -> None:
        subprocess.run(["gpgconf", "--kill", "all"], env=environment(GNUPGHOME=self.home), check=False)
        shutil.rmtree(self.home, ignore_errors=True)


def new_gpg() -> Gpg:
    return Gpg(tempfile.mkdtemp(prefix="g", dir="/tmp"))


# --- Repositories ---


@dataclass
class Repo:
    """A working tree; commits are signed with Ada's key unless told otherwise."""

    root: Path
    key: Path | None = field(default_factory=ssh_key)
    environ: dict[str, str] = field(default_factory=environment)

    def git(self, *arguments: str, data: bytes | None = None, check: bool = True, **environ: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.root, input=data, capture_output=True, env={**self.environ, **environ}
        )
        if check and done.returncode:
            raise AssertionError(f"git {arguments}: {done.stderr.decode()}")
        return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")

    def write(self, files: Mapping[str, bytes | None]) -> None:
        for name, data in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if data is None:
                path.unlink()
            else:
                path.write_bytes(data)

    def commit(
        self, files: Mapping[str, bytes | None] | None = None, *options: str, message: str = "Lock", **environ: str
    ) -> str:
        """Commit everything and return the commit's id."""
        self.write(FILES if files is None else files)
        self.git("add", "-A")
        signing = ["-c", "gpg.format=ssh", "-c", f"user.signingKey={self.key}.pub"] if self.key else []
        self.git(*signing, "commit", "-q", "--allow-empty", *(["-S"] if self.key else []), *options, "-m", message,
                 **environ)  # fmt: skip
        return self.git("rev-parse", "HEAD")

    def raw(self, revision: str = "HEAD") -> bytes:
        """The commit object."""
        return subprocess.run(
            ["git", "cat-file", "commit", revision], cwd=self.root, capture_output=True, env=self.environ, check=True
        ).stdout

    def store(self, data: bytes, kind: str = "commit") -> str:
        """Write an object as it is, however malformed, and return its id."""
        return self.git("hash-object", "-w", "-t", kind, "--literally", "--stdin", data=data)

    def head(self, oid: str) -> str:
        """Let main and HEAD be this commit, files untouched."""
        (self.root / ".git/refs/heads").mkdir(parents=True, exist_ok=True)
        (self.root / ".git/refs/heads/main").write_text(oid + "\n")
        (self.root / ".git/HEAD").write_text("ref: refs/heads/main\n")
        return oid

    def object_path(self, oid: str) -> Path:
        return self.root / ".git/objects" / oid[:2] / oid[2:]

    def check(self, **more: Any) -> CommitCheck:
        given: dict[str, Any] = {"files": FILES, "allowed_signers": allowed(ssh_key()), "branch": MAIN, **more}
        return check_commit(str(more.pop("repo", self.root)), **{k: v for k, v in given.items() if k != "repo"})


def new_repo(root: Path, *options: str, key: Path | str | None = "ada") -> Repo:
    root.mkdir(parents=True, exist_ok=True)
    repo = Repo(root, ssh_key() if key == "ada" else key)  # type: ignore[arg-type]
    repo.git("init", "-q", "-b", "main", *options)
    return repo


def split(commit: bytes) -> tuple[bytes, bytes]:
    """The signed payload and the armored signature of a commit object; written apart from the code under test."""
    head, _, message = commit.partition(b"\n\n")
    kept, signature, inside = [], [], False
    for line in head.split(b"\n"):
        if line.startswith((b"gpgsig ", b"gpgsig-sha256 ")):
            inside = True
            signature.append(line.split(b" ", 1)[1])
        elif inside and line.startswith(b" "):
            signature.append(line[1:])
        else:
            inside = False
            kept.append(line)
    return b"\n".join(kept) + b"\n\n" + message, b"\n".join(signature) + b"\n"


def join(payload: bytes, signature: str | bytes, header: bytes = b"gpgsig") -> bytes:
    """A commit object of a payload and an armored signature."""
    armor = signature.encode() if isinstance(signature, str) else signature
    head, _, message = payload.partition(b"\n\n")
    return head + b"\n" + header + b" " + armor.rstrip(b"\n").replace(b"\n", b"\n ") + b"\n\n" + message


def refusals(check: CommitCheck) -> list[str]:
    """Codes that decide."""
    return [finding.code for finding in check.findings if finding.severity in ("refusal", "unverifiable")]


def passed(check: CommitCheck) -> bool:
    return bool(check.commit) and bool(check.signer) and not refusals(check)


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that a reader must leave alone: names, kinds, modes, times, contents."""
    found: dict[str, tuple[Any, ...]] = {}
    for at, folders, files in os.walk(folder):
        for name in [".", *folders, *files]:
            path = Path(at, name)
            status = path.lstat()
            content: Any = None
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino, content)
    return found


def names(findings: Sequence[Any]) -> list[str]:
    return [finding.code for finding in findings]
