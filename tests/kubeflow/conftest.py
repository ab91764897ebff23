"""A mounted secret as a cluster would mount it, artifacts as KFP hands them out, and KFP's local runner."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.audit_events import read_events
from tests.pki import KeyPair, write_key

if TYPE_CHECKING:
    from tests.kubeflow.admission_client import Authority
    from tests.kubeflow.cluster import Cluster
    from tests.kubeflow.guard_roots import Team


ROOT = Path(__file__).resolve().parent.parent.parent
# Read here, because every test runs without it.
GUARD = os.environ.get("SEALFLOW_TEST_GUARD")


@dataclass
class Mounted:
    """The folder that ``SEALFLOW_MOUNT`` names, which tasks of the local runner inherit.

    Attributes:
        folder: The folder.
        key: The signing key in it.
        spool: Where the settings put the audit events.
    """

    folder: Path
    key: KeyPair
    spool: Path
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self, **changes: Any) -> None:
        """Write the settings; ``None`` leaves one out."""
        self.settings |= changes
        kept = {name: value for name, value in self.settings.items() if value is not None}
        (self.folder / "sealflow.json").write_text(json.dumps(kept))

    def events(self) -> list[dict[str, Any]]:
        """Return the audit events so far."""
        return read_events(self.spool)


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounted:
    """Settings with one key that signs and is trusted."""
    folder = tmp_path / "mount"
    folder.mkdir()
    key = write_key(folder, "signing")
    made = Mounted(folder, key, tmp_path / "spool")
    made.write(signer=key.signer, identities={"trainer": f"file:{key.public}"}, audit_spool=str(made.spool))
    monkeypatch.setenv("SEALFLOW_MOUNT", str(folder))
    return made


@pytest.fixture
def artifact(tmp_path: Path) -> Callable[..., Any]:
    """Make an artifact as KFP's local runner hands it to a component."""

    def make(name: str, files: dict[str, bytes] | bytes | None = None, metadata: dict[str, Any] | None = None) -> Any:
        from kfp import dsl

        from tests.trees import write_tree

        path = tmp_path / "root" / "run" / "task" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(files, bytes):
            path.write_bytes(files)
        elif files is not None:
            write_tree(path, files)
        return dsl.Artifact(name=name, uri=str(path), metadata=metadata)

    return make


@pytest.fixture
def local_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """KFP's local runner in processes of its own; gives the pipeline root."""
    from kfp import local

    root = tmp_path / "pipeline-root"
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    monkeypatch.chdir(tmp_path)
    yield root
    local.config.LocalExecutionConfig.instance = None


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who certifies the admission server, which has a first certificate and its key."""
    from tests.kubeflow.admission_client import Authority

    made = Authority(tmp_path)
    made.write()
    return made


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory, need_program: Callable[[str, str, str], None]) -> Iterator[Path]:
    """The guard directory, built as `make guard` builds it, or the one that SEALFLOW_TEST_GUARD names."""
    for name, package in (("busybox", "busybox-static"), ("cc", "gcc"), ("strip", "binutils"), ("ldd", "libc-bin")):
        need_program(name, package, "the guard directory is not built")
    folder = tmp_path_factory.mktemp("guard") / "guard"
    if GUARD:
        shutil.copytree(GUARD, folder)
        yield folder
        return
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "build_guard.py", folder], capture_output=True, text=True, cwd=folder.parent
    )
    assert done.returncode == 0, done.stderr
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def busybox_team(tmp_path: Path, guard: Path) -> Iterator[Team]:
    """A team whose pods hold busybox and the guard directory."""
    from tests.kubeflow.guard_roots import Team

    made = Team(tmp_path / "cluster", guard)
    yield made
    shutil.rmtree(tmp_path / "cluster")


@pytest.fixture
def good(tmp_path: Path) -> Cluster:
    """A cluster with the admission server, as it should be, seen through a stand-in for kubectl."""
    from tests.kubeflow.cluster import authority, good

    return good(tmp_path / "cluster", authority())
