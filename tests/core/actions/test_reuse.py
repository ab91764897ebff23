"""Verification summaries: who makes them and when, what is in them, and the gate that takes one instead of reading."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions import context
from sealflow.actions.inspect import inspect_evidence
from sealflow.errors import UnavailableError, UsageError
from sealflow.evidence.store import EvidenceStore
from sealflow.evidence.summary import PREDICATE_TYPE
from sealflow.storage.local import LocalStorage
from tests.audit_events import read_events
from tests.pki import write_key
from tests.servers.s3 import S3Server
from tests.verifiers import Counting, Deployment, ago, codes


@pytest.fixture
def local(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


@pytest.fixture
def s3(tmp_path: Path, s3_server: S3Server, s3_versioned_bucket: str) -> Deployment:
    return Deployment(tmp_path, Counting(s3_server.client()), s3_versioned_bucket)


# --- At the gate ---


def test_a_gate_takes_a_summary_instead_of_reading(s3: Deployment) -> None:
    ref = s3.make()
    first, reads = s3.reads_of(ref)
    assert first.passed
    assert not first.reused
    assert reads == 1

    s3.client.reads.clear()  # type: ignore[union-attr]
    checked = s3.gate(ref)
    verdict = checked.verdict
    assert verdict.passed, verdict.summary()
    assert verdict.reused
    assert not verdict.held
    assert s3.client.reads == []  # type: ignore[union-attr]
    assert checked.ref == ref
    assert (verdict.digest, verdict.name, verdict.producer, verdict.signers) == (
        first.digest,
        first.name,
        first.producer,
        first.signers,
    )
    assert verdict.policy == first.policy
    assert verdict.rules == ("models",)
    (name,) = s3.summaries(ref)
    (note,) = [finding for finding in verdict.findings if finding.code == "VERDICT_REUSED"]
    assert note.severity == "note"
    assert note.subject == name
    assert note.found.startswith("verifier read them at 20")
    assert "CHECKED_NOT_HELD" not in codes(verdict)
    assert verdict.as_dict()["reused"] is True


def test_reuse_needs_no_verifier_of_its_own(s3: Deployment) -> None:
    ref = s3.make()
    s3.gate(ref)
    assert s3.verdict(ref, verifier=None).reused


def test_the_event_of_a_reused_verdict_says_so(s3: Deployment, tmp_path: Path, monkeypatch) -> None:
    ref = s3.make()
    s3.gate(ref)
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    s3.gate(ref)
    intent, outcome = read_events(tmp_path / "spool")
    assert (intent["action"], intent["phase"]) == ("verify", "intent")
    assert (outcome["outcome"], outcome["digest"]) == ("passed", str(ref.digest))
    assert outcome["codes"] == ["VERDICT_REUSED"]


def test_held_copies_are_always_read(s3: Deployment) -> None:
    ref = s3.make()
    s3.gate(ref)
    s3.client.reads.clear()  # type: ignore[union-attr]
    with sealflow.run(s3.surroundings()), sealflow.held(ref, storages=s3.storages) as (path, verdict):
        assert Path(path).read_bytes()
        assert not verdict.reused
    assert len(s3.client.reads) == 1  # type: ignore[union-attr]


def test_a_reused_verdict_is_no_verified_input(s3: Deployment) -> None:
    """What a run signs later names inputs whose digests it made from bytes."""
    ref = s3.make()
    reader = sealflow.RunIdentity("airflow", "serve", "load", "run-9", None, 1)
    s3.gate(ref, run=reader)
    run = sealflow.RunIdentity("airflow", "serve", "load", "run-3", None, 1)
    assert s3.verdict(ref, run=run).reused
    assert context.verified_inputs(run) == ()
    assert [item.digest for item in context.verified_inputs(reader)] == [ref.digest]


def test_an_older_version_that_the_reference_pins(s3: Deployment) -> None:
    ref = s3.make()
    s3.gate(ref)
    newer = s3.make(content=b"newer")
    verdict, reads = s3.reads_of(ref)
    assert verdict.reused
    assert reads == 0
    verdict, reads = s3.reads_of(newer)
    assert verdict.passed
    assert not verdict.reused
    assert reads == 1


def test_a_reference_without_a_version_is_read(s3: Deployment) -> None:
    ref = s3.make()
    s3.gate(ref)
    bare = sealflow.ArtifactRef(ref.uri, ref.digest, ref.evidence)
    verdict, reads = s3.reads_of(bare)
    assert verdict.passed
    assert not verdict.reused
    assert reads == 1
    assert not s3.verdict(ref.uri).reused


def test_a_rule_about_the_logical_name_must_allow_it_too(s3: Deployment) -> None:
    rule: dict[str, Any] = {
        "name": "by-name",
        "scope": {"artifact": ["name:model.bin"]},
        "require": {"identities": {"any_of": ["trainer"]}},
    }
    s3.publish(rules=[rule])
    ref = s3.make()
    for _ in range(2):
        verdict, reads = s3.reads_of(ref)
        assert verdict.rules == ("by-name", "models")
        assert not verdict.reused
        assert reads == 1
    rule["require"]["reuse_verdict"] = {"max_age": "1h"}
    s3.publish(rules=[rule])
    assert not s3.verdict(ref).reused
    assert s3.verdict(ref).reused


def test_a_summary_under_the_former_policy_does_not_count(s3: Deployment) -> None:
    ref = s3.make()
    s3.gate(ref)
    s3.publish()
    verdict = s3.verdict(ref)
    assert verdict.passed
    assert not verdict.reused
    assert "SUMMARY_REFUSED" in codes(verdict)
    # The full check left one under the new policy; the old one needs no mention any more.
    verdict = s3.verdict(ref)
    assert verdict.reused
    assert "SUMMARY_REFUSED" not in codes(verdict)


def test_without_a_rule_that_allows_it_all_is_read(s3: Deployment) -> None:
    s3.publish(require={"reuse_verdict": None})
    ref = s3.make()
    for _ in range(2):
        verdict, reads = s3.reads_of(ref)
        assert verdict.passed
        assert reads == 1
    assert len(s3.summaries(ref)) == 1


def test_a_signature_over_other_digests_needs_the_bytes(s3: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a blake2b signature says can be compared only with the bytes."""
    from sealflow.evidence.bundle import make_bundle
    from sealflow.evidence.oms import make_oms_statement
    from sealflow.keys import load_signer
    from sealflow.manifest import Serialization, build_manifest

    ref = s3.make()
    storage = s3.storages.for_uri(ref.uri)
    location = storage.locate(ref.uri)
    assert location is not None
    other = build_manifest(storage, location, serialization=Serialization("files", "blake2b"))
    bundle = make_bundle(make_oms_statement(other), load_signer(s3.key("trainer").signer))
    for item in EvidenceStore(ref.evidence, s3.storages).collect(ref.digest).objects:
        if item.kind == "signature":
            s3.remove(ref, item.name)
    EvidenceStore(ref.evidence, s3.storages).put(ref.digest, "signature", bundle)
    for _ in range(2):
        verdict, reads = s3.reads_of(ref)
        assert verdict.passed, verdict.summary()
        assert not verdict.reused
        assert reads == 2


