"""Attacks on verdict reuse: whatever a summary says, the artifact is read unless the right one says the right thing.

A planted summary never blocks either: every attack here ends in a full check, and a genuine artifact passes it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow import ArtifactRef
from sealflow.errors import PolicyError, UnavailableError, UsageError
from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.store import EvidenceStore
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import load_signer
from sealflow.policy.signed import POLICY_TYPE
from sealflow.run_identity import RunIdentity
from tests.pki import write_key, write_pki
from tests.servers.s3 import S3Server
from tests.verifiers import CONTENT, SERVE, Counting, Deployment, ago, codes

Statement = dict[str, Any]
OTHER = "ab" * 32


@pytest.fixture
def world(tmp_path: Path, s3_server: S3Server, s3_versioned_bucket: str) -> Deployment:
    return Deployment(tmp_path, Counting(s3_server.client()), s3_versioned_bucket)


def is_read(world: Deployment, ref: Any, **options: Any) -> sealflow.Verdict:
    """Check, and see that the artifact was read and passes."""
    verdict, reads = world.reads_of(ref, verifier=None, **options)
    assert verdict.passed, verdict.summary()
    assert not verdict.reused
    assert reads >= 1
    assert "VERDICT_REUSED" not in codes(verdict)
    return verdict


def _set(path: str, value: Any) -> Callable[[Statement], None]:
    def change(statement: Statement) -> None:
        *folders, last = path.split(".")
        place: Any = statement
        for name in folders:
            place = place[int(name) if name.isdigit() else name]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return change


def _escape(statement: Statement) -> None:
    statement["predicate"]["resourceUri"] = statement["predicate"]["resourceUri"].replace("?versionId=", "?versionid=")


# Truly signed by the verifier, and yet not about this check.
WRONG: dict[str, Callable[[Statement], None]] = {
    "other-digest": _set("subject.0.digest.sha256", OTHER),
    "a-tree-of-the-same-hex": lambda s: s["subject"][0].update(digest={"dirHash": s["subject"][0]["digest"]["sha256"]}),
    "two-subjects": lambda s: s["subject"].append(s["subject"][0]),
    "two-digests": _set("subject.0.digest.sha512", "ab" * 64),
    "other-version": lambda s: s["predicate"].update(resourceUri=s["predicate"]["resourceUri"] + "x"),
    "no-version": lambda s: s["predicate"].update(resourceUri=s["predicate"]["resourceUri"].partition("?")[0]),
    "other-place": lambda s: s["predicate"].update(
        resourceUri=s["predicate"]["resourceUri"].replace("model.bin", "other.bin")
    ),
    "spelled-differently": _escape,
    "other-policy": _set("predicate.policy.digest.sha256", OTHER),
    "policy-without-digest": _set("predicate.policy.digest", None),
    "other-requirement": _set("predicate.policy.annotations.sealflow_requirement", f"sha256:{OTHER}"),
    "no-requirement": _set("predicate.policy.annotations", None),
    "too-old": lambda s: s["predicate"].update(timeVerified=ago(hours=24, minutes=1)),
    "from-the-future": lambda s: s["predicate"].update(timeVerified=ago(minutes=-6)),
    "no-time": _set("predicate.timeVerified", None),
    "local-time": lambda s: s["predicate"].update(timeVerified=ago(hours=1).replace("Z", "+00:00")),
    "day-32": _set("predicate.timeVerified", "2026-01-32T00:00:00Z"),
    "failed": _set("predicate.verificationResult", "FAILED"),
    "passed-in-lower-case": _set("predicate.verificationResult", "passed"),
    "unknown-verifier": _set("predicate.verifier.id", "https://example.org/verifier"),
    "unknown-member": _set("predicate.relaxed", True),
    "no-levels": _set("predicate.verifiedLevels", []),
    "other-predicate": _set("predicateType", "https://slsa.dev/provenance/v1"),
    "escape-in-the-place": _set("predicate.resourceUri", "\x1b[2J"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_summary_about_something_else(world: Deployment, name: str) -> None:
    ref = world.make()
    statement = world.statement(ref)
    changed = copy.deepcopy(statement)
    WRONG[name](changed)
    assert changed != statement
    planted = world.plant(ref, changed)
    verdict = is_read(world, ref)
    (finding,) = [item for item in verdict.findings if item.code == "SUMMARY_REFUSED"]
    assert (finding.severity, finding.subject) == ("warning", planted)
    # The genuine one beside it counts, so it was the change that was refused.
    if name != "failed":
        world.plant(ref, statement)
        assert world.verdict(ref, verifier=None).reused


@pytest.mark.parametrize("signer", ["trainer", "admin", "stranger"])
def test_forged_by_somebody_else(world: Deployment, signer: str) -> None:
    """By the producer's key, by an admin's, by anybody's: none of them is a verifier of the policy."""
    ref = world.make()
    planted = world.plant(ref, world.statement(ref), signer)
    verdict = is_read(world, ref)
    (finding,) = [item for item in verdict.findings if item.code == "SUMMARY_REFUSED"]
    assert finding.subject == planted
    assert "another key" in finding.message


