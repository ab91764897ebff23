"""Whatever bytes stand for provenance on the way, a walk ends, and nothing wrong is taken."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow.errors import EvidenceError
from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.provenance import (
    Dependency,
    Provenance,
    make_provenance_statement,
    parse_dependencies,
    parse_provenance,
)
from sealflow.evidence.statement import parse_statement
from sealflow.evidence.store import StoredEvidence
from sealflow.findings import conclude
from sealflow.hashing import Digest
from sealflow.keys import KeySigner, load_signer
from sealflow.policy import Requirement, parse_identities
from sealflow.policy.requirement import Clause
from sealflow.run_identity import RunIdentity
from sealflow.verification.assess import Assessor, Gathered, Start, Terms
from sealflow.verification.descend import descend
from sealflow.verification.walk import walk
from tests.fuzz.test_untrusted_bytes import EXAMPLES, mutated
from tests.pki import write_key

# Many examples each.
pytestmark = pytest.mark.slow

NOW = datetime.datetime.now(datetime.timezone.utc)
MODEL, RAW = Digest("sha256", "ab" * 32), Digest("dirHash", "cd" * 32)
PROVENANCE = make_provenance_statement(
    "model",
    MODEL,
    RunIdentity("airflow", "train", "fit", "run", None, 1),
    dependencies=[Dependency("s3://lake/raw", RAW, "raw")],
    parameters={"lr": "1"},
    now=NOW,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


class Setting:
    """Two keys, and a walk from one artifact."""

    def __init__(self, folder: Path) -> None:
        pairs = {name: write_key(folder, name) for name in ("trainer", "owner")}
        self.signers: dict[str, KeySigner] = {name: load_signer(pair.signer) for name, pair in pairs.items()}
        self.trust = {name: parse_identities({name: str(pair.public)}) for name, pair in pairs.items()}
        self.root = make_bundle(make_provenance_statement("raw", RAW, RunIdentity(), now=NOW), self.signers["owner"])
        self.terms = Terms(Requirement((Clause("identities", self.trust["trainer"]),), frozenset({"provenance"})))

    def walk(self, bundle: bytes) -> str:
        held = {
            MODEL: [StoredEvidence("provenance-x", bundle, "provenance")],
            RAW: [StoredEvidence("provenance-y", self.root, "provenance")],
        }

        def gather(digest: Digest, *_: Any) -> Gathered:
            return Gathered(held.get(digest, ()))

        walked = walk([Start(MODEL)], gather, lambda *_: self.terms, roots=self.trust["owner"], now=NOW)
        descend(RAW, dict.fromkeys(held, ()), Assessor(gather, lambda *_: self.terms, now=NOW))
        json.dumps(walked.graph.as_dict())
        return conclude(walked.findings)[0]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting(tmp_path_factory.mktemp("keys"))


def test_the_seed_passes(setting: Setting) -> None:
    assert setting.walk(make_bundle(PROVENANCE, setting.signers["trainer"])) == "passed"


@settings(max_examples=EXAMPLES // 2)
@given(payload=mutated([PROVENANCE]))
def test_signed_provenance(setting: Setting, payload: bytes) -> None:
    """Truly signed: it passes only where the subject and the inputs are what they were."""
    if setting.walk(make_bundle(payload, setting.signers["trainer"])) == "passed":
        body = json.loads(payload)
        assert body["subject"][0]["digest"] == {"sha256": MODEL.hex}
        inputs = body["predicate"]["buildDefinition"]["resolvedDependencies"]
        assert {json.dumps(item["digest"]) for item in inputs} == {json.dumps({"dirHash": RAW.hex})}


@pytest.fixture(scope="module")
def bundle(setting: Setting) -> bytes:
    # Once: each signature is another, and examples must be the same when they are drawn again.
    return make_bundle(PROVENANCE, setting.signers["trainer"])


@settings(max_examples=EXAMPLES // 2)
@given(data=st.data())
def test_bundles(setting: Setting, bundle: bytes, data: st.DataObject) -> None:
    raw = data.draw(mutated([bundle]))
    if setting.walk(raw) == "passed":
        assert base64.b64decode(json.loads(raw)["dsseEnvelope"]["payload"]) == PROVENANCE


@settings(max_examples=EXAMPLES)
@given(items=st.lists(st.dictionaries(st.sampled_from(["uri", "name", "digest", "x"]), JSON, max_size=4), max_size=4))
def test_dependencies(items: list[dict[str, Any]]) -> None:
    said = Provenance("m", MODEL, "cli", "urn:x", "run", "2026-01-01T00:00:00Z", tuple(items))
    with contextlib.suppress(EvidenceError):
        for dependency in parse_dependencies(said):
            assert Digest.parse(str(dependency.digest)) == dependency.digest
            assert dependency.uri.isprintable() or not dependency.uri
            assert isinstance(dependency.name, str)


def test_the_dependencies_of_the_seed() -> None:
    (found,) = parse_dependencies(parse_provenance(parse_statement(PROVENANCE)))
    assert found == Dependency("s3://lake/raw", RAW, "raw")
