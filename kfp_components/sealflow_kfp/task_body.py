"""For task bodies: sign an output where it is made, and open an input as a checked copy.

with sealflow_kfp.verified_input(model) as path:
    ...                                  # path: a private copy, its bytes are the verified ones
sealflow_kfp.sign_output(scores)         # after the last byte was written
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sealflow.actions import context
from sealflow.actions.sign import Signed, sign_artifact
from sealflow.actions.verify import verified
from sealflow.evidence import ArtifactRef
from sealflow_kfp.evidence_metadata import KEY, EvidenceMetadata, from_metadata

if TYPE_CHECKING:
    from kfp.dsl import Artifact


def sign_output(
    artifact: Artifact, *, signer: str | None = None, name: str | None = None, evidence_store: str | None = None
) -> ArtifactRef:
    """Sign an output artifact of the running task and put its provenance into the artifact's metadata.

    Call it after the last byte was written. Consumers verify it from the metadata alone, or with the OMS signature too
    when a store is configured.

    Args:
        artifact: An ``Output[…]`` of the component.
        signer: Signer URI, by default the one that the admin's policy chooses, then the one of the settings.
        name: Logical name, by default the output's name.
        evidence_store: Where signature and provenance go, by default the store of the settings, else
            ``<path>.evidence``, which stays behind when the task ends on a cluster.

    Raises:
        ArtifactError: The artifact cannot be taken as it is.
        UsageError: No signer, or an unsuitable key or store.
        UnavailableError: A store, the key service or the audit log is out of reach.
    """
    signed = sign_artifact(artifact.path, signer=signer, name=name, evidence_store=evidence_store)
    note(artifact, signed)
    kept = evidence_store or context.current().settings.evidence_store
    return reference(artifact, signed.ref, signed.ref.evidence if kept or not is_remote(artifact) else "")


@contextlib.contextmanager
def verified_input(
    artifact: Artifact,
    files: Iterable[str] | None = None,
    *,
    evidence: Artifact | None = None,
    expected_ref: str | dict[str, Any] | ArtifactRef | None = None,
    identities: Any = None,
    name: str | None = None,
    producer: str | None = None,
    evidence_store: str | None = None,
    policy: str | None = None,
    recipients: Any = None,
) -> Iterator[str]:
    """Give a private copy of an input artifact whose bytes are exactly the verified ones; it is gone afterwards.

    Args:
        artifact: An ``Input[…]`` of the component.
        files: Names of files inside a folder; only these are checked and copied. Needs the OMS signature.
        evidence: The output ``evidence`` of ``sign_artifact``, where that made the evidence.
        expected_ref: Reference from the producer; its digest is required.
        identities: Who may sign, by default what the admin's policy says, without one what the settings say. Without
            any, nothing passes.
        name: Expected logical name.
        producer: Expected producer, a pattern such as ``kfp:train/*``.
        evidence_store: Where the evidence lies.
        policy: One more policy, the path of a draft; it can only tighten.
        recipients: URIs of the keys that open an encrypted artifact, by default those of the settings.

    Yields:
        The path of the copy: a file for a file, a folder for a folder.

    Raises:
        VerificationError: The verdict is not ``passed``; nothing was handed out.
        UsageError: A parameter or a setting cannot work.
        UnavailableError: The audit log is out of reach, or there is no room for the copy.
    """
    subject, options = case_of(artifact, evidence, expected_ref, evidence_store)
    with verified(
        subject,
        files,
        identities=identities,
        name=name,
        producer=producer,
        policy=policy,
        recipients=recipients,
        **options,
    ) as path:
        yield path


def case_of(
    artifact: Artifact,
    evidence: Artifact | None = None,
    expected_ref: str | dict[str, Any] | ArtifactRef | None = None,
    evidence_store: str | None = None,
) -> tuple[str | ArtifactRef, dict[str, Any]]:
    """Return what to verify, and where its evidence is looked for, as the core's actions take them.

    The first of these that there is: the given store; the content of the evidence artifact; the store of the settings;
    ``<artifact>.evidence`` beside a signed output. There signature and provenance must lie. Without any, the metadata
    must hold the provenance, which binds digest, name and producer; the verdict then says ``SIGNATURE_NOT_REQUIRED``.
    Without metadata, the place that the reference names must hold both.
    """
    handed = from_metadata(artifact.metadata)
    if evidence is not None:
        handed += from_metadata(evidence.metadata)
    ref = ArtifactRef.parse(expected_ref) if expected_ref else None
    content = evidence.path if evidence is not None and os.path.isdir(evidence.path) else None
    # What lies in a store beside an artifact comes along with it, as all whose key begins with its own does.
    beside = "" if is_remote(artifact) else artifact.path.rstrip("/") + ".evidence"
    store = evidence_store or content or context.current().settings.evidence_store
    options: dict[str, Any] = {}
    if store or (handed and os.path.isdir(beside)):
        options = {"evidence_store": store or beside}
    elif handed:
        options = {"evidence": handed, "only_given_evidence": True, "require": ("provenance",)}
    return (artifact.path if ref is None else ref.moved_to(artifact.path)), options


def note(artifact: Artifact, signed: Signed) -> None:
    """Put the provenance into an output artifact's metadata."""
    artifact.metadata[KEY] = EvidenceMetadata(signed.ref.digest, signed.provenance).to_text()


def reference(artifact: Artifact, ref: ArtifactRef, evidence: str) -> ArtifactRef:
    """Return ``ref`` with the artifact's location in the object store, which others can open, not this task's mount."""
    if is_remote(artifact):
        ref = ref.moved_to(artifact.uri)
    return replace(ref, evidence=evidence)


def is_remote(artifact: Artifact) -> bool:
    """Tell whether the artifact lives in an object store, and its path is only a mount of this task."""
    return "://" in artifact.uri
