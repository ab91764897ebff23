"""Encrypted transfer to real S3 servers: reads from the middle, a small artifact, and many small files.

The server is Ceph's RADOS Gateway where nothing else is said, started here; it shares the processors with the client.

Random reads and plain ones take turns on the same bytes, 200 of each. Beyond the store's answers means what is left of
the wall time of a whole transfer without its waits for the server. Many small files go through boto3's own transfer
threads once, since that takes long.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import transfer_clients as clients
from benchmarks.measure import PATIENCE, environment, python, run
from benchmarks.table import Figure
from tests.servers import ceph, juicefs
from tests.servers.s3 import S3Server

_MAKE_KEY = "import sys; from sealflow.actions.keys_generate import generate_key; generate_key(sys.argv[1])"


@dataclass
class Bench:
    """What the sections share: a server that is started when it is needed, keys, and one large file.

    Attributes:
        folder: For data, and what comes back of them.
        stack: Ends the server that runs.
        aes: A file with the key of the recipient.
        key: A file with the signing key; its public half is beside it.
    """

    folder: Path
    stack: contextlib.ExitStack
    aes: Path = field(init=False)
    key: Path = field(init=False)
    _server: tuple[str, S3Server, str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.aes, self.key = self.folder / "aes.key", self.folder / "key"
        self.aes.write_bytes(os.urandom(32))
        run([*python(_MAKE_KEY), str(self.key)])

    def server(self, name: str = "Ceph") -> tuple[S3Server, str]:
        """A server and a bucket on it; one that runs under another name is ended, so that it takes no time.

        Raises:
            RuntimeError: There is none of this name here.
        """
        if self._server is None or self._server[0] != name:
            self._server = None
            self.stack.close()
            start, missing = SERVERS[name]
            if lacks := missing():
                raise RuntimeError(f"{name} is not installed: {lacks} is missing")
            server = self.stack.enter_context(start())
            self._server = name, server, server.make_bucket()
        return self._server[1:]

    def environment(self, server: S3Server, scheme: str = "http") -> dict[str, str]:
        """The variables with which a client reaches a server."""
        return {
            **(server.secure() if scheme == "https" else server).environment,
            "SEALFLOW_AUDIT_SPOOL": str(self.folder / "spool"),
            "SEALFLOW_STATE_DIR": str(self.folder / "state"),
            # For `aws`: what boto3 is told in the code, since this server knows no trailing checksums.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def ours(self, code: str, path: Path, bucket: str, name: str = "sealed") -> list[str]:
        """The command that uploads from, or downloads to, a path; the reference lies beside the keys."""
        return [*python(code), str(path), bucket, name, str(self.aes), str(self.key), str(self.folder / f"{name}.ref")]

    def data(self, quick: bool) -> Path:
        """One file of 1 GiB of random bytes, or of 64 MiB."""
        path, size = self.folder / "data", (64 << 20) if quick else (1 << 30)
        if not path.exists():
            with path.open("wb") as file:
                for _ in range(size >> 23):
                    file.write(os.urandom(8 << 20))
        return path


#: How a server is started, and what is missing for it.
SERVERS: Mapping[str, tuple[Callable[[], AbstractContextManager[S3Server]], Callable[[], str]]] = {
    "Ceph": (ceph.ceph_rgw, lambda: ", ".join(ceph.missing_programs())),
    "JuiceFS": (juicefs.juicefs, lambda: "" if juicefs.program() else juicefs.PACKAGE),
}


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Bench]:
    """Yield what the sections share."""
    with contextlib.ExitStack() as stack:
        yield Bench(folder, stack)


def random_reads(bench: Bench, rounds: int, quick: bool) -> list[Figure]:
    """Read 64 KiB at random places of an opened artifact of 1 GiB, and of a plain object."""
    server, bucket = bench.server()
    env, source = bench.environment(server), bench.data(quick)
    run([*python(clients.PLAIN_UP), str(source), bucket], env)
    run(bench.ours(clients.UP, source, bucket), env)
    size = source.stat().st_size
    command = [*python(clients.RANDOM), bucket, str(bench.aes), str(bench.key), str(bench.folder / "sealed.ref")]
    found = answer([*command, str(size)], env)
    plain, ours = (statistics.median(found[name]) for name in ("plain", "ours"))
    return [
        Figure("64 KiB somewhere in an opened artifact, over a plain range GET", ours / plain, "x", most=3),
        Figure("the same, verified", ours * 1000, "ms"),
        Figure("the same, plain", plain * 1000, "ms"),
        Figure(f"opening an artifact of {size >> 20} MiB: requests", found["open"]["requests"], "", most=6),
        Figure(f"opening an artifact of {size >> 20} MiB: bytes", found["open"]["bytes"] / (1 << 20), "MiB", most=8),
    ]


def one_small(bench: Bench, rounds: int, quick: bool) -> list[Figure]:
    """Upload and download an artifact of 1 KiB, 20 times each."""
    server, bucket = bench.server()
    command = [*python(clients.SMALL), bucket, str(bench.aes), str(bench.key), str(bench.folder)]
    found = answer(command, bench.environment(server))
    return [
        Figure(f"1 KiB {what}, beyond the store's answers", statistics.median(found[name]) * 1000, "ms", most=50)
        for what, name in (("uploaded", "up"), ("downloaded", "down"))
    ]


def many_small(bench: Bench, rounds: int, quick: bool) -> list[Figure]:
    """Upload 20,000 files of 4 KiB as one artifact, and one by one."""
    server, bucket = bench.server()
    env, count, tree = bench.environment(server), 500 if quick else 20_000, bench.folder / "tree"
    for number in range(count):
        path = tree / f"{number % 100:02}" / f"{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(4096))
    ours = statistics.median(run(bench.ours(clients.UP, tree, bucket, "tree"), env).wall for _ in range(3))
    plain = run([*python(clients.MANY), str(tree), bucket], env).wall
    shutil.rmtree(tree)
    return [
        Figure(f"{count} files of 4 KiB: times as fast as boto3's transfer threads", plain / ours, "x", least=20),
        Figure("the same: wall", ours, "s"),
        Figure("the same, one by one with boto3's transfer threads: wall", plain, "s"),
    ]


def answer(command: Sequence[str], env: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Run a command and return the JSON that it prints."""
    done = subprocess.run(command, env=environment(env), capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return dict(json.loads(done.stdout))
