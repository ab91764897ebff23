"""The example pipelines run and compile as they stand."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import sealflow
from sealflow.evidence import parse_bundle
from sealflow_kfp.evidence_metadata import KEY, EvidenceMetadata
from tests.dvc_repository import MADE, edit, write_repository
from tests.kubeflow.conftest import Mounted
from tests.kubeflow.test_components import compiled, ours, tasks_of

pytestmark = [pytest.mark.kfp, pytest.mark.slow]

EXAMPLES = Path(__file__).resolve().parents[2] / "example_dags" / "kubeflow"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # Not left in sys.modules: KFP reads the source through the file.
    spec.loader.exec_module(module)
    return getattr(module, name)


def test_there_are_examples() -> None:
    assert set(NAMES) >= {
        "encrypted_transfer",
        "gate_on_lineage",
        "gate_on_posture",
        "integrate_audit_log",
        "review_accesses",
        "sign_and_verify",
        "train_and_score",
        "verify_import",
    }


@pytest.mark.parametrize("name", NAMES)
def test_compiles_guarded(name: str, tmp_path: Path) -> None:
    body, platform = compiled(load(name), tmp_path)
    assert all(not task.get("cachingOptions") for task in ours(body).values())
    containers = [item["container"] for item in body["deploymentSpec"]["executors"].values() if "container" in item]
    assert {item["image"] for item in containers} == {f"sealflow:{sealflow.__version__}"}
    assert "packages_to_install" not in yaml.safe_dump(body)
    assert "pip install" not in yaml.safe_dump(body)
    mounts = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {volume["secretName"] for item in mounts.values() for volume in item["secretAsVolume"]} == {"sealflow"}
    assert len(tasks_of(body)) > len(ours(body))


def test_sign_and_verify(mounted: Mounted, local_runner: Path) -> None:
    load("sign_and_verify")()
    outcomes = [event["outcome"] for event in mounted.events() if event["phase"] == "outcome"]
    assert outcomes == ["done", "passed"]


def test_train_and_score(mounted: Mounted, local_runner: Path) -> None:
    assert load("train_and_score")(points=20, x=10.0).output == pytest.approx(21.0)
    outcomes = [(e["run"]["task"], e["outcome"]) for e in mounted.events() if e["phase"] == "outcome"]
    assert outcomes == [("make-data", "done"), ("train", "passed"), ("train", "done"), ("score", "passed")]
    (output,) = local_runner.glob("*/train/executor_output.json")
    metadata = json.loads(output.read_text())["artifacts"]["model"]["artifacts"][0]["metadata"]
    bundle = parse_bundle(EvidenceMetadata.parse(metadata[KEY]).provenance)
    definition = json.loads(bundle.payload)["predicate"]["buildDefinition"]
    assert [item["name"] for item in definition["resolvedDependencies"]] == ["data"]


def test_verify_import(mounted: Mounted, local_runner: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"weights")
    ref = sealflow.sign(model, evidence_store=str(tmp_path / "store"))
    pipeline = load("verify_import")
    pipeline(uri=str(model), ref=ref.to_json(), name="model")
    model.write_bytes(b"other weights")
    with pytest.raises(RuntimeError, match="'verify-artifact'"):
        pipeline(uri=str(model), ref=ref.to_json(), name="model")


def test_encrypted_transfer(mounted: Mounted, local_runner: Path, tmp_path: Path) -> None:
    (mounted.folder / "team.key").write_bytes(bytes(range(32)))
    mounted.write(recipients=[f"aes:{mounted.folder}/team.key"])
    store = tmp_path / "store"
    assert load("encrypted_transfer")(store=str(store)).output == pytest.approx(21.0)
    stored = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    assert not [word for word in (b"slope", b"README", b"weights", b"through points") if word in stored]
    assert (store / "dev" / "line.enc").read_bytes() == (store / "prod" / "line.enc").read_bytes()
    assert (next(local_runner.glob("*/encrypted-download/artifact")) / "README.md").is_file()


def test_gate_on_lineage(mounted: Mounted, local_runner: Path, tmp_path: Path) -> None:
    root = write_repository(tmp_path / "repository")
    pipeline = load("gate_on_lineage")
    assert pipeline(uri=str(root)).output == pytest.approx(2)
    assert [(e["run"]["task"], e["action"], e["outcome"]) for e in mounted.events() if e["phase"] == "outcome"] == [
        ("check-dvc-lineage", "check_lineage", "passed"),
        ("train", "sign", "done"),
    ]
    shutil.rmtree(local_runner)
    edit(root / MADE)
    with pytest.raises(RuntimeError, match="'check-dvc-lineage'"):
        pipeline(uri=str(root))
    verdict = json.loads(next(local_runner.glob("*/check-dvc-lineage/verdict")).read_text())
    assert verdict["findings"][0]["code"] == "DATA_MISMATCH"
    assert not list(local_runner.glob("*/train"))


def test_runs_as_a_program(mounted: Mounted, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "sign_and_verify.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sealflow: PASSED" in done.stdout


def test_the_quoted_part_is_short() -> None:
    text = (EXAMPLES / "sign_and_verify.py").read_text()
    quoted = re.search(r"# \[start pipeline\]\n(.*)# \[end pipeline\]", text, re.DOTALL)
    assert quoted
    assert len([line for line in quoted[1].splitlines() if line.strip()]) <= 12
