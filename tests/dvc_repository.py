"""A small DVC repository, written without DVC: data that was added, and a stage that makes other data from it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

DATA = "data/points.csv"
MADE = "clean.csv"


def write_repository(root: Path, points: int = 20) -> Path:
    """Write a repository that holds at levels L1 and L2.

    Args:
        root: Its folder, which is made.
        points: Rows of data: ``x`` and ``2 x + 1``.
    """
    rows = "".join(f"{x},{2 * x + 1}\n" for x in range(points)).encode()
    written = {
        ".dvc/config": b"",
        DATA: rows,
        MADE: rows,
        f"{DATA}.dvc": f"outs:\n- md5: {_md5(rows)}\n  size: {len(rows)}\n  hash: md5\n  path: points.csv\n".encode(),
        "dvc.yaml": f"stages:\n  clean:\n    cmd: sort -n {DATA} > {MADE}\n    deps: [{DATA}]\n"
        f"    outs: [{MADE}]\n".encode(),
        "dvc.lock": "schema: '2.0'\nstages:\n  clean:\n"
        f"    cmd: sort -n {DATA} > {MADE}\n"
        f"    deps:\n    - path: {DATA}\n      hash: md5\n      md5: {_md5(rows)}\n      size: {len(rows)}\n"
        f"    outs:\n    - path: {MADE}\n      hash: md5\n      md5: {_md5(rows)}\n      size: {len(rows)}\n".encode(),
    }
    for name, content in written.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def edit(path: Path) -> None:
    """Change a digit and keep size, times and mode, as somebody would who does not want it to be seen."""
    before = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
