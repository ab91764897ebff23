"""Upload: an artifact becomes one encrypted object, signed and with provenance, in one read of its bytes.

Order: the bytes into an object that nobody can see yet; the evidence under its immutable names; then the one commit.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sealflow.actions import context
from sealflow.actions.places import refuse_overlap
from sealflow.actions.recipients import demanded_recipients, open_recipients, recipient_uris, refuse_recipients
from sealflow.actions.recording import Recording
from sealflow.actions.sign import (
    Signed,
    checked_ignore,
    chosen_signer,
    co_signing,
    open_signer,
    read_parameter_key,
    refuse_git_metadata,
    sign_provenance,
)
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.collector import rare_collection
from sealflow.encryption import ARTIFACT, RUN, MessageEncryptor, Recipient
from sealflow.errors import ArtifactError, SealflowError, UnavailableError
from sealflow.evidence import ArtifactRef, EvidenceStore, default_store, make_bundle
from sealflow.evidence.encryption import KIND, FrameDigests, MessageId, make_encryption_statement
from sealflow.evidence.oms import make_oms_statement
from sealflow.evidence.provenance import make_provenance_statement
from sealflow.findings import printable
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import KeySigner, PassphraseCallback
from sealflow.keys.signer import signers_of
from sealflow.manifest import Manifest, build_manifest
from sealflow.manifest.build import is_ignored
from sealflow.names import check_name, check_tree
from sealflow.run_identity import RunIdentity
from sealflow.storage import Entry, Location, Outgoing, Storage, Storages
from sealflow.storage.files import exists
from sealflow.storage.resolve import is_s3
from sealflow.transfer.archive import check_artifact_name
from sealflow.transfer.resume import UploadState
from sealflow.transfer.send import Progress, Sent, Shape, send

#: Bytes of a source below which it is not worth while to go on with half of it.
_WORTH_RESUMING: Final = 20 << 20


@dataclass(frozen=True)
class Uploaded(Signed):
    """What an upload made.

    Attributes:
        message: Message id of the encrypted object.
        stored: Bytes of the encrypted object.
        existed: Whether the same artifact lay there already, and was left as it is.
        signed_inside: SHA-256 of the OMS bundle inside of the object, in hex; empty where it existed.
    """

    message: str = ""
    stored: int = 0
    existed: bool = False
    signed_inside: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return super().as_dict() | {"message": self.message, "stored": self.stored, "existed": self.existed}


def upload(
    source: str | os.PathLike[str],
    destination: str,
    *,
    recipients: Any = None,
    signer: str | KeySigner | None = None,
    name: str | None = None,
    evidence_store: str | None = None,
    ignore: Sequence[str] = (),
    overwrite: bool = False,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
    progress: Progress | None = None,
) -> ArtifactRef:
    """Encrypt, sign and store a file or a folder, and return its reference. :func:`upload_artifact` returns more.

    An upload to S3 that was interrupted goes on where it stopped when it is started again on the same machine. The same
    artifact at the destination, its stored bytes checked again, is a success.

    Args:
        source: Path or location of a file or folder.
        destination: Location of the encrypted object.
        recipients: Recipient URIs: who can open it; by default what the surroundings set. What the policy demands is
            added.
        signer: Signer URI, by default the one that the policy chooses, then the one that the surroundings set.
        name: Logical name, by default the last part of the destination. It stands in clear.
        evidence_store: Where the evidence goes, by default what the surroundings set, else ``<destination>.evidence``.
        ignore: Paths relative to the source's root that are left out, and recorded as left out.
        overwrite: Replace what lies there.
        passphrase: Asked for the passphrase of an encrypted key.
        storages: Finds storage; given by callers that keep credentials themselves.
        audit: Takes audit events, by default the log that the surroundings set.
        progress: Called with bytes sent and, when known, bytes in all.

    Raises:
        ArtifactError: The source cannot be taken as it is; ``ARTIFACT_EXISTS``: something else lies there.
        UsageError: No recipient, no signer, an unsuitable key, a store that cannot protect what lies there.
        UnavailableError: A store, a key service or the audit log is out of reach. Started again, it goes on.
    """
    return upload_artifact(
        source,
        destination,
        recipients=recipients,
        signer=signer,
        name=name,
        evidence_store=evidence_store,
        ignore=ignore,
        overwrite=overwrite,
        passphrase=passphrase,
        storages=storages,
        audit=audit,
        progress=progress,
    ).ref


def upload_artifact(
    source: str | os.PathLike[str],
    destination: str,
    *,
    recipients: Any = None,
    signer: str | KeySigner | None = None,
    name: str | None = None,
    evidence_store: str | None = None,
    ignore: Sequence[str] = (),
    overwrite: bool = False,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
    progress: Progress | None = None,
) -> Uploaded:
    """Upload as :func:`upload` does and return all that was made."""
    surroundings = context.current()
    storages = storages or Storages()
    uri = os.fspath(source)
    storage = storages.for_uri(uri)
    target = storages.for_uri(destination)
    canonical = target.canonical(destination)
    logical = name or canonical.rpartition("/")[2]
    check_name(canonical.rpartition("/")[2])
    store = EvidenceStore(
        evidence_store or surroundings.settings.evidence_store or default_store(canonical, storages), storages
    )
    key = open_signer(chosen_signer(canonical, surroundings, signer), passphrase)
    openers = _openers(canonical, logical, surroundings, recipients, passphrase)
    parameter_key = read_parameter_key(surroundings.settings.parameter_key)
    fingerprint = f"sha256:{key.public_key.hint}"
    with (
        Recording("upload", canonical, surroundings, key=fingerprint, sink=audit, names=[logical]) as recording,
        co_signing(key, canonical, surroundings, audit, [logical]) as co_signed,
        rare_collection(),
    ):
        location = storage.locate(uri)
        if location is None:
            raise ArtifactError(f"Nothing lies at {printable(storage.canonical(uri))}.", code="ARTIFACT_MISSING")
        refuse_overlap(location.uri, store.uri, destination=canonical, mounts=surroundings.mounts)
        left_out = checked_ignore(ignore)
        entries = _entries(storage, location, left_out)
        job = _Upload(
            storage, location, entries, target, canonical, store, key, openers, logical, overwrite, progress, left_out
        )
        provenance = _Provenance(surroundings, logical, parameter_key)
        existing = None if overwrite else job.existing()
        uploaded = existing or job.run(provenance)
        recording.made(*uploaded.evidence, *filter(None, [uploaded.signed_inside]))
        recording.done(str(uploaded.ref.digest), uploaded.ref.version_id)
        co_signed(str(uploaded.ref.digest), uploaded.ref.version_id)
    return uploaded


def _openers(
    canonical: str, name: str, surroundings: context.Surroundings, given: Any, passphrase: PassphraseCallback | None
) -> tuple[Recipient, ...]:
    uris = recipient_uris(given) or recipient_uris(surroundings.settings.recipients)
    demanded = demanded_recipients(canonical, name, surroundings)
    named = open_recipients(uris, passphrase) if uris or not demanded else ()
    return (*named, *(item for item in demanded if not any(item.same_key(other) for other in named)))


def _entries(storage: Storage, location: Location, ignore: Sequence[str]) -> list[Entry]:
    check_artifact_name(location.name)
    entries = [entry for entry in storage.entries(location, sizes=True) if not is_ignored(entry.name, ignore)]
    if not entries:
        raise ArtifactError(
            f"{printable(location.uri)} holds no file.", next_step="Upload an artifact with at least one file."
        )
    check_tree(entry.name for entry in entries)
    if location.kind == "tree":
        refuse_git_metadata(entry.name for entry in entries)
    return entries


@dataclass(frozen=True)
class _Provenance:
    """Makes the provenance once the digest is known."""

    surroundings: context.Surroundings
    name: str
    parameter_key: bytes | None

    def __call__(self, digest: Digest) -> bytes:
        return make_provenance_statement(
            self.name,
            digest,
            self.surroundings.run,
            dependencies=context.verified_inputs(self.surroundings.run),
            parameters=self.surroundings.parameters,
            parameter_key=self.parameter_key,
            now=utc_now(),
        )


@dataclass(frozen=True)
class _Upload:
    storage: Storage
    location: Location
    entries: Sequence[Entry]
    target: Storage
    canonical: str
    store: EvidenceStore
    key: KeySigner
    recipients: tuple[Recipient, ...]
    name: str
    overwrite: bool
    progress: Progress | None
    ignore: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the source."""
        return sum(entry.size or 0 for entry in self.entries)

    def run(self, provenance: _Provenance) -> Uploaded:
        """Send, write the evidence, commit."""
        state = self._state()
        try:
            try:
                return self._attempt(provenance, state)
            except ArtifactError as error:
                if error.code != "ARTIFACT_CHANGED" or state is None or not state.resumed:
                    raise
            # What was sent is not what lies there now, or was altered: anew, under a key of its own.
            self._give_up(state)
            return self._attempt(provenance, state)
        finally:
            if state is not None:
                state.close()

    def _state(self) -> UploadState | None:
        if not is_s3(self.canonical) or self.size < _WORTH_RESUMING:
            return None
        try:
            return UploadState(self.location.uri, self.canonical)
        except UnavailableError as error:
            if error.code == "UPLOAD_RUNNING":
                raise
            # Nowhere to write it down: this upload cannot be gone on with, and is none the worse for it.
            return None

    def _attempt(self, provenance: _Provenance, state: UploadState | None) -> Uploaded:
        encryptor, outgoing, shape = self._begin(provenance, state)
        begun: list[Outgoing] = [outgoing] if outgoing is not None else []

        def begin() -> Outgoing:
            if not begun:
                begun.append(self.target.begin(self.canonical, overwrite=self.overwrite))
                if state is not None:
                    state.begin(encryptor, begun[0].token, shape.frame, shape.frames, self.recipients)
            return begun[0]

        inside = ""

        def sign(manifest: Manifest) -> bytes:
            nonlocal inside
            statement = make_oms_statement(replace(manifest, ignored=self.ignore))
            if state is not None and state.token:
                bundle = state.signature(statement, lambda: make_bundle(statement, self.key))
            else:
                bundle = make_bundle(statement, self.key)
            inside = sha256_hex(bundle)
            return bundle

        try:
            sent = send(
                self.storage,
                self.location,
                self.entries,
                encryptor,
                shape,
                sign,
                begin,
                recipients=[item.published for item in self.recipients if item.public],
                state=state,
                progress=self.progress,
            )
            uploaded = replace(self._commit(sent, encryptor, provenance), signed_inside=inside)
        except BaseException as error:
            again = isinstance(error, UnavailableError) or not isinstance(error, SealflowError)
            if state is not None and state.token and again:
                raise  # what is there stays there, and the next attempt goes on
            changed = isinstance(error, ArtifactError) and error.code == "ARTIFACT_CHANGED"
            if begun and not (changed and state is not None and state.resumed):
                with contextlib.suppress(SealflowError):
                    begun[0].abort()
                if state is not None:
                    state.forget()
            raise
        finally:
            # The next attempt, perhaps in this process, goes on with the message only when nobody else can.
            encryptor.retire()
        if state is not None:
            state.close(done=True)
        return uploaded

    def _begin(
        self, provenance: _Provenance, state: UploadState | None
    ) -> tuple[MessageEncryptor, Outgoing | None, Shape]:
        if state is not None and state.resumed:
            outgoing = self.target.resume(self.canonical, state.token, overwrite=self.overwrite)
            encryptor = state.encryptor(self.recipients, self.name) if outgoing is not None else None
            if outgoing is not None and encryptor is not None:
                return encryptor, outgoing, Shape(state.frame, state.frames)
            if outgoing is not None:
                outgoing.abort()
            state.forget()
        shape = Shape.of(self.size, self.target.most_parts)
        pairs = {ARTIFACT: self.name, RUN: provenance.surroundings.run.invocation}
        keeper = state.keeper if state is not None else None
        encryptor = MessageEncryptor(self.recipients, pairs, frame_length=shape.frame, keeper=keeper)
        holders = [(item.provider, item.info) for item in encryptor.header.data_keys]
        refuse_recipients(self.canonical, self.name, provenance.surroundings, holders)
        return encryptor, None, shape

    def _give_up(self, state: UploadState) -> None:
        outgoing = self.target.resume(self.canonical, state.token, overwrite=self.overwrite)
        if outgoing is not None:
            outgoing.abort()
        state.forget()

    def _commit(self, sent: Sent, encryptor: MessageEncryptor, provenance: _Provenance) -> Uploaded:
        digest = sent.manifest.digest
        message = MessageId(encryptor.header.message_id.hex())
        bundles = sign_provenance(self.canonical, provenance(digest), self.key)
        run = provenance.surroundings.run
        names = write_encryption_evidence(self.store, message, sent.digests, digest, bundles, run, self.key)
        ref = ArtifactRef(self.canonical, digest, self.store.uri, encrypted=True)
        ref.as_dict()  # refuse a reference that is too long before anybody relies on it
        if sent.outgoing is not None:
            version = sent.outgoing.commit(sent.parts)
        else:
            assert sent.single is not None  # noqa: S101
            version = self.target.put(self.canonical, sent.single, overwrite=self.overwrite)
        return Uploaded(
            ArtifactRef(self.canonical, digest, self.store.uri, version, encrypted=True),
            self.name,
            run.producer,
            f"sha256:{self.key.public_key.hint}",
            bundles[0],
            names,
            len(sent.manifest.resources),
            sent.manifest.size,
            message.hex,
            sent.size,
        )

    def existing(self) -> Uploaded | None:
        """Return what an earlier attempt made: the same artifact, under our own signature; ``None``: nothing is there.

        Raises:
            ArtifactError: ``ARTIFACT_EXISTS``: something else lies there.
        """
        from sealflow.actions.encrypted import own_upload

        found = own_upload(self.target, self.canonical, self.store, self.key, self.recipients, self.name)
        if found is None:
            return None
        said, bundle, size, version = found
        manifest = build_manifest(self.storage, self.location, ignore=self.ignore, progress=self.progress)
        if said.artifact != manifest.digest:
            raise exists(self.canonical)
        # A process that died right after its commit left what it had written down.
        with contextlib.suppress(UnavailableError):
            if (state := self._state()) is not None:
                state.close(done=True)
        return Uploaded(
            ArtifactRef(self.canonical, said.artifact, self.store.uri, version, encrypted=True),
            self.name,
            said.producer,
            f"sha256:{self.key.public_key.hint}",
            bundle,
            (),
            len(manifest.resources),
            manifest.size,
            said.message.hex,
            size,
            existed=True,
        )


