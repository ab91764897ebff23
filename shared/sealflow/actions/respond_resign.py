"""Re-sign: what an artifact's accepted evidence says is signed with another key, after all of it was verified anew.

The new bundles are over the old payloads: who made the artifact, in which run and from what stays as it was signed
then, and the new key only adds its word. A statement beside them says who did this, why, and on which evidence.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sealflow.actions import context
from sealflow.actions.counted import KINDS, counted_evidence, held_payloads
from sealflow.actions.recording import Recording
from sealflow.actions.sign import open_signer
from sealflow.actions.verify import verify_artifact
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.errors import ArtifactError, EvidenceError, UsageError, VerificationError
from sealflow.evidence import ArtifactRef, EvidenceStore, StoredEvidence, make_bundle
from sealflow.evidence.bundle import parse_bundle
from sealflow.evidence.provenance import check_reason
from sealflow.evidence.resigning import KIND, make_resigning_statement, resigned_evidence
from sealflow.evidence.statement import parse_statement
from sealflow.findings import Finding, Verdict, conclude, printable
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import KeySigner, PassphraseCallback
from sealflow.keys.signer import signers_of
from sealflow.manifest import build_manifest
from sealflow.manifest.build import Progress
from sealflow.storage import Storages

if TYPE_CHECKING:
    from sealflow.policy.compose import CompiledPolicy


@dataclass(frozen=True)
class ReSigned:
    """What was done.

    Attributes:
        ref: The reference, whose digest is as before.
        key: Fingerprint of the new key.
        verdict: What the check came to.
        earlier: Names of the evidence whose payload was signed again.
        added: Names of the objects that were stored now; empty where all of it had been done before.
    """

    ref: ArtifactRef
    key: str
    verdict: Verdict
    earlier: tuple[str, ...]
    added: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "ref": self.ref.as_dict(),
            "key": self.key,
            "status": self.verdict.status,
            "earlier": list(self.earlier),
            "added": list(self.added),
        }


def re_sign(
    artifact: str | os.PathLike[str] | ArtifactRef | dict[str, Any],
    *,
    signer: str | KeySigner,
    reason: str,
    identities: Any = None,
    name: str | None = None,
    producer: str | None = None,
    evidence_store: str | None = None,
    require: Iterable[str] | None = None,
    policy: str | CompiledPolicy | None = None,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    sink: AuditSink | None = None,
    progress: Progress | None = None,
) -> ReSigned:
    """Verify an artifact, bytes and makers, and sign with another key what its accepted evidence says.

    What a revoked key signed passes only where its time is proved; what does not pass is not signed.

    Args:
        artifact: Location or reference.
        signer: The new signer.
        reason: Why; it stands in the statement about the act.
        identities: Who may have signed so far, by default what the policy says.
        name: Expected logical name.
        producer: Expected producer.
        evidence_store: Where the evidence lies, and where the new one goes.
        require: Kinds of evidence that must be there.
        policy: One more policy. Where no admin's channel is configured, the signed policy of then can be named so.
        passphrase: Asked for the passphrase of an encrypted key.
        storages: Finds storage.
        sink: Takes audit events.
        progress: Called while the artifact is read.

    Raises:
        VerificationError: The verdict is not ``passed``; nothing was signed.
        ArtifactError: The bytes were changed meanwhile.
        EvidenceError: ``EVIDENCE_ALTERED``: the evidence was.
        UsageError: A parameter cannot work, or the artifact is encrypted.
        UnavailableError: A store, the key service or the audit log is out of reach: call it again.
    """
    if not check_reason(reason):
        raise UsageError("A reason has 1 to 1024 bytes and no control characters.")
    storages = storages or Storages()
    surroundings = context.current()
    key = open_signer(signer, passphrase)
    checked = verify_artifact(
        artifact,
        identities=identities,
        name=name,
        producer=producer,
        evidence_store=evidence_store,
        require=require,
        policy=policy,
        storages=storages,
        audit=sink,
        progress=progress,
    )
    verdict, ref = checked.verdict, checked.ref
    if not verdict.passed:
        raise (surroundings.refusal if verdict.status == "failed" else VerificationError)(verdict)
    if not any(signed.kind in KINDS for signed in verdict.signers):
        # Rules that are only audited, and waivers, let pass what nobody signed; there is nothing to sign again.
        message = "Nobody's signature over it was accepted, so there is nothing to sign again."
        finding = Finding("EVIDENCE_MISSING", "refusal", verdict.artifact, message)
        status, findings = conclude([*verdict.findings, finding])
        raise surroundings.refusal(replace(verdict, status=status, findings=findings))
    if ref is None:
        raise UsageError("The evidence lies in no store, so nothing can be added to it.")
    if ref.encrypted:
        raise UsageError(
            "What is bound to an encrypted object is signed with it.",
            next_step="Download the artifact, and upload it again with the new signer.",
        )
    if verdict.reused:
        _read_again(ref, storages)
    store = EvidenceStore(ref.evidence, storages)
    digest = Digest.parse(verdict.digest)
    # Read once more, so by digest: an object that was swapped since keeps its name, and not the bytes it promises.
    objects = [item for item in store.collect(digest, kinds={*KINDS, KIND}).objects if not item.altered]
    counted = counted_evidence(verdict, objects)
    earlier: dict[str, None] = {}
    added: list[str] = []
    # A signer with a second one signs with both, each in bundles of its own.
    for each in signers_of(key):
        mark = f"sha256:{each.public_key.hint}"
        with Recording("re-sign", verdict.artifact, surroundings, key=mark, sink=sink, policy=policy) as recording:
            held = held_payloads(objects, each)
            before = len(added)
            # What the key has signed already needs no second word of it.
            mine = [
                (signed, item, payload)
                for signed, item in counted
                if signed.key != mark and (payload := parse_bundle(item.data).payload) not in held
            ]
            named = [(signed.kind, sha256_hex(item.data), signed.key) for signed, item, _ in mine]
            if named and not _said(objects, each, frozenset(sha256 for _, sha256, _ in named)):
                statement = make_resigning_statement(verdict, digest, named, reason, surroundings.run, now=utc_now())
                added.append(store.put(digest, KIND, make_bundle(statement, each)))
            for kind in KINDS:
                for payload in dict.fromkeys(payload for signed, _, payload in mine if signed.kind == kind):
                    added.append(store.put(digest, kind, make_bundle(payload, each)))
            earlier |= dict.fromkeys(item.name for _, item, _ in mine)
            recording.made(*added[before:])
            recording.done(str(digest), ref.version_id)
    return ReSigned(ref, f"sha256:{key.public_key.hint}", verdict, tuple(earlier), tuple(added))


def _read_again(ref: ArtifactRef, storages: Storages) -> None:
    """Read what a verification summary stood for: a signature is never made on somebody's word about bytes."""
    storage = storages.for_uri(ref.uri)
    found = storage.locate(ref.uri)
    if found is None or build_manifest(storage, found).digest != ref.digest:
        raise ArtifactError(f"{printable(ref.uri)} is not what was verified.", code="ARTIFACT_CHANGED")


def _said(objects: Iterable[StoredEvidence], key: KeySigner, earlier: frozenset[str]) -> bool:
    """Tell whether the key has stated this act already."""
    for payload in held_payloads([item for item in objects if item.kind == KIND], key):
        try:
            if resigned_evidence(parse_statement(payload)) >= earlier:
                return True
        except EvidenceError:
            continue
    return False
