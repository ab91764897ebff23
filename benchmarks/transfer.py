"""Encrypted transfer to a real S3 server, with plain transfers and other tools in the same run.

The server is Ceph's RADOS Gateway, started here; it shares the processors with the client. `age` and `aws` are
measured where they are on the path. The S3 encryption client needs another release of `cryptography` than we do.

Server and client share the processors, which are busy throughout, so the processor time of both is what counts. Of 1
GiB over TLS the server takes 6.5 s of an encrypted upload and 7.2 s of a plain one, for boto3 signs a digest of the
body then, which the server checks; our client takes 2.7 s, boto3 2.2, ``age`` and ``aws`` together 3.75. Of ours 1.2
s are the SHA-256 of every file and of every encrypted frame. Over plain HTTP a third digest of the same bytes, the
one in the request's signature, comes on top. The frames' own digests could stand in for it (``STREAMING-AWS4-HMAC-
SHA256-PAYLOAD``), but Ceph 16 takes chunks with wrong signatures, and nothing would notice then what was altered on
its way.

Peak memory of an upload, against a server that discards what it gets: 116 to 138 MiB at 1 GiB and at 10 GiB, 130 MiB
with the parts that 630 GiB need, 168 MiB with those of 1 TiB: S3 takes 10,000 parts and a part is held whole. A
download holds 56 MiB of buffers at any size.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measure import Sample, environment, interleaved, python, run
from benchmarks.table import Figure

_CLIENT = """
import os, sys
import boto3
from botocore.config import Config
config = Config(s3={"addressing_style": "path"}, max_pool_connections=16,
                request_checksum_calculation="when_required", response_checksum_validation="when_required")
client = boto3.client("s3", config=config)
"""

_PLAIN_UP = _CLIENT + "client.upload_file(sys.argv[1], sys.argv[2], 'plain')"
_PLAIN_DOWN = _CLIENT + "client.download_file(sys.argv[2], 'plain', sys.argv[1])"

_UP = """
import sys
from sealflow.actions.upload import upload
ref = upload(sys.argv[1], f"s3://{sys.argv[2]}/{sys.argv[3]}", recipients="aes:" + sys.argv[4],
             signer="file:" + sys.argv[5], overwrite=True)
open(sys.argv[6], "w").write(ref.to_json())
"""

_DOWN = """
import sys
from sealflow.actions.download import download
download(open(sys.argv[6]).read(), sys.argv[1], recipients="aes:" + sys.argv[4], identities=sys.argv[5] + ".pub",
         overwrite=True)
"""

# As boto3 uploads many files: its own transfer manager and threads.
_MANY = (
    _CLIENT
    + """
from s3transfer.manager import TransferConfig, TransferManager
with TransferManager(client, TransferConfig(max_request_concurrency=10)) as manager:
    for folder, _, names in os.walk(sys.argv[1]):
        for name in names:
            path = os.path.join(folder, name)
            manager.upload(path, sys.argv[2], "many/" + os.path.relpath(path, sys.argv[1]))
"""
)

_RANDOM = (
    _CLIENT
    + """
import json, random, time
from sealflow.actions.reading import reading
from sealflow.storage import Storages
bucket, aes, key, ref, size = sys.argv[1], sys.argv[2], sys.argv[3], open(sys.argv[4]).read(), int(sys.argv[5])
counted = {"requests": 0, "bytes": 0}
def after(parsed=None, http_response=None, **rest):
    counted["requests"] += 1
    counted["bytes"] += int(http_response.headers.get("Content-Length", 0))
client.meta.events.register("after-call.s3", lambda parsed, http_response, **rest: after(parsed, http_response))
times = {"plain": [], "ours": []}
with reading(ref, recipients="aes:" + aes, identities=key + ".pub", storages=Storages(client)) as artifact:
    opened = dict(counted)
    name = artifact.files[0].name
    for turn in range(220):
        at = random.randrange(size - 65536)
        start = time.perf_counter()
        client.get_object(Bucket=bucket, Key="plain", Range=f"bytes={at}-{at + 65535}")["Body"].read()
        middle = time.perf_counter()
        artifact.read(name, at, 65536)
        if turn >= 20:
            times["plain"].append(middle - start)
            times["ours"].append(time.perf_counter() - middle)