def test_the_policy_in_the_reference(tmp_path: Path) -> None:
    from sealflow.policy.draft import read_draft

    reference = (Path(__file__).parents[3] / "docs/reference/verdict-reuse.md").read_text()
    example = reference.partition("```yaml\n")[2].partition("```")[0]
    # The trainer is named elsewhere.
    example = example.replace("rules:", "  trainer:\n    key: trainer.pem.pub\nrules:")
    for name in ("trainer", "gatekeeper"):
        (tmp_path / f"{name}.pem.pub").write_bytes(write_key(tmp_path, name).public.read_bytes())
    draft = tmp_path / "policy.yaml"
    draft.write_text(f"apiVersion: sealflow/v1\nversion: 1\nexpires: 2099-01-01T00:00:00Z\n{example}")
    policy = read_draft(str(draft)).policy()
    assert policy.rules[0].require.reuse_verdict is not None
    assert policy.identities["gatekeeper"].verifier


# --- What is made, and when ---


def test_the_summary_is_that_of_the_specification(s3: Deployment) -> None:
    digest = s3.publish()
    ref = s3.make()
    verdict = s3.verdict(ref)
    ((name, statement),) = s3.summaries(ref).items()
    predicate = statement["predicate"]
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == PREDICATE_TYPE
    assert statement["subject"] == [{"name": "model.bin", "digest": {"sha256": ref.digest.hex}}]
    assert predicate["verifier"]["id"] == "urn:sealflow:verifier:airflow-task-process:v1"
    assert set(predicate["verifier"]["version"]) == {"sealflow"}
    assert predicate["resourceUri"] == f"{ref.uri}?versionId={ref.version_id}"
    assert predicate["policy"]["uri"] == s3.admin.policy
    assert predicate["policy"]["digest"] == {"sha256": digest.removeprefix("sha256:")}
    assert set(predicate["policy"]["annotations"]) == {"sealflow_requirement"}
    assert predicate["verificationResult"] == "PASSED"
    assert predicate["verifiedLevels"] == ["SEALFLOW_PROVENANCE", "SEALFLOW_SIGNATURE"]
    assert predicate["slsaVersion"] == "1.1"
    assert {item["uri"].rpartition("/")[2] for item in predicate["inputAttestations"]} == {
        signer.evidence for signer in verdict.signers
    }
    for item in predicate["inputAttestations"]:
        assert item["digest"]["sha256"] in item["uri"]
    (described,) = [item for item in inspect_evidence(ref, storages=s3.storages) if item["object"] == name]
    assert described["summary"]["result"] == "PASSED"
    assert described["summary"]["resource"] == predicate["resourceUri"]


