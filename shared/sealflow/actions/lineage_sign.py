"""Sign what a DVC repository holds: which SHA-256 its data has, and from what a stage made it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sealflow.actions import context
from sealflow.actions.lineage_evidence import store_of
from sealflow.actions.places import refuse_overlap
from sealflow.actions.recording import Recording
from sealflow.actions.sign import chosen_signer, open_signer, write_evidence
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.collector import rare_collection
from sealflow.errors import ArtifactError, UsageError
from sealflow.evidence import ArtifactRef, EvidenceStore, make_bundle
from sealflow.evidence.lineage import KIND, make_lineage_statement
from sealflow.evidence.provenance import Dependency, make_provenance_statement
from sealflow.evidence.store import MAX_ATTESTATION
from sealflow.findings import Finding, Verdict, conclude
from sealflow.hashing import Digest
from sealflow.keys import KeySigner, PassphraseCallback
from sealflow.keys.signer import signers_of
from sealflow.lineage.check import LineageCheck, check_repository
from sealflow.lineage.content import Content
from sealflow.lineage.files import Recorded
from sealflow.lineage.repository import Stage
from sealflow.manifest import Manifest, Resource
from sealflow.names import check_name
from sealflow.storage import Storages
from sealflow.storage.local import to_path, to_uri


@dataclass(frozen=True)
class LineageSigned:
    """What signing made.

    Attributes:
        refs: References of the outputs by path in the repository; they can be verified like any artifact.
        statements: Paths with a new lineage statement.
        evidence_store: Where the evidence lies.
        producer: Producer that was signed.
        keys: Fingerprints of the signing keys.
    """

    refs: Mapping[str, ArtifactRef]
    statements: tuple[str, ...]
    evidence_store: str
    producer: str
    keys: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "refs": {path: ref.as_dict() for path, ref in self.refs.items()},
            "statements": list(self.statements),
            "evidence_store": self.evidence_store,
            "producer": self.producer,
            "keys": list(self.keys),
        }


def sign_lineage(
    repository: str,
    targets: Sequence[str] = (),
    *,
    signer: str | KeySigner | None = None,
    evidence_store: str | None = None,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    sink: AuditSink | None = None,
) -> LineageSigned:
    """Sign stages and data of a DVC repository. Call it in the task that ran the stages, or as the owner of the data.

    The repository is checked first, at level ``L2``, with everything upstream of the targets; nothing is signed unless
    that passes. The one reading of that check makes MD5 and SHA-256 together. Then, for each target:

    * each output, and each ``.dvc`` file's data, gets a signature, provenance, and a lineage statement. The provenance
      of a stage's output names what the stage read, as the lock records it, and what this run has verified;
    * each dependency that is no output itself gets a lineage statement.

    Args:
        repository: Folder of the repository, the one that holds ``.dvc``: a path or a ``file:`` URI.
        targets: Stages, outputs, ``.dvc`` or ``dvc.yaml`` files, relative to the folder; all when there are none.
            Upstream stages are signed by whoever ran them.
        signer: Signer URI, by default the one that the policy chooses, then the one that the surroundings set.
        evidence_store: Where the evidence goes, by default what the surroundings set, then ``<repository>.evidence``.
        passphrase: Asked for the passphrase of an encrypted key.
        storages: Finds storage.
        sink: Takes the audit events; the settings' own when absent.

    Raises:
        VerificationError: The repository does not agree with its lock, or holds names that cannot be signed.
        UsageError: An unknown target, no signer, an unsuitable key.
        UnavailableError: A folder, a store, the key service or the audit log is out of reach.
    """
    if isinstance(targets, str):
        raise UsageError("Give the targets as a list.")
    surroundings = context.current()
    storages = storages or Storages()
    path = os.path.realpath(to_path(repository))
    uri = to_uri(path)
    store = store_of(path, evidence_store, surroundings, storages)
    refuse_overlap(uri, store.uri, mounts=surroundings.mounts, what="repository")
    keys: dict[str, KeySigner] = {}

    def key_for(name: str) -> KeySigner:
        chosen = chosen_signer(to_uri(f"{path}/{name}"), surroundings, signer)
        known = chosen if isinstance(chosen, str) else ""
        if known not in keys:
            keys[known] = open_signer(chosen, passphrase)
        return keys[known]

    with Recording("check_lineage", uri, surroundings, sink=sink) as recording, rare_collection():
        checked = check_repository(path, targets, level="L2", sha256=True)
        status, ordered = conclude((*checked.findings, *_unsignable(checked)))
        now = utc_now()
        verdict = Verdict(status, uri, findings=ordered, checked_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"))
        recording.judged(verdict)
    if not verdict.passed:
        raise surroundings.refusal(verdict)
    items = _items(checked)
    for name in items:
        key_for(name)  # before anything is written: a signer that is missing should not leave half of the evidence
    made = _Made(path, checked, store, surroundings)
    for name, (stage, item, is_out) in items.items():
        key = key_for(name)
        where = to_uri(f"{path}/{name}")
        fingerprint = f"sha256:{key.public_key.hint}"
        with Recording("sign_lineage", where, surroundings, key=fingerprint, sink=sink) as recording:
            digest, names = made.sign(name, stage, item, key, is_out=is_out)
            recording.made(*names)
            recording.done(str(digest))
    return LineageSigned(
        made.refs,
        tuple(items),
        store.uri,
        surroundings.run.producer,
        tuple(sorted({f"sha256:{key.public_key.hint}" for key in keys.values()})),
    )


def _items(checked: LineageCheck) -> dict[str, tuple[Stage, Recorded, bool]]:
    """Return what is signed, by path: outputs of the named stages, and what they read that is no output itself."""
    found: dict[str, tuple[Stage, Recorded, bool]] = {}
    for stage in checked.named:
        for item in stage.recorded_outs:
            if (place := stage.place(item.path)) is not None:
                found[place] = (stage, item, True)
    for stage in checked.named:
        for item in stage.recorded_deps:
            place = stage.place(item.path)
            if place is not None and place not in checked.written:
                found.setdefault(place, (stage, item, False))
    return found


def _unsignable(checked: LineageCheck) -> list[Finding]:
    found = []
    items = _items(checked)
    for path in dict.fromkeys([*items, *(place for stage in checked.named for place in checked.inputs(stage))]):
        try:
            check_name(path)
            if path in checked.contents:
                checked.contents[path].artifact_digest()
        except ArtifactError as error:
            found.append(Finding("DATA_REFUSED", "refusal", path, error.message, next_step="Rename the file."))
    for path, (_, item, is_out) in items.items():
        legacy = "Digests of DVC 2 are not signed: in text they do not tell CRLF from LF."
        if item.legacy:
            found.append(Finding("LEGACY_HASH", "refusal", path, legacy))
        if is_out and path in checked.contents and checked.contents[path].files == {}:
            found.append(Finding("DATA_REFUSED", "refusal", path, "A folder without files cannot be signed."))
    return found


class _Made:
    """Makes the evidence about one path after the other."""

    def __init__(
        self, path: str, checked: LineageCheck, store: EvidenceStore, surroundings: context.Surroundings
    ) -> None:
        self._path = path
        self._checked = checked
        self._store = store
        self._surroundings = surroundings
        self.refs: dict[str, ArtifactRef] = {}

    def sign(
        self, name: str, stage: Stage, item: Recorded, key: KeySigner, *, is_out: bool
    ) -> tuple[Digest, tuple[str, ...]]:
        """Sign one, and return its digest and the names of the objects."""
        content = self._checked.contents[name]
        digest = content.artifact_digest()
        run, now = self._surroundings.run, utc_now()
        statement = make_lineage_statement(
            name,
            digest,
            md5=item.digest,
            size=content.size,
            nfiles=None if content.files is None else len(content.files),
            stage=stage.address,
            run=run,
            now=now,
        )
        bundles = [make_bundle(statement, each) for each in signers_of(key)]
        names: tuple[str, ...] = ()
        if is_out:
            where = to_uri(f"{self._path}/{name}")
            provenance = make_provenance_statement(name, digest, run, dependencies=self._dependencies(stage), now=now)
            _, names = write_evidence(
                self._store, where, _manifest(name, content), provenance, key, limit=MAX_ATTESTATION
            )
            ref = ArtifactRef(where, digest, self._store.uri)
            ref.as_dict()  # refuse a reference that is too long before anybody relies on it
            self.refs[name] = ref
        # Last: who finds it finds the rest.
        return digest, (*names, *[self._store.put(digest, KIND, bundle) for bundle in bundles])

    def _dependencies(self, stage: Stage) -> list[Dependency]:
        found = [
            Dependency(to_uri(f"{self._path}/{place}"), self._checked.contents[place].artifact_digest(), place, source)
            for place, source in self._checked.inputs(stage).items()
        ]
        known = {item.digest for item in found}
        # What the run has read beyond the lock is said too: a check then sees that the two do not agree.
        return [*found, *(item for item in context.verified_inputs(self._surroundings.run) if item.digest not in known)]


def _manifest(name: str, content: Content) -> Manifest:
    base = name.rpartition("/")[2]
    if content.files is None:
        return Manifest("file", base, (Resource(base, content.sha256),), size=content.size)
    resources = sorted(Resource(inner, file.sha256) for inner, file in content.files.items())
    return Manifest("tree", base, tuple(resources), size=content.size)
