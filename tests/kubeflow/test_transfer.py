"""What the components that send, fetch and promote do when their task runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sealflow
import sealflow_kfp
from sealflow.errors import ArtifactError, UsageError, VerificationError
from sealflow_kfp.evidence_metadata import KEY
from tests.kubeflow.conftest import Mounted
from tests.trees import flip_byte

pytestmark = pytest.mark.kfp

FILES = {"weights.bin": b"\x00\x01\x02 in clear", "config.json": b'{"layers": 3}'}
Make = Callable[..., Any]


@pytest.fixture
def team(mounted: Mounted) -> str:
    """A key in the mount, which the settings name."""
    (mounted.folder / "team.key").write_bytes(bytes(range(32)))
    uri = f"aes:{mounted.folder}/team.key"
    mounted.write(recipients=[uri])
    return uri


def call(component: str, tmp_path: Path, **parameters: Any) -> tuple[dict[str, Any], Any]:
    """Run a component's body; gives the verdict and the reference, ``None`` after a refusal."""
    verdict = tmp_path / f"{component}-verdict"
    try:
        (text,) = getattr(sealflow_kfp, component).python_func(verdict=str(verdict), **parameters)
    except VerificationError:
        return json.loads(verdict.read_text()), None
    return json.loads(verdict.read_text()), sealflow.ArtifactRef.parse(text)


def send(artifact: Any, destination: Path, **parameters: Any) -> str:
    (text,) = sealflow_kfp.encrypted_upload.python_func(artifact=artifact, destination=str(destination), **parameters)
    return text


@pytest.fixture
def sent(team: str, artifact: Make, tmp_path: Path) -> str:
    """The reference to an encrypted model."""
    return send(artifact("model", FILES), tmp_path / "store" / "m.enc", name="model")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_readable_is_stored(sent: str, tmp_path: Path) -> None:
    ref = sealflow.ArtifactRef.parse(sent)
    assert ref.encrypted
    stored = b"".join(files(tmp_path / "store").values())
    assert len(stored) > 4096
    assert not [word for word in (b"weights", b"config", b"in clear", b"layers") if word in stored]


def test_fetched_artifact_is_verified_by_its_metadata_alone(sent: str, artifact: Make, tmp_path: Path) -> None:
    output = artifact("fetched")
    verdict, ref = call("encrypted_download", tmp_path, artifact=output, source=sent, name="model", producer="python")
    assert verdict["status"] == "passed"
    assert files(Path(output.path)) == FILES
    assert (ref.uri, ref.encrypted) == (Path(output.path).as_uri(), False)
    assert ref.digest == sealflow.ArtifactRef.parse(sent).digest
    # As a launcher hands it on: the content and the metadata, and nothing that lies beside.
    moved = artifact("moved", FILES, metadata=output.metadata)
    with sealflow_kfp.verified_input(moved, name="model") as path:
        assert files(Path(path)) == FILES
    flip_byte(Path(moved.path) / "weights.bin")
    with pytest.raises(VerificationError), sealflow_kfp.verified_input(moved):
        pytest.fail("opened")


@pytest.mark.parametrize("kept", [False, True])
def test_reference_to_an_output_that_goes_to_an_object_store(
    sent: str, mounted: Mounted, tmp_path: Path, kept: bool
) -> None:
    from kfp import dsl

    if kept:
        mounted.write(evidence_store=str(tmp_path / "evidence"))
    output = dsl.Artifact(name="artifact", uri="minio://bucket/v2/model")
    output.custom_path = str(tmp_path / "mounted" / "model")
    _, ref = call("encrypted_download", tmp_path, artifact=output, source=sent)
    assert ref.uri == "minio://bucket/v2/model"
    # Beside the output evidence would stay behind with the pod.
    assert ref.evidence == ((tmp_path / "evidence").as_uri() if kept else "")
    assert KEY in output.metadata


def test_a_gate_needs_the_reference_alone(sent: str, team: str, mounted: Mounted, tmp_path: Path) -> None:
    verdict, ref = call("verify_artifact", tmp_path, expected_ref=sent, name="model")
    assert verdict["status"] == "passed"
    assert ref == sealflow.ArtifactRef.parse(sent)
    mounted.write(recipients=None)
    with pytest.raises(UsageError, match="RECIPIENT_MISSING"):
        call("verify_artifact", tmp_path, expected_ref=sent)
    assert call("verify_artifact", tmp_path, expected_ref=sent, recipients=team)[0]["status"] == "passed"


def test_a_gate_takes_the_encrypted_object_as_an_artifact(sent: str, artifact: Make, tmp_path: Path) -> None:
    imported = artifact("imported", (tmp_path / "store" / "m.enc").read_bytes())
    verdict, ref = call("verify_artifact", tmp_path, artifact=imported, expected_ref=sent)
    assert verdict["status"] == "passed"
    assert ref.encrypted
    with sealflow.verified(ref) as path:
        assert files(Path(path)) == FILES
    with sealflow_kfp.verified_input(imported, expected_ref=sent) as path:
        assert files(Path(path)) == FILES