def test_forged_by_a_verifier_whom_the_rule_does_not_name(world: Deployment) -> None:
    world.publish(identities={"auditor": {"key": str(world.key("stranger").public), "verifier": True}})
    ref = world.make()
    world.plant(ref, world.statement(ref), "stranger")
    is_read(world, ref)


def test_forged_under_the_verifiers_hint(world: Deployment) -> None:
    ref = world.make()
    genuine = json.loads(world.sign(statement := world.statement(ref)))
    forged = json.loads(world.sign(statement, "stranger"))
    forged["verificationMaterial"] = genuine["verificationMaterial"]
    world.plant(ref, json.dumps(forged).encode())
    verdict = is_read(world, ref)
    assert any("does not fit" in item.message for item in verdict.findings)


def test_signed_as_another_kind_of_document(world: Deployment) -> None:
    ref = world.make()
    payload = json.dumps(world.statement(ref)).encode()
    data = make_bundle(payload, load_signer(world.key("verifier").signer), POLICY_TYPE)
    world.plant(ref, data)
    is_read(world, ref)


@pytest.mark.parametrize("junk", [b"", b"{}", b"\xff" * 100, b"[" * 10_000, b"0" * (2 << 20)], ids=range(5))
def test_junk_blocks_nobody(world: Deployment, junk: bytes) -> None:
    ref = world.make()
    statement = world.statement(ref)
    world.plant(ref, junk)
    is_read(world, ref)
    world.plant(ref, statement)
    assert world.verdict(ref, verifier=None).reused


def test_a_flood_of_junk_only_costs_the_shortcut(world: Deployment) -> None:
    ref = world.make()
    for number in range(80):
        world.plant(ref, b"junk %d" % number)
    is_read(world, ref)


def test_an_altered_object(world: Deployment) -> None:
    ref = world.make()
    data = world.sign(world.statement(ref))
    key = f"model.bin.evidence/{ref.digest.path_segment}/summary-{sha256_hex(b'other')}.json"
    world.client.put_object(Bucket=world.bucket, Key=key, Body=data)  # type: ignore[union-attr]
    is_read(world, ref)


def test_a_newer_refusal_by_the_verifier(world: Deployment) -> None:
    """Nobody passes on an older word of somebody who has taken it back."""
    ref = world.make()
    statement = world.statement(ref)
    statement["predicate"]["timeVerified"] = ago(minutes=2)
    world.plant(ref, statement)
    assert world.verdict(ref, verifier=None).reused
    statement["predicate"] |= {"verificationResult": "FAILED", "timeVerified": ago(minutes=1)}
    world.plant(ref, statement)
    is_read(world, ref)
    statement["predicate"] |= {"verificationResult": "PASSED", "timeVerified": ago(minutes=0)}
    world.plant(ref, statement)
    assert world.verdict(ref, verifier=None).reused


# --- The verifier ---


def _under(world: Deployment, ref: ArtifactRef, digest: str) -> None:
    """Plant what the verifier's key would have signed under the present policy."""
    statement = world.statement(ref)
    assert statement["predicate"]["policy"]["digest"] == {"sha256": digest.removeprefix("sha256:")}
    world.plant(ref, statement)


