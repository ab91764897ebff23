"""Opening encrypted artifacts: evidence first, then the key, and only then the bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sealflow.actions.recipients import open_recipients
from sealflow.audit.event import utc_now
from sealflow.encryption import ARTIFACT, Recipient
from sealflow.encryption.refusal import refused
from sealflow.errors import ArtifactError, EvidenceError
from sealflow.evidence import EvidenceStore, StoredEvidence, parse_provenance
from sealflow.evidence.encryption import KIND, MAX_LIST, Encryption
from sealflow.evidence.provenance import PREDICATE_TYPE as PROVENANCE
from sealflow.evidence.statement import parse_statement
from sealflow.findings import Finding, printable
from sealflow.keys import KeySigner, PublicKey
from sealflow.policy import Requirement
from sealflow.policy.identities import Identity, Refused
from sealflow.storage import Location, Storage
from sealflow.storage.files import exists
from sealflow.transfer.receive import EncryptedArtifact, Sealed, look, stored_pieces
from sealflow.transfer.resume import same_recipients
from sealflow.verification.authenticate import Authentic, authenticate
from sealflow.verification.encryption import Bound, judge_encryption

if TYPE_CHECKING:
    from sealflow.actions.checking import Check

#: Kinds of evidence that lie beside an encrypted object's message id.
_KINDS = frozenset({KIND, "provenance"})


@dataclass
class Opening:
    """What came of opening an encrypted artifact.

    Attributes:
        location: The artifact, as a file or a tree.
        artifact: The opened artifact; ``None`` where it was refused.
        said: What was signed about the object.
        evidence: Evidence that lay with it.
        findings: Why it was refused, or what else was seen.
    """

    location: Location
    artifact: EncryptedArtifact | None = None
    said: Encryption | None = None
    evidence: list[StoredEvidence] = field(default_factory=list)
    findings: tuple[Finding, ...] = ()


def _find(check: Check) -> Sealed:
    version = check.ref.version_id if check.ref is not None else None
    sealed = look(check.storage, check.uri, version)
    if sealed is not None:
        return sealed
    if check.storage.locate(check.uri) is None:
        raise ArtifactError(f"Nothing lies at {printable(check.canonical)}.", code="ARTIFACT_MISSING")
    raise refused("ENCRYPTION_UNBOUND", "The reference names an encrypted artifact, and what lies there is not one.")


@contextlib.contextmanager
def opened(check: Check) -> Iterator[Opening]:
    """Open the encrypted object that a check is about, or say why not. An opened one becomes ``check.opened``.

    Raises:
        EvidenceError, RecipientError, ArtifactError: It is refused.
        UsageError: A key cannot be opened.
        UnavailableError: A store or a key service is out of reach.
    """
    sealed = _find(check)
    with sealed.object:
        uri = sealed.uri
        opening = Opening(Location(uri, "file", uri.rpartition("/")[2] or uri, sealed.object.version_id))
        evidence, findings, inclusions = _evidence(check, sealed)
        bound = judge_encryption(
            evidence,
            check.requirement,
            sealed.header,
            sealed.layout.frames,
            lambda digest: _list(check, sealed, digest),
            now=utc_now(),
        )
        if not isinstance(bound, Bound):
            doubts = [item for item in findings if item.severity == "unverifiable"]
            opening.findings = (*findings, *bound) if not doubts else (*findings, *map(_weaker, bound))
            yield opening
            return
        name = check.requirement.name
        artifact = EncryptedArtifact(
            sealed,
            bound.digests,
            open_recipients(check.recipients, check.passphrase),
            expected={ARTIFACT: name} if name is not None else {},
            used=check.unwrapped,
        )
        if artifact.index.digest() != bound.said.artifact:
            # Whoever reads a part believes the index, so it has to tell of the artifact that all others find.
            raise refused(
                "ENCRYPTION_UNBOUND", "The index tells of another artifact than the statement about its frames names."
            )
        opening.artifact, opening.said, opening.findings = artifact, bound.said, bound.notes
        check.opened = artifact
        index = artifact.index
        opening.location = opening.location._replace(kind=index.kind, name=index.name)
        opening.evidence = [item for item in evidence if item.kind != KIND]
        opening.evidence.append(
            StoredEvidence("signature in the artifact", artifact.signature, "signature", inclusions=inclusions)
        )
        yield opening


def _weaker(finding: Finding) -> Finding:
    return finding if finding.severity == "unverifiable" else replace(finding, severity="warning")


def _evidence(check: Check, sealed: Sealed) -> tuple[list[StoredEvidence], list[Finding], tuple[bytes, ...]]:
    evidence = list(check.handed)
    if check.store is None:
        return evidence, [], ()
    collected = check.store.collect(sealed.message, kinds=_KINDS)
    return evidence + list(collected.objects), collected.findings(check.store.uri), collected.inclusions


def _list(check: Check, sealed: Sealed, digest: str) -> bytes | None:
    return check.store.get_list(sealed.message, digest, MAX_LIST) if check.store is not None else None


@dataclass(frozen=True)
class _Own(Identity):
    """Whoever holds a key, with or without certificates."""

    key: PublicKey

    def key_for(self, bundle: Any, at: Any) -> PublicKey | Refused:
        return self.key

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "key": self.key.hint}


def own_upload(
    storage: Storage, canonical: str, store: EvidenceStore, key: KeySigner, recipients: Sequence[Recipient], name: str
) -> tuple[Encryption, bytes, int, str | None] | None:
    """Return what this signer once uploaded to a place, after its stored bytes were checked; nothing is decrypted.

    Returns:
        What the statement says, the provenance bundle, bytes and version of the object; ``None``: nothing lies there.

    Raises:
        ArtifactError: ``ARTIFACT_EXISTS``: something else lies there, or other recipients can open it.
        UnavailableError: A store is out of reach.
    """
    location = storage.locate(canonical)
    if location is None:
        return None
    try:
        sealed = look(storage, canonical, location.version_id) if location.kind == "file" else None
        if sealed is None:
            raise exists(canonical)
        with sealed.object:
            return _own_upload(sealed, store, key, recipients, name) or _raise(exists(canonical))
    except EvidenceError:
        raise exists(canonical) from None


def _own_upload(
    sealed: Sealed, store: EvidenceStore, key: KeySigner, recipients: Sequence[Recipient], name: str
) -> tuple[Encryption, bytes, int, str | None] | None:
    if not same_recipients(sealed.header.data_keys, recipients):
        return None
    evidence = store.collect(sealed.message, kinds=_KINDS).objects
    requirement = Requirement.of_call((_Own("signer", (), (), key.public_key),))
    bound = judge_encryption(
        evidence,
        requirement,
        sealed.header,
        sealed.layout.frames,
        lambda digest: store.get_list(sealed.message, digest, MAX_LIST),
        now=utc_now(),
    )
    if not isinstance(bound, Bound):
        return None
    for item in evidence:
        # Anybody may have put something beside it.
        found = item.kind == "provenance" and authenticate(
            item, requirement.identities, now=utc_now(), revoked=requirement.revoked, unavailable={}
        )
        if not isinstance(found, Authentic):
            continue
        statement = parse_statement(found.bundle.payload)
        said = parse_provenance(statement) if statement.predicate_type == PROVENANCE else None
        if said is not None and (said.digest, said.name) == (bound.said.artifact, name):
            for _ in stored_pieces(sealed, bound.digests):
                pass  # each piece is compared with what was signed
            return bound.said, item.data, sealed.object.size, sealed.object.version_id
    return None


def _raise(error: Exception) -> Any:
    raise error