def test_a_body_opens_with_the_given_key(
    sent: str, team: str, mounted: Mounted, artifact: Make, tmp_path: Path
) -> None:
    mounted.write(recipients=None)
    imported = artifact("imported", (tmp_path / "store" / "m.enc").read_bytes())
    with sealflow_kfp.verified_input(imported, expected_ref=sent, recipients=team) as path:
        assert files(Path(path)) == FILES
    opening = sealflow_kfp.verified_input(imported, expected_ref=sent)
    with pytest.raises(sealflow.SealflowError, match="RECIPIENT_MISSING"), opening:
        pytest.fail("opened")


@pytest.mark.parametrize("evidence", [False, True])
def test_a_gate_without_an_artifact_wants_a_reference(
    team: str, artifact: Make, tmp_path: Path, evidence: bool
) -> None:
    more = {"evidence": artifact("evidence", {}), "expected_ref": "{}"} if evidence else {}
    with pytest.raises(UsageError, match="`expected_ref`"):
        sealflow_kfp.verify_artifact.python_func(verdict=str(tmp_path / "verdict"), **more)
    assert not (tmp_path / "verdict").exists()


def test_promotion_keeps_object_and_chain(sent: str, artifact: Make, tmp_path: Path) -> None:
    there = tmp_path / "prod" / "m.enc"
    verdict, ref = call("promote_artifact", tmp_path, source=sent, destination=str(there), producer="python")
    assert verdict["status"] == "passed"
    assert ref.uri == there.as_uri()
    assert there.read_bytes() == (tmp_path / "store" / "m.enc").read_bytes()
    assert list((tmp_path / "prod").rglob("promotion-*.json"))
    output = artifact("fetched")
    assert call("encrypted_download", tmp_path, artifact=output, source=ref.to_json())[0]["status"] == "passed"
    assert files(Path(output.path)) == FILES


def _flip(store: Path, key: str) -> dict[str, Any]:
    flip_byte(store / "m.enc", 3000)
    return {}


def _strip(store: Path, key: str) -> dict[str, Any]:
    for path in store.rglob("*.json"):
        path.unlink()
    return {}


def _other_key(store: Path, key: str) -> dict[str, Any]:
    (store / "other.key").write_bytes(bytes(32))
    return {"recipients": f"aes:{store}/other.key"}


def _other_rule(store: Path, key: str) -> dict[str, Any]:
    return {"identities": json.dumps({"trainer": {"key": key, "producers": ["kfp:*"]}})}


ATTACKS = {
    "flipped byte": (_flip, "MESSAGE_ALTERED"),
    "evidence stripped": (_strip, "ENCRYPTION_UNBOUND"),
    "other key": (_other_key, "RECIPIENT_MISSING"),
    "other producer": (lambda *_: {"producer": "kfp:train/*"}, "PRODUCER_MISMATCH"),
    "signer who may not speak for it": (_other_rule, "PRODUCER_NOT_ALLOWED"),
}


@pytest.mark.parametrize("name", ["encrypted_download", "promote_artifact"])
@pytest.mark.parametrize(("attack", "code"), ATTACKS.values(), ids=ATTACKS)
def test_refused_with_the_verdict_and_without_an_output(
    sent: str, mounted: Mounted, artifact: Make, tmp_path: Path, name: str, attack: Any, code: str
) -> None:
    parameters = attack(tmp_path / "store", f"file:{mounted.key.public}")
    output = artifact("fetched")
    target = {"artifact": output} if name == "encrypted_download" else {"destination": output.path}
    verdict, ref = call(name, tmp_path, source=sent, **target, **parameters)
    assert (verdict["status"], ref) == ("failed", None)
    assert code in [finding["code"] for finding in verdict["findings"]]
    assert not Path(output.path).exists()
    assert KEY not in output.metadata


def test_a_refusal_ends_with_the_verdict_for_the_log(sent: str, artifact: Make, tmp_path: Path) -> None:
    flip_byte(tmp_path / "store" / "m.enc", 3000)
    for name, target in (
        ("encrypted_download", {"artifact": artifact("fetched")}),
        ("promote_artifact", {"destination": str(tmp_path / "p.enc")}),
    ):
        with pytest.raises(VerificationError) as caught:
            getattr(sealflow_kfp, name).python_func(verdict=str(tmp_path / "verdict"), source=sent, **target)
        (machine,) = [line for line in str(caught.value).splitlines() if line.startswith("  verdict ")]
        assert json.loads(machine.split("verdict", 1)[1]) == json.loads((tmp_path / "verdict").read_text())


def test_once_more_after_a_retry(sent: str, artifact: Make, tmp_path: Path) -> None:
    model = artifact("model", FILES)
    assert send(model, tmp_path / "store" / "m.enc", name="model") == sent
    flip_byte(Path(model.path) / "weights.bin")
    with pytest.raises(ArtifactError, match="ARTIFACT_EXISTS"):
        send(model, tmp_path / "store" / "m.enc", name="model")
    assert send(model, tmp_path / "store" / "m.enc", name="model", overwrite=True) != sent


def test_no_recipient_anywhere(mounted: Mounted, artifact: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="RECIPIENT_MISSING"):
        send(artifact("model", FILES), tmp_path / "m.enc")
    assert not (tmp_path / "m.enc").exists()
