"""Signing outputs and opening inputs, and what is refused. The same attacks meet the component and the helper."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sealflow
import sealflow_kfp
from sealflow.errors import UsageError, VerificationError
from sealflow_kfp.evidence_metadata import KEY, MAX_TEXT, EvidenceMetadata
from tests.kubeflow.conftest import Mounted
from tests.pki import write_key
from tests.trees import flip_byte

pytestmark = pytest.mark.kfp

FILES = {"weights.bin": b"\x00\x01\x02", "config/model.json": b"{}"}
Make = Callable[..., Any]


def sidecar(artifact: Any) -> Path:
    return Path(artifact.path + ".evidence")


@pytest.fixture
def model(mounted: Mounted, artifact: Make) -> Any:
    """A signed folder whose sidecar is gone, as on a cluster."""
    made = artifact("model", FILES)
    made.metadata["framework"] = "none"
    sealflow_kfp.sign_output(made)
    shutil.rmtree(sidecar(made))
    return made


def by_component(artifact: Any, tmp_path: Path, **options: Any) -> dict[str, Any]:
    """Run the component's function; return its verdict, which it writes also when it refuses."""
    path = tmp_path / "outputs" / "verdict"
    path.unlink(missing_ok=True)
    ref = ""
    with contextlib.suppress(VerificationError):
        (ref,) = sealflow_kfp.verify_artifact.python_func(artifact=artifact, verdict=str(path), **options)
    verdict = json.loads(path.read_text())
    assert bool(ref) is (verdict["status"] == "passed")
    return verdict


def by_helper(artifact: Any, tmp_path: Path, **options: Any) -> dict[str, Any]:
    """Open it as a task body would; return the verdict."""
    try:
        with sealflow_kfp.verified_input(artifact, **options) as path:
            found = {str(p.relative_to(path)): p.read_bytes() for p in Path(path).rglob("*") if p.is_file()}
            assert found == FILES
            return {"status": "passed", "findings": []}
    except VerificationError as error:
        return error.verdict.as_dict()


both = pytest.mark.parametrize("verify", [by_component, by_helper])
Verify = Callable[..., dict[str, Any]]


@both
def test_metadata_alone_verifies(model: Any, tmp_path: Path, verify: Verify) -> None:
    assert verify(model, tmp_path, name="model")["status"] == "passed"
    assert model.metadata["framework"] == "none"


def test_the_verdict_says_that_there_was_no_oms_signature(model: Any, tmp_path: Path) -> None:
    codes = {finding["code"] for finding in by_component(model, tmp_path)["findings"]}
    assert {"SIGNATURE_NOT_REQUIRED", "CHECKED_NOT_HELD"} <= codes


def test_metadata_survives_what_kfp_does_to_it(model: Any, tmp_path: Path) -> None:
    from google.protobuf import json_format, struct_pb2

    struct = struct_pb2.Struct()
    struct.update({**model.metadata, "epochs": 3})
    model.metadata = json.loads(json_format.MessageToJson(struct))
    model.metadata |= {"display_name": "model", "store_session_info": "{}"}
    assert type(model.metadata["epochs"]) is float
    assert by_component(model, tmp_path)["status"] == "passed"


def test_the_key_holds_one_text_and_no_other_key_is_written(mounted: Mounted, artifact: Make) -> None:
    made = artifact("model", FILES)
    ref = sealflow_kfp.sign_output(made)
    assert set(made.metadata) == {KEY}
    assert EvidenceMetadata.parse(made.metadata[KEY]).digest == ref.digest
    assert len(made.metadata[KEY]) < 8 << 10


# --- Attacks on an artifact whose only evidence is its metadata ---


def rewritten(model: Any, change: Callable[[dict[str, Any]], object]) -> str:
    """Return the metadata text with its bundle changed."""
    found = EvidenceMetadata.parse(model.metadata[KEY])
    bundle = json.loads(found.provenance)
    change(bundle)
    return replace(found, provenance=json.dumps(bundle).encode()).to_text()


def edit_statement(model: Any, made: Make, mounted: Mounted) -> None:
    def change(bundle: dict[str, Any]) -> None:
        statement = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b'"model"', b'"other"')
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(statement).decode()

    model.metadata[KEY] = rewritten(model, change)


def drop_signature(model: Any, made: Make, mounted: Mounted) -> None:
    model.metadata[KEY] = rewritten(model, lambda bundle: bundle["dsseEnvelope"].update(signatures=[]))


def sign_with_another_key(model: Any, made: Make, mounted: Mounted) -> None:
    other = write_key(mounted.folder, "other")
    sealflow_kfp.sign_output(model, signer=other.signer)
    shutil.rmtree(sidecar(model))


def take_metadata_of_another_artifact(model: Any, made: Make, mounted: Mounted) -> None:
    other = made("other", {"weights.bin": b"other"})
    sealflow_kfp.sign_output(other, name="model")
    model.metadata[KEY] = other.metadata[KEY]


def swap_for_another_signed_artifact(model: Any, made: Make, mounted: Mounted) -> None:
    other = made("other", {"weights.bin": b"other"})
    sealflow_kfp.sign_output(other, name="model")
    shutil.rmtree(model.path)
    shutil.copytree(other.path, model.path)


