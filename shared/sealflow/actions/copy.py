"""Copy and promote: an artifact goes from one place to another as it is, verified, and all its evidence with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sealflow.actions.download import carry_all, carry_evidence
from sealflow.actions.encrypted import Opening, opened
from sealflow.actions.places import refuse_overlap
from sealflow.actions.placing import put_in_place
from sealflow.actions.recipients import refuse_recipients
from sealflow.actions.recording import Recording
from sealflow.actions.sign import chosen_signer, co_signing, open_signer
from sealflow.actions.verify import check_into, judge_opened, judged_opening, remember, settle
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.collector import rare_collection
from sealflow.errors import ArtifactError, SealflowError, UnavailableError, UsageError, VerificationError
from sealflow.evidence import ArtifactRef, EvidenceStore, default_store, make_bundle
from sealflow.evidence.promotion import KIND, make_promotion_statement
from sealflow.findings import Verdict, printable
from sealflow.hashing import Digest
from sealflow.keys import KeySigner, PassphraseCallback
from sealflow.keys.signer import signers_of
from sealflow.manifest import build_manifest
from sealflow.manifest.build import Progress
from sealflow.storage import Entry, Location, Outgoing, Storage, Storages
from sealflow.storage.files import exists
from sealflow.storage.memory import part_buffer, release
from sealflow.transfer.receive import EncryptedArtifact, EncryptedFiles, stored_pieces
from sealflow.transfer.send import part_size

if TYPE_CHECKING:
    from sealflow.actions.checking import Check
    from sealflow.policy.compose import CompiledPolicy


@dataclass(frozen=True)
class Copied:
    """What a copy made.

    Attributes:
        ref: The reference to the copy.
        verdict: The verdict about the copied bytes.
        existed: Whether the same artifact lay there already.
        evidence: Names of the statements that were made.
    """

    ref: ArtifactRef
    verdict: Verdict
    existed: bool = False
    evidence: tuple[str, ...] = ()


def promote(
    source: str | os.PathLike[str] | ArtifactRef | dict[str, Any], destination: str, **options: Any
) -> ArtifactRef:
    """Copy an artifact with all its evidence and return the reference to the copy.

    :func:`promote_artifact` takes the options and returns more.
    """
    return promote_artifact(source, destination, **options).ref


@rare_collection()
def promote_artifact(
    source: str | os.PathLike[str] | ArtifactRef | dict[str, Any],
    destination: str,
    *,
    signer: str | KeySigner | None = None,
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
) -> Copied:
    """Verify an artifact, copy it as it is, clear or encrypted, with all its evidence, and sign that this was done.

    The copied bytes are the verified ones. An encrypted artifact stays encrypted, byte for byte, and appears at once.
    The files of a clear folder appear one by one in a store; its evidence comes last, and until then nothing passes.

    Args:
        source: Location or reference.
        destination: Location of the copy.
        signer: Who signs the promotion, by default as for signing artifacts.
        recipients: URIs of the keys that open an encrypted artifact: what is promoted is verified whole.
        identities: Who may have signed the artifact.
        name: Expected logical name.
        producer: Expected producer.
        evidence_store: Where the artifact's evidence lies.
        destination_store: Where the copy's evidence goes, by default what the surroundings set, else
            ``<destination>.evidence``.
        require: Kinds of evidence that must be there.
        policy: One more policy; it can only tighten.
        overwrite: Replace what lies there.
        verifier: Signer of verification summaries.
        passphrase: Asked for the passphrase of an encrypted key.
        storages: Finds storage.
        audit: Takes audit events.
        progress: Called with bytes read and, when known, bytes in all.

    Raises:
        VerificationError: The verdict is not ``passed``; nothing was copied.
        ArtifactError: ``ARTIFACT_EXISTS``: something else lies at the destination.
        PolicyError: A rule does not let those who can open it open what lies at the destination.
        UsageError: A parameter or a setting cannot work.
        UnavailableError: A store, a key service or the audit log is out of reach.
    """
    storages = storages or Storages()
    check = settle(
        source,
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
    target = storages.for_uri(destination)
    canonical = target.canonical(destination)
    if check.store is None:
        raise UsageError("A copy needs the evidence store of its source.")
    where = destination_store or check.surroundings.settings.evidence_store or default_store(canonical, storages)
    store = EvidenceStore(where, storages)
    refuse_overlap(
        check.canonical,
        store.uri,
        destination=canonical,
        evidence=check.store.uri,
        mounts=check.surroundings.mounts,
        parameter="destination_store",
    )
    key = open_signer(chosen_signer(canonical, check.surroundings, signer), passphrase)
    job = _Copy(check, target, canonical, store, overwrite, audit, progress)
    fingerprint = f"sha256:{key.public_key.hint}"
    with (
        Recording("promote", canonical, check.surroundings, key=fingerprint, sink=audit, policy=policy) as recording,
        co_signing(key, canonical, check.surroundings, audit, ()) as co_signed,
    ):
        check.unwrapped = recording.unwrapped
        copied = job.encrypted(key) if check.surely_encrypted() else job.clear(key)
        recording.made(*copied.evidence)
        recording.done(str(copied.ref.digest), copied.ref.version_id)
        co_signed(str(copied.ref.digest), copied.ref.version_id)
    return copied


@dataclass(frozen=True)
class _Copy:
    check: Check
    target: Storage
    canonical: str
    store: EvidenceStore
    overwrite: bool
    audit: AuditSink | None
    progress: Progress | None

    def encrypted(self, key: KeySigner) -> Copied:
        """Copy an encrypted object byte for byte."""
        check = self.check
        with contextlib.ExitStack() as stack:
            opening: list[Opening] = []

            def judge() -> Any:
                opening.append(stack.enter_context(opened(check)))
                artifact = opening[0].artifact
                if artifact is None:
                    return judge_opened(check, opening[0], None, None)
                source = EncryptedFiles(artifact)
                return judge_opened(
                    check, opening[0], build_manifest(source, opening[0].location, progress=self.progress), None
                )

            judgement = judged_opening(check, judge)
            verdict = judgement.verdict
            self._demand(verdict)
            remember(check, judgement)
            artifact = opening[0].artifact
            assert artifact is not None  # noqa: S101  (it passed)
            digest = Digest.parse(verdict.digest)
            refuse_recipients(self.canonical, verdict.name, check.surroundings, artifact.holders, check.added)
            there = self._same_object(artifact)
            outgoing: Outgoing | None = None
            parts: list[tuple[int, str]] = []
            single = b""
            try:
                for number, (offset, data) in enumerate(self._pieces(artifact), 1) if not there else ():
                    if artifact.sealed.object.size <= self._part(artifact):
                        single = bytes(data)
                        continue
                    outgoing = outgoing or self.target.begin(self.canonical, overwrite=self.overwrite)
                    parts.append((number, outgoing.send(number, offset, data)))
                self._carry(digest, artifact)
                made = self._promote(digest, verdict, key)
                version = None
                if outgoing is not None:
                    version = outgoing.commit(parts)
                elif not there:
                    version = self.target.put(self.canonical, single, overwrite=self.overwrite)
            except BaseException:
                if outgoing is not None:
                    with contextlib.suppress(SealflowError):
                        outgoing.abort()
                raise
            ref = ArtifactRef(self.canonical, digest, self.store.uri, version, encrypted=True)
            return Copied(ref, verdict, there, made)

    def clear(self, key: KeySigner) -> Copied:
        """Copy a clear file or folder through a private copy, which is what is judged."""
        try:
            folder = tempfile.mkdtemp(prefix="sealflow-", dir=os.environ.get("SEALFLOW_TMPDIR") or None)
        except OSError as error:
            raise UnavailableError(f"There is no room for a private copy: {error.strerror or error}.") from None
        try:
            content = os.path.join(folder, "artifact")
            path, checked = check_into(self.check, content, "verify", self.audit, self.progress)
            verdict = checked.verdict
            digest = Digest.parse(verdict.digest)
            local = self.check.storages.for_uri(path)
            location = local.locate(path)
            assert location is not None  # noqa: S101  (it was just made)
            entries = local.entries(location, sizes=True)
            missing = entries if self.overwrite else self._missing(local, location, entries)
            there = not missing
            version = None
            if not there:
                version = self._write(local, location, missing)
            # Last, for clear artifacts: a folder in a store appears file by file, and none of it passes before.
            self._carry(digest, None)
            made = self._promote(digest, verdict, key)
            return Copied(ArtifactRef(self.canonical, digest, self.store.uri, version), verdict, there, made)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _pieces(self, artifact: EncryptedArtifact) -> Iterator[tuple[int, memoryview]]:
        # As many frames as fill a part at least, so that what fits into one part comes in one piece.
        return stored_pieces(artifact.sealed, artifact.digests, self._part(artifact))

    def _part(self, artifact: EncryptedArtifact) -> int:
        return part_size(artifact.sealed.object.size, self.target.most_parts)

    def _demand(self, verdict: Verdict) -> None:
        if not verdict.passed:
            final = verdict.status == "failed"
            raise (self.check.surroundings.refusal if final else VerificationError)(verdict)

    def _same_object(self, artifact: EncryptedArtifact) -> bool:
        """Tell whether the very same object lies at the destination already.

        Raises:
            ArtifactError: ``ARTIFACT_EXISTS``: something else lies there.
        """
        if self.overwrite or self.target.locate(self.canonical) is None:
            return False
        found = self.target.open_object(self.canonical, 1)
        if found is None:
            return False
        with found:
            size = artifact.sealed.object.size
            if found.size != size:
                raise exists(self.canonical)
            for offset, data in stored_pieces(artifact.sealed, artifact.digests):
                other = memoryview(bytearray(len(data)))
                found.read_into(offset, other)
                if other != data:
                    raise exists(self.canonical)
        return True

    def _missing(self, local: Storage, location: Location, entries: list[Entry]) -> list[Entry]:
        """Return the files that do not lie at the destination yet.

        A copy that was interrupted left some in a store; a path has all of them or none.

        Raises:
            ArtifactError: ``ARTIFACT_EXISTS``: something else lies there.
        """
        found = self.target.locate(self.canonical)
        if found is None:
            return entries
        wanted = build_manifest(local, location)
        there = build_manifest(self.target, found)
        if there.digest == wanted.digest:
            return []
        given = {item.name: item.digest for item in wanted.resources}
        part = found.kind == location.kind == "tree" and not self.canonical.startswith("file:")
        if not part or any(given.get(item.name) != item.digest for item in there.resources):
            raise exists(self.canonical)
        known = {item.name for item in there.resources}
        return [entry for entry in entries if entry.name not in known]

    def _write(self, local: Storage, location: Location, entries: list[Entry]) -> str | None:
        if location.kind == "tree" and self.canonical.startswith("file:"):
            put_in_place(location.uri, self.canonical, overwrite=self.overwrite)
            return None
        if location.kind == "tree" and self.overwrite:
            self._refuse_leftovers(entries)
        if location.kind == "file" and self.overwrite and not self.canonical.startswith("file:"):
            there = self.target.locate(self.canonical)
            if there is not None and there.kind == "tree":
                raise UsageError(
                    f"{printable(self.canonical)} is a folder, and the artifact a single file.",
                    next_step="Remove what lies there first; both would lie there.",
                )
        version = None
        with local.open(location) as reader:
            for entry in entries:
                uri = self.canonical if location.kind == "file" else f"{self.canonical}/{entry.name}"
                version = send_file(self.target, uri, reader, entry, overwrite=self.overwrite)
        return version if location.kind == "file" else None

    def _refuse_leftovers(self, entries: list[Entry]) -> None:
        there = self.target.locate(self.canonical)
        if there is None:
            return
        names = {entry.name for entry in entries} if there.kind == "tree" else set()
        more = [entry.name for entry in self.target.entries(there) if entry.name not in names]
        if more:
            raise UsageError(
                f"{printable(self.canonical)} holds {printable(more[0])!r}, which the artifact does not.",
                next_step="Remove what lies there first; a copy over it would be a mixture.",
            )

    def _carry(self, digest: Digest, artifact: EncryptedArtifact | None) -> None:
        store = self.check.store
        assert store is not None  # noqa: S101  (looked at before)
        carry_all(store, self.store, digest)
        if artifact is None:
            carry_evidence(self.check.handed, self.store, digest)
            return
        message = artifact.sealed.message
        self.store.put_list(message, artifact.digests.data)
        carry_all(store, self.store, message)

    def _promote(self, digest: Digest, verdict: Verdict, key: KeySigner) -> tuple[str, ...]:
        """Say who promoted it, and return the names of the objects."""
        statement = make_promotion_statement(
            digest, self.check.canonical, self.canonical, verdict, self.check.surroundings.run, now=utc_now()
        )
        return tuple(self.store.put(digest, KIND, make_bundle(statement, each)) for each in signers_of(key))


def send_file(target: Storage, uri: str, reader: Any, entry: Entry, *, overwrite: bool) -> str | None:
    """Send one file of the private copy, whole or by parts."""
    assert entry.size is not None  # noqa: S101  (asked for)
    size = part_size(entry.size, target.most_parts)
    part = part_buffer(max(1, min(size, entry.size)))
    outgoing: Outgoing | None = None
    parts: list[tuple[int, str]] = []
    sent = filled = 0

    def flush() -> None:
        nonlocal outgoing, sent, filled
        outgoing = outgoing or target.begin(uri, overwrite=overwrite)
        parts.append((len(parts) + 1, outgoing.send(len(parts) + 1, sent, part[:filled])))
        sent, filled = sent + filled, 0

    def consume(piece: Any) -> None:
        nonlocal filled
        view = memoryview(piece).cast("B")
        while len(view):
            # Only when more is there: what fits into one part is written at once.
            if filled == len(part):
                flush()
            taken = min(len(view), len(part) - filled)
            part[filled : filled + taken] = view[:taken]
            filled, view = filled + taken, view[taken:]
        release(part)

    try:
        if reader.read(entry, consume) != entry.size:
            raise ArtifactError(f"{printable(entry.name)} changed while it was read.", code="ARTIFACT_CHANGED")
        if outgoing is None:
            return target.put(uri, bytes(part[:filled]), overwrite=overwrite)
        flush()
        return outgoing.commit(parts)
    except BaseException:
        if outgoing is not None:
            with contextlib.suppress(SealflowError):
                outgoing.abort()
        raise
