"""Whatever bytes stand for a verification summary, only our own errors come out and nothing wrong is taken."""

from __future__ import annotations

import base64
import datetime
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow.actions.inspect import describe
from sealflow.errors import SealflowError
from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.statement import parse_statement
from sealflow.evidence.store import StoredEvidence
from sealflow.evidence.summary import make_summary_statement, parse_summary
from sealflow.hashing import Digest
from sealflow.keys import KeySigner, load_signer
from sealflow.policy.identities import parse_identities
from sealflow.policy.requirement import Revocations
from sealflow.verification.reuse import Wanted, choose
from tests.fuzz.test_untrusted_bytes import EXAMPLES, mutated
from tests.pki import write_key

NOW = datetime.datetime.now(datetime.timezone.utc)
DIGEST = Digest("sha256", "ab" * 32)
POLICY, REQUIREMENT = "sha256:" + "cd" * 32, "sha256:" + "ef" * 32
PLACE = "s3://b/m?versionId=v"
SUMMARY = make_summary_statement(
    "m",
    DIGEST,
    orchestrator="airflow",
    now=NOW,
    resource=PLACE,
    policy_uri="s3://admin/policy.json",
    policy=POLICY,
    requirement=REQUIREMENT,
    levels=["SEALFLOW_SIGNATURE"],
    inputs=[("s3://b/m.evidence/x", "01" * 32)],
)


@settings(max_examples=EXAMPLES)
@given(payload=mutated([SUMMARY]))
def test_statements(payload: bytes) -> None:
    try:
        summary = parse_summary(parse_statement(payload))
    except SealflowError:
        return
    assert summary.result in ("PASSED", "FAILED")
    assert summary.time.tzinfo is not None


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeySigner, Wanted]:
    keys = write_key(tmp_path_factory.mktemp("keys"))
    trust = parse_identities({"verifier": str(keys.public)})
    wanted = Wanted(DIGEST, PLACE, POLICY, REQUIREMENT, 3600, trust, Revocations({}, {}), NOW)
    return load_signer(keys.signer), wanted


@settings(max_examples=EXAMPLES // 2)
@given(payload=mutated([SUMMARY]))
def test_signed_summaries(verifier: tuple[KeySigner, Wanted], payload: bytes) -> None:
    """Truly signed: it counts only where all that matters is as it was."""
    signer, wanted = verifier
    bundle = make_bundle(payload, signer)
    describe(bundle)
    accepted, _ = choose([StoredEvidence("x", bundle, "summary")], wanted)
    if accepted is not None:
        body, genuine = json.loads(payload), json.loads(SUMMARY)
        assert body["subject"][0]["digest"] == genuine["subject"][0]["digest"]
        for name in ("resourceUri", "verificationResult"):
            assert body["predicate"][name] == genuine["predicate"][name]
        for name in ("digest", "annotations"):
            assert body["predicate"]["policy"][name] == genuine["predicate"]["policy"][name]


@pytest.fixture(scope="module")
def bundle(verifier: tuple[KeySigner, Wanted]) -> bytes:
    # Once: each signature is another, and examples must be the same when they are drawn again.
    return make_bundle(SUMMARY, verifier[0])


@settings(max_examples=EXAMPLES // 2)
@given(data=st.data())
def test_bundles(verifier: tuple[KeySigner, Wanted], bundle: bytes, data: st.DataObject) -> None:
    _, wanted = verifier
    raw = data.draw(mutated([bundle]))
    accepted, _ = choose([StoredEvidence("x", raw, "summary")], wanted)
    if accepted is not None:
        assert base64.b64decode(json.loads(raw)["dsseEnvelope"]["payload"]) == SUMMARY


def test_the_seed_counts(verifier: tuple[KeySigner, Wanted]) -> None:
    signer, wanted = verifier
    accepted, findings = choose([StoredEvidence("x", make_bundle(SUMMARY, signer), "summary")], wanted)
    assert accepted is not None
    assert findings == ()


def test_nothing_is_nothing(verifier: tuple[KeySigner, Wanted]) -> None:
    assert choose([], verifier[1]) == (None, ())
