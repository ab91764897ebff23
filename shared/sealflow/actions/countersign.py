"""Countersign an event of an orchestrator's server with a key that no task sees; it can read the bytes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sealflow.actions import context
from sealflow.actions.attested import demand_known_store
from sealflow.actions.guarding import Managed
from sealflow.actions.recording import Recording
from sealflow.audit.event import utc_now
from sealflow.errors import ArtifactError, UsageError
from sealflow.evidence import ArtifactRef, EvidenceStore, make_bundle
from sealflow.evidence.notary import KIND, NOTARY_BUILDER, SeenEvent, make_notary_statement
from sealflow.evidence.provenance import make_provenance_statement
from sealflow.findings import printable
from sealflow.manifest import build_manifest
from sealflow.storage import Storages

if TYPE_CHECKING:
    from sealflow.audit import AuditSink
    from sealflow.keys import KeySigner


def countersign(
    place: Managed,
    event: SeenEvent,
    ref: ArtifactRef,
    signer: KeySigner,
    store: str,
    *,
    read_bytes: bool = False,
    most_bytes: int | None = None,
    stores: Sequence[str] = (),
    storages: Storages | None = None,
    audit: AuditSink | None = None,
) -> str:
    """Sign a statement about an event, and return the name of the evidence object.

    Args:
        place: Where the artifact lies.
        event: The event.
        ref: The reference that it carries.
        signer: The notary's key.
        store: The notary's own evidence store.
        read_bytes: Hash the artifact first. What has another digest is not signed; what has this one also gets
            provenance by the notary, in the evidence store that the reference names.
        most_bytes: Most bytes that are read; what is larger is not signed.
        stores: As for :func:`~sealflow.actions.attested.attest`.
        storages: Finds storage.
        audit: Takes audit events.

    Raises:
        ArtifactError: ``ARTIFACT_CHANGED``: other bytes lie there; or ``ARTIFACT_MISSING``.
        UsageError: An encrypted artifact cannot be read here, or a setting cannot work.
        UnavailableError: A store, the key or the audit log is out of reach.
    """
    storages = storages or Storages()
    key = f"sha256:{signer.public_key.hint}"
    with Recording("notary", place.uri, context.current(), key=key, sink=audit, ruled=False) as recording:
        now = utc_now()
        if read_bytes:
            _demand_bytes(place, ref, storages, most_bytes)
        bundle = make_bundle(make_notary_statement(event, ref, hashed=read_bytes, now=now), signer)
        name = EvidenceStore(store, storages).put(ref.digest, KIND, bundle)
        recording.made(name)
        if read_bytes:
            demand_known_store(ref, place, stores, storages)
            known = event.name if event.name != event.uri else place.uri.rstrip("/").rpartition("/")[2]
            run = replace(event.source, builder=NOTARY_BUILDER)
            statement = make_provenance_statement(known, ref.digest, run, now=now)
            own = EvidenceStore(ref.evidence, storages)
            recording.made(own.put(ref.digest, "provenance", make_bundle(statement, signer)))
        recording.done(str(ref.digest), ref.version_id)
    return name


def _demand_bytes(place: Managed, ref: ArtifactRef, storages: Storages, most_bytes: int | None) -> None:
    if ref.encrypted:
        raise UsageError(
            "The notary cannot hash what is encrypted; it holds no key that opens it.",
            next_step="Leave notary_mode at `event` where artifacts are encrypted.",
        )
    storage = storages.for_uri(place.uri)
    location = storage.locate(place.uri)
    if location is None:
        raise ArtifactError(f"Nothing lies at {printable(place.uri)}.", code="ARTIFACT_MISSING")
    if ref.version_id and location.kind == "file":
        location = location._replace(version_id=ref.version_id)

    def bounded(read: int, total: int | None) -> None:
        if most_bytes is not None and max(read, total or 0) > most_bytes:
            raise UsageError(
                f"{printable(place.uri)} has more bytes than the {most_bytes} that the notary reads.",
                code="ARTIFACT_TOO_LARGE",
                next_step="Raise notary_max_bytes, or leave notary_mode at `event`.",
            )

    found = build_manifest(storage, location, progress=bounded).digest
    if found != ref.digest:
        raise ArtifactError(
            f"{printable(place.uri)} has the digest {found}, and the event claims {ref.digest}.",
            code="ARTIFACT_CHANGED",
            next_step="Find out who wrote there after the task; its consumers refuse these bytes.",
        )
