"""Unchanged pipelines, hardened, run by KFP's local runner behind the real wrapper."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.evidence import parse_bundle
from sealflow_kfp.evidence_metadata import KEY, EvidenceMetadata
from tests.conftest import ROOT
from tests.kubeflow.conftest import Mounted
from tests.kubeflow.run_hardened import run_all
from tests.pki import write_key

pytestmark = [pytest.mark.kfp, pytest.mark.slow]

#: What every runner takes, with what it returns.
EVERYWHERE = {"steps": "WEIGHTS", "folders": "nib.a", "nested": "abc", "twice": "zyx", "branches": None, "loop": None}


def signed_by(root: Path, pipeline: str) -> dict[str, list[str]]:
    """Return what was signed in a run: each output's producer, with the digests of what it was made of."""
    found = {}
    for path in sorted(root.glob(f"{pipeline}-*/**/executor_output.json")):
        for name, listed in json.loads(path.read_text()).get("artifacts", {}).items():
            for artifact in listed["artifacts"]:
                if KEY in artifact.get("metadata", {}):
                    bundle = parse_bundle(EvidenceMetadata.parse(artifact["metadata"][KEY]).provenance)
                    predicate = json.loads(bundle.payload)["predicate"]
                    producer = predicate["buildDefinition"]["externalParameters"]["producer"]
                    used = predicate["buildDefinition"]["resolvedDependencies"]
                    found[f"{producer}/{name}"] = [item["name"] for item in used]
    return found


def outputs_of(result: dict[str, Any]) -> str | None:
    assert result["error"] == "", result["told"][-4000:]
    return result["outputs"].get("Output")


def test_unchanged_pipelines_run_hardened(mounted: Mounted, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for result in run_all(sys.executable, root, list(EVERYWHERE)):
        assert outputs_of(result) == EVERYWHERE[result["name"]]
    # Outputs of every kind of executor, at every level, are signed by the task that made them, with what it read.
    assert signed_by(root, "steps") == {"kfp:steps/make/model": [], "kfp:steps/copy/copied": ["model"]}
    assert signed_by(root, "folders") == {"kfp:folders/make-folder/model": [], "kfp:folders/turn/turned": ["model"]}
    assert signed_by(root, "nested") == {
        "kfp:nested/make/model": [],
        "kfp:nested/turn/turned": ["model"],
        "kfp:nested/turn-2/turned": ["turned"],
    }
    assert signed_by(root, "twice") == {
        "kfp:twice/make/model": [],
        "kfp:twice/make-2/model": [],
        "kfp:twice/turn/turned": ["model"],
        "kfp:twice/turn-2/turned": ["model"],
    }
    assert signed_by(root, "branches") == {"kfp:branches/make/model": [], "kfp:branches/turn/turned": ["model"]}
    assert signed_by(root, "loop") == {
        "kfp:loop/make/model": [],
        "kfp:loop/make-2/model": [],
        "kfp:loop/turn/turned": ["model"],
    }
    verified = [event for event in mounted.events() if event["phase"] == "outcome" and event["action"] == "verify"]
    assert {event["outcome"] for event in verified} == {"passed"}


def test_what_is_changed_between_two_tasks_is_refused(mounted: Mounted, tmp_path: Path) -> None:
    """The same pipeline without the guard reads what was planted."""
    root = tmp_path / "root"
    arguments = {"root": str(root)}
    plainly, guarded = run_all(
        sys.executable,
        root,
        [
            {"name": "attacked", "hardened": False, "arguments": arguments},
            {"name": "attacked", "arguments": arguments},
        ],
    )
    assert outputs_of(plainly) == "planted"
    assert "read" in guarded["error"]
    assert "FILE_CHANGED" in guarded["told"], guarded["told"][-4000:]


def test_nobody_else_may_sign(mounted: Mounted, tmp_path: Path) -> None:
    other = write_key(tmp_path, "other")
    mounted.write(identities={"trainer": f"file:{other.public}"})
    (result,) = run_all(sys.executable, tmp_path / "root", ["steps"])
    assert "copy" in result["error"]
    assert "SIGNER_NOT_ALLOWED" in result["told"]


def test_imports_are_judged_by_who_signed_them(mounted: Mounted, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"weights")
    run = {"name": "importing", "arguments": {"uri": str(model)}}
    (unsigned,) = run_all(sys.executable, tmp_path / "root", [run])
    assert "EVIDENCE_MISSING" in unsigned["told"], unsigned["told"][-4000:]
    assert "turn" in unsigned["error"]
    sealflow.sign(model)
    (signed,) = run_all(sys.executable, tmp_path / "root", [run])
    assert signed["error"] == "", signed["told"][-4000:]


def test_the_example_is_hardened_by_the_command_that_the_guide_shows(
    mounted: Mounted, local_runner: Path, tmp_path: Path
) -> None:
    from kfp import components

    program = ROOT / "example_dags" / "kubeflow" / "unguarded" / "train_and_score.py"
    cli = "from sealflow.cli import main; main()"
    options = ["kfp", "harden", "pipeline.yaml", "-o", "hardened.yaml", "--local"]
    for command in ([sys.executable, str(program)], [sys.executable, "-c", cli, *options]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "wrapped    2 executors" in done.stdout
    task = components.load_component_from_file(str(tmp_path / "hardened.yaml"))()
    assert task.output == pytest.approx(20.0)
    assert signed_by(local_runner, "train-and-score") == {"kfp:train-and-score/train/model": []}
    assert [(e["run"]["task"], e["action"], e["outcome"]) for e in mounted.events() if e["phase"] == "outcome"] == [
        ("train", "sign", "done"),
        ("score", "verify", "passed"),
    ]
