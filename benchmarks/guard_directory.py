"""What the guard directory costs: its size, its copy into a pod, and the start of a task from it.

Built from the environment that runs the benchmarks, as ``make guard`` builds it from one of its own. Times are those of
the processor.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

from benchmarks.measure import Sample, interleaved
from benchmarks.table import Figure

_ROOT = Path(__file__).resolve().parent.parent
#: Most MB of files: a pod waits for its copy.
SIZE = 80.0


def measure(work: Path, rounds: int, quick: bool = False) -> list[Figure]:
    """Return sizes and times.

    Args:
        work: An empty folder.
        rounds: Half of the counted runs of each command.
        quick: As few runs as can be.
    """
    guard = work / "guard"
    subprocess.run([sys.executable, _ROOT / "scripts" / "build_guard.py", guard], check=True, capture_output=True)
    files = [path for path in guard.rglob("*") if path.is_file()]
    with tarfile.open(work / "layer.tar.gz", "w:gz", compresslevel=6) as layer:
        layer.add(guard, "sealflow/guard")
    (work / "target").mkdir()
    given = ["--executor-input", json.dumps({"inputs": {}, "outputs": {}}), "--", "true"]
    commands = {
        "copy": [str(guard / "guard"), "--copy-to", str(work / "target")],
        "bare": ["true"],
        "directory": [str(guard / "guard"), *given],
        "image": [sys.executable, "-I", "-m", "sealflow_kfp.exec", *given],
    }
    taken = interleaved(commands, 1 if quick else 2 * rounds)
    return [
        Figure("the guard directory", sum(path.stat().st_size for path in files) / 1e6, "MB", most=SIZE),
        Figure("its files", len(files), "files"),
        Figure("as a compressed layer", (work / "layer.tar.gz").stat().st_size / 1e6, "MB"),
        Figure("its copy into a pod, of CPU", taken["copy"].cpu * 1000, "ms"),
        Figure("the copy's peak memory", taken["copy"].peak, "MiB"),
        Figure("a task without artifacts from it, over the bare command, of CPU", _over(taken, "directory"), "ms"),
        Figure("the same in an image with sealflow", _over(taken, "image"), "ms"),
    ]


def _over(taken: dict[str, Sample], name: str) -> float:
    return (taken[name].cpu - taken["bare"].cpu) * 1000
