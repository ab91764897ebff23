"""Containers of one static program: a folder with busybox and the guard directory, and nothing else, as a root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sealflow_kfp.guard_command import GUARD_PROGRAM
from tests.kubeflow.launcher import Launcher, Stored
from tests.pki import write_key

MODEL, SCORES = "{{$.outputs.artifacts['model'].path}}", "{{$.outputs.artifacts['scores'].path}}"
INPUT = "{{$.inputs.artifacts['model'].path}}"
MAKE, USE = f"echo weights > {MODEL}", f"cat {INPUT} > {SCORES}"

#: Beside the folders for people.
_PLACES = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_READ_ONLY = """
set -e
mount --bind "$1" "$1"
mount --bind "$1/minio" "$1/minio"
mount -o remount,ro,bind "$1"
shift
exec "$@"
"""


def program(name: str) -> str | None:
    """Return where a program of the system lies."""
    return shutil.which(name, path=_PLACES)


def make_root(folder: Path) -> Path:
    """Make a root that holds busybox, under the names that tasks use here, and no C library, Python or user."""
    (folder / "bin").mkdir(parents=True)
    shutil.copy2(program("busybox") or "", folder / "bin" / "busybox")
    for name in ("sh", "cat", "env", "sleep", "touch", "setsid", "kill", "tr", "ls"):
        os.link(folder / "bin" / "busybox", folder / "bin" / name)
    return folder


def put_guard(guard: Path, root: Path) -> None:
    """Bring the guard directory in, as a volume that only can be read."""
    target = root / "sealflow" / "guard"
    for folder, _, names in os.walk(guard):
        below = target / Path(folder).relative_to(guard)
        below.mkdir(parents=True, exist_ok=True)
        for name in names:
            os.link(Path(folder) / name, below / name)


def inside(
    root: Path, command: Sequence[str], *, user: int | None = None, read_only: bool = False, devices: bool = False
) -> list[str]:
    """Return what runs a command with a folder as its root.

    Args:
        root: The folder.
        command: Program and arguments.
        user: Runs as this user and group, of which nobody there has heard; only root can.
        read_only: Nothing can be written but ``/minio``.
        devices: With ``/proc`` and ``/dev``.
    """
    change = [program("chroot") or "chroot"]
    if user is not None:
        change.append(f"--userspec={user}:{user}")
    change += [str(root), *command]
    unshare = [program("unshare") or "unshare"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    if read_only:
        return [*unshare, "--mount", "sh", "-c", _READ_ONLY, "sh", str(root), *change]
    if devices:
        (root / "proc").mkdir(exist_ok=True)
        (root / "dev").mkdir(exist_ok=True)
        script = 'set -e; mount --rbind /proc "$1/proc"; mount --rbind /dev "$1/dev"; shift; exec "$@"'
        return [*unshare, "--mount", "sh", "-c", script, "sh", str(root), *change]
    return change if os.geteuid() == 0 else [*unshare, *change]


class RootLauncher(Launcher):
    """KFP's launcher, whose pods have a root of their own and the guard directory in it.

    Args:
        root: A folder of its own.
        guard: The guard directory.
    """

    def __init__(self, root: Path, guard: Path) -> None:
        super().__init__(root)
        make_root(root / "pod")
        put_guard(guard, root / "pod")
        self.given = {"PATH": "/bin", "SEALFLOW_TERMINATION_LOG": "/termination-log"}
        self.user: int | None = None
        self.read_only = False
        self.devices = False
        self.scratch = True
        self.folder = "/"

    def _start(self, pod: Path) -> list[str]:
        return [GUARD_PROGRAM]

    def _inside(self, uri: str) -> str:
        return f"/minio/{uri.removeprefix('minio://')}"

    def _process(
        self, command: list[str], pod: Path, interfere: Callable[[subprocess.Popen[bytes], Path], None] | None
    ) -> tuple[int, str]:
        (pod / "termination-log").write_text("")
        (pod / "termination-log").chmod(0o666)
        if not self.scratch:
            (pod / "tmp").rmdir()
        if self.user is not None:
            for folder, folders, names in os.walk(pod / "minio"):
                for name in [".", *folders, *names]:
                    os.chown(os.path.join(folder, name), self.user, self.user)
        whole = inside(pod, command, user=self.user, read_only=self.read_only, devices=self.devices)
        return run(whole, {**self.given, **self.environment}, pod, interfere)


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    pod: Path,
    interfere: Callable[[subprocess.Popen[bytes], Path], None] | None = None,
) -> tuple[int, str]:
    """Run a command to its end; return status and log. Only itself sees the environment, not what changes the root."""
    words = list(command)
    # The last mention: what is mounted on the way names the folder, too.
    where = max((index for index, word in enumerate(words) if word == str(pod)), default=-1) + 1
    if environment:
        words[where:where] = ["/bin/env", "-i", *(f"{name}={value}" for name, value in environment.items())]
    with open(pod.parent / "log", "w+b") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env={"PATH": _PLACES}, cwd=pod)
        if interfere is not None:
            interfere(process, pod)
        status = process.wait(timeout=120)
        log.seek(0)
        return (128 - status if status < 0 else status), log.read().decode()


class Team:
    """A launcher whose pods hold busybox, and a team's key and settings in its secret."""

    def __init__(self, root: Path, guard: Path) -> None:
        self.launcher = RootLauncher(root, guard)
        mount = self.launcher.mount
        mount.mkdir(parents=True)
        write_key(mount, "signing")
        settings = {
            "signer": "file:/var/run/sealflow/signing.pem",
            "identities": {"team": "file:/var/run/sealflow/signing.pub.pem"},
            "audit_spool": "/minio/spool",
        }
        (mount / "sealflow.json").write_text(json.dumps(settings))

    def make(self, script: str = MAKE, **more: Any) -> Any:
        return self.launcher.run("train", script, outputs={"model": "system.Model"}, **more)

    def use(self, model: Stored, script: str = USE, **more: Any) -> Any:
        return self.launcher.run("score", script, inputs={"model": model}, outputs={"scores": "system.Dataset"}, **more)