def put_the_oms_signature_where_the_provenance_belongs(model: Any, made: Make, mounted: Mounted) -> None:
    ref = sealflow_kfp.sign_output(model)
    (signature,) = sidecar(model).rglob("signature-*.json")
    model.metadata[KEY] = EvidenceMetadata(ref.digest, signature.read_bytes()).to_text()
    shutil.rmtree(sidecar(model))


def claim_the_changed_bytes_digest(model: Any, made: Make, mounted: Mounted) -> None:
    flip_byte(Path(model.path) / "weights.bin")
    other = made("other", {"weights.bin": b"\x01\x01\x02", "config/model.json": b"{}"})
    digest = sealflow_kfp.sign_output(other).digest
    found = EvidenceMetadata.parse(model.metadata[KEY])
    model.metadata[KEY] = replace(found, digest=digest).to_text()


def rename_file(model: Any, made: Make, mounted: Mounted) -> None:
    (Path(model.path) / "weights.bin").rename(Path(model.path) / "weights2.bin")


def plant_link(model: Any, made: Make, mounted: Mounted) -> None:
    (Path(model.path) / "weights.bin").unlink()
    (Path(model.path) / "weights.bin").symlink_to("/etc/passwd")


def replace_by_file(model: Any, made: Make, mounted: Mounted) -> None:
    shutil.rmtree(model.path)
    Path(model.path).write_bytes(b"\x00\x01\x02")


Attack = Callable[[Any, Make, Mounted], object]
ATTACKS: dict[str, tuple[Attack, str]] = {
    "flipped byte": (lambda m, *_: flip_byte(Path(m.path) / "weights.bin"), "EVIDENCE_OF_OTHER_ARTIFACT"),
    "added file": (lambda m, *_: (Path(m.path) / "x").write_bytes(b""), "EVIDENCE_OF_OTHER_ARTIFACT"),
    "removed file": (lambda m, *_: (Path(m.path) / "weights.bin").unlink(), "EVIDENCE_OF_OTHER_ARTIFACT"),
    "renamed file, equal content": (rename_file, "EVIDENCE_OF_OTHER_ARTIFACT"),
    "link to a file outside": (plant_link, "ARTIFACT_REFUSED"),
    "folder replaced by a file": (replace_by_file, "EVIDENCE_OF_OTHER_ARTIFACT"),
    "artifact gone": (lambda m, *_: shutil.rmtree(m.path), "ARTIFACT_MISSING"),
    "swapped for another signed artifact": (swap_for_another_signed_artifact, "EVIDENCE_OF_OTHER_ARTIFACT"),
    "metadata stripped": (lambda m, *_: m.metadata.pop(KEY), "EVIDENCE_MISSING"),
    "metadata emptied": (lambda m, *_: m.metadata.update({KEY: ""}), "EVIDENCE_MALFORMED"),
    "metadata oversized": (lambda m, *_: m.metadata.update({KEY: "A" * (MAX_TEXT + 1)}), "EVIDENCE_MALFORMED"),
    "metadata of another type": (lambda m, *_: m.metadata.update({KEY: 1.0}), "EVIDENCE_MALFORMED"),
    "metadata of another program": (lambda m, *_: m.metadata.update({KEY: '{"v": 1}'}), "EVIDENCE_MALFORMED"),
    "metadata of another artifact": (take_metadata_of_another_artifact, "EVIDENCE_OF_OTHER_ARTIFACT"),
    "statement edited": (edit_statement, "SIGNATURE_INVALID"),
    "signature dropped": (drop_signature, "EVIDENCE_MALFORMED"),
    "other signer": (sign_with_another_key, "SIGNER_NOT_ALLOWED"),
    "signature in the provenance's place": (
        put_the_oms_signature_where_the_provenance_belongs,
        "PROVENANCE_MISSING",
    ),
    "noted digest follows the changed bytes": (claim_the_changed_bytes_digest, "EVIDENCE_OF_OTHER_ARTIFACT"),
    "nobody may sign": (lambda m, _, mounted: mounted.write(identities=None), "IDENTITY_RULE_MISSING"),
}


@both
@pytest.mark.parametrize(("attack", "code"), ATTACKS.values(), ids=ATTACKS)
def test_refused(
    model: Any, artifact: Make, mounted: Mounted, tmp_path: Path, verify: Verify, attack: Attack, code: str
) -> None:
    attack(model, artifact, mounted)
    # Each attempt refuses alike: KFP may try again.
    for _ in range(2):
        verdict = verify(model, tmp_path)
        assert verdict["status"] == "failed"
        assert code in {finding["code"] for finding in verdict["findings"] if finding["severity"] == "refusal"}


@both
@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"name": "other"}, "NAME_MISMATCH"),
        ({"producer": "kfp:train/*"}, "PRODUCER_MISMATCH"),
        ({"files": ["weights.bin"]}, "SIGNATURE_MISSING"),
    ],
    ids=["other name", "other producer", "subset without a signed manifest"],
)
def test_refused_by_what_was_asked(
    model: Any, tmp_path: Path, verify: Verify, options: dict[str, Any], code: str
) -> None:
    assert verify(model, tmp_path)["status"] == "passed"
    verdict = verify(model, tmp_path, **options)
    assert code in {finding["code"] for finding in verdict["findings"] if finding["severity"] == "refusal"}


