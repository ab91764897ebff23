"""What the components do when their task runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sealflow
import sealflow_kfp
from sealflow.errors import UsageError, VerificationError
from sealflow_kfp.evidence_metadata import KEY
from tests.kubeflow.conftest import Mounted
from tests.trees import flip_byte

pytestmark = pytest.mark.kfp

FILES = {"weights.bin": b"\x00\x01\x02", "config.json": b"{}"}
Make = Callable[..., Any]


@pytest.fixture
def signed(mounted: Mounted, artifact: Make) -> tuple[Any, Any, str]:
    """A model, the evidence artifact and the reference that the sign component made."""
    model, evidence = artifact("model", FILES), artifact("evidence")
    (ref,) = sealflow_kfp.sign_artifact.python_func(artifact=model, evidence=evidence)
    return model, evidence, ref


def verify(tmp_path: Path, **options: Any) -> tuple[dict[str, Any], str]:
    path = tmp_path / "verdict"
    path.unlink(missing_ok=True)
    try:
        (ref,) = sealflow_kfp.verify_artifact.python_func(verdict=str(path), **options)
    except VerificationError:
        ref = ""
    verdict = json.loads(path.read_text())
    # The verdict informs; only the exception stops the task.
    assert bool(ref) is (verdict["status"] == "passed")
    return verdict, ref


def codes(verdict: dict[str, Any]) -> set[str]:
    return {finding["code"] for finding in verdict["findings"] if finding["severity"] == "refusal"}


def test_sign_leaves_evidence_as_content_and_as_metadata(signed: tuple[Any, Any, str]) -> None:
    model, evidence, ref = signed
    kinds = sorted(path.name.partition("-")[0] for path in Path(evidence.path).rglob("*.json"))
    assert kinds == ["provenance", "signature"]
    assert set(evidence.metadata) == {KEY}
    assert model.metadata == {}
    assert not Path(model.path + ".evidence").exists()
    parsed = sealflow.ArtifactRef.parse(ref)
    assert parsed.evidence == f"file://{evidence.path}"
    assert sealflow.verify(parsed).passed


def test_sign_with_a_store_keeps_a_copy_in_the_output(mounted: Mounted, artifact: Make, tmp_path: Path) -> None:
    model, evidence = artifact("model", FILES), artifact("evidence")
    store = tmp_path / "store"
    (ref,) = sealflow_kfp.sign_artifact.python_func(artifact=model, evidence=evidence, evidence_store=str(store))
    assert sealflow.ArtifactRef.parse(ref).evidence == f"file://{store}"

    def objects(root: Path) -> dict[str, bytes]:
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.json")}

    assert len(objects(store)) == 2
    assert objects(store) == objects(Path(evidence.path))


def test_signing_again_after_a_retry(signed: tuple[Any, Any, str]) -> None:
    model, evidence, ref = signed
    (again,) = sealflow_kfp.sign_artifact.python_func(artifact=model, evidence=evidence)
    assert again == ref


def test_passed(signed: tuple[Any, Any, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, evidence, ref = signed
    verdict, checked = verify(tmp_path, artifact=model, evidence=evidence, expected_ref=ref, name="model")
    assert verdict["status"] == "passed"
    assert verdict["sealflow_verdict"] == 1
    assert {signer["kind"] for signer in verdict["signers"]} == {"signature", "provenance"}
    assert {finding["code"] for finding in verdict["findings"]} == {"CHECKED_NOT_HELD"}
    assert checked == ref
    assert "sealflow: PASSED" in capsys.readouterr().out


def test_the_returned_reference_opens_the_checked_bytes(signed: tuple[Any, Any, str], tmp_path: Path) -> None:
    model, evidence, _ = signed
    _, checked = verify(tmp_path, artifact=model, evidence=evidence)
    with sealflow.verified(checked) as path:
        assert (Path(path) / "weights.bin").read_bytes() == FILES["weights.bin"]
    flip_byte(Path(model.path) / "weights.bin")
    with pytest.raises(VerificationError), sealflow.verified(checked):
        pass


def test_flipped_byte_names_the_file_on_each_attempt(signed: tuple[Any, Any, str], tmp_path: Path) -> None:
    model, evidence, _ = signed
    flip_byte(Path(model.path) / "weights.bin")
    for _attempt in range(3):
        verdict, _ = verify(tmp_path, artifact=model, evidence=evidence)
        assert verdict["status"] == "failed"
        assert [f["subject"] for f in verdict["findings"] if f["code"] == "FILE_CHANGED"] == ["weights.bin"]


def test_content_of_the_evidence_gone_leaves_its_metadata(signed: tuple[Any, Any, str], tmp_path: Path) -> None:
    model, evidence, _ = signed
    shutil.rmtree(evidence.path)
    verdict, _ = verify(tmp_path, artifact=model, evidence=evidence, name="model")
    assert verdict["status"] == "passed"
    assert "SIGNATURE_NOT_REQUIRED" in {finding["code"] for finding in verdict["findings"]}
    flip_byte(Path(model.path) / "weights.bin")
    verdict, _ = verify(tmp_path, artifact=model, evidence=evidence)
    assert codes(verdict) == {"EVIDENCE_OF_OTHER_ARTIFACT"}


EVIDENCE_ATTACKS: dict[str, tuple[Callable[[Path, Any], object], set[str]]] = {
    "signature stripped": (lambda p, _: next(p.rglob("signature-*")).unlink(), {"SIGNATURE_MISSING"}),
    "provenance stripped": (lambda p, _: next(p.rglob("provenance-*")).unlink(), {"PROVENANCE_MISSING"}),
    "all objects stripped, folder left": (
        lambda p, _: [path.unlink() for path in p.rglob("*.json")],
        {"EVIDENCE_MISSING"},
    ),
    "object edited": (lambda p, _: flip_byte(next(p.rglob("signature-*")), 40), {"EVIDENCE_ALTERED"}),
    "content and metadata gone": (
        lambda p, evidence: (shutil.rmtree(p), evidence.metadata.clear()),
        {"EVIDENCE_MISSING"},
    ),
    "replaced by a file": (
        lambda p, evidence: (shutil.rmtree(p), p.write_bytes(b"{}"), evidence.metadata.clear()),
        {"EVIDENCE_MISSING"},
    ),
}


@pytest.mark.parametrize(("attack", "expected"), EVIDENCE_ATTACKS.values(), ids=EVIDENCE_ATTACKS)
def test_evidence_attacked(
    signed: tuple[Any, Any, str], tmp_path: Path, attack: Callable[[Path, Any], object], expected: set[str]
) -> None:
    model, evidence, _ = signed
    assert verify(tmp_path, artifact=model, evidence=evidence)[0]["status"] == "passed"
    attack(Path(evidence.path), evidence)
    verdict, _ = verify(tmp_path, artifact=model, evidence=evidence)
    assert verdict["status"] == "failed"
    assert codes(verdict) == expected


def test_planted_evidence_neither_passes_nor_blocks(
    signed: tuple[Any, Any, str], artifact: Make, tmp_path: Path
) -> None:
    model, evidence, _ = signed
    (folder,) = Path(evidence.path).iterdir()
    (folder / f"provenance-{'0' * 64}.json").write_bytes(b"{}")
    (folder / "README.md").write_bytes(b"hello")
    assert verify(tmp_path, artifact=model, evidence=evidence)[0]["status"] == "passed"


def test_evidence_of_another_artifact(signed: tuple[Any, Any, str], artifact: Make, tmp_path: Path) -> None:
    _, evidence, _ = signed
    other = artifact("other", {"weights.bin": b"other"})
    assert codes(verify(tmp_path, artifact=other, evidence=evidence)[0])


def test_subset(signed: tuple[Any, Any, str], tmp_path: Path) -> None:
    model, evidence, _ = signed
    flip_byte(Path(model.path) / "weights.bin")
    good, _ = verify(tmp_path, artifact=model, evidence=evidence, files=["config.json"])
    bad, _ = verify(tmp_path, artifact=model, evidence=evidence, files=["config.json", "weights.bin"])
    assert (good["status"], bad["status"]) == ("passed", "failed")


def test_unreadable_evidence_is_never_a_pass(signed: tuple[Any, Any, str], tmp_path: Path) -> None:
    model, _, _ = signed
    verdict, _ = verify(tmp_path, artifact=model, evidence_store="s3://bucket-behind/a-closed-door")
    assert verdict["status"] == "unverifiable"


def test_identities_as_parameter_replace_the_settings(
    signed: tuple[Any, Any, str], mounted: Mounted, tmp_path: Path
) -> None:
    model, evidence, _ = signed
    mounted.write(identities=None)
    rule = json.dumps({"me": {"key": f"file:{mounted.key.public}", "producers": ["python"]}})
    verdict, _ = verify(tmp_path, artifact=model, evidence=evidence, identities=rule)
    assert verdict["status"] == "passed"
    assert {signer["identity"] for signer in verdict["signers"]} == {"me"}
    assert "IDENTITY_RULE_MISSING" in codes(verify(tmp_path, artifact=model, evidence=evidence)[0])


def test_usage_error_writes_no_verdict(signed: tuple[Any, Any, str], tmp_path: Path) -> None:
    model, evidence, _ = signed
    path = tmp_path / "verdict"
    with pytest.raises(UsageError):
        sealflow_kfp.verify_artifact.python_func(artifact=model, evidence=evidence, verdict=str(path), identities='["')
    assert not path.exists()


def test_refusal_ends_with_a_block_that_people_and_programs_read(signed: tuple[Any, Any, str], tmp_path: Path) -> None:
    model, evidence, _ = signed
    flip_byte(Path(model.path) / "weights.bin")
    with pytest.raises(VerificationError) as caught:
        sealflow_kfp.verify_artifact.python_func(artifact=model, evidence=evidence, verdict=str(tmp_path / "verdict"))
    lines = str(caught.value).splitlines()
    assert "sealflow: FAILED" in lines
    assert any("FILE_CHANGED  weights.bin" in line for line in lines)
    assert any(line.strip().startswith("next_step: ") for line in lines)
    (machine,) = [line.split("verdict", 1)[1] for line in lines if line.startswith("  verdict ")]
    assert json.loads(machine) == caught.value.verdict.as_dict()


def test_every_use_is_in_the_audit_log(signed: tuple[Any, Any, str], mounted: Mounted, tmp_path: Path) -> None:
    model, evidence, _ = signed
    flip_byte(Path(model.path) / "weights.bin")
    verify(tmp_path, artifact=model, evidence=evidence)
    assert [(event["action"], event.get("outcome", "")) for event in mounted.events()] == [
        ("sign", ""),
        ("sign", "done"),
        ("verify", ""),
        ("verify", "failed"),
    ]
