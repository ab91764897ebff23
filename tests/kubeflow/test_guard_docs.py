"""What the guide to a guarded cluster says of the guard directory and the spec patch is so."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from sealflow_kfp.guard_command import GuardMounts
from sealflow_kfp.guard_directory import ADMITTED
from sealflow_kfp.spec_patch import patch
from tests.guides import run_guide

DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDE, REFERENCE = (DOCS / folder / "kubeflow-cluster.md" for folder in ("how-to", "reference"))


@pytest.mark.slow
@pytest.mark.xdist_group("guard-directory")
def test_the_guide_does_what_it_says(tmp_path: Path, guard: Path) -> None:
    program = tmp_path / "bin" / "sealflow"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom sealflow.cli import main\nmain()\n")
    program.chmod(0o755)
    work = tmp_path / "work"
    (work / "build").mkdir(parents=True)
    (work / "build" / "guard").symlink_to(guard)
    environment = {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    run_guide(GUIDE, work, environment, blocks=3, sections=("Guard directory", "Spec patch"))
    assert not (work / "guarded" / "model").exists()
    given = GuardMounts("registry.example/sealflow-guard@sha256:" + "a" * 64, "sealflow", "sealflow-policy")
    assert json.loads((work / "patch.json").read_text()) == patch(given)


def test_the_reference_says_what_is_heard() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if line.startswith("| `AWS_REGION`")]
    named = set(re.findall(r"`([A-Za-z_]+)`", row.split(" | ")[0]))
    assert named <= ADMITTED
    for name in ADMITTED - named:
        # What is not named one by one is told in words.
        assert name.startswith(("AWS_", "KUBERNETES_")) or name.upper() in named or name in ("HOSTNAME", "KFP_POD_UID")