@both
def test_an_older_signed_version_is_refused_where_the_reference_pins_the_digest(
    mounted: Mounted, artifact: Make, tmp_path: Path, verify: Verify
) -> None:
    old = artifact("model", FILES)
    sealflow_kfp.sign_output(old)
    shutil.rmtree(sidecar(old))
    newer = artifact("newer", {"weights.bin": b"newer"})
    ref = sealflow_kfp.sign_output(newer, name="model").to_json()
    assert verify(old, tmp_path)["status"] == "passed"
    verdict = verify(old, tmp_path, expected_ref=ref)
    assert "DIGEST_MISMATCH" in {finding["code"] for finding in verdict["findings"]}


# --- Where the evidence lies ---


@both
def test_sidecar_brings_the_oms_signature(mounted: Mounted, artifact: Make, tmp_path: Path, verify: Verify) -> None:
    made = artifact("model", FILES)
    sealflow_kfp.sign_output(made)
    codes = {finding["code"] for finding in verify(made, tmp_path)["findings"]}
    assert "SIGNATURE_NOT_REQUIRED" not in codes
    # Beside the artifact stripped evidence is seen: the metadata does not excuse it.
    (signature,) = sidecar(made).rglob("signature-*.json")
    signature.unlink()
    verdict = verify(made, tmp_path)
    assert "SIGNATURE_MISSING" in {finding["code"] for finding in verdict["findings"]}


@both
def test_a_configured_store_is_not_excused_by_metadata(
    mounted: Mounted, artifact: Make, tmp_path: Path, verify: Verify
) -> None:
    store = tmp_path / "store"
    mounted.write(evidence_store=str(store))
    made = artifact("model", FILES)
    ref = sealflow_kfp.sign_output(made)
    assert ref.evidence == f"file://{store}"
    assert not sidecar(made).exists()
    assert verify(made, tmp_path)["status"] == "passed"
    shutil.rmtree(store)
    verdict = verify(made, tmp_path)
    assert "EVIDENCE_MISSING" in {finding["code"] for finding in verdict["findings"]}


def test_subset_with_a_store(mounted: Mounted, artifact: Make, tmp_path: Path) -> None:
    made = artifact("model", FILES)
    ref = sealflow_kfp.sign_output(made)
    flip_byte(Path(made.path) / "weights.bin")
    with sealflow_kfp.verified_input(made, ["config/model.json"], expected_ref=ref) as path:
        assert [str(p.relative_to(path)) for p in Path(path).rglob("*") if p.is_file()] == ["config/model.json"]


def test_reference_of_another_orchestrator_brings_its_store(mounted: Mounted, artifact: Make, tmp_path: Path) -> None:
    made = artifact("model", FILES)
    ref = sealflow.sign(made.path, evidence_store=str(tmp_path / "dag-store"))
    (checked,) = sealflow_kfp.verify_artifact.python_func(
        artifact=made, verdict=str(tmp_path / "verdict"), expected_ref=ref.to_json()
    )
    assert sealflow.ArtifactRef.parse(checked) == ref
    flip_byte(Path(made.path) / "weights.bin")
    assert by_component(made, tmp_path, expected_ref=ref.to_json())["status"] == "failed"


def test_remote_artifact_is_referred_to_by_its_own_location(
    mounted: Mounted, artifact: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = artifact("model", FILES)
    path = made.path
    made.uri = "minio://bucket/v2/model"
    monkeypatch.setattr(type(made), "path", property(lambda self: path))
    ref = sealflow_kfp.sign_output(made)
    # The sidecar stays behind in the task, so nobody is sent there.
    assert (ref.uri, ref.evidence) == ("minio://bucket/v2/model", "")
    assert sealflow.ArtifactRef.parse(ref.to_json()) == ref
    kept = sealflow_kfp.sign_output(made, evidence_store=str(Path(path).parent / "store"))
    assert kept.evidence.endswith("/store")


def test_held_copy_is_private_and_gone_afterwards(model: Any) -> None:
    with sealflow_kfp.verified_input(model) as path:
        assert Path(path) != Path(model.path)
        (Path(model.path) / "weights.bin").write_bytes(b"late")
        assert (Path(path) / "weights.bin").read_bytes() == FILES["weights.bin"]
    assert not Path(path).exists()


def test_file_keeps_its_name(mounted: Mounted, artifact: Make) -> None:
    made = artifact("scores.csv", b"1,2\n")
    sealflow_kfp.sign_output(made)
    with sealflow_kfp.verified_input(made, name="scores.csv") as path:
        assert Path(path).name == "scores.csv"


def test_no_signer(mounted: Mounted, artifact: Make) -> None:
    mounted.write(signer=None)
    made = artifact("model", FILES)
    with pytest.raises(UsageError, match="no signer"):
        sealflow_kfp.sign_output(made)
    assert made.metadata == {}
