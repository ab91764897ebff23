"""Real DVC for the tests: a process that runs it, and a repository of a usual shape that it made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRIVER = Path(__file__).with_name("dvc_driver.py")

PIPELINE = """\
vars:
  - shards: [a, b]
    greeting: hello
stages:
  prepare:
    cmd: cat data/a.csv data/sub/b.csv raw.csv > clean.csv
    deps: [data, raw.csv]
    outs: [clean.csv]
  train:
    cmd: >-
      mkdir -p model && (echo ${train.epochs} ${lr} ${greeting}; cat clean.csv) > model/weights.bin
      && echo log > log.txt && echo 1 > model/meta
    deps: [clean.csv, code/train.py]
    params:
      - lr
      - train.epochs
      - train.layers
      - conf.json: [seed, deep.list.1]
      - conf.toml:
    outs:
      - model
      - log.txt: {persist: true}
  evaluate:
    cmd: wc -c < model/weights.bin > score.json && echo 'x,y' > curve.csv
    deps: [model/weights.bin]
    metrics: [score.json: {cache: false}]
    plots: [curve.csv: {x: x, cache: false}]
  shard:
    foreach: ${shards}
    do:
      cmd: echo ${item} > shard_${item}.txt
      deps: [clean.csv]
      outs: ["shard_${item}.txt"]
  grid:
    matrix: {size: [1, 2], kind: [x]}
    cmd: echo ${item.size}-${item.kind} > out.txt
    wdir: grid/${item.size}
    outs: [out.txt]
"""

PARAMS = """\
lr: 0.1
train:
  epochs: 3
  layers: [64, 32]
other: unused
"""


@dataclass(frozen=True)
class Answer:
    """What DVC said."""

    status: int
    output: str

    @property
    def word(self) -> str:
        """``clean``, ``changed`` or ``error``, for an answer to ``dvc status --json``."""
        if self.status:
            return "error"
        return "clean" if json.loads(self.output.strip().splitlines()[-1]) == {} else "changed"

    @property
    def body(self) -> Any:
        return json.loads(self.output.strip().splitlines()[-1])


class Dvc:
    """DVC in a process of its own, without the user's settings.

    Args:
        folder: Its home.
        python: The interpreter that has DVC.
        more: More variables of its environment.
    """

    def __init__(self, folder: Path, python: str | Path = sys.executable, **more: str) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_", "AWS_"))},
            "HOME": str(folder),
            "DVC_SITE_CACHE_DIR": str(folder / "site"),
            "DVC_GLOBAL_CONFIG_DIR": str(folder / "global"),
            "DVC_SYSTEM_CONFIG_DIR": str(folder / "system"),
            "DVC_NO_ANALYTICS": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            **{
                f"GIT_{who}_{what}": f"a@{what.lower()}"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
            **more,
        }
        self._process = subprocess.Popen(
            [str(python), str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def __call__(self, cwd: Path, *arguments: str) -> Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"cwd": str(cwd), "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"DVC's process ended at dvc {' '.join(arguments)}"
        body = json.loads(line)
        return Answer(body["status"], body["output"])

    def do(self, cwd: Path, *arguments: str) -> None:
        """Run a command that has to succeed."""
        answer = self(cwd, *arguments)
        assert answer.status == 0, answer.output

    def status(self, cwd: Path) -> Answer:
        return self(cwd, "status", "--json")

    def git(self, cwd: Path, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=cwd, env=self.environment, check=True, capture_output=True)

    def init(self, root: Path) -> Path:
        """Make an empty repository."""
        root.mkdir(parents=True)
        self.git(root, "init", "-q", "-b", "main")
        self.do(root, "init", "-q")
        self.do(root, "config", "core.analytics", "false")
        return root

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def running(folder: Path, python: str | Path = sys.executable, **more: str) -> Iterator[Dvc]:
    folder.mkdir(parents=True, exist_ok=True)
    dvc = Dvc(folder, python, **more)
    try:
        yield dvc
    finally:
        dvc.close()


def write(root: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def make_upstream(dvc: Dvc, root: Path) -> Path:
    """Make the repository that the usual one imports from."""
    dvc.init(root)
    write(root, {"shared.csv": "1\n2\n"})
    dvc.do(root, "add", "-q", "shared.csv")
    dvc.git(root, "add", "-A")
    dvc.git(root, "commit", "-qm", "data")
    return root


def make_usual(dvc: Dvc, root: Path, upstream: Path) -> Path:
    """Make a repository with everything in it: added data, an import, stages of every kind, three parameters files."""
    dvc.init(root)
    write(
        root,
        {
            "data/a.csv": "1,2\n", "data/sub/b.csv": "3,4\n", "data/empty": "", "data/ü é.txt": "x",
            "data/line\nfeed": "n", "raw.csv": "r\n", "code/train.py": "print(1)\n", "dvc.yaml": PIPELINE,
            "params.yaml": PARAMS, "conf.json": '{"seed": 7, "deep": {"list": [1, 2]}}',
            "conf.toml": "size = 3\n[opt]\nname = 'adam'\n",
            "grid/1/.keep": "", "grid/2/.keep": "",
        },
    )  # fmt: skip
    dvc.do(root, "add", "-q", "data", "raw.csv")
    dvc.do(root, "import", "-q", str(upstream), "shared.csv")
    dvc.do(root, "repro")
    dvc.git(root, "add", "-A")
    dvc.git(root, "commit", "-qm", "all")
    assert dvc.status(root).word == "clean"
    return root


def copy(source: Path, target: Path) -> Path:
    """Copy a repository with its times and modes, as a copy on disk would be."""
    shutil.copytree(source, target, symlinks=True)
    return target
