"""Download: a verified copy of an artifact at a path of this machine, there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sealflow.actions.places import refuse_overlap
from sealflow.actions.placing import earlier, move, open_up, partial
from sealflow.actions.verify import check_into, settle, verify
from sealflow.audit import AuditSink
from sealflow.errors import ArtifactError, UnavailableError, UsageError
from sealflow.evidence import ArtifactRef, EvidenceStore, StoredEvidence, default_store
from sealflow.evidence.store import SUMMARY, EvidenceId
from sealflow.findings import Verdict, printable
from sealflow.hashing import Digest
from sealflow.keys import KeySigner, PassphraseCallback
from sealflow.manifest import build_manifest
from sealflow.manifest.build import Progress
from sealflow.storage import Storages
from sealflow.storage.files import exists
from sealflow.storage.local import to_path, to_uri

if TYPE_CHECKING:
    from sealflow.actions.checking import Check
    from sealflow.policy.compose import CompiledPolicy

#: Kinds of evidence that go along with a copy.
CARRIED: Final = frozenset({"signature", "provenance", "lineage"})


@dataclass(frozen=True)
class Downloaded:
    """What a download made.

    Attributes:
        verdict: The verdict about the copied bytes.
        ref: The reference to the copy.
    """

    verdict: Verdict
    ref: ArtifactRef


def download(artifact: str | os.PathLike[str] | ArtifactRef | dict[str, Any], destination: str, **options: Any) -> str:
    """Copy an artifact to a path of this machine, verified, and decrypted where it is encrypted; return the path.

    :func:`download_artifact` takes the options and returns more.
    """
    return to_path(download_artifact(artifact, destination, **options).ref.uri)


def download_artifact(
    artifact: str | os.PathLike[str] | ArtifactRef | dict[str, Any],
    destination: str | os.PathLike[str],
    *,
    recipients: Any = None,
    identities: Any = None,
    name: str | None = None,
    producer: str | None = None,
    evidence_store: str | None = None,
    destination_store: str | None = None,
    require: Iterable[str] | None = None,
    policy: str | CompiledPolicy | None = None,
    overwrite: bool = False,
    verifier: str | KeySigner | None = None,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
    progress: Progress | None = None,
) -> Downloaded:
    """Copy an artifact to a path of this machine, verified, and decrypted where it is encrypted.

    Nothing is there before the verdict is ``passed``, and then everything at once. A download of an encrypted artifact
    that was interrupted goes on: what it left is checked frame by frame against the signed digests. The same artifact
    at the destination is a success. Its evidence comes along.

    Args:
        artifact: Location or reference.
        destination: Path of the file or folder to make.
        recipients: URIs of the keys that open an encrypted artifact, by default what the surroundings set.
        identities: Who may sign, as in :func:`sealflow.actions.verify.verify`.
        name: Expected logical name.
        producer: Expected producer.
        evidence_store: Where the artifact's evidence lies.
        require: Kinds of evidence that must be there.
        policy: One more policy; it can only tighten.
        verifier: Signer of verification summaries.
        destination_store: Where the copy's evidence goes, by default what the surroundings set for clear artifacts,
            else ``<destination>.evidence``.
        overwrite: Replace what lies there.
        passphrase: Asked for the passphrase of an encrypted key.
        storages: Finds storage.
        audit: Takes audit events.
        progress: Called with bytes read and, when known, bytes in all.

    Raises:
        VerificationError: The verdict is not ``passed``; nothing was written to the destination.
        ArtifactError: ``ARTIFACT_EXISTS``: something else lies at the destination.
        UsageError: A parameter or a setting cannot work.
        UnavailableError: The audit log is out of reach, there is no room, or another process downloads to this place.
    """
    storages = storages or Storages()
    path = _path(destination)
    check = settle(
        artifact,
        identities=identities,
        name=name,
        producer=producer,
        evidence_store=evidence_store,
        require=require,
        policy=policy,
        recipients=recipients,
        verifier=verifier,
        passphrase=passphrase,
        storages=storages,
    )
    target = to_uri(path)
    # The signature lists the files. What was encrypted keeps them from those who can read a common store.
    common = None if check.surely_encrypted() else check.surroundings.settings.evidence_store
    store = EvidenceStore(destination_store or common or default_store(target, storages), storages)
    refuse_overlap(
        check.canonical,
        store.uri,
        destination=target,
        evidence=check.store.uri if check.store is not None else None,
        mounts=check.surroundings.mounts,
        parameter="destination_store",
    )
    if check.ref is not None and not overwrite and os.path.lexists(path):
        verdict = _already(check.ref, path, store, identities, name, producer, require, policy, storages, audit)
        if verdict.passed:
            return Downloaded(verdict, ArtifactRef(target, check.ref.digest, store.uri))
    with partial(path, check.canonical) as folder:
        check.salvage = earlier(folder)
        content, checked = check_into(check, os.path.join(folder, "artifact"), "download", audit, progress)
        verdict = checked.verdict
        digest = Digest.parse(verdict.digest)
        if not overwrite and os.path.lexists(path):
            if _digest(path, storages) != digest:
                raise exists(path)
        else:
            # The evidence first: a copy that nobody can check is of no use.
            carry_evidence(_evidence(check, digest), store, digest)
            open_up(content)
            move(content, path, folder, overwrite=overwrite)
    return Downloaded(verdict, ArtifactRef(target, digest, store.uri))


def carry_evidence(evidence: Sequence[StoredEvidence], store: EvidenceStore, digest: Digest) -> None:
    """Store evidence about a copy beside it. It stays what it is: whoever reads it checks it.

    Raises:
        EvidenceError: An object with other bytes lies under one of the names.
        UnavailableError: The store is out of reach.
    """
    proofs: dict[bytes, None] = {}
    for item in evidence:
        if item.kind in CARRIED and not item.altered and not item.problem:
            store.put(digest, item.kind, item.data)
            proofs.update(dict.fromkeys(item.inclusions))
    for proof in proofs:
        store.put_inclusion(digest, proof)


def carry_all(source: EvidenceStore, target: EvidenceStore, about: EvidenceId) -> None:
    """Copy all evidence about something but verification summaries, which are somebody's word about the old place.

    Raises:
        EvidenceError: An object with other bytes lies under one of the names.
        UnavailableError: A store is out of reach. What could not be read might be what readers of the copy demand.
    """
    found = source.collect(about)
    for _, error in found.unread:
        if isinstance(error, UnavailableError):
            raise error
    for item in found.objects:
        if item.kind and item.kind != SUMMARY and not item.altered and not item.problem:
            target.put(about, item.kind, item.data)
    for proof in found.inclusions:
        target.put_inclusion(about, proof)


def _evidence(check: Check, digest: Digest) -> list[StoredEvidence]:
    found = list(check.handed)
    if check.opened is not None:
        found.append(StoredEvidence("signature in the artifact", check.opened.signature, "signature"))
    if check.store is not None:
        found += check.store.collect(digest, kinds=CARRIED).objects
    return found


def _path(destination: str | os.PathLike[str]) -> str:
    text = os.fspath(destination)
    if "://" in text and not text.startswith("file:"):
        raise UsageError(
            "A download goes to a path of this machine.", next_step="Use `sealflow copy` from one store to another."
        )
    path = to_path(text)
    if not os.path.basename(path):
        raise UsageError(f"{printable(path)} is no place for an artifact.")
    return path


def _already(
    ref: ArtifactRef,
    path: str,
    store: EvidenceStore,
    identities: Any,
    name: str | None,
    producer: str | None,
    require: Iterable[str] | None,
    policy: Any,
    storages: Storages,
    audit: AuditSink | None,
) -> Verdict:
    """Return the verdict about what lies there, if it has the digest that is wanted; anything else is in the way."""
    if _digest(path, storages) != ref.digest:
        raise exists(path)
    there = ArtifactRef(to_uri(path), ref.digest, store.uri)
    verdict = verify(
        there,
        identities=identities,
        name=name,
        producer=producer,
        require=require,
        policy=policy,
        storages=storages,
        audit=audit,
    )
    return verdict


def _digest(path: str, storages: Storages) -> Digest | None:
    storage = storages.for_uri(path)
    try:
        location = storage.locate(path)
        return build_manifest(storage, location).digest if location is not None else None
    except ArtifactError:
        return None