def test_the_verifier_is_revoked(world: Deployment) -> None:
    ref = world.make()
    fingerprint = f"sha256:{sha256_hex(world.key('verifier').public.read_bytes())}"
    revocation = {"key": fingerprint, "since": "2026-01-01T00:00:00Z", "reason": "lost"}
    _under(world, ref, world.publish(revocations=[revocation]))
    verdict = is_read(world, ref)
    assert any("revoked" in item.message for item in verdict.findings)


def test_the_verifier_has_expired(world: Deployment) -> None:
    ref = world.make()
    verifier = {"key": str(world.key("verifier").public), "verifier": True, "expires": ago(minutes=1)}
    _under(world, ref, world.publish(identities={"verifier": verifier}))
    verdict = is_read(world, ref)
    assert any("expired" in item.message for item in verdict.findings)


def test_a_verifier_with_the_producers_key_is_no_policy(world: Deployment) -> None:
    with pytest.raises(UnavailableError, match="signs artifacts"):
        world.publish(identities={"verifier": {"key": str(world.key("trainer").public), "verifier": True}})


@pytest.mark.parametrize("where", ["any_of", "certificate"])
def test_a_verifier_is_no_signer_of_artifacts(world: Deployment, where: str) -> None:
    if where == "any_of":
        with pytest.raises(PolicyError, match="a verifier"):
            world.publish(require={"identities": {"any_of": ["trainer", "verifier"]}})
        return
    pki = write_pki(world.folder)
    body = {"roots": [str(pki.root_file)], "names": ["email:trainer@example.org"]}
    with pytest.raises(UnavailableError, match="signs artifacts"):
        world.publish(
            identities={"trainer": {"certificate": body}, "verifier": {"certificate": body, "verifier": True}},
        )


def test_a_summary_by_the_key_behind_the_producers_certificate(world: Deployment) -> None:
    """The policy cannot know whose key a certificate will hold; the check sees it."""
    pki = write_pki(world.folder)
    world.keys["verifier"] = write_key(world.folder, "behind", pki.leaf.key)
    body = {"roots": [str(pki.root_file)], "names": ["email:trainer@example.org"]}
    world.publish(identities={"trainer": {"certificate": body}})
    key = "model.bin"
    world.client.put_object(Bucket=world.bucket, Key=key, Body=CONTENT)  # type: ignore[union-attr]
    with sealflow.run(sealflow.Surroundings(RunIdentity("airflow", "train", "fit", "run-1"))):
        ref = sealflow.sign(f"{world.prefix}/{key}", signer=pki.signer, storages=world.storages)
    world.keys["other"] = write_key(world.folder, "other")
    template = _statement_by(world, ref, "other")
    planted = world.plant(ref, template)
    verdict = is_read(world, ref)
    (finding,) = [item for item in verdict.findings if item.code == "SUMMARY_REFUSED"]
    assert finding.subject == planted
    assert "signed the artifact too" in finding.message


def _statement_by(world: Deployment, ref: ArtifactRef, signer: str) -> Statement:
    """Return what some verifier says truly; its own object is taken away."""
    verdict = world.verdict(ref, verifier=signer)
    assert verdict.passed, verdict.summary()
    ((name, statement),) = world.summaries(ref).items()
    world.remove(ref, name)
    return statement


# --- The artifact and its evidence ---


def test_the_artifact_is_revoked_after_the_verification(world: Deployment) -> None:
    ref = world.make()
    world.gate(ref)
    statement = next(iter(world.summaries(ref).values()))
    revocation = {"digest": str(ref.digest), "since": "2026-01-01T00:00:00Z", "reason": "poisoned data"}
    digest = world.publish(revocations=[revocation])
    statement["predicate"]["policy"]["digest"]["sha256"] = digest.removeprefix("sha256:")
    world.plant(ref, _with_requirement_of(world, statement))
    verdict = world.verdict(ref)
    assert verdict.status == "failed"
    assert not verdict.reused
    assert verdict.deciding_finding is not None
    assert verdict.deciding_finding.code == "ARTIFACT_REVOKED"


def _with_requirement_of(world: Deployment, statement: Statement) -> Statement:
    """Give a statement the requirement's digest that holds now, learned from another artifact under the same rule."""
    other = world.statement(world.make("other.bin", b"other"))
    statement["predicate"]["policy"] = other["predicate"]["policy"]
    return statement


