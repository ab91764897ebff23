"""What the guide shows is what KFP compiles, and the statuses that it names are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sealflow_kfp import exec as wrapper

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "how-to" / "kubeflow-wrapper.md"
REFERENCE = ROOT / "docs" / "reference" / "kubeflow.md"


@pytest.mark.kfp
def test_the_component_of_the_guide_compiles(tmp_path: Path) -> None:
    from kfp import compiler, dsl

    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    # KFP reads the source of what it decorates.
    module = tmp_path / "guide.py"
    module.write_text(f"from kfp import dsl\n\n{code}")
    space: dict[str, Any] = {"dsl": dsl, "__name__": "guide"}
    exec(compile(module.read_text(), str(module), "exec", dont_inherit=True), space)
    compiler.Compiler().compile(space["train"], str(tmp_path / "train.yaml"))
    executor = next(iter(yaml.safe_load((tmp_path / "train.yaml").read_text())["deploymentSpec"]["executors"].values()))
    command = executor["container"]["command"]
    assert command[:6] == ["python3", "-I", "-m", "sealflow_kfp.exec", "--executor-input", "{{$}}"]
    assert command[6:] == ["--", "/opt/train"]


@pytest.mark.parametrize("file", [GUIDE, REFERENCE], ids=["guide", "reference"])
def test_statuses(file: Path) -> None:
    named = {int(number) for number in re.findall(r"^\| (9\d) \|", file.read_text(), re.MULTILINE)}
    assert named == {wrapper.REFUSED, wrapper.MISCONFIGURED, wrapper.UNAVAILABLE}