def test_a_local_artifact_gets_a_summary_and_is_read_again(local: Deployment) -> None:
    ref = local.make()
    assert local.verdict(ref).passed
    ((_, statement),) = local.summaries(ref).items()
    assert statement["predicate"]["resourceUri"] == ref.uri
    assert not local.verdict(ref).reused


def test_held_copies_leave_a_summary_too(local: Deployment) -> None:
    ref = local.make()
    with sealflow.run(local.surroundings(verifier=local.key("verifier").signer)), sealflow.verified(ref):
        pass
    assert len(local.summaries(ref)) == 1


@pytest.mark.parametrize("way", ["environment", "mount", "surroundings", "argument"])
def test_where_the_verifier_comes_from(local: Deployment, tmp_path: Path, monkeypatch, way: str) -> None:
    ref = local.make()
    signer = local.key("verifier").signer
    if way == "environment":
        monkeypatch.setenv("SEALFLOW_VERIFIER", signer)
    if way == "mount":
        (tmp_path / "mount").mkdir()
        (tmp_path / "mount" / "sealflow.json").write_text(json.dumps({"verifier": signer}))
        monkeypatch.setenv("SEALFLOW_MOUNT", str(tmp_path / "mount"))
    with sealflow.run(local.surroundings(**({"verifier": signer} if way == "surroundings" else {}))):
        assert sealflow.verify(ref, **({"verifier": signer} if way == "argument" else {})).passed
    assert len(local.summaries(ref)) == 1


def test_what_leaves_no_summary(local: Deployment) -> None:
    tree = local.make("tree/a")
    (Path(local.prefix) / "tree/b").write_bytes(b"b")
    (Path(local.prefix) / "tree/a.evidence").rename(local.folder / "old.evidence")
    with sealflow.run(sealflow.Surroundings(context.RunIdentity("airflow", "train", "fit", "r"))):
        tree = sealflow.sign(f"{local.prefix}/tree", signer=local.key("trainer").signer)
        unmanaged = sealflow.sign(local.folder / "old.evidence", signer=local.key("trainer").signer)
    assert local.verdict(tree, files=["a"]).passed
    assert local.summaries(tree) == {}
    assert local.verdict(tree, verifier=None).passed
    assert local.summaries(tree) == {}
    # No rule says anything of it.
    trust = {"trainer": str(local.key("trainer").public)}
    assert local.verdict(unmanaged, identities=trust).passed
    assert local.summaries(unmanaged) == {}
    # No policy at all.
    assert sealflow.verify(tree, identities=trust, verifier=local.key("verifier").signer).passed
    assert local.summaries(tree) == {}
    # Refused.
    (Path(local.prefix) / "tree/b").write_bytes(b"c")
    assert local.verdict(tree).status == "failed"
    assert local.summaries(tree) == {}


def test_a_relaxed_pass_leaves_no_summary(local: Deployment) -> None:
    local.publish(level="audit")
    ref = local.make(signer="stranger")
    verdict = local.verdict(ref)
    assert verdict.passed
    assert "POLICY_AUDIT" in codes(verdict)
    assert local.summaries(ref) == {}
    assert local.verdict(good := local.make("good")).passed
    assert len(local.summaries(good)) == 1


