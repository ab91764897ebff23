"""A Python environment of its own, on a machine of an admin's: what a worker's or a pod's image is in the field."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class PythonEnvironment:
    """An environment that sees the libraries of this one, and has an ``etc`` of its own.

    Args:
        folder: Where it is made.
        libraries: Whose libraries it sees, by default this one's.
    """

    def __init__(self, folder: Path, libraries: Sequence[str | Path] = ()) -> None:
        venv.EnvBuilder(symlinks=True).create(folder)
        self.python = folder / "bin" / "python"
        self.admin_file = folder / "etc" / "sealflow" / "admin.json"
        places = sysconfig.get_path("purelib", vars={"base": str(folder)})
        shared = libraries or [*site.getsitepackages(), *(path for path in sys.path if path.endswith("-packages"))]
        lines = [f"import site; site.addsitedir({str(path)!r})" for path in dict.fromkeys(shared)]
        Path(places, "shared.pth").write_text("\n".join(lines) + "\n")

    def run(self, code: str, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a program in it, which finds our tests as modules; nothing of the machine's own settings is in reach."""
        return subprocess.run(
            [str(self.python), "-c", code],
            cwd=cwd,
            env={
                "PATH": os.pathsep.join([str(self.python.parent), os.environ["PATH"]]),
                "PYTHONPATH": str(ROOT),
                "HOME": str(cwd),
                "LANG": "C.UTF-8",
                **env,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=240,
            text=True,
        )

    def pipeline(self, call: str, root: Path, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a pipeline of :mod:`tests.kubeflow.pipelines` by KFP's local runner.

        Args:
            call: The pipeline and its arguments, as Python.
            root: The pipeline root.
            cwd: Where it runs.
            env: Variables that its tasks inherit.
        """
        code = (
            "from kfp import local\n"
            f"local.init(local.SubprocessRunner(use_venv=False), pipeline_root={str(root)!r}, raise_on_error=True)\n"
            f"from tests.kubeflow import pipelines\npipelines.{call}\n"
        )
        return self.run(code, cwd, env)
