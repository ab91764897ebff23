"""The test vectors that the specification publishes.

The public key and the root under which they were made are not published with them, so what is checked of the valid ones
is form and content; that signatures hold is checked against the stock tool and its past releases.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sealflow.actions.inspect import describe
from sealflow.errors import EvidenceError
from sealflow.evidence.bundle import Bundle, parse_bundle
from sealflow.evidence.oms import parse_oms_statement
from sealflow.evidence.statement import parse_statement
from sealflow.manifest import Manifest
from tests.conformance.support import check, codes
from tests.pki import KeyPair
from tests.trees import write_tree

SIGNME_1 = "bc9a717db6064a32cbe9eae6fc40651dd6d36ef1757183f590eff2b1765d7ebc"
SIGNME_2 = "32dcb1f8e1ae52d5963e56a6ba06ab58b424c15ed2a6b70d2feca1d089370028"


@pytest.fixture(scope="session")
def vectors(vectors_dir: Path) -> Path:
    return vectors_dir / "oms" / "test-vectors" / "v1.0"


def parse(data: bytes) -> tuple[Bundle, Manifest]:
    bundle = parse_bundle(data)
    return bundle, parse_oms_statement(parse_statement(bundle.payload))


def test_every_vector_is_looked_at(vectors: Path) -> None:
    assert {path.relative_to(vectors).as_posix() for path in vectors.rglob("*.json")} == {
        "valid/key.bundle.json",
        "valid/certificate.bundle.json",
        "valid/sigstore.bundle.json",
        "invalid/empty.bundle.json",
        "invalid/missing-envelope.bundle.json",
        "invalid/missing-tlog-entries.bundle.json",
        "invalid/missing-verification-material.bundle.json",
        "invalid-payload/wrong-predicate.bundle.json",
    }


@pytest.mark.parametrize("method", ["key", "certificate"])
def test_valid(vectors: Path, method: str) -> None:
    data = (vectors / "valid" / f"{method}.bundle.json").read_bytes()
    bundle, manifest = parse(data)
    assert dict(manifest.resources) == {"signme-1": SIGNME_1, "signme-2": SIGNME_2}
    assert set(manifest.ignored) == {".git", ".gitattributes", ".github", ".gitignore", "ignore-me"}
    if method == "key":
        assert bundle.hint == "e8450dec4eb99dae995da9af1bc2cc9f76ed669ee2e744f57abba763df3e3f8e"
    else:
        assert len(bundle.chain) >= 2
        assert "subject:CN=intermediate-ca" in describe(data)["certificate_names"]
    assert describe(data)["files"] == 2


def test_valid_sigstore_is_recognised_and_refused_as_unsupported(vectors: Path, keys: KeyPair, tmp_path: Path) -> None:
    data = (vectors / "valid" / "sigstore.bundle.json").read_bytes()
    bundle, manifest = parse(data)
    assert bundle.keyless
    assert [resource.name for resource in manifest.resources] == ["signme-1", "signme-2"]
    assert describe(data)["signed_with"] == "keyless certificate"
    model = write_tree(tmp_path / "model", {"signme-1": b"", "signme-2": b""})
    assert codes(check(model, data, str(keys.public))) == {"SIGNATURE_UNSUPPORTED"}


# Without tlogEntries only keyless bundles are invalid (specification section 11.1): this vector is one.
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("empty", "not valid JSON|mediaType"),
        ("missing-envelope", "dsseEnvelope"),
        ("missing-tlog-entries", "tlogEntries"),
        ("missing-verification-material", "verificationMaterial"),
    ],
)
def test_invalid(vectors: Path, keys: KeyPair, tmp_path: Path, name: str, complaint: str) -> None:
    data = (vectors / "invalid" / f"{name}.bundle.json").read_bytes()
    with pytest.raises(EvidenceError, match=complaint):
        parse_bundle(data)
    model = write_tree(tmp_path / "model", {"signme-1": b"", "signme-2": b""})
    assert codes(check(model, data, str(keys.public))) == {"EVIDENCE_MALFORMED"}


def test_invalid_payload(vectors: Path) -> None:
    data = (vectors / "invalid-payload" / "wrong-predicate.bundle.json").read_bytes()
    bundle = parse_bundle(data)
    with pytest.raises(EvidenceError, match="predicate type"):
        parse_oms_statement(parse_statement(bundle.payload))
