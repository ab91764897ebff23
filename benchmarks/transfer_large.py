"""1 GiB to real S3 servers and back, over HTTPS and HTTP, with plain transfers and other tools in the same run.

Peers: plain boto3; over HTTPS also ``age`` piped to and from ``aws``, and Amazon's S3 Encryption Client for Python, in
an environment of its own since it needs another release of ``cryptography``. It takes keys from AWS KMS only, which is
played in its own process: it never waits for one. Everything that comes back is compared with what was sent. A ratio is
the median of those of the rounds.

Server and client share the processors, which are busy throughout, so the processor time of both is what counts. The
server's is taken from the kernel, around each command. Elsewhere it has machines of its own; here, what it takes hides
what the clients differ in. So there are two: Ceph's gateway, and that of JuiceFS, which is MinIO's code over a file
system and takes half as much.

Over plain HTTP a third digest of the same bytes, the one in the request's signature, comes on top of that of each file
and that of each encrypted frame. The frames' own digests could stand in for it, as they are signed
(``STREAMING-AWS4-HMAC-SHA256-PAYLOAD``), but Ceph 16 takes chunks with wrong signatures, and nothing would notice then
what was altered on its way. Downloads over plain HTTP cost so little that those two digests are what is left.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import peers
from benchmarks import transfer_clients as clients
from benchmarks.measure import Sample, python, run
from benchmarks.table import Figure, Missing
from benchmarks.transfer import Bench

_AGE, _SEALING = "age", "S3 Encryption Client"
#: Programs of the servers.
_SERVERS = frozenset({"ceph-mon", "ceph-osd", "radosgw", "juicefs"})
#: Times as fast as a peer that encrypts.
_FASTER = 1.3


class _Taken(NamedTuple):
    """A run of a command, or the medians of its runs.

    Attributes:
        client: The process.
        server: CPU seconds of the server while it ran.
    """

    client: Sample
    server: float

    @classmethod
    def median(cls, runs: Sequence[_Taken]) -> _Taken:
        """Return the median of each figure."""
        parts = (statistics.median(getattr(one.client, part) for one in runs) for part in ("cpu", "wall", "peak"))
        return cls(Sample(*parts), statistics.median(one.server for one in runs))


def over_https(name: str, bench: Bench, rounds: int, quick: bool) -> list[Figure | Missing]:
    """Measure over HTTPS, with all peers, against the server of this name."""
    source, (_, bucket) = bench.data(quick), bench.server(name)
    commands: dict[str, Sequence[str]] = {}
    absent: list[Missing] = []
    for peer, found in ((_AGE, _age), (_SEALING, _sealing)):
        try:
            commands |= found(bench, source, bucket)
        except peers.PeerError as error:
            absent.append(Missing(f"{name}, https, {peer}", str(error)))
    rows = _measured(name, bench, rounds, quick, "https", commands)
    return [*rows, *absent, Figure("SHA-256 of as many bytes, once: CPU", _hashing(source), "s")]


def over_http(name: str, bench: Bench, rounds: int, quick: bool) -> list[Figure | Missing]:
    """Measure over plain HTTP, beside plain boto3, against the server of this name."""
    return list(_measured(name, bench, rounds, quick, "http", {}))


def _measured(
    name: str, bench: Bench, rounds: int, quick: bool, scheme: str, peers: Mapping[str, Sequence[str]]
) -> list[Figure | Missing]:
    source, back, (server, bucket) = bench.data(quick), bench.folder / "back", bench.server(name)
    commands: dict[str, Sequence[str]] = {
        "plain up": [*python(clients.PLAIN_UP), str(source), bucket],
        "up": bench.ours(clients.UP, source, bucket),
        "plain down": [*python(clients.PLAIN_DOWN), str(back), bucket],
        "down": bench.ours(clients.DOWN, back, bucket),
        **peers,
    }
    taken, failed = in_turn(commands, peers, rounds, bench.environment(server, scheme), source, back)
    here = f"{name}, {scheme}"
    rows: list[Figure | Missing] = [
        *(Missing(f"{here}, {peer}", why) for peer, why in failed.items()),
        _ratio(f"{here}, upload: speed of plain `boto3.upload_file` reached", taken, "plain up", "up", 0.9),
        _ratio(f"{here}, verified download: speed of plain `download_file` reached", taken, "plain down", "down", 1.0),
    ]
    for peer, up, down in (
        (_AGE, "`age` piped to `aws s3 cp -`", "`aws s3 cp -` piped to `age -d`"),
        (_SEALING, "the S3 Encryption Client", "the S3 Encryption Client"),
    ):
        if f"{peer} up" in taken:
            rows.append(_ratio(f"{here}, upload: times as fast as {up}", taken, f"{peer} up", "up", _FASTER))
        if f"{peer} down" in taken:
            rows.append(_ratio(f"{here}, download: times as fast as {down}", taken, f"{peer} down", "down", _FASTER))
    for what, (client, server_cpu) in ((what, _Taken.median(runs)) for what, runs in taken.items()):
        peak = 150.0 if what in ("up", "down") else None
        rows += [
            Figure(f"{here}, {what}: wall", client.wall, "s"),
            Figure(f"{here}, {what}: CPU of the client", client.cpu, "s"),
            Figure(f"{here}, {what}: CPU of the server", server_cpu, "s"),
            Figure(f"{here}, {what}: peak memory", client.peak, "MiB", most=peak),
        ]
    return rows


def _ratio(name: str, taken: Mapping[str, Sequence[_Taken]], peer: str, ours: str, least: float) -> Figure:
    # By rounds: a machine's speed changes within minutes by more than what is looked for here.
    ratios = (one.client.wall / other.client.wall for one, other in zip(taken[peer], taken[ours], strict=True))
    return Figure(name, statistics.median(ratios), "x", least=least)


def in_turn(
    commands: Mapping[str, Sequence[str]],
    peers: Collection[str],
    rounds: int,
    env: Mapping[str, str],
    source: Path,
    back: Path,
) -> tuple[dict[str, list[_Taken]], dict[str, str]]:
    """Run all commands in turn, one warm-up round and then ``rounds``; what comes back has to be what was sent.

    Returns:
        The runs in their order, and why a peer failed that others do without.
    """
    samples: dict[str, list[_Taken]] = {name: [] for name in commands}
    failed: dict[str, str] = {}
    for turn in range(rounds + 1):
        for name in list(samples):
            back.unlink(missing_ok=True)
            try:
                before = _server_cpu()
                client = run(commands[name], env)
                server = _server_cpu() - before
                if "down" in name and subprocess.run(["cmp", "--quiet", str(source), str(back)]).returncode:
                    raise RuntimeError("what came back is not what was sent")
            except RuntimeError as error:
                if name not in peers:
                    raise
                failed[name] = " ".join(str(error).split())[:200]
                del samples[name]
                continue
            if turn:
                samples[name].append(_Taken(client, server))
    back.unlink(missing_ok=True)
    return samples, failed


def _server_cpu() -> float:
    """CPU seconds of the server's processes, which are our children."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            program, _, rest = path.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue  # it has just ended
        values = rest.split()
        if program in _SERVERS and int(values[1]) == os.getpid():
            ticks += int(values[11]) + int(values[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _hashing(source: Path) -> float:
    start = time.process_time()
    with source.open("rb", buffering=0) as file:
        digest, block = hashlib.sha256(), bytearray(1 << 20)
        while count := file.readinto(block):
            digest.update(memoryview(block)[:count])
    return time.process_time() - start


def _age(bench: Bench, source: Path, bucket: str) -> dict[str, Sequence[str]]:
    if missing := [name for name in ("age", "age-keygen", "aws") if not shutil.which(name)]:
        raise peers.PeerError(f"{', '.join(missing)} is missing")
    identity = bench.folder / "age.txt"
    identity.unlink(missing_ok=True)
    subprocess.run(["age-keygen", "-o", str(identity)], check=True, capture_output=True)
    public = subprocess.run(
        ["age-keygen", "-y", str(identity)], check=True, capture_output=True, text=True
    ).stdout.strip()
    size = source.stat().st_size
    up = f"age -r {public} {source} | aws s3 cp --expected-size {size} - s3://{bucket}/age"
    down = f"aws s3 cp s3://{bucket}/age - | age -d -i {identity} -o {bench.folder / 'back'}"
    return {
        f"{_AGE} up": ["bash", "-o", "pipefail", "-c", up],
        f"{_AGE} down": ["bash", "-o", "pipefail", "-c", down],
    }


def _sealing(bench: Bench, source: Path, bucket: str) -> dict[str, Sequence[str]]:
    # It holds several times what it reads before it gives out the first byte, and the server may be in memory, too.
    if _free_memory() < (needed := 12 * source.stat().st_size):
        raise peers.PeerError(f"it needs {needed / (1 << 30):.1f} GiB of free memory")
    interpreter, back = peers.python(), str(bench.folder / "back")
    return {
        f"{_SEALING} up": [interpreter, "-c", clients.SEALING_UP, str(source), bucket, str(bench.aes)],
        f"{_SEALING} down": [interpreter, "-c", clients.SEALING_DOWN, back, bucket, str(bench.aes)],
        f"{_SEALING} down, released before it is verified": [
            *(interpreter, "-c", clients.SEALING_DOWN_EARLY, back, bucket, str(bench.aes))
        ],
    }


def _free_memory() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) << 10
