"""Prove by a witnessed log when evidence was there, and keep the proofs beside it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sealflow.actions import context
from sealflow.actions.audit_opening import log_and_key
from sealflow.actions.audit_prove import prove_entry
from sealflow.actions.audit_verify import quorum_of, witness_keys
from sealflow.actions.recording import Recording
from sealflow.audit.checkpoint import NAME, Checkpoint, open_checkpoint
from sealflow.audit.entry import parse_entry
from sealflow.audit.event import AuditEvent, utc_now
from sealflow.audit.log import LogStore
from sealflow.audit.note import MAX_NOTE, VerifierKey
from sealflow.audit.reading import entries
from sealflow.audit.tiles import Tree
from sealflow.errors import ArtifactError, EvidenceError, UsageError
from sealflow.evidence import EvidenceStore
from sealflow.evidence.encryption import MessageId
from sealflow.evidence.store import MAX_INCLUSION, MAX_INCLUSIONS, EvidenceId
from sealflow.evidence.timestamp import Authority, Stamp
from sealflow.evidence.witnessed import WitnessedLog
from sealflow.findings import printable
from sealflow.policy.requirement import NOTHING_REVOKED, Revocations
from sealflow.storage import Storages
from sealflow.verification.inclusion import believed_keys, earliest_inclusion, witnessed_time

#: Most artifacts, and most encrypted messages, of one evidence store that are looked at.
MAX_ARTIFACTS: Final = 200_000
_NEEDLE: Final = b'"evidence":["sha256:'
_SHA256: Final = "sha256:"


@dataclass(frozen=True)
class ProvedTime:
    """What was proved.

    Attributes:
        time: Since when the witnesses have known the log as it is now, aware.
        added: Locations of the new proofs.
        proved: How many bundles these are about.
        before: How many had a proof already.
        unlogged: Locations of bundles that no entry of the log names.
        revoked: Names of believed witnesses whose keys are revoked: their cosignatures did not count.
    """

    time: datetime.datetime
    added: tuple[str, ...]
    proved: int
    before: int
    unlogged: tuple[str, ...]
    revoked: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "time": f"{self.time:%Y-%m-%dT%H:%M:%SZ}",
            "added": list(self.added),
            "proved": self.proved,
            "before": self.before,
            "unlogged": list(self.unlogged),
            "revoked": list(self.revoked),
        }


def prove_time(
    evidence_stores: Sequence[str] = (),
    log: str | None = None,
    key: str | None = None,
    *,
    witnesses: Iterable[str] = (),
    quorum: int | None = None,
    storages: Storages | None = None,
) -> ProvedTime:
    """Write beside evidence the proofs that a log held it when witnesses saw the log.

    A proof tells the time of the witnesses' cosignatures, so it is worth most when it is made soon: after each
    integration and witnessing. What has a proof gets no second one. Where the machine has a policy, its list of
    revocations is asked: what a revoked key says proves no time, whoever names it.

    Args:
        evidence_stores: The stores, by default the settings' one. All evidence in them is looked at.
        log: Where the log lies, by default the settings' ``audit_log``.
        key: Its verifier key or the path of a file that holds it, by default the settings' ``audit_log_key``.
        witnesses: Verifier keys of witnesses, or paths; by default what the policy in force says of this log.
        quorum: How many of them must have cosigned; with ``witnesses`` by default all.
        storages: Finds storage.

    Raises:
        EvidenceError: ``LOG_MISSING``: there is no log; ``LOG_CHECKPOINT``, ``LOG_ALTERED``, ``LOG_TRUNCATED``: it is
            not what its key signed, or that key is revoked; ``LOG_UNWITNESSED``: too few witnesses have seen it whose
            keys are not.
        UsageError: No store, no log, no witnesses; a store holds too much.
        UnavailableError: The log or a store is out of reach, or the policy or its list of revocations.
    """
    surroundings = context.current()
    storages = storages or Storages()
    found, verifier = log_and_key(log, key, surroundings, storages)
    stores = [*evidence_stores, *([] if evidence_stores else filter(None, [surroundings.settings.evidence_store]))]
    if not stores:
        raise UsageError("No evidence store is named.", next_step="Name it, or set SEALFLOW_EVIDENCE_STORE.")
    in_force = None
    if surroundings.admin is not None:
        from sealflow.policy.source import policy_in_force

        in_force = policy_in_force(surroundings.admin, storages, utc_now())
    authorities = in_force.policy.authorities if in_force is not None else ()
    believed = _believed(verifier, tuple(witnesses), quorum, authorities)
    revoked = in_force.revoked if in_force is not None else NOTHING_REVOKED
    with Recording("audit_prove", found.uri, surroundings, ruled=False) as recording:
        now = utc_now()
        note, checkpoint, time, gone = _witnessed(found, believed, now, revoked)
        job = _Job(believed, now, revoked)
        for store in {opened.uri: opened for opened in (EvidenceStore(uri, storages) for uri in stores)}.values():
            job.look(store)
        added, proved = job.write(Tree(found.get, checkpoint.size), checkpoint, note, found)
        recording.done("")
    return ProvedTime(time, added, proved, job.before, tuple(sorted(job.unlogged)), gone)


class _Job:
    """What lies in stores, and which of it an entry was found for."""

    def __init__(self, believed: WitnessedLog, now: datetime.datetime, revoked: Revocations) -> None:
        self._believed = believed
        self._now = now
        self._revoked = revoked
        #: By the digest of a bundle, where it lies.
        self._wanted: dict[str, list[tuple[EvidenceStore, EvidenceId, str]]] = {}
        self.before = 0
        self.unlogged: list[str] = []

    def look(self, store: EvidenceStore) -> None:
        digests, messages = store.digests(MAX_ARTIFACTS + 1), store.messages(MAX_ARTIFACTS + 1)
        if max(len(digests), len(messages)) > MAX_ARTIFACTS:
            raise UsageError(f"{printable(store.uri)} holds evidence of more than {MAX_ARTIFACTS} artifacts.")
        about: list[EvidenceId] = [*digests, *map(MessageId, messages)]
        for one in about:
            bundles, proofs = store.bundles(one)
            # Those that verifications read.
            told = [data for name in proofs[:MAX_INCLUSIONS] if (data := _read(store, one, name)) is not None]
            for sha256, name in bundles.items():
                found = earliest_inclusion(told, sha256, [self._believed], self._now, self._revoked)
                if isinstance(found, Stamp):
                    self.before += 1
                else:
                    self._wanted.setdefault(sha256, []).append((store, one, name))

    def write(self, tree: Tree, checkpoint: Checkpoint, note: bytes, log: LogStore) -> tuple[tuple[str, ...], int]:
        """Write a proof for each entry that names what is wanted, and return their places and how much they name."""
        places: dict[tuple[str, str], tuple[EvidenceStore, EvidenceId]] = {}
        proved = 0
        # An entry that names many bundles is proved once in each folder.
        indices: dict[int, set[tuple[str, str]]] = {}
        for index, named in _naming(log, checkpoint):
            for sha256 in named:
                for store, about, _ in self._wanted.pop(sha256, ()):
                    place = (store.uri, about.path_segment)
                    places[place] = store, about
                    indices.setdefault(index, set()).add(place)
                    proved += 1
        added: list[str] = []
        for index, where in indices.items():
            proof = prove_entry(tree, checkpoint, note, index).encode()
            if len(proof) > MAX_INCLUSION:
                raise UsageError(f"The proof of entry {index} has {len(proof)} bytes, more than {MAX_INCLUSION}.")
            for place in sorted(where):
                store, about = places[place]
                added.append(f"{'/'.join(place)}/{store.put_inclusion(about, proof)}")
        for rest in self._wanted.values():
            self.unlogged += [f"{store.uri}/{about.path_segment}/{name}" for store, about, name in rest]
        return tuple(added), proved


def _read(store: EvidenceStore, about: EvidenceId, name: str) -> bytes | None:
    try:
        return store.get_inclusion(about, name)
    except (ArtifactError, EvidenceError):
        return None  # whoever writes into the store may put there what cannot be read; it proves nothing


def _naming(log: LogStore, checkpoint: Checkpoint) -> Iterator[tuple[int, list[str]]]:
    """Yield the entries of a log whose events name evidence, and its digests in hex."""
    for index, line in enumerate(entries(log.get, checkpoint)):
        if _NEEDLE not in line:
            continue
        try:
            entry = parse_entry(line)
            named = AuditEvent.parse(entry.event).evidence
        except EvidenceError:
            continue  # anybody may write nonsense
        if entry.is_signed():
            # In the form that counts: what others name in another one takes no place from the entry that proves it.
            yield index, [item[len(_SHA256) :] for item in named if item.startswith(_SHA256)]


def _witnessed(
    log: LogStore, believed: WitnessedLog, now: datetime.datetime, revoked: Revocations
) -> tuple[bytes, Checkpoint, datetime.datetime, tuple[str, ...]]:
    """Return the log's checkpoint, its note, its time, and the names of witnesses that are revoked."""
    try:
        key, witnesses = believed_keys(believed, revoked)
    except EvidenceError as error:
        raise EvidenceError(
            error.message, code=error.code, next_step="Begin a new log with another key: this one's proves no time."
        ) from None
    there = {witness.name for witness in witnesses}
    gone = tuple([name for text in believed.witnesses if (name := VerifierKey.parse(text).name) not in there])
    note = log.get(NAME, MAX_NOTE)
    if note is None:
        raise EvidenceError(f"No checkpoint lies in {printable(log.uri)}.", code="LOG_MISSING")
    signed = open_checkpoint(note, key, witnesses)
    try:
        time = witnessed_time(signed.witnesses.values(), believed.quorum, now)
    except EvidenceError as error:
        told = f" {printable(', '.join(gone))} {'are' if len(gone) > 1 else 'is'} revoked." if gone else ""
        raise EvidenceError(
            f"{error.message}{told}", code=error.code, next_step="Have it cosigned first: sealflow audit witness."
        ) from None
    return note, signed.checkpoint, time, gone


def _believed(
    key: VerifierKey,
    witnesses: tuple[str, ...],
    quorum: int | None,
    authorities: Sequence[Authority | WitnessedLog],
) -> WitnessedLog:
    """Return whose word the proofs must bear: as the call says, else as the policy in force says of this log."""
    if witnesses:
        named = witness_keys(witnesses)
        wanted = quorum_of(named, quorum)
        if not wanted:
            raise UsageError("A proof of time needs one witness at least.")
        return WitnessedLog("the log", str(key), tuple(map(str, named)), wanted)
    if quorum is not None:
        raise UsageError("A quorum is of witnesses that the call names.", next_step="Name them with --witness.")
    for item in authorities:
        if isinstance(item, WitnessedLog) and item.log == str(key):
            return item
    raise UsageError(
        "Nobody is named whose cosignatures prove a time.",
        next_step="Name witnesses with --witness, or this log and its witnesses in the policy's timestamp_authorities.",
    )