def write_encryption_evidence(
    store: EvidenceStore,
    message: MessageId,
    digests: FrameDigests,
    artifact: Digest,
    provenances: Sequence[bytes],
    run: RunIdentity,
    key: KeySigner,
) -> tuple[str, ...]:
    """Sign and store what binds an encrypted object, and its provenance; return the names of the objects.

    The statement about the object last: a stop before it leaves an object that nobody opens.

    Args:
        store: Where the evidence goes.
        message: The object's message id.
        digests: Digests of its header and frames.
        artifact: Artifact digest of what is encrypted.
        provenances: Provenance bundles of the artifact.
        run: Who encrypts.
        key: The signer.

    Raises:
        EvidenceError: An object with other bytes lies under one of the names.
        UnavailableError: The store or the key service is out of reach.
    """
    statement = make_encryption_statement(message, digests, artifact, run, now=utc_now())
    bundles = [make_bundle(statement, each) for each in signers_of(key)]
    store.put_list(message, digests.data)
    # Beside the object's own evidence, where one look finds all; and by digest, where lineage looks.
    for provenance in provenances:
        store.put(artifact, "provenance", provenance)
    names = [store.put(message, "provenance", provenance) for provenance in provenances]
    return (*names, *(store.put(message, KIND, bundle) for bundle in bundles))