def test_the_producers_key_is_revoked_after_the_verification(world: Deployment) -> None:
    ref = world.make()
    world.gate(ref)
    statement = next(iter(world.summaries(ref).values()))
    fingerprint = f"sha256:{sha256_hex(world.key('trainer').public.read_bytes())}"
    revocation = {"key": fingerprint, "since": "2026-01-01T00:00:00Z", "reason": "stolen"}
    # Another one may sign now, so that there is a present requirement to learn.
    world.publish(
        revocations=[revocation],
        require={"identities": {"any_of": ["trainer", "other"]}},
        identities={"other": {"key": str(world.key("stranger").public)}},
    )
    other = world.statement(world.make("other.bin", b"other", signer="stranger"))
    statement["predicate"]["policy"] = other["predicate"]["policy"]
    world.plant(ref, statement)
    verdict = world.verdict(ref)
    assert verdict.status == "failed"
    assert not verdict.reused
    assert "KEY_REVOKED" in codes(verdict)


@pytest.mark.parametrize(
    ("kind", "code"), [("signature", "SIGNATURE_MISSING"), ("provenance", "PROVENANCE_MISSING"), ("", None)]
)
def test_a_summary_is_no_substitute_for_evidence(world: Deployment, kind: str, code: str | None) -> None:
    ref = world.make()
    world.gate(ref)
    for item in EvidenceStore(ref.evidence, world.storages).collect(ref.digest).objects:
        if item.kind != "summary" and (item.kind == kind or not kind):
            world.remove(ref, item.name)
    verdict = world.verdict(ref)
    assert verdict.status == "failed"
    assert not verdict.reused
    assert verdict.deciding_finding is not None
    assert verdict.deciding_finding.code == (code or "EVIDENCE_MISSING")


def test_the_task_may_not_load_it(world: Deployment) -> None:
    world.publish(require={"loaders": ["airflow:serve/*"]})
    ref = world.make()
    assert not world.verdict(ref).reused
    assert world.verdict(ref).reused
    verdict = world.verdict(ref, run=RunIdentity("airflow", "sneak", "load", "run-3"))
    assert verdict.status == "failed"
    assert not verdict.reused
    assert "LOADER_NOT_ALLOWED" in codes(verdict)


def test_a_task_for_which_no_rule_holds(world: Deployment) -> None:
    ref = world.make()
    world.gate(ref)
    rule = {
        "name": "serving",
        "scope": {"artifact": [f"{world.prefix}/**"], "dag": ["serve"]},
        "require": {"identities": {"any_of": ["trainer"]}, "reuse_verdict": {"max_age": "1h"}},
    }
    world.publish(rules=[rule])
    assert not world.verdict(ref).reused
    assert world.verdict(ref).reused
    # Fewer rules hold here; what was verified there is not what is demanded here.
    other = RunIdentity("airflow", "other", "load", "run-3")
    is_read(world, ref, run=other)


