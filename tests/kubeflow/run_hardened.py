"""Compiles pipelines, hardens them and runs them by KFP's local runner, in the environment that this is run in.

    python -m tests.kubeflow.run_hardened '{"root": "/tmp/root", "runs": [{"name": "steps"}]}'

A run may have ``arguments``, ``hardened`` (default true) and ``before``: a file, and the text that is written to it
first. ``caching`` turns on what KFP 2.17 has of it.
Prints one JSON line a run: ``{"name", "outputs", "error"}``; what the tasks say comes before it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MARK = "run_hardened: "


def main(options: dict[str, Any]) -> None:
    from kfp import compiler, components, local

    from sealflow_kfp.hardening import harden_text
    from tests.kubeflow import hardened_pipelines

    root = options["root"]
    caching = {"enable_caching": True} if options.get("caching") else {}
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True, **caching)
    for number, run in enumerate(options["runs"]):
        path = os.path.join(root, f"{number}-{run['name']}.yaml")
        os.makedirs(root, exist_ok=True)
        compiler.Compiler().compile(getattr(hardened_pipelines, run["name"]), path)
        with open(path, "rb") as file:
            text = file.read()
        if run.get("hardened", True):
            text = harden_text(text, local=True).text
        if "before" in run:
            changed, content = run["before"]
            with open(changed, "w") as file:
                file.write(content)
        result: dict[str, Any] = {"name": run["name"], "outputs": {}, "error": ""}
        try:
            task = components.load_component_from_text(text.decode())(**run.get("arguments", {}))
            result["outputs"] = {name: str(value) for name, value in task.outputs.items()}
        except Exception as error:
            result["error"] = f"{type(error).__name__}: {error}"
        print(f"\n{MARK}{json.dumps(result)}", flush=True)


def run_all(python: Path | str, root: Path, runs: list[Any], *, caching: bool = False, **env: str) -> list[Any]:
    """Run pipelines in another process, and return each one's result with what its tasks said."""
    # kfp.local takes the working directory for one that tasks may write to.
    root.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "root": str(root),
        "caching": caching,
        "runs": [{"name": run} if isinstance(run, str) else run for run in runs],
    }
    done = subprocess.run(
        [str(python), "-m", "tests.kubeflow.run_hardened", json.dumps(options)],
        cwd=root.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=280,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    results, told = [], ""
    for line in done.stdout.splitlines(keepends=True):
        if line.startswith(MARK):
            results.append({**json.loads(line[len(MARK) :]), "told": told})
            told = ""
        else:
            told += line
    assert len(results) == len(runs), done.stdout[-4000:]
    return results


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
