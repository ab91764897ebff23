"""Quarantine: an artifact is revoked, then moved under a prefix where no reference leads, and its evidence with it.

Why the digest is revoked first: the signed list refuses the very bytes, wherever copies of them lie and under whichever
version a reference names them, and nobody but an admin can take it back. A marker beside the old place would be written
by whoever may write there, read by no verifier of others, and say nothing of copies. The move is the second half: what
is looked for by name alone is not found any more. Evidence stays in its store, too; it is never rewritten.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sealflow import strictjson
from sealflow.actions import context
from sealflow.actions.places import within
from sealflow.actions.quarantine_moving import Move, leftovers_of
from sealflow.actions.recording import Recording
from sealflow.actions.respond_revoke import DEFAULT_LIFE, revoke
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.collector import rare_collection
from sealflow.encryption.header import MAX_HEADER, parse_header
from sealflow.errors import ArtifactError, EvidenceError, SealflowError, UnavailableError, UsageError
from sealflow.evidence import ArtifactRef, EvidenceStore, default_store
from sealflow.evidence.bundle import MAX_BUNDLE
from sealflow.evidence.encryption import MessageId
from sealflow.evidence.reference import is_reference
from sealflow.evidence.store import MAX_NAMES
from sealflow.findings import printable
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import KeySigner, PassphraseCallback
from sealflow.manifest import build_manifest
from sealflow.storage import Location, Storage, Storages

_MAX_RECORD: Final = 64 << 10
_MAX_RECORDS: Final = 1000
#: How often what is made anew at the place while it is quarantined is moved, too.
_MAX_ROUNDS: Final = 5


@dataclass(frozen=True)
class Quarantined:
    """What was done.

    Attributes:
        source: Where the artifact lay.
        place: Where it lies now.
        digest: Artifact digest of its bytes.
        evidence: Store that holds its evidence now, beside the old one.
        revoked: Version of the list that refuses it; ``None`` where it is not revoked.
        existed: Whether all of it had been done before.
        warnings: What is left open.
    """

    source: str
    place: str
    digest: Digest
    evidence: str
    revoked: int | None
    existed: bool
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "source": printable(self.source, 4096),
            "place": printable(self.place, 4096),
            "digest": str(self.digest),
            "evidence": printable(self.evidence, 4096),
            "revocations_version": self.revoked,
            "existed": self.existed,
            "warnings": list(self.warnings),
        }


def quarantine(
    artifact: str | os.PathLike[str] | ArtifactRef | dict[str, Any],
    *,
    to: str,
    reason: str,
    list_place: str | None = None,
    signer: str | KeySigner | None = None,
    revoked: bool = True,
    evidence_stores: Sequence[str] = (),
    ticket: str = "",
    life: str = DEFAULT_LIFE,
    new_list: bool = False,
    after: int | None = None,
    content: Digest | None = None,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    sink: AuditSink | None = None,
) -> Quarantined:
    """Revoke an artifact and move it under a prefix. Safe to call again after a crash at any point.

    Args:
        artifact: Location or reference, on this machine or in S3. Nothing about it needs to verify.
        to: Prefix under which quarantined artifacts lie, on this machine or in a store.
        reason: Why; it stands in the list of revocations and in the record beside the artifact.
        list_place: Where the list of revocations lies, by default the admin's channel's.
        signer: Who signs its next version.
        revoked: Whether it is revoked. Without, copies elsewhere and older versions in the bucket still pass.
        evidence_stores: Where its evidence lies, besides the reference's store, the surroundings' and the default one.
        ticket: Ticket of the incident.
        life: How long the next version of the list is believed at least.
        new_list: Whether the list may be the first one.
        content: Artifact digest of what is encrypted, where the responder knows it: it is revoked. What a reference
            says of an encrypted object is not taken for it.
        after: Version of the list that must lie there, see :func:`~sealflow.actions.respond_revoke.revoke`.
        passphrase: Asked for the passphrase of an encrypted key.
        storages: Finds storage.
        sink: Takes audit events.

    Raises:
        ArtifactError: Nothing lies there and nothing was moved from there; or other bytes than the reference names.
        UsageError: A parameter cannot work, or the artifact shall be revoked and nobody says by whom and where.
        PolicyError: The list of revocations cannot be built on.
        UnavailableError: A place, the key service or the audit log is out of reach: call it again.
    """
    storages = storages or Storages()
    surroundings = context.current()
    ref = ArtifactRef.parse(artifact) if is_reference(artifact) else None
    uri = ref.uri if ref is not None else os.fspath(artifact)  # type: ignore[arg-type]
    storage = storages.for_uri(uri)
    source = storage.canonical(uri).rstrip("/")
    prefix = storages.for_uri(to).canonical(to).rstrip("/")
    for inner, outer in ((source, prefix), (prefix, source)):
        if within(inner, outer, surroundings.mounts):
            raise UsageError(
                f"{printable(inner)} lies inside of {printable(outer)}.", next_step="Choose a prefix of its own."
            )
    named = ref.digest if ref is not None else None
    if revoked and (signer is None or not (list_place or getattr(surroundings.admin, "revocations", ""))):
        raise UsageError(
            "Nobody says where the artifact is revoked, and by whom; moved alone, its copies still pass.",
            next_step="Give the list and its signer (--list, --signer); or say that it shall not be (--no-revoke).",
        )
    with Recording("quarantine", source, surroundings, ruled=False, sink=sink) as recording, rare_collection():
        job = _Job(source, prefix, storages, named)
        stores = [*evidence_stores, ref.evidence if ref is not None else "", surroundings.settings.evidence_store or ""]
        warnings: list[str] = []
        version: int | None = None
        for _ in range(_MAX_ROUNDS):
            record, existed, begun = job.plan(reason)
            digest = Digest.parse(record["digest"])
            meant = named is None or str(named) in (record["digest"], record.get("named"))
            if revoked:
                assert signer is not None  # noqa: S101  (looked at before)
                # Nobody here can open an encrypted object, and what a reference says of it is hearsay, perhaps of the
                # one who is suspected: an innocent artifact would be refused everywhere.
                for item in dict.fromkeys(filter(None, [content, None if record["encrypted"] else digest])):
                    made = revoke(
                        item,
                        since="now",
                        reason=reason,
                        list_place=list_place,
                        signer=signer,
                        kind="digest",
                        ticket=ticket,
                        life=life,
                        new_list=new_list,
                        # Our own versions of this call follow on it, and are remembered.
                        after=after if version is None else None,
                        passphrase=passphrase,
                        storages=storages,
                        sink=sink,
                    )
                    version = made.version
                    warnings += made.warnings
            warnings += job.keep_evidence(record, stores, named if meant else None)
            if not existed:
                job.move(record).run()
            there = job.lies_there()
            if there is None or not (begun or there == digest):
                break
            # What an earlier attempt had begun is done; now what lies there, which is what was asked for.
        if there is not None:
            warnings.append(f"Something was written to {printable(source)} meanwhile ({there}); it lies there still.")
        if not revoked:
            warnings.append("It is not revoked: copies elsewhere, and versions that the bucket keeps, still pass.")
        elif version is None:
            claimed = f" The reference claims {named}." if named is not None else ""
            warnings.append(
                f"It is encrypted, so nobody here knows which artifact it is, and none is revoked.{claimed} Once you "
                "know: sealflow respond revoke DIGEST --as digest."
            )
        recording.done(str(digest))
    told = tuple(dict.fromkeys(warnings))
    return Quarantined(source, job.place(record), digest, job.evidence(digest), version, existed, told)


@dataclass(frozen=True)
class _Job:
    source: str
    prefix: str
    storages: Storages
    named: Digest | None

    @property
    def target(self) -> Storage:
        return self.storages.for_uri(self.prefix)

    def place(self, record: dict[str, Any]) -> str:
        """Where the artifact lies then."""
        return f"{self._folder(Digest.parse(record['digest']))}/artifact/{record['name']}"

    def evidence(self, digest: Digest) -> str:
        """The store that holds its evidence then."""
        return f"{self._folder(digest)}/evidence"

    def _folder(self, digest: Digest) -> str:
        return f"{self.prefix}/{digest.path_segment}"

    @property
    def _records(self) -> str:
        return f"{self.prefix}/by-source/{sha256_hex(self.source.encode())}"

    def move(self, record: dict[str, Any]) -> Move:
        """What moves it."""
        return Move(self.source, self.place(record), Digest.parse(record["digest"]), self.storages)

    def lies_there(self) -> Digest | None:
        """Return what lies at the source now."""
        storage = self.storages.for_uri(self.source)
        found = storage.locate(self.source)
        return None if found is None else build_manifest(storage, found).digest

    def plan(self, reason: str) -> tuple[dict[str, Any], bool, bool]:
        """Return the record of what is to be moved, written before anything is.

        Returns:
            The record; whether all of it is done; whether an earlier attempt had begun it.

        Raises:
            ArtifactError: Nothing lies there and nothing was moved; or other bytes than the reference names.
            EvidenceError: A record under the prefix is none.
        """
        before = self._read_records()
        for record in before:
            if self.move(record).begun():
                return record, False, True
        storage = self.storages.for_uri(self.source)
        found = storage.locate(self.source)
        if found is None:
            for record in before:
                wanted = self.named is None or str(self.named) in (record["digest"], record.get("named"))
                if wanted and self.move(record).arrived():
                    return record, True, False
            raise ArtifactError(f"Nothing lies at {printable(self.source)}.", code="ARTIFACT_MISSING")
        manifest = build_manifest(storage, found)
        for record in before:
            move = self.move(record)
            if manifest.digest == move.digest or found.kind != "tree" or not move.arrived():
                continue
            there = self.target.locate(move.target)
            if there is not None and leftovers_of(manifest, build_manifest(self.target, there)):
                return record, False, True
        message = _message(storage, found)
        if self.named is not None and message is None and manifest.digest != self.named:
            raise ArtifactError(
                f"Other bytes than the reference names lie at {printable(self.source)}.",
                code="DIGEST_MISMATCH",
                next_step="Give the location itself to move what lies there now; revoke the digest to refuse the rest.",
            )
        made = {
            "sealflow_quarantine": 1,
            "source": self.source,
            "version_id": found.version_id,
            "name": found.name,
            "kind": found.kind,
            "digest": str(manifest.digest),
            "named": str(self.named) if self.named is not None else None,
            "encrypted": message is not None,
            "message": message.hex if message is not None else None,
            "reason": reason,
            "run": context.current().run.invocation,
            "since": utc_now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if not any(record["digest"] == made["digest"] for record in before):
            self._make_private()
            self.target.create(f"{self._records}/{manifest.digest.path_segment}.json", strictjson.dumps(made))
        return made, False, False

    def _make_private(self) -> None:
        """Keep what is quarantined on this machine from others, who might load it."""
        if self.prefix.startswith("file:"):
            from sealflow.storage.local import to_path

            try:
                os.makedirs(to_path(self.prefix), mode=0o700, exist_ok=True)
            except OSError as error:
                raise UnavailableError(f"{printable(self.prefix)} cannot be made: {error.strerror}.") from None

    def _read_records(self) -> list[dict[str, Any]]:
        found = []
        for name in self.target.list_objects(self._records, _MAX_RECORDS)[:_MAX_RECORDS]:
            if not name.endswith(".json"):
                continue
            data = self.target.get(f"{self._records}/{name}", _MAX_RECORD)
            if data is None:
                continue
            body = strictjson.loads(data, limit=_MAX_RECORD, what=f"The record {printable(name)}")
            what = "A record of the quarantine"
            for member in ("source", "name", "digest", "kind"):
                strictjson.member(body, member, str, what)
            segment = Digest.parse(body["digest"]).path_segment
            if body["source"] != self.source or f"{segment}.json" != name or "/" in body["name"]:
                raise EvidenceError(f"The record {printable(name)} is about something else.")
            found.append(body)
        return found

    def keep_evidence(self, record: dict[str, Any], stores: Sequence[str], named: Digest | None) -> list[str]:
        """Copy everything that lies in the stores about the artifact, sound or not; return what could not be."""
        digest = Digest.parse(record["digest"])
        try:
            default = default_store(self.source, self.storages)
        except UsageError:
            default = f"{self.source}.evidence"
        about: list[str] = [digest.path_segment]
        if named is not None and named != digest:
            about.append(named.path_segment)
        if record.get("message"):
            about.append(MessageId(record["message"]).path_segment)
        problems: list[str] = []
        for uri in dict.fromkeys(item for item in (*stores, default) if item):
            store = EvidenceStore(uri, self.storages)
            storage = self.storages.for_uri(store.uri)
            for segment in about:
                folder = f"{store.uri}/{segment}"
                try:
                    names = storage.list_objects(folder, MAX_NAMES)
                except SealflowError as error:
                    problems.append(f"Evidence at {printable(folder)} was not kept: {error.message}")
                    continue
                if len(names) > MAX_NAMES:
                    problems.append(f"Of the evidence at {printable(folder)} only {MAX_NAMES} objects were kept.")
                for name in names[:MAX_NAMES]:
                    if problem := self._keep(storage, f"{folder}/{name}", f"{self.evidence(digest)}/{segment}", name):
                        problems.append(problem)
        return problems

    def _keep(self, storage: Storage, uri: str, folder: str, name: str) -> str:
        try:
            data = storage.get(uri, MAX_BUNDLE)
            if data is None:
                return ""
            if self.target.create(f"{folder}/{name}", data) or self.target.get(f"{folder}/{name}", MAX_BUNDLE) == data:
                return ""
            # Two stores hold different objects of one name: both are kept, and only one can be sound.
            self.target.create(f"{folder}/{name}.{sha256_hex(data)[:16]}", data)
        except SealflowError as error:
            return f"{printable(uri)} was not kept: {error.message}"
        return ""


def _message(storage: Storage, found: Location) -> MessageId | None:
    """Return the id of an encrypted object, ``None`` for what is none."""
    if found.kind != "file":
        return None
    opened = storage.open_object(found.uri, MAX_HEADER, found.version_id)
    if opened is None:
        return None
    with opened:
        try:
            return MessageId(parse_header(opened.head).message_id.hex())
        except EvidenceError:
            return None
