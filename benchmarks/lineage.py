"""What a lineage check costs, with ``dvc status`` in the same run.

``dvc status`` without its state cache is the peer: with it, it trusts times of files. The processor time of a signed
file of 2 GiB is held against ``openssl dgst -sha256``; where nothing is signed, MD5 and SHA-256 are both computed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import environment, interleaved, python, run
from benchmarks.table import Figure, Timing

FILES = 20_000
SIZE = 4096

# The bare work, for scale: open, read and MD5 of every file.
_BARE = """
import hashlib, os, sys
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        fd = os.open(os.path.join(folder, name), os.O_RDONLY)
        hashlib.md5(os.read(fd, 1 << 16)).hexdigest()
        os.close(fd)
"""
_OURS = """
import sys, time
import sealflow.actions.lineage, yaml
from sealflow.actions.lineage import check_lineage
start = time.perf_counter()
verdict = check_lineage(sys.argv[1], level="L2")
took = time.perf_counter() - start
assert verdict.passed, verdict.summary()
sys.stderr.flush()
open(sys.argv[2], "a").write(f"{took}\\n")
"""
_SIGNED = """
import sys
from sealflow.actions.lineage import check_lineage
verdict = check_lineage(sys.argv[1], level="L2", identities=sys.argv[2] + ".pub")
assert verdict.passed, verdict.summary()
"""
_SIGN = """
import sys
from sealflow.actions.keys_generate import generate_key
from sealflow.actions.lineage_sign import sign_lineage
generate_key(sys.argv[2])
sign_lineage(sys.argv[1], signer="file:" + sys.argv[2])
"""


def measure(work: Path, rounds: int, quick: bool) -> list[Timing | Figure]:
    """Return the medians; every command in turn, after one warm-up round."""
    count = FILES // 20 if quick else FILES
    large, small = work / "large", work / "small"
    settings = _settings(work)
    _make_large(large, count, settings)
    _make_small(small, settings)
    taken: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        for name, sample in (
            ("bare", run([*python(_BARE), str(large / "data")]).wall),
            ("whole", run([*python(_OURS), str(large), str(work / "large.times")], settings).wall),
            ("small", run([*python(_OURS), str(small), str(work / "small.times")], settings).wall),
            ("dvc", _dvc_status(work, large, settings)),
        ):
            if turn:
                taken.setdefault(name, []).append(sample)
    inside, three = (
        [float(line) for line in (work / f"{name}.times").read_text().split()][1:] for name in ("large", "small")
    )
    whole, dvc = statistics.median(taken["whole"]), statistics.median(taken["dvc"])
    data = f"{count:,} x {SIZE // 1024} KiB"
    return [
        Timing(f"{data}: bare walk with MD5, whole process", statistics.median(taken["bare"])),
        Timing(f"{data}: check at L2, after imports", statistics.median(inside), 0.6),
        Timing(f"{data}: check at L2, whole process", whole),
        Timing(f"{data}: dvc status without its state, whole process", dvc),
        Timing("three stages: check at L2, after imports", statistics.median(three), 0.05),
        Timing("three stages: check at L2, whole process", statistics.median(taken["small"])),
        Figure(f"{data}: whole process, times as fast as `dvc status` without its state", dvc / whole, "x", least=4),
        *_one_large_file(work, rounds, quick, settings),
    ]


def _one_large_file(work: Path, rounds: int, quick: bool, settings: dict[str, str]) -> list[Timing | Figure]:
    """Return the processor time of a check of one file whose lineage is signed, beside that of one hash."""
    size = (64 << 20) if quick else (2 << 30)
    root, key = work / "one", str(work / "key.pem")
    (root / ".dvc").mkdir(parents=True)
    block, md5 = os.urandom(1 << 20), hashlib.md5(usedforsecurity=False)
    with open(root / "model.bin", "wb") as file:
        for part in range(size >> 20):
            data = part.to_bytes(4, "big") + block[4:]
            md5.update(data)
            file.write(data)
    out = {"path": "model.bin", "hash": "md5", "md5": md5.hexdigest(), "size": size}
    (root / "model.bin.dvc").write_text(json.dumps({"outs": [out]}))
    run([*python(_SIGN), str(root), key], settings)
    commands = {
        "openssl": ["openssl", "dgst", "-sha256", str(root / "model.bin")],
        "md5": [*python(_OURS), str(root), str(work / "one.times")],
        "signed": [*python(_SIGNED), str(root), key],
    }
    found = interleaved(commands, 2 * rounds, settings)
    shutil.rmtree(root)
    base, label = found["openssl"].cpu, f"one file of {size >> 20:,} MiB"
    return [
        Timing(f"{label}: openssl dgst -sha256, processor time", base),
        Timing(f"{label}: check at L2, its lineage signed, processor time", found["signed"].cpu),
        Timing(f"{label}: check at L2, nothing signed, processor time", found["md5"].cpu),
        Figure(
            f"{label}, its lineage signed: processor time over openssl's", found["signed"].cpu / base, "x", most=1.15
        ),
    ]


def _settings(work: Path) -> dict[str, str]:
    return {
        "DVC_SITE_CACHE_DIR": str(work / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(work / "global"),
        "DVC_NO_ANALYTICS": "1",
        "HOME": str(work),
        "SEALFLOW_AUDIT_SPOOL": str(work / "spool"),
    }


def _dvc(root: Path, settings: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, env=environment(settings), capture_output=True, text=True, check=True)
    return done.stdout


def _dvc_status(work: Path, root: Path, settings: dict[str, str]) -> float:
    # Its state database would answer from file times instead of reading the files.
    shutil.rmtree(work / "site", ignore_errors=True)
    script = f"import os, sys; os.chdir({str(root)!r}); from dvc.cli import main; sys.exit(main(['status', '-q']))"
    return run(python(script), settings).wall


def _make_large(root: Path, count: int, settings: dict[str, str]) -> None:
    for index in range(count):
        folder = root / "data" / f"{index % 100:03}"
        if index < 100:
            folder.mkdir(parents=True)
        (folder / f"{index:06}.bin").write_bytes(os.urandom(SIZE))
    _dvc(root, settings, "init", "-q", "--no-scm")
    _dvc(root, settings, "add", "-q", "data")


def _make_small(root: Path, settings: dict[str, str]) -> None:
    root.mkdir()
    stages = {
        f"stage{index}": {
            "cmd": f"cat {before} > {after}",
            "deps": [before],
            "outs": [after],
            "params": ["lr", "train.epochs"],
        }
        for index, (before, after) in enumerate((("raw", "clean"), ("clean", "model"), ("model", "report")))
    }
    (root / "raw").write_bytes(os.urandom(SIZE))
    (root / "params.yaml").write_text("lr: 0.1\ntrain: {epochs: 3}\n")
    (root / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    _dvc(root, settings, "init", "-q", "--no-scm")
    _dvc(root, settings, "repro", "-q")
