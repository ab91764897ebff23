"""Writes the samples of the corpora: ``python -m tests.fuzz.make_corpus``.

Each is made by the code that makes such documents in earnest, or is one of the published examples. What is there
already stays as it is, so that nobody loses what was found; delete what is to be made anew.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.fuzz.targets import CORPUS, TARGETS, Target

#: Bytes of what is made of a sample; the largest samples are mutated by the tests alone.
MOST = 4096


def evidence(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    from cryptography.hazmat.primitives.serialization import Encoding

    from sealflow.evidence.bundle import make_bundle
    from sealflow.keys import load_signer
    from tests.fuzz import test_transfer, test_untrusted_bytes
    from tests.fuzz.test_summaries import SUMMARY
    from tests.fuzz.test_transfer import ARCHIVE, INDEX_BYTES, TAIL
    from tests.pki import write_key, write_pki

    key, pki = write_key(folder), write_pki(folder)
    for kind, signer in (("key", load_signer(key.signer)), ("certificate", load_signer(pki.signer))):
        bundle = make_bundle(test_untrusted_bytes.PROVENANCE, signer)
        yield "bundle", f"good-{kind}", bundle
        yield "export", f"good-{kind}", bundle
    tree, shards = test_untrusted_bytes.OMS
    yield "signature", "good-tree", tree
    yield "signature", "good-shards", shards
    yield "provenance", "good-run", test_untrusted_bytes.PROVENANCE
    yield "encryption-statement", "good-message", test_transfer.STATEMENT
    yield "summary", "good-passed", SUMMARY
    yield "reference", "good-version", test_untrusted_bytes.REFERENCE
    yield "frame-digests", "good-two", bytes(range(32)) * 3
    yield "certificate", "good-leaf", pki.leaf.certificate.public_bytes(Encoding.DER)
    yield "certificates", "good-leaf", pki.leaf.pem
    yield "public-key", "good-p256", Path(key.public).read_bytes()
    yield "identities", "good-two", test_untrusted_bytes.IDENTITIES
    yield "archive-index", "good-tree", INDEX_BYTES
    yield "archive-end", "good-tree", ARCHIVE[-TAIL:]


def policies(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    from tests.fuzz import test_policy, test_revocations

    yield "policy", "good-rules", test_policy.JSON[0]
    yield "waiver", "good-week", test_policy.JSON[1]
    yield "revocations", "good-own-form", test_revocations.WRITTEN
    for number, draft in enumerate(test_policy.YAML):
        yield "draft", f"good-{number}", draft
    yield "recipients", "good-two", b'["rsa:/keys/team.pem", "awskms:arn:aws:kms:eu-central-1:111122223333:key/1"]'
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": ["arn:aws:s3:::models", "arn:aws:s3:::models/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    body = {"Version": "2012-10-17", "Statement": [statement]}
    yield "resource-policy", "good-no-plain-http", json.dumps(body).encode()


def logs(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    from sealflow.audit import AuditEvent
    from sealflow.audit.entry import Chain
    from sealflow.audit.proof import Proof
    from sealflow.audit.tiles import Tree
    from sealflow.run_identity import RunIdentity
    from tests.core.audit.logs import MadeLog, chain_lines
    from tests.core.audit.test_cloudtrail import log_file, record
    from tests.core.audit.test_note import SPEC_KEY, SPEC_NOTE
    from tests.fuzz import test_audit_log

    yield "note", "good-specification", SPEC_NOTE
    yield "verifier-key", "good-specification", SPEC_KEY.encode()
    yield "checkpoint", "good-six", test_audit_log.TEXT
    yield "tile-bundle", "good-six", test_audit_log.BUNDLE
    log = MadeLog(folder)
    line = Chain().add(AuditEvent("sign", "outcome", RunIdentity(), outcome="done").to_json()).line
    log.add([line, *chain_lines(4)])
    path = tuple(Tree(log.store.get, log.size).inclusion_proof(0))
    yield "proof", "good-first-of-five", Proof(0, path, log.checkpoint or b"", line).encode()
    yield "entry", "good-signing", line
    block = {
        "sealflow_audit_seq": 1,
        "start": 0,
        "batch": "a",
        "before": None,
        "entries": [["ab" * 32, 0, ["cd" * 32, "ef" * 32]]],
    }
    yield "inbox-block", "good-one-run", json.dumps(block).encode()
    yield "trail", "good-packed", log_file(record(), record(eventName="PutObject"))
    yield "trail", "good-plain", log_file(record(), packed=False)


def encryption(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    from tests.fuzz import test_encryption, test_value
    from tests.servers.timestamp_authority import TimestampAuthority

    for name, message in (("plain", test_encryption.PLAIN), ("signed", test_encryption.SIGNED)):
        yield "header", f"good-{name}", message
        yield "message", f"good-{name}", message
    yield "sealed-value", "good-value", json.dumps(test_value.ENVELOPE).encode()
    authority = TimestampAuthority(folder)
    yield "roots", "authority.pem", authority.roots[0].encode()
    yield "timestamp", "good-token", authority.token(b"signature")


def lineage(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    from tests.core.lineage.test_git import SAMPLE, _sshsig
    from tests.fuzz import test_lineage, test_lineage_remote

    yield "dvc-lock", "good-json", test_lineage.LOCK
    yield "dvc-lock", "good-yaml", test_lineage.YAML_LOCK
    yield "dvc-file", "good-import", test_lineage.DVC_FILE
    yield "dvc-pipeline", "good-templates", test_lineage.PIPELINE
    yield "dvc-before-running", "good-templates", test_lineage.PIPELINE
    yield "dvc-directory", "good-three", test_lineage_remote.DIRECTORY
    yield "dvc-config", "good-two-remotes", test_lineage_remote.CONFIGURATION
    for name, data in test_lineage.PARAMS.items():
        yield f"params-{name.partition('.')[2]}", "good-numbers", data
    yield "git-commit", "good-signed", SAMPLE
    yield "git-links", "good-signed", SAMPLE
    yield "git-tree", "good-two", b"100644 a\0" + bytes(20) + b"40000 b\0" + bytes(range(20))
    key, signature = _sshsig(b"payload")
    yield "git-signature", "good-ecdsa", signature.encode()
    yield "allowed-signers", "good-dated", f'ada@example.org valid-after="20260101Z" {key}\n# nobody else\n'.encode()


def airflow(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    from tests.airflow.test_gate_messages import ID, body

    yield "task-report", "good-success", json.dumps(body()).encode()
    yield "task-report", "good-another-state", b'{"state": "failed", "end_date": "x"}'
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "x"}, {"sub": ID})]
    yield "worker-token", "good-instance", b".".join([*parts, b"c2ln"])


def kubeflow(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    from sealflow import strictjson
    from sealflow.hashing import Digest
    from sealflow_kfp.evidence_metadata import EvidenceMetadata
    from sealflow_kfp.spec_patch import GuardMounts, to_text
    from tests.fuzz import test_admission, test_executor_io, test_hardening
    from tests.kubeflow.cluster_pods import SETTINGS_TEXT, good_pods, review

    yield "executor-input", "good-two-models", json.dumps(test_executor_io.BODY).encode()
    yield "executor-output", "good-scores", json.dumps(test_executor_io.OUTPUT).encode()
    pods = good_pods()
    yield "admission-review", "good-workflow", review(test_admission.WORKFLOW)
    yield "admission-review", "good-pod", review(pods["a task under guard"])
    yield "admission-review", "good-driver", review(pods["the driver of a task"])
    yield "admission-settings", "good-settings", SETTINGS_TEXT.encode()
    init, *_ = pods["the driver of a task"]["spec"]["initContainers"]
    (template,) = [item["value"] for item in init["env"] if item["name"] == "ARGO_TEMPLATE"]
    yield "argo-template", "good-driver", template.encode()
    for number, data in enumerate(test_hardening.TEXTS):
        yield "pipeline", f"good-{number}", data
    yield "plan", "good-plan", test_hardening.Plan("p", "a/b", {"m": ()}, ("x", "y")).to_text().encode()
    yield "lock", "good-one", f"numpy==2.0.0 ; python_version > '3' --hash=sha256:{'0' * 64}\n".encode()
    found = EvidenceMetadata(Digest("dirHash", "ab" * 32), b"{}").to_text()
    yield "evidence-metadata", "good-short", found.encode()
    yield "spec-patch", "good-of-others", b'{"serviceAccountName": "pipeline-runner"}'
    patch = to_text(GuardMounts(f"registry.example/guard@sha256:{'0' * 64}", "sealflow"))
    yield "patch-in-place", "good-ours", patch.encode()
    yield "metadata-in-a-file", "good-number", strictjson.dumps({"sealflow_metadata": 1, "metadata": {"n": 1.5}})
    yield "run-context", "good-two-models", json.dumps(test_executor_io.BODY).encode()
    yield "task-of-a-run", "good-cached", b'{"taskInfo": {"name": "t"}, "cachingOptions": {"enableCache": true}}'
    pem = (CORPUS / "roots" / "authority.pem").read_bytes()
    yield "ca-bundle", "good-root", base64.b64encode(pem)


MAKERS: tuple[Callable[[Path], Iterator[tuple[str, str, bytes]]], ...] = (
    evidence, policies, logs, encryption, lineage, airflow, kubeflow,
)  # fmt: skip


def refused(target: Target) -> Iterator[tuple[str, bytes]]:
    """Yield documents that are nearly good: half of one, one with something behind it, and two in one."""
    for seed, data in target.seeds().items():
        if seed.startswith("good-"):
            name = seed.removeprefix("good-")
            for how, made in (("cut", data[: len(data) // 2]), ("more", data + b"\0"), ("twice", data + data)):
                try:
                    target.read(made)
                except target.refuses:
                    yield f"bad-{name}-{how}", made


def main() -> None:
    for maker in MAKERS:
        with tempfile.TemporaryDirectory() as folder:
            for target, name, data in maker(Path(folder)):
                place = CORPUS / target / name
                _keep(place, data)
    for item in TARGETS.values():
        for name, data in refused(item):
            if len(data) < MOST:
                _keep(CORPUS / item.name / name, data)


def _keep(place: Path, data: bytes) -> None:
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


if __name__ == "__main__":
    main()