print(json.dumps({**times, "open": opened}))
"""
)

_SMALL = (
    _CLIENT
    + """
import json, socket, time
from sealflow.actions.upload import upload
from sealflow.actions.download import download
from sealflow.storage import Storages
bucket, aes, key, folder = sys.argv[1:5]
spent = [0.0]
waits = socket.SocketIO.readinto
def timed(self, buffer):
    start = time.perf_counter()
    try:
        return waits(self, buffer)
    finally:
        spent[0] += time.perf_counter() - start
socket.SocketIO.readinto = timed  # whatever a client waits for an answer, it waits here
found = {"up": [], "down": []}
for turn in range(22):
    source = os.path.join(folder, "small")
    with open(source, "wb") as file:
        file.write(os.urandom(1024))
    for what in ("up", "down"):
        spent[0] = 0.0
        start = time.perf_counter()
        if what == "up":
            ref = upload(source, f"s3://{bucket}/small", recipients="aes:" + aes, signer="file:" + key, overwrite=True,
                         storages=Storages(client))
        else:
            download(ref, os.path.join(folder, "small.back"), recipients="aes:" + aes, identities=key + ".pub",
                     overwrite=True, storages=Storages(client))
        if turn >= 2:
            found[what].append(time.perf_counter() - start - spent[0])
