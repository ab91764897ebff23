"""The pages on enforcement on a cluster: their commands do what they say, their tables are those of the code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sealflow_kfp.doctor import CHECKS
from sealflow_kfp.kyverno import API_VERSIONS, POLICY_NAMES
from tests.guides import run_guide
from tests.kubeflow import cluster as clusters

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "how-to" / "kubeflow-cluster.md"
REFERENCE = ROOT / "docs" / "reference" / "kubeflow-cluster.md"


def section(path: Path, *titles: str) -> str:
    """Return parts of a page, without the indentation of lists."""
    parts = path.read_text(encoding="utf-8").split("\n## ")
    found = [part for part in parts if part.partition("\n")[0] in titles]
    assert len(found) == len(titles)
    lines = [line.removeprefix("   ") for part in found for line in part.splitlines()]
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_the_guide_does_what_it_says(tmp_path: Path) -> None:
    cluster = clusters.good(tmp_path / "cluster", clusters.authority())
    (container, _) = cluster.get("deployment", "ml-pipeline", "kubeflow")["spec"]["template"]["spec"]["containers"]
    container["env"] = [item for item in container["env"] if item["name"] != "CACHEENABLED"]
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(cluster.program())
    (programs / "sealflow").write_text(f"#!{sys.executable}\nfrom sealflow.cli import main\nmain()\n")
    (programs / "sealflow").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "HOME": str(tmp_path),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    (tmp_path / "empty").mkdir()
    run_guide(GUIDE, tmp_path / "empty", environment, blocks=7, sections=("Kyverno", "Look whether it holds"))


def test_the_reference_names_every_check() -> None:
    rows = [f"| `{name}` | {check.expected}{' (only warns)' * check.advisory} |" for name, check in CHECKS.items()]
    assert "\n".join(rows) in REFERENCE.read_text(encoding="utf-8"), "\n".join(rows)


def test_the_reference_names_every_policy() -> None:
    text = section(REFERENCE, "Kyverno")
    assert all(f"| `{name}` |" in text for name in POLICY_NAMES)
    assert f"--api-version {'|'.join(API_VERSIONS)}" in text
