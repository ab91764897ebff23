"""Writers and integrators killed at any moment: no acknowledged entry is lost, none is doubled, the log holds.

Each kill is a SIGKILL at a random moment, while others go on. By default a few on each inbox; a thousand in all in the
tests marked slow.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealflow.audit.append import append
from sealflow.audit.checkpoint import open_checkpoint
from sealflow.audit.entry import parse_entry
from sealflow.audit.inbox import open_inbox
from sealflow.audit.inbox_postgresql import PostgresqlInbox
from sealflow.audit.integrate import integrate
from sealflow.audit.log import open_log
from sealflow.audit.merkle import EMPTY_ROOT
from sealflow.audit.note import VerifierKey
from sealflow.audit.tiles import Tree
from sealflow.storage import Storages
from tests.core.audit.logs import ORIGIN, ed25519_signer
from tests.servers.s3 import S3Server, moto_server

ROOT = Path(__file__).resolve().parents[3]

# How many at a time.
WRITERS = 4
INTEGRATORS = 2


class Crowd:
    """Processes that work on one inbox and one log, and are killed and replaced."""

    def __init__(self, inbox: str, log: str, folder: Path, environment: dict[str, str]) -> None:
        self.inbox, self.log, self.folder = inbox, log, folder
        self.signer = ed25519_signer(folder)
        self.made = 0
        self.alive: list[tuple[str, int]] = []
        with (self.folder / "errors").open("ab") as errors:
            self.mother = subprocess.Popen(
                [sys.executable, "-m", "tests.core.audit.killing", inbox, log, str(folder / "log.pem")],
                cwd=ROOT,
                env=os.environ | environment | {"PYTHONPATH": f"{ROOT}:{ROOT}/shared"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def start(self, kind: str) -> None:
        self.made += 1
        assert self.mother.stdin is not None
        assert self.mother.stdout is not None
        line = f"writer {self.folder}/acknowledged-{self.made}\n" if kind == "writer" else "integrator\n"
        self.mother.stdin.write(line)
        self.mother.stdin.flush()
        self.alive.append((kind, int(self.mother.stdout.readline() or self.errors())))

    def kill(self, times: int, pause: float) -> None:
        """Let them work, and kill one after another, each at a moment of its own."""
        for kind in ["writer"] * WRITERS + ["integrator"] * INTEGRATORS:
            self.start(kind)
        # A store that has just begun takes seconds for its first answers, in which nobody would be killed at work.
        self.wait_for(1)
        for _ in range(times):
            time.sleep(random.uniform(0, 2 * pause))
            # The integrators follow one another a third of the time, as they stand among the others.
            kind, pid = self.alive.pop(0)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                # Whoever ends by itself has found a fault.
                pytest.fail(f"{kind} ended: {self.errors()}")
            self.start(kind)
        self.wait_for(times + 1)

    def wait_for(self, entries: int) -> None:
        """Let them work until so many entries were acknowledged."""
        end = time.monotonic() + 120
        while len(self.acknowledged()) < entries:
            assert time.monotonic() < end, self.errors() or "they do not come to do anything"
            time.sleep(0.02)

    def stop(self) -> None:
        assert self.mother.stdin is not None
        assert self.mother.stdout is not None
        for _, pid in self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for _, pid in self.alive:
            while os.path.exists(f"/proc/{pid}"):
                time.sleep(0.01)
        self.mother.stdin.close()
        self.mother.stdout.close()
        self.mother.wait(30)

    def errors(self) -> str:
        return (self.folder / "errors").read_text()[-3000:]

    def acknowledged(self) -> list[bytes]:
        found: list[bytes] = []
        for path in self.folder.glob("acknowledged-*"):
            # A line that was cut off was told to nobody: what kills a process may cut its write, too.
            found += path.read_bytes().split(b"\n")[:-1]
        return found


def check(crowd: Crowd, storages: Storages) -> int:
    """Bring in what waits, compute the whole log anew and compare; return how many entries were acknowledged."""
    inbox, log = open_inbox(crowd.inbox, storages), open_log(crowd.log, storages)
    done = integrate(inbox, log, crowd.signer, ORIGIN)
    data = log.get("checkpoint", 1 << 16)
    assert data is not None
    state = open_checkpoint(data, VerifierKey.of(crowd.signer, ORIGIN)).checkpoint
    assert (state.size, state.root) == (done.size, done.root)
    tree = Tree(log.get, state.size)
    lines = [line for number in range(-(-state.size // 256)) for line in tree.bundle(number)]
    assert append(lambda name, limit: None, 0, lines, root=EMPTY_ROOT).root == state.root
    # Every chain from its beginning, in its order, without holes: so nothing is there twice, either.
    tips: dict[str, tuple[int, str]] = {}
    for line in lines:
        entry = parse_entry(line)
        assert tips.get(entry.writer, (0, "0" * 64)) == (entry.n, entry.prev)
        tips[entry.writer] = (entry.n + 1, entry.hash)
    assert inbox.refusals == []
    acknowledged = crowd.acknowledged()
    assert set(acknowledged) <= set(lines), f"{len(set(acknowledged) - set(lines))} entries are lost"
    inbox.close()
    return len(acknowledged)


def killed(
    inbox: str,
    log: str,
    folder: Path,
    times: int,
    storages: Storages,
    environment: dict[str, str] | None = None,
    pause: float = 0.03,
) -> None:
    crowd = Crowd(inbox, log, folder, environment or {})
    try:
        crowd.kill(times, pause)
    finally:
        crowd.stop()
    found = check(crowd, storages)
    assert "Traceback" not in crowd.errors()
    assert found > times, "they did not come to do anything"


def variants(quick: int, thorough: int):
    return pytest.mark.parametrize("times", [quick, pytest.param(thorough, marks=pytest.mark.slow)])


@variants(12, 400)
@pytest.mark.timeout(900)
def test_killed_over_a_file(tmp_path: Path, times: int) -> None:
    killed(f"sqlite:{tmp_path}/inbox.db", str(tmp_path / "log"), tmp_path, times, Storages())


@variants(12, 300)
@pytest.mark.timeout(900)
def test_killed_over_a_database(tmp_path: Path, times: int, postgresql, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in postgresql.environment.items():
        monkeypatch.setenv(name, value)
    database = postgresql.make_database()
    owner = PostgresqlInbox(postgresql.uri(database))
    owner.set_up(["writer"], ["integrator"])
    owner.close()
    killed(postgresql.uri(database), str(tmp_path / "log"), tmp_path, times, Storages(), postgresql.environment)


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    with moto_server() as server:
        yield server


@pytest.mark.server
@variants(12, 100)
@pytest.mark.timeout(900)
def test_killed_over_objects_of_a_mock(tmp_path: Path, times: int, moto: S3Server) -> None:
    objects(moto, tmp_path, times)


@variants(12, 200)
@pytest.mark.timeout(900)
def test_killed_over_objects(tmp_path: Path, times: int, s3_server: S3Server) -> None:
    objects(s3_server, tmp_path, times)


def objects(server: S3Server, folder: Path, times: int) -> None:
    place = f"s3://{server.make_bucket()}"
    # The log, too: its checkpoint is swapped by If-Match.
    killed(f"{place}/inbox", f"{place}/log", folder, times, Storages(server.client()), server.environment, 0.1)
