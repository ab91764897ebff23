"""Whole pipelines in KFP's local runner: every task is a process of its own, started as a cluster's pod would be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.evidence.bundle import parse_bundle
from sealflow.evidence.store import StoredEvidence
from sealflow_kfp.evidence_metadata import KEY, EvidenceMetadata
from tests.kubeflow.conftest import Mounted
from tests.trees import flip_byte

pytestmark = [pytest.mark.kfp, pytest.mark.slow]


def only(root: Path, pattern: str) -> Path:
    (found,) = root.glob(pattern)
    return found


def verdict_of(root: Path, task: str = "verify-artifact") -> dict[str, Any]:
    return json.loads(only(root, f"*/{task}/verdict").read_text())


def statement(bundle: bytes) -> dict[str, Any]:
    return json.loads(parse_bundle(bundle).payload)


def test_sign_verify_use(mounted: Mounted, local_runner: Path) -> None:
    from tests.kubeflow import pipelines

    assert pipelines.gate().output == "config.json,weights.bin"
    verdict = verdict_of(local_runner)
    assert verdict["status"] == "passed"
    assert verdict["producer"] == "kfp:gate/sign-artifact"
    (run,) = local_runner.iterdir()
    assert verdict["run"] == f"kfp:gate/sign-artifact/{run.name}"
    assert {event["run"]["task"] for event in mounted.events()} == {
        "sign-artifact",
        "verify-artifact",
        "consume-with-evidence",
    }
    assert {event["run"]["run"] for event in mounted.events()} == {run.name}


def test_flipped_byte_stops_the_pipeline(
    mounted: Mounted, local_runner: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from tests.kubeflow import pipelines

    with pytest.raises(RuntimeError, match="'verify-artifact'"):
        pipelines.gate_after_change()
    verdict = verdict_of(local_runner)
    assert verdict["status"] == "failed"
    assert [f["subject"] for f in verdict["findings"] if f["code"] == "FILE_CHANGED"] == ["weights.bin"]
    # KFP drops a failed task's outputs, so the verdict is the last thing in the log as well.
    log = [line.strip() for line in capfd.readouterr().out.splitlines()]
    assert any(line.startswith("FILE_CHANGED") or "FILE_CHANGED  weights.bin" in line for line in log)
    (machine,) = [line.removeprefix("verdict").strip() for line in log if line.startswith("verdict ")]
    assert json.loads(machine) == verdict


def test_each_attempt_refuses(mounted: Mounted, local_runner: Path, tmp_path: Path) -> None:
    from tests.kubeflow import pipelines

    model = tmp_path / "model"
    model.write_bytes(b"weights")
    sealflow.sign(model)
    pipelines.verify_again(uri=str(model))
    flip_byte(model)
    for _attempt in range(2):
        with pytest.raises(RuntimeError, match="'verify-artifact'"):
            pipelines.verify_again(uri=str(model))
    flip_byte(model)
    pipelines.verify_again(uri=str(model))
    statuses = [json.loads(path.read_text())["status"] for path in sorted(local_runner.glob("*/*/verdict"))]
    assert statuses == ["passed", "failed", "failed", "passed"]


def test_evidence_folder_lost_on_the_way(mounted: Mounted, local_runner: Path) -> None:
    from tests.kubeflow import pipelines

    pipelines.gate_after_strip()
    assert not list(local_runner.glob("*/*/evidence"))
    verdict = verdict_of(local_runner)
    assert verdict["status"] == "passed"
    assert "SIGNATURE_NOT_REQUIRED" in {finding["code"] for finding in verdict["findings"]}


def test_task_bodies_without_any_sidecar_and_without_a_leak(
    mounted: Mounted, local_runner: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from tests.kubeflow import pipelines

    # With a deployment key the value takes part in the provenance, as an HMAC: the harder case.
    (mounted.folder / "parameter.key").write_bytes(b"k" * 32)
    store = tmp_path / "store"
    mounted.write(parameter_key=f"{mounted.folder}/parameter.key")
    planted = "hunter2-8c1f"
    assert pipelines.bodies(password=planted).output == "config.json,weights.bin"
    assert not list(local_runner.rglob("*.evidence"))
    assert verdict_of(local_runner)["status"] == "passed"

    output = json.loads(only(local_runner, "*/make-signed-model/executor_output.json").read_text())
    metadata = output["artifacts"]["model"]["artifacts"][0]["metadata"]
    provenance = statement(EvidenceMetadata.parse(metadata[KEY]).provenance)
    parameters = provenance["predicate"]["buildDefinition"]["externalParameters"]["parameters"]
    assert set(parameters["password"]) == {"hmac-sha256"}

    # The value did reach the tasks: KFP's own executor prints it. What we write holds none of it.
    assert planted in capfd.readouterr().out
    ours = [json.dumps(provenance), json.dumps(metadata), json.dumps(mounted.events())]
    ours += [path.read_text() for path in local_runner.rglob("verdict")]
    ours += [path.read_text() for path in store.rglob("*.json")]
    assert all(planted not in text for text in ours)
    assert "password" in ours[0]


def test_secret_is_not_in_stored_evidence(mounted: Mounted, local_runner: Path, tmp_path: Path) -> None:
    from tests.kubeflow import pipelines

    store = tmp_path / "store"
    mounted.write(evidence_store=str(store))
    planted = "hunter2-8c1f"
    pipelines.bodies(password=planted)
    statements = [json.dumps(statement(path.read_bytes())) for path in store.rglob("*.json")]
    assert len(statements) == 2
    assert any('"password": {"redacted": true}' in text for text in statements)
    everything = statements + [path.read_text() for path in store.rglob("*.json")] + [json.dumps(mounted.events())]
    assert all(planted not in text for text in everything)


def test_the_core_alone_knows_its_run(mounted: Mounted, local_runner: Path, tmp_path: Path) -> None:
    from tests.kubeflow import pipelines

    store = tmp_path / "store"
    mounted.write(evidence_store=str(store))
    ref = sealflow.ArtifactRef.parse(pipelines.bodies_of_the_core().output)
    statements = [statement(path.read_bytes()) for path in store.rglob("provenance-*.json")]
    (copied,) = [
        body["predicate"]
        for body in statements
        if body["predicate"]["buildDefinition"]["externalParameters"]["producer"] == "kfp:bodies-of-the-core/core-only"
    ]
    (dependency,) = copied["buildDefinition"]["resolvedDependencies"]
    # What was verified in the run is named by what is signed in it. The copy has the same bytes.
    assert dependency["name"] == "model"
    assert f"dirHash:{dependency['digest']['dirHash']}" == str(ref.digest)


def test_loop(mounted: Mounted, local_runner: Path) -> None:
    from tests.kubeflow import pipelines

    assert sealflow.ArtifactRef.parse(pipelines.loop().output).digest.algorithm == "dirHash"
    outcomes = [event["outcome"] for event in mounted.events() if event["phase"] == "outcome"]
    assert outcomes == ["done", "passed", "passed"]


def test_what_a_dag_signed_the_pipeline_verifies_and_back(mounted: Mounted, local_runner: Path, tmp_path: Path) -> None:
    from tests.kubeflow import pipelines

    dag = sealflow.Surroundings(sealflow.RunIdentity("airflow", "train", "sign", "manual__1", attempt=1))
    model = tmp_path / "model"
    model.write_bytes(b"weights")
    with sealflow.run(dag):
        sealflow.sign(model)
    pipelines.verify_again(uri=str(model))
    assert verdict_of(local_runner)["producer"] == "airflow:train/sign"
    shutil.rmtree(local_runner)

    ref = sealflow.ArtifactRef.parse(pipelines.loop().output)
    with sealflow.run(dag):
        verdict = sealflow.verify(ref, producer="kfp:loop/sign-artifact")
        assert verdict.passed
    # The other way round: the evidence that came as metadata, taken to where the store is not.
    output = json.loads(only(local_runner, "*/sign-artifact/executor_output.json").read_text())
    metadata = output["artifacts"]["evidence"]["artifacts"][0]["metadata"]
    handed = StoredEvidence("metadata", EvidenceMetadata.parse(metadata[KEY]).provenance)
    assert sealflow.verify(ref, evidence=[handed], only_given_evidence=True, require=["provenance"]).passed


def test_encrypted_from_task_to_task(mounted: Mounted, local_runner: Path, tmp_path: Path) -> None:
    from tests.kubeflow import pipelines

    (mounted.folder / "team.key").write_bytes(bytes(range(32)))
    mounted.write(recipients=f"aes:{mounted.folder}/team.key")
    store = tmp_path / "store"
    assert pipelines.transfer(store=str(store)).output == "config.json,weights.bin"
    stored = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    assert b"weights.bin" not in stored
    assert verdict_of(local_runner, "promote-artifact")["producer"] == "kfp:transfer/encrypted-upload"
    outcomes = [(e["action"], e["outcome"]) for e in mounted.events() if e["phase"] == "outcome"]
    assert outcomes == [
        ("upload", "done"),
        ("verify", "passed"),
        ("promote", "done"),
        ("download", "passed"),
        ("verify", "passed"),
    ]


def test_without_the_key_nothing_is_fetched(mounted: Mounted, local_runner: Path, tmp_path: Path) -> None:
    from tests.kubeflow import pipelines

    (mounted.folder / "team.key").write_bytes(bytes(range(32)))
    (mounted.folder / "other.key").write_bytes(bytes(32))
    model = tmp_path / "model"
    model.write_bytes(b"weights")
    ref = sealflow.upload(model, str(tmp_path / "m.enc"), recipients=f"aes:{mounted.folder}/team.key")
    with pytest.raises(RuntimeError, match="'encrypted-download'"):
        pipelines.fetch(source=ref.to_json(), recipients=f"aes:{mounted.folder}/other.key")
    assert verdict_of(local_runner, "encrypted-download")["findings"][0]["code"] == "RECIPIENT_MISSING"
    assert not list(local_runner.glob("*/encrypted-download/artifact"))
    assert not list(local_runner.glob("*/consume"))
