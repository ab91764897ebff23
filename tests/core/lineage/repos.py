"""Small DVC repositories written by hand, so that most tests need no DVC."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sealflow.lineage.check import LineageCheck, check_repository

#: Two files with one MD5 (Wang, Feng, Lai and Yu, 2004).
FIRST = bytes.fromhex(
    "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f8955ad340609f4b30283e488832571415a085125e8f7cdc99f"
    "d91dbdf280373c5bd8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0e99f33420f577ee8ce54b67080a80d1e"
    "c69821bcb6a8839396f9652b6ff72a70"
)
SECOND = bytes.fromhex(
    "d131dd02c5e6eec4693d9a0698aff95c2fcab50712467eab4004583eb8fb7f8955ad340609f4b30283e4888325f1415a085125e8f7cdc99f"
    "d91dbd7280373c5bd8823e3156348f5bae6dacd436c919c6dd53e23487da03fd02396306d248cda0e99f33420f577ee8ce54b67080280d1e"
    "c69821bcb6a8839396f965ab6ff72a70"
)


def md5(data: bytes | str) -> str:
    return hashlib.md5(data if isinstance(data, bytes) else data.encode()).hexdigest()


def write(root: Path, files: dict[str, Any]) -> Path:
    """Write files; what is not text or bytes is written as JSON, which is YAML too."""
    (root / ".dvc").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, (str, bytes)):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def out(path: str, data: bytes | str, **more: Any) -> dict[str, Any]:
    """An entry of a lock or a .dvc file for a file with these bytes."""
    raw = data if isinstance(data, bytes) else data.encode()
    return {"path": path, "hash": "md5", "md5": md5(raw), "size": len(raw), **more}


def lock(**stages: Any) -> dict[str, Any]:
    return {"schema": "2.0", "stages": {name.replace("__", "@"): stage for name, stage in stages.items()}}


def codes(checked: LineageCheck, *severities: str) -> set[str]:
    return {item.code for item in checked.findings if item.severity in (severities or ("refusal", "unverifiable"))}


def check(root: Path, *targets: str, level: str = "L2") -> set[str]:
    """The deciding codes."""
    return codes(check_repository(str(root), targets, level=level))


def simple(root: Path) -> Path:
    """One stage from one file to another, in order."""
    return write(
        root,
        {
            "in.csv": "1\n",
            "out.csv": "2\n",
            "params.yaml": {"lr": 0.1},
            "dvc.yaml": {"stages": {"make": {"cmd": "go", "deps": ["in.csv"], "outs": ["out.csv"], "params": ["lr"]}}},
            "dvc.lock": lock(
                make={
                    "cmd": "go",
                    "deps": [out("in.csv", "1\n")],
                    "outs": [out("out.csv", "2\n")],
                    "params": {"params.yaml": {"lr": 0.1}},
                }
            ),
        },
    )
