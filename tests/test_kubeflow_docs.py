"""The guide to hardening: its commands do what it says, its links lead somewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sealflow_kfp.hardening.report import GAPS, UNGUARDED
from tests.guides import check_links, run_guide

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "how-to" / "kubeflow-harden.md"
REFERENCE = ROOT / "docs" / "reference" / "kubeflow.md"
CLUSTER = [ROOT / "docs" / folder / "kubeflow-cluster.md" for folder in ("how-to", "reference")]


@pytest.mark.parametrize("path", [GUIDE, REFERENCE, *CLUSTER], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_links_lead_somewhere(path: Path) -> None:
    check_links(path)


def test_the_reference_names_every_gap() -> None:
    rows = [f"| `{code}`{' (unguarded)' * (code in UNGUARDED)} | {meaning} |" for code, meaning in GAPS.items()]
    assert "\n".join(rows) in REFERENCE.read_text(encoding="utf-8"), "\n".join(rows)


@pytest.mark.kfp
@pytest.mark.slow
def test_the_guide_does_what_it_says(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sealflow").write_text(f"#!{sys.executable}\nfrom sealflow.cli import main\nmain()\n")
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "HOME": str(tmp_path),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    (tmp_path / "empty").mkdir()
    # What uv would write, which asks a package index.
    (tmp_path / "empty" / "requirements.lock").write_text(f"numpy==2.1.0 --hash=sha256:{'0' * 64}\n")
    run_guide(GUIDE, tmp_path / "empty", environment, blocks=10)
