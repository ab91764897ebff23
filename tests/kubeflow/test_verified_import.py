"""`verified_import`: in place of KFP's importer, which looks at nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.errors import UsageError, VerificationError
from sealflow.evidence import parse_bundle
from sealflow.hashing import Digest
from sealflow_kfp import _bodies
from sealflow_kfp.evidence_metadata import KEY, EvidenceMetadata
from tests.kubeflow.conftest import Mounted
from tests.kubeflow.run_hardened import run_all
from tests.kubeflow.test_harden_runs import outputs_of, signed_by
from tests.pki import write_key
from tests.trees import write_tree

pytestmark = pytest.mark.kfp

Importing = Callable[..., tuple[Any, Path]]


@pytest.fixture
def importing(artifact: Callable[..., Any], tmp_path: Path) -> Importing:
    """Import a location to a new output."""

    def run(uri: Path | str, digest: str = "", **more: Any) -> tuple[Any, Path]:
        output = artifact("artifact")
        verdict = tmp_path / "verdict"
        try:
            _bodies.verified_import(str(uri), output, str(verdict), digest=digest, **more)
        finally:
            if verdict.exists():
                output.metadata["verdict"] = json.loads(verdict.read_text())
        return output, verdict

    return run


def signed(path: Path, content: bytes | dict[str, bytes] = b"weights") -> tuple[Path, str]:
    """A signed artifact, and its digest."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_tree(path, content)
    return path, str(sealflow.sign(path).digest)


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("content", [b"weights", {"a.bin": b"a", "deep/b.bin": b"b"}], ids=["file", "folder"])
def test_import(importing: Importing, mounted: Mounted, tmp_path: Path, content: Any, pinned: bool) -> None:
    model, digest = signed(tmp_path / "model", content)
    output, _ = importing(model, digest if pinned else "")
    if isinstance(content, bytes):
        assert Path(output.path).read_bytes() == content
    else:
        assert Path(output.path, "deep", "b.bin").read_bytes() == b"b"
    assert str(EvidenceMetadata.parse(output.metadata[KEY]).digest) == digest
    assert output.metadata["verdict"]["status"] == "passed"
    # A copy: what happens to the original later changes nothing.
    assert output.path != str(model)


def flip(path: Path) -> None:
    path.write_bytes(b"planted")


@pytest.mark.parametrize(
    ("change", "digest", "code"),
    [
        pytest.param(flip, "", "FILE_CHANGED", id="changed-bytes"),
        pytest.param(flip, "right", "DIGEST_MISMATCH", id="changed-bytes-pinned"),
        pytest.param(None, "sha256:" + "0" * 64, "DIGEST_MISMATCH", id="older-version"),
    ],
)
def test_refusals(
    importing: Importing, mounted: Mounted, tmp_path: Path, change: Any, digest: str, code: str, artifact: Any
) -> None:
    model, right = signed(tmp_path / "model")
    if change is not None:
        change(model)
    with pytest.raises(VerificationError):
        importing(model, right if digest == "right" else digest)
    verdict = json.loads((tmp_path / "verdict").read_text())
    assert code in {finding["code"] for finding in verdict["findings"]}
    assert not (tmp_path / "root" / "run" / "task" / "artifact").exists()


def test_a_digest_alone_makes_nobody_a_signer(importing: Importing, mounted: Mounted, tmp_path: Path) -> None:
    """Bytes that nobody signed are signed first, with `sealflow adopt` or by their owner."""
    data = tmp_path / "data.csv"
    data.write_bytes(b"a")
    with pytest.raises(VerificationError):
        importing(data, f"sha256:{sha256(b'a').hexdigest()}")


def test_another_signer(importing: Importing, mounted: Mounted, tmp_path: Path) -> None:
    model, _ = signed(tmp_path / "model")
    mounted.write(identities={"other": f"file:{write_key(tmp_path, 'other').public}"})
    with pytest.raises(VerificationError) as caught:
        importing(model)
    assert caught.value.code == "SIGNER_NOT_ALLOWED"


@pytest.mark.parametrize(
    ("uri", "digest"),
    [
        pytest.param("", "", id="no-location"),
        pytest.param("/model", "sha256:abc", id="short-digest"),
        pytest.param("/model", "latest", id="no-digest"),
    ],
)
def test_parameters_that_cannot_work(importing: Importing, mounted: Mounted, uri: str, digest: str) -> None:
    with pytest.raises(UsageError):
        importing(uri, digest)


def test_minio_is_s3(importing: Importing, mounted: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    mounted.write(signer=None)
    monkeypatch.setattr(_bodies, "encrypted_download", lambda source, *_, **__: asked.append(source) or "")
    importing("minio://models/churn")
    importing("minio://models/churn", "sha256:" + "0" * 64)
    assert asked[0] == "s3://models/churn"
    assert (asked[1].uri, asked[1].evidence) == ("s3://models/churn", "s3://models/churn.evidence")
    assert asked[1].digest == Digest.parse("sha256:" + "0" * 64)


@pytest.mark.slow
def test_in_a_hardened_pipeline(mounted: Mounted, tmp_path: Path) -> None:
    """Nothing is wrapped twice, the consumer verifies what was imported, and the gate holds in every run."""
    model, digest = signed(tmp_path / "model")
    run = {"name": "importing_verified", "arguments": {"uri": str(model), "digest": digest}}
    passed, refused = run_all(sys.executable, tmp_path / "root", [run, {**run, "before": [str(model), "planted"]}])
    assert outputs_of(passed) == "sthgiew"
    assert signed_by(tmp_path / "root", "importing-verified") == {
        "kfp:importing-verified/verified-import/artifact": ["model"],
        "kfp:importing-verified/turn/turned": ["artifact"],
    }
    assert "verified-import" in refused["error"]
    assert "DIGEST_MISMATCH" in refused["told"]


def test_without_a_signer_the_producers_evidence_is_handed_on(
    importing: Importing, mounted: Mounted, tmp_path: Path
) -> None:
    model, digest = signed(tmp_path / "model")
    first, _ = importing(model)
    mounted.write(signer=None)
    Path(first.path).unlink()
    second, _ = importing(model)
    said = [parse_bundle(EvidenceMetadata.parse(one.metadata[KEY]).provenance).payload for one in (first, second)]
    names = [json.loads(payload)["subject"][0]["name"] for payload in said]
    assert names == ["artifact", "model"]
    original = next((tmp_path / "model.evidence").glob("*/provenance-*.json"))
    assert said[1] == parse_bundle(original.read_bytes()).payload
    assert str(EvidenceMetadata.parse(second.metadata[KEY]).digest) == digest