def test_a_verifier_repeats_itself_only_after_half_of_the_age(s3: Deployment) -> None:
    s3.publish(max_age="2h")
    ref = s3.make()
    statement = s3.statement(ref)
    statement["predicate"]["timeVerified"] = ago(minutes=50)
    s3.plant(ref, statement)
    with sealflow.run(s3.surroundings(verifier=s3.key("verifier").signer)):
        with sealflow.verified(ref, storages=s3.storages):
            pass
        assert len(s3.summaries(ref)) == 1
        (name,) = s3.summaries(ref)
        s3.remove(ref, name)
        statement["predicate"]["timeVerified"] = ago(minutes=70)
        s3.plant(ref, statement)
        with sealflow.verified(ref, storages=s3.storages):
            pass
    assert len(s3.summaries(ref)) == 2


# --- What can go wrong while one is made ---


def test_a_wrong_verifier_fails_before_anything_is_read(local: Deployment, monkeypatch) -> None:
    ref = local.make()
    monkeypatch.setattr(LocalStorage, "open", lambda *_: pytest.fail("the artifact was opened"))
    with sealflow.run(local.surroundings()), pytest.raises(UsageError, match="no key file"):
        sealflow.verify(ref, verifier=f"file:{local.folder}/nothing.pem")


def test_a_store_that_cannot_be_written_spoils_no_verdict(local: Deployment, monkeypatch) -> None:
    ref = local.make()

    def refuse(self: object, uri: str, data: bytes) -> bool:
        raise UnavailableError("No permission.", code="PERMISSION_DENIED")

    monkeypatch.setattr(LocalStorage, "create", refuse)
    verdict = local.verdict(ref)
    assert verdict.passed
    (finding,) = [item for item in verdict.findings if item.code == "SUMMARY_NOT_WRITTEN"]
    assert finding.severity == "warning"
    assert "No permission" in finding.message


def test_a_key_service_that_is_down_spoils_no_verdict(local: Deployment, monkeypatch) -> None:
    from sealflow.actions import reuse

    def down(uri: str) -> None:
        raise UnavailableError("The key service does not answer.")

    ref = local.make()
    monkeypatch.setattr(reuse, "load_signer", down)
    verdict = local.verdict(ref)
    assert verdict.passed
    assert "SUMMARY_NOT_WRITTEN" in codes(verdict)


def test_the_signer_of_the_artifact_is_no_verifier(local: Deployment) -> None:
    ref = local.make()
    verdict = local.verdict(ref, verifier="trainer")
    assert verdict.passed
    assert "SUMMARY_NOT_WRITTEN" in codes(verdict)
    assert local.summaries(ref) == {}


def test_no_key_is_used_without_the_audit_log(local: Deployment, tmp_path: Path) -> None:
    from sealflow.audit import AuditEvent

    class Full:
        events: list[AuditEvent] = []  # noqa: RUF012

        def record(self, event: AuditEvent) -> None:
            self.events.append(event)
            if len(self.events) == 3:
                raise UnavailableError("The log is full.", code="AUDIT_UNAVAILABLE")

    ref = local.make()
    with pytest.raises(UnavailableError, match="The log is full"):
        local.gate(ref, audit=Full())
    assert local.summaries(ref) == {}
    assert [(item.action, item.phase) for item in Full.events] == [
        ("verify", "intent"),
        ("verify", "outcome"),
        ("summarize", "intent"),
    ]
    assert Full.events[-1].key.startswith("sha256:")


def test_summaries_are_no_evidence_and_no_noise(local: Deployment) -> None:
    ref = local.make()
    local.gate(ref)
    verdict = local.verdict(ref)
    assert {finding.severity for finding in verdict.findings} == {"note"}
    for name in os.listdir(Path(local.prefix) / "model.bin.evidence" / ref.digest.path_segment):
        if not name.startswith("summary"):
            local.remove(ref, name)
    verdict = local.verdict(ref)
    assert verdict.deciding_finding is not None
    assert verdict.deciding_finding.code == "EVIDENCE_MISSING"


def test_an_ed25519_verifier(s3: Deployment) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    s3.keys["verifier"] = write_key(s3.folder, "verifier-25519", ed25519.Ed25519PrivateKey.generate())
    s3.publish()
    ref = s3.make()
    assert not s3.verdict(ref).reused
    assert s3.verdict(ref).reused
