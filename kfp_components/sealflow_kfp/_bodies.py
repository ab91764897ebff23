"""What the components do once their task runs; the components themselves only hand over their parameters."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sealflow import strictjson
from sealflow.actions import context
from sealflow.actions.sign import sign_artifact
from sealflow.actions.verify import verify as verify_action
from sealflow.errors import UsageError, VerificationError
from sealflow.evidence import ArtifactRef, EvidenceStore
from sealflow.findings import Verdict
from sealflow.hashing import Digest
from sealflow.storage import Storages
from sealflow_kfp.task_body import case_of, is_remote, note, reference

if TYPE_CHECKING:
    from kfp.dsl import Artifact

_RULE = "─" * 100


class RefusedError(VerificationError):
    """A refusal whose text, the last thing in the task's log, is the whole verdict.

    KFP drops the outputs of a failed task, the verdict among them.
    """

    def __str__(self) -> str:
        return readable(self.verdict)


def sign(artifact: Artifact, evidence: Artifact, signer: str, name: str, evidence_store: str) -> str:
    """Sign, leave the evidence in the ``evidence`` output and its metadata, and return the reference as JSON."""
    os.makedirs(evidence.path, exist_ok=True)
    kept = evidence_store or context.current().settings.evidence_store
    store = kept or evidence.path
    signed = sign_artifact(artifact.path, signer=signer or None, name=name or None, evidence_store=store)
    if kept:
        _copy(kept, evidence.path, signed.ref.digest, signed.evidence)
    note(evidence, signed)
    lies = signed.ref.evidence if kept or not is_remote(evidence) else evidence.uri
    return reference(artifact, signed.ref, lies).to_json()


def _copy(store: str, folder: str, digest: Digest, names: tuple[str, ...]) -> None:
    storages = Storages()
    copy = EvidenceStore(folder, storages)
    for item in EvidenceStore(store, storages).collect(digest).objects:
        if item.name in names and item.kind is not None:
            copy.put(digest, item.kind, item.data)


def verify(
    artifact: Artifact,
    evidence: Artifact | None,
    verdict_path: str,
    *,
    identities: str,
    name: str,
    producer: str,
    evidence_store: str,
    files: list[str] | None,
    expected_ref: str,
    policy: str = "",
) -> str:
    """Verify, write the verdict, and return the checked artifact's reference as JSON.

    Raises:
        RefusedError: The verdict is not ``passed``.
    """
    subject, options = case_of(artifact, evidence, expected_ref or None, evidence_store or None)
    verdict = verify_action(
        subject,
        identities=identities or None,
        name=name or None,
        producer=producer or None,
        files=files or None,
        policy=policy or None,
        **options,
    )
    _tell(verdict, verdict_path)
    lies = options.get("evidence_store") or ""
    if isinstance(subject, ArtifactRef) and not options:
        # The evidence was found where the reference said.
        lies = subject.evidence
    if evidence is not None and lies == evidence.path and is_remote(evidence):
        lies = evidence.uri
    ref = ArtifactRef(
        verdict.artifact, Digest.parse(verdict.digest), Storages().for_uri(lies).canonical(lies) if lies else ""
    )
    return reference(artifact, ref, ref.evidence).to_json()


def check_dvc_lineage(
    repository: str,
    artifact: Artifact | None,
    verdict_path: str,
    *,
    targets: list[str] | None,
    level: str,
    **more: Any,
) -> str:
    """Check a DVC repository, write the verdict, and return where the repository lies.

    Args:
        repository: A Git URL or a path; empty when ``artifact`` is given.
        artifact: A folder that is a repository.
        verdict_path: Where the verdict goes.
        targets: What of it is checked.
        level: What is demanded.
        more: What else the action takes; empty ones count as not given.

    Raises:
        UsageError: Neither or both of ``repository`` and ``artifact``, or a parameter cannot work.
        RefusedError: The verdict is not ``passed``.
    """
    from sealflow.actions.lineage import check_lineage

    if bool(repository) is (artifact is not None):
        raise UsageError("Give either `repository`, a Git URL or a mounted path, or `artifact`, and not both.")
    verdict = check_lineage(
        repository or artifact.path,
        targets or (),
        level=level,
        **{name: value for name, value in more.items() if value},
    )
    _tell(verdict, verdict_path)
    return repository or artifact.uri


def _tell(verdict: Verdict, path: str) -> None:
    # First of all: a refusal below must not be able to lose it.
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as file:
        file.write(strictjson.dumps(verdict.as_dict()))
    if not verdict.passed:
        raise RefusedError(verdict)
    print(readable(verdict), flush=True)


def readable(verdict: Verdict) -> str:
    """Return a verdict as a block for people that ends with its JSON form on one line, for programs."""
    rows = [("artifact", verdict.artifact), ("digest", verdict.digest), ("name", verdict.name)]
    rows += [("producer", verdict.producer), ("run", verdict.run)]
    rows += [("signed by", f"{item.identity} ({item.kind}, key {item.key})") for item in verdict.signers]
    lines = ["", _RULE, f"sealflow: {verdict.status.upper()}"]
    lines += [f"  {label:<10}{value}" for label, value in rows if value]
    for finding in verdict.as_dict()["findings"]:
        lines.append(f"  {finding['severity']:<10}{finding['code']}  {finding['subject']}")
        lines.append(f"  {'':<10}{finding['message']}")
        lines += [f"  {'':<10}{key}: {finding[key]}" for key in ("expected", "found", "next_step") if key in finding]
    lines += [f"  verdict   {strictjson.dumps(verdict.as_dict()).decode('utf-8')}", _RULE]
    return "\n".join(lines)
