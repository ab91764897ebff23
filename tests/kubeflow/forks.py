"""Runs the wrapper in processes that are forked off one which has imported it: most of a short run is imports.

Each run is a process of its own all the same, with an environment, a folder, a log and children of its own, and it ends
as an interpreter ends. It goes ``python -m tests.kubeflow.forks``; one request a line on standard input, one status
a line on standard output.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]


class Forks:
    """The process that forks, from the first run to the end of the tests."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kubeflow.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            text=True,
        )
        atexit.register(self._close)

    def run(self, code: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> int:
        """Run Python code as ``python -c`` would.

        Returns:
            Its status, negative where a signal ended it.
        """
        assert self._process.stdin
        assert self._process.stdout
        request = {
            "code": code,
            "arguments": list(arguments),
            "environment": dict(environment),
            "folder": str(folder),
            "log": str(log),
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def _close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


@functools.cache
def forks() -> Forks:
    """Return the one of these tests."""
    return Forks()


def _become(request: dict[str, Any]) -> None:
    """Turn this process into what ``python -c`` would be."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor, number in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, number)
    os.close(nothing)
    os.close(log)
    sys.argv = ["-c", *request["arguments"]]
    sys.path[0] = ""


def main() -> None:
    """Serve until standard input ends; return, with what to run, in a process that was forked."""
    for name in ("sealflow.keys.file", "sealflow_kfp.exec", "sealflow_kfp.task_guard", "sealflow_kfp.telling"):
        importlib.import_module(name)
    # What all share is neither looked through nor copied by any.
    gc.freeze()

    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        child = os.fork()
        if not child:
            _become(request)
            exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