print(json.dumps(found))
"""
)


def measure(folder: Path, rounds: int, quick: bool) -> list[Figure]:
    """Return the figures; none where there is no server to measure with."""
    from tests.servers.ceph import ceph_rgw, missing_programs

    if missing := missing_programs():
        print(f"Transfer was not measured: {', '.join(missing)} is missing.", file=sys.stderr)
        return []
    with ceph_rgw() as server:
        bucket = server.make_bucket()
        env = {
            **server.environment,
            "SEALFLOW_AUDIT_SPOOL": str(folder / "spool"),
            "SEALFLOW_STATE_DIR": str(folder / "state"),
            # For `aws`: what boto3 is told in the code, since this server knows no trailing checksums.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }
        aes, key = folder / "aes.key", folder / "key"
        aes.write_bytes(os.urandom(32))
        run(
            [
                *python(
                    "import sys; from sealflow.actions.keys_generate import generate_key; generate_key(sys.argv[1])"
                ),
                str(key),
            ]
        )
        size = (64 << 20) if quick else (1 << 30)
        source = folder / "data"
        with source.open("wb") as file:
            for _ in range(size >> 23):
                file.write(os.urandom(8 << 20))
        rows = _large(folder, bucket, aes, key, min(rounds, 3), env | server.secure().environment, "https", peers=True)
        rows += _large(folder, bucket, aes, key, min(rounds, 3), env, "http", peers=False)
        source.unlink()
        rows += _random(folder, bucket, aes, key, size, env)
        rows += _small(folder, bucket, aes, key, env)
        rows += _many(folder, bucket, aes, key, 500 if quick else 20_000, env)
    return rows


def _large(
    folder: Path, bucket: str, aes: Path, key: Path, rounds: int, env: Mapping[str, str], scheme: str, *, peers: bool
) -> list[Figure]:
    source, back, ref = folder / "data", folder / "back", folder / "ref"

    def ours(code: str, path: Path) -> list[str]:
        return [*python(code), str(path), bucket, "sealed", str(aes), str(key), str(ref)]

    commands: dict[str, Sequence[str]] = {
        "plain up": [*python(_PLAIN_UP), str(source), bucket],
        "up": ours(_UP, source),
        "plain down": [*python(_PLAIN_DOWN), str(back), bucket],
        "down": ours(_DOWN, back),
    }
    if peers:
        commands.update(_age(folder, source, bucket))
    taken = interleaved(commands, rounds, env)
    digest = subprocess.run(["cmp", str(source), str(back)], capture_output=True)
    if digest.returncode:
        raise RuntimeError("What came back is not what was sent.")
    rows = [
        _ratio(f"{scheme}, upload: speed of plain `boto3.upload_file` reached", taken["plain up"], taken["up"], 0.9),
        _ratio(
            f"{scheme}, verified download: speed of plain `download_file` reached",
            taken["plain down"],
            taken["down"],
            1.0,
        ),
    ]
    if "age up" in taken:
        rows += [
            _ratio(
                f"{scheme}, upload: times as fast as `age` piped to `aws s3 cp -`", taken["age up"], taken["up"], 1.3
            ),
            _ratio(
                f"{scheme}, download: times as fast as `aws s3 cp -` piped to `age -d`",
                taken["age down"],
                taken["down"],
                1.3,
            ),
        ]
    for name, sample in taken.items():
        peak = 150.0 if name in ("up", "down") else None
        rows += [
            Figure(f"{scheme}, {name}: wall", sample.wall, "s"),
            Figure(f"{scheme}, {name}: CPU of the client", sample.cpu, "s"),
            Figure(f"{scheme}, {name}: peak memory", sample.peak, "MiB", most=peak),
        ]
    back.unlink()
    return rows


def _ratio(name: str, peer: Sample, ours: Sample, least: float) -> Figure:
    return Figure(name, peer.wall / ours.wall, "x", least=least)


def _age(folder: Path, source: Path, bucket: str) -> dict[str, Sequence[str]]:
    if not (shutil.which("age") and shutil.which("age-keygen") and shutil.which("aws")):
        print("`age | aws s3 cp -` was not measured: age or aws is missing.", file=sys.stderr)
        return {}
    identity = folder / "age.txt"
    subprocess.run(["age-keygen", "-o", str(identity)], check=True, capture_output=True)
    public = subprocess.run(
        ["age-keygen", "-y", str(identity)], check=True, capture_output=True, text=True
    ).stdout.strip()
    size = source.stat().st_size
    up = f"age -r {public} {source} | aws s3 cp --expected-size {size} - s3://{bucket}/age"
    down = f"aws s3 cp s3://{bucket}/age - | age -d -i {identity} -o {folder / 'age.back'}"
    return {"age up": ["bash", "-o", "pipefail", "-c", up], "age down": ["bash", "-o", "pipefail", "-c", down]}


def _random(folder: Path, bucket: str, aes: Path, key: Path, size: int, env: Mapping[str, str]) -> list[Figure]:
    command = [*python(_RANDOM), bucket, str(aes), str(key), str(folder / "ref"), str(size)]
    found = _json(command, env)
    plain, ours = (statistics.median(found[name]) for name in ("plain", "ours"))
    return [
        Figure("64 KiB somewhere in an opened artifact, over a plain range GET", ours / plain, "x", most=3),
        Figure("the same, verified", ours * 1000, "ms"),
        Figure(f"opening an artifact of {size >> 20} MiB: requests", found["open"]["requests"], "", most=6),
        Figure("the same: bytes", found["open"]["bytes"] / (1 << 20), "MiB", most=8),
    ]


def _small(folder: Path, bucket: str, aes: Path, key: Path, env: Mapping[str, str]) -> list[Figure]:
    found = _json([*python(_SMALL), bucket, str(aes), str(key), str(folder)], env)
    return [
        Figure(f"1 KiB {what}, beyond the store's answers", statistics.median(found[name]) * 1000, "ms", most=50)
        for what, name in (("uploaded", "up"), ("downloaded", "down"))
    ]


def _many(folder: Path, bucket: str, aes: Path, key: Path, count: int, env: Mapping[str, str]) -> list[Figure]:
    tree = folder / "tree"
    for number in range(count):
        path = tree / f"{number % 100:02}" / f"{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(4096))
    up = [*python(_UP), str(tree), bucket, "tree", str(aes), str(key), str(folder / "tree.ref")]
    ours = statistics.median(run(up, env).wall for _ in range(3))
    # Once: it takes a minute or more.
    plain = run([*python(_MANY), str(tree), bucket], env).wall
    shutil.rmtree(tree)
    return [
        Figure(f"{count} files of 4 KiB: times as fast as boto3's transfer threads", plain / ours, "x", least=20),
        Figure("the same: wall", ours, "s"),
    ]


def _json(command: Sequence[str], env: Mapping[str, str]) -> dict[str, dict[str, float]]:
    done = subprocess.run(command, env=environment(env), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return dict(json.loads(done.stdout))
