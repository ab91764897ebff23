"""Sign and verify against a bare hash of the same bytes, and against the reference implementation.

Whole processes, start-up and imports included. Peers: a bare ``os.walk`` with ``hashlib`` for many small files,
``openssl dgst -sha256`` for large ones, the reference implementation ``model_signing`` for both.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from benchmarks.measure import Sample, interleaved, python, run
from benchmarks.table import Row

_WALK = """
import hashlib, os, sys
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        digest = hashlib.sha256()
        with open(os.path.join(folder, name), "rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
        digest.hexdigest()
"""
_SIGN = """
import os, sys, sealflow
sealflow.sign(sys.argv[1], signer="file:" + sys.argv[2], evidence_store=f"{sys.argv[3]}/{os.getpid()}")
"""
_VERIFY = """
import sys, sealflow
verdict = sealflow.verify(sys.argv[1], identities=sys.argv[2] + ".pub", evidence_store=sys.argv[3])
assert verdict.passed, verdict.summary()
"""


def make_small(folder: Path, files: int = 20_000, size: int = 4096) -> None:
    """Write many small files in 200 folders."""
    block = os.urandom(size)
    for index in range(files):
        sub = folder / f"d{index % 200:03}"
        sub.mkdir(parents=True, exist_ok=True)
        (sub / f"f{index:05}.bin").write_bytes(index.to_bytes(8, "big") + block[8:])


def make_large(folder: Path, files: int = 4, size: int = 512 << 20) -> None:
    """Write a few large files."""
    folder.mkdir(parents=True)
    block = os.urandom(1 << 20)
    for index in range(files):
        with open(folder / f"shard-{index}.bin", "wb") as file:
            for part in range(size >> 20):
                file.write(index.to_bytes(4, "big") + part.to_bytes(4, "big") + block[8:])


def measure(work: Path, rounds: int, quick: bool) -> list[Row]:
    """Return the rows of both data sets."""
    key = str(work / "key.pem")
    run(python(f"from sealflow.actions.keys_generate import generate_key; generate_key({key!r})"))
    rows: list[Row] = []
    small, large = work / "small", work / "large"
    make_small(small, 2_000 if quick else 20_000)
    rows += _dataset(work, small, key, rounds, "2,000 x 4 KiB" if quick else "20,000 x 4 KiB", "hashlib walk", 1.5)
    shutil.rmtree(small)
    make_large(large, 4, (64 << 20) if quick else (512 << 20))
    rows += _dataset(work, large, key, rounds, "4 x 64 MiB" if quick else "4 x 512 MiB", "openssl dgst -sha256", 1.15)
    shutil.rmtree(large)
    return rows


def _dataset(work: Path, data: Path, key: str, rounds: int, label: str, peer: str, bound: float) -> list[Row]:
    evidence = str(work / "evidence")
    # One signature for verify to find; the measured signings go to stores of their own.
    run([*python(_SIGN.replace("/{os.getpid()}", "")), str(data), key, evidence])
    commands = {
        "bare hash": ["openssl", "dgst", "-sha256", *map(str, sorted(data.iterdir()))]
        if peer.startswith("openssl")
        else [*python(_WALK), str(data)],
        "idle": python("pass"),
        "sign": [*python(_SIGN), str(data), key, str(work / "signings")],
        "verify": [*python(_VERIFY), str(data), key, evidence],
    }
    settings = {"SEALFLOW_AUDIT_SPOOL": str(work / "spool")}
    # Close together and often, since the bounds are about their ratio; the slow peer has rounds of its own.
    result = interleaved(commands, 2 * rounds, settings)
    if importlib.util.find_spec("model_signing"):
        signature = str(work / "stock.sig")
        stock = [sys.executable, "-m", "model_signing"]
        verify = [*stock, "verify", "key", str(data), "--public_key", key + ".pub", "--signature", signature]
        result |= interleaved(
            {
                "stock sign": [*stock, "sign", "key", str(data), "--private_key", key, "--signature", signature],
                "stock verify": verify,
            },
            (rounds + 1) // 2,
        )
    base, idle = result["bare hash"], result["idle"]
    rows = [Row(label, peer, base.cpu, base.wall, base.peak, 1.0, None, None, None)]
    for name, sample in result.items():
        if name in ("bare hash", "idle"):
            continue
        ours = not name.startswith("stock")
        rows.append(
            _row(
                label,
                f"sealflow {name}" if ours else f"model_signing {name[6:]}",
                sample,
                base,
                idle,
                bound if ours else None,
            )
        )
    shutil.rmtree(work / "signings", ignore_errors=True)
    return rows


def _row(label: str, name: str, sample: Sample, base: Sample, idle: Sample, bound: float | None) -> Row:
    memory = sample.peak - idle.peak
    return Row(
        label, name, sample.cpu, sample.wall, sample.peak, sample.cpu / base.cpu, bound, memory, 64.0 if bound else None
    )