def test_provenance_that_has_grown_too_old(world: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The age of provenance is judged at the time of the check, not at that of the summary."""
    import datetime

    from sealflow.actions import sign
    from sealflow.audit.event import utc_now

    world.publish(require={"evidence": {"signature": {}, "provenance": {"max_age": "1h"}}})
    monkeypatch.setattr(sign, "utc_now", lambda: utc_now() - datetime.timedelta(minutes=59, seconds=50))
    ref = world.make()
    monkeypatch.undo()
    world.gate(ref)
    assert world.verdict(ref).reused
    from sealflow.actions import verify

    monkeypatch.setattr(verify, "utc_now", lambda: utc_now() + datetime.timedelta(minutes=1))
    verdict = world.verdict(ref)
    assert verdict.status == "failed"
    assert "EVIDENCE_TOO_OLD" in codes(verdict)


# --- The object ---


def test_the_version_is_deleted(world: Deployment) -> None:
    ref = world.make()
    world.gate(ref)
    world.client.put_object(Bucket=world.bucket, Key="model.bin", Body=b"newer")  # type: ignore[union-attr]
    world.client.delete_object(Bucket=world.bucket, Key="model.bin", VersionId=ref.version_id)  # type: ignore[union-attr]
    verdict = world.verdict(ref)
    assert not verdict.passed
    assert not verdict.reused


def test_a_delete_marker_lies_on_top(world: Deployment) -> None:
    ref = world.make()
    world.gate(ref)
    world.client.delete_object(Bucket=world.bucket, Key="model.bin")  # type: ignore[union-attr]
    verdict = world.verdict(ref)
    assert verdict.status == "failed"
    assert not verdict.reused


def test_the_version_of_a_delete_marker(world: Deployment) -> None:
    ref = world.make()
    statement = world.statement(ref)
    marker = world.client.delete_object(Bucket=world.bucket, Key="model.bin")["VersionId"]  # type: ignore[union-attr]
    world.client.put_object(Bucket=world.bucket, Key="model.bin", Body=CONTENT)  # type: ignore[union-attr]
    place = statement["predicate"]["resourceUri"].partition("?")[0]
    statement["predicate"]["resourceUri"] = f"{place}?versionId={marker}"
    world.plant(ref, statement)
    verdict = world.verdict(ArtifactRef(ref.uri, ref.digest, ref.evidence, marker))
    assert not verdict.passed
    assert not verdict.reused


def test_the_digest_of_one_artifact_and_the_version_of_another(world: Deployment) -> None:
    """A reference is a hint that anybody can write: a good digest beside the version of evil bytes."""
    ref = world.make()
    world.gate(ref)
    evil = world.client.put_object(Bucket=world.bucket, Key="model.bin", Body=b"evil")["VersionId"]  # type: ignore[union-attr]
    verdict, reads = world.reads_of(ArtifactRef(ref.uri, ref.digest, ref.evidence, evil))
    assert verdict.status == "failed"
    assert "DIGEST_MISMATCH" in codes(verdict)
    assert reads == 1


def test_the_same_bytes_elsewhere(world: Deployment) -> None:
    ref = world.make()
    world.gate(ref)
    copied = world.client.put_object(Bucket=world.bucket, Key="copy/model.bin", Body=CONTENT)["VersionId"]  # type: ignore[union-attr]
    is_read(world, ArtifactRef(f"{world.prefix}/copy/model.bin", ref.digest, ref.evidence, copied))


def test_a_version_of_an_unversioned_bucket(tmp_path: Path, s3_server: S3Server, s3_bucket: str) -> None:
    """Where nothing keeps versions, a name for one pins nothing."""
    world = Deployment(tmp_path, Counting(s3_server.client()), s3_bucket)
    ref = world.make()
    assert ref.version_id is None
    statement = world.statement(ref)
    place = statement["predicate"]["resourceUri"]
    assert place == ref.uri
    for version in ("null", "v1"):
        statement["predicate"]["resourceUri"] = f"{place}?versionId={version}"
        world.plant(ref, statement)
        verdict, _ = world.reads_of(ArtifactRef(ref.uri, ref.digest, ref.evidence, version))
        assert not verdict.reused
    is_read(world, ref)


def test_a_store_that_overlooks_versions(tmp_path: Path, s3_server: S3Server, s3_bucket: str) -> None:
    """A verifier that was told of a version read whatever lay there, and something else lies there now."""
    world = Deployment(tmp_path, Counting(s3_server.client()), s3_bucket)
    world.client.ignores_versions = True  # type: ignore[union-attr]
    ref = world.make()
    pinned = ArtifactRef(ref.uri, ref.digest, ref.evidence, "v1")
    assert world.verdict(pinned).passed
    assert len(world.summaries(ref)) == 1
    world.client.put_object(Bucket=world.bucket, Key="model.bin", Body=b"evil")  # type: ignore[union-attr]
    verdict = world.verdict(pinned)
    assert verdict.status == "failed"
    assert not verdict.reused


@pytest.mark.parametrize("names_null", [False, True], ids=["as-ceph", "as-aws"])
def test_the_version_that_can_be_written_over(world: Deployment, names_null: bool) -> None:
    """Where versioning is suspended, the version "null" is whatever was written last."""
    client = world.client
    assert client is not None
    client.names_null = names_null
    client.put_bucket_versioning(Bucket=world.bucket, VersioningConfiguration={"Status": "Suspended"})
    ref = world.make()
    null = ArtifactRef(ref.uri, ref.digest, ref.evidence, "null")
    world.gate(null)
    assert len(world.summaries(ref)) == 1
    verdict, _ = world.reads_of(null)
    assert not verdict.reused
    client.put_object(Bucket=world.bucket, Key="model.bin", Body=b"evil")
    assert not world.verdict(null).passed


def test_a_folder_and_a_subset_of_it(world: Deployment) -> None:
    for name in ("a", "b"):
        world.client.put_object(Bucket=world.bucket, Key=f"tree/{name}", Body=name.encode())  # type: ignore[union-attr]
    with sealflow.run(sealflow.Surroundings(RunIdentity("airflow", "train", "fit", "run-1"))):
        ref = sealflow.sign(f"{world.prefix}/tree", signer=world.key("trainer").signer, storages=world.storages)
    world.gate(ref)
    assert len(world.summaries(ref)) == 1
    for version in (None, "v1"):
        pinned = ArtifactRef(ref.uri, ref.digest, ref.evidence, version)
        is_read(world, pinned)
        is_read(world, pinned, files=["a"])
    world.client.put_object(Bucket=world.bucket, Key="tree/a", Body=b"evil")  # type: ignore[union-attr]
    assert world.verdict(ref).status == "failed"


def test_a_subset_of_a_file(world: Deployment) -> None:
    ref = world.make()
    world.gate(ref)
    with pytest.raises(UsageError, match="single file"):
        world.verdict(ref, files=["model.bin"])


def test_a_reference_to_a_tree_digest_at_a_file(world: Deployment) -> None:
    ref = world.make()
    world.gate(ref)
    digest = Digest("dirHash", ref.digest.hex)
    assert not world.verdict(ArtifactRef(ref.uri, digest, ref.evidence, ref.version_id)).passed


# --- The call ---


def _more_policy(world: Deployment) -> str:
    path = world.folder / "more.yaml"
    path.write_text(json.dumps({"apiVersion": "sealflow/v1", "version": 1, "expires": "2099-01-01T00:00:00Z"}))
    return str(path)


EXTRA: dict[str, Callable[[Deployment], dict[str, Any]]] = {
    "identities": lambda world: {"identities": {"trainer": str(world.key("trainer").public)}},
    "name": lambda world: {"name": "model.bin"},
    "producer": lambda world: {"producer": "airflow:train/*"},
    "require": lambda world: {"require": ["signature", "provenance"]},
    "policy": lambda world: {"policy": _more_policy(world)},
}


@pytest.mark.parametrize("name", EXTRA)
def test_a_call_that_asks_for_more(world: Deployment, name: str) -> None:
    ref = world.make()
    world.gate(ref)
    assert world.verdict(ref, verifier=None).reused
    is_read(world, ref, **EXTRA[name](world))


def test_only_given_evidence(world: Deployment) -> None:
    ref = world.make()
    world.gate(ref)
    objects = EvidenceStore(ref.evidence, world.storages).collect(ref.digest).objects
    is_read(world, ref, evidence=objects, only_given_evidence=True)


def test_settings_of_a_task_bring_no_verifier(world: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom to believe is the policy's; a task's environment only says with which key this process signs."""
    ref = world.make()
    world.plant(ref, world.statement(ref), "stranger")
    monkeypatch.setenv("SEALFLOW_VERIFIER", world.key("stranger").signer)
    monkeypatch.setenv("SEALFLOW_IDENTITIES", str(world.key("stranger").public))
    is_read(world, ref)


def test_without_a_policy_nothing_is_reused(world: Deployment) -> None:
    ref = world.make()
    world.gate(ref)
    with sealflow.run(sealflow.Surroundings(SERVE)):
        verdict = sealflow.verify(ref, identities=str(world.key("trainer").public), storages=world.storages)
    assert verdict.passed
    assert not verdict.reused


def test_no_pass_while_the_policy_is_not_to_be_had(world: Deployment) -> None:
    from sealflow.policy.source import forget

    ref = world.make()
    world.gate(ref)
    Path(world.admin.policy).write_text("{}")
    forget()
    verdict = world.verdict(ref)
    assert verdict.status == "unverifiable"
    assert not verdict.reused
