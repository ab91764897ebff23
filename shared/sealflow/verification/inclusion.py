"""Since when a witnessed log has held a piece of evidence. Pure, and offline.

The log need not be there: its proof (C2SP tlog-proof) carries the entry along, leads from it to a checkpoint, and that
bears the cosignatures of witnesses, each with its time. Who wrote the entry makes no difference. Its event names the
evidence by the SHA-256 of all its bytes, and nobody knows that of a signature which is not made yet.
"""

from __future__ import annotations

import datetime
import functools
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from sealflow.errors import EvidenceError, UsageError
from sealflow.evidence.store import MAX_INCLUSION, MAX_INCLUSIONS
from sealflow.evidence.timestamp import RESOLUTION, SKEW, Stamp
from sealflow.evidence.witnessed import WitnessedLog
from sealflow.policy.requirement import Revocations

if TYPE_CHECKING:
    from sealflow.audit.note import VerifierKey
    from sealflow.audit.proof import Proof

#: Most signatures of one log and its witnesses that are checked for one piece of evidence, a second's work. A store
#: gives 512 proofs at most, and those with the fewest signatures come first: nobody gets in the way of a good one that
#: bears a line for the log and each of its witnesses.
_MOST_SIGNATURES: Final = 10_000
_SHA256 = re.compile(r"sha256:([0-9a-f]{64})")
#: Bytes of the id by which a signature names its key.
_ID: Final = 4


def earliest_inclusion(
    proofs: Iterable[bytes], sha256: str, logs: Sequence[WitnessedLog], now: datetime.datetime, revoked: Revocations
) -> Stamp | str:
    """Return since when one of the logs has held a piece of evidence, or why that is not proved.

    Whoever writes into a store can add proofs that prove nothing, so none stands before another: those that cannot
    count are told by what costs no signature, and of the others the cheapest are looked at first.

    Args:
        proofs: What claims to prove it, of this piece or of others.
        sha256: Of the piece's bytes, in hex.
        logs: Which ones are believed.
        now: The time of the check, aware.
        revoked: Keys that count no longer, those of logs and witnesses too.
    """
    found: list[Stamp] = []
    problems: list[str] = []
    wanted = bytes.fromhex(sha256)
    named = [(data, glance) for data in proofs if (glance := _glance(data)).names(wanted)]
    if not named:
        return "no proof of a log names it"
    for log in logs:
        try:
            key, witnesses = believed_keys(log, revoked)
        except EvidenceError as error:
            problems.append(f"{log.name}: {error.message}")
            continue
        promising: list[tuple[int, bytes]] = []
        for data, glance in named:
            problem = glance.problem or glance.lacks(key, witnesses, log.quorum)
            if problem:
                problems.append(f"{log.name}: {problem}")
            else:
                promising.append((glance.signatures(key, witnesses), data))
        left = _MOST_SIGNATURES
        for cost, proof in sorted(promising, key=lambda item: item[0]):
            left -= cost
            if left < 0:
                problems.append(f"{log.name}: further proofs, with more signatures, were not looked at")
                break
            try:
                found.append(check_inclusion(proof, sha256, log, now, revoked))
            except EvidenceError as error:
                problems.append(f"{log.name}: {error.message}")
    return min(found, key=lambda item: item.latest) if found else "; ".join(dict.fromkeys(problems))[:500]


def check_inclusion(data: bytes, sha256: str, log: WitnessedLog, now: datetime.datetime, revoked: Revocations) -> Stamp:
    """Return since when a log has held a piece of evidence, by the word of its witnesses.

    Args:
        data: The proof.
        sha256: Of the piece's bytes, in hex.
        log: Which one it must be.
        now: The time of the check, aware.
        revoked: Keys that count no longer. No time helps a witness: whoever has its key writes any time.

    Raises:
        EvidenceError: ``LOG_PROOF``, ``LOG_CHECKPOINT``, ``LOG_UNWITNESSED``, ``AUDIT_SIGNATURE``, ``AUDIT_MALFORMED``:
            it proves nothing, and why.
    """
    key, witnesses = believed_keys(log, revoked)
    opened = _opened.get((*_mark(data), key, witnesses), lambda: _open(data, key, witnesses))
    if isinstance(opened, _Problem):
        raise EvidenceError(opened.message, code=opened.code)
    time = witnessed_time(opened.times, log.quorum, now)
    if not _among(bytes.fromhex(sha256), opened.named):
        raise EvidenceError("The entry names other evidence.", code="LOG_PROOF")
    return Stamp(time, time + RESOLUTION, log.name)


# Each piece of evidence about an artifact is asked for in each proof that lies with it: whatever depends on the proof
# alone is remembered, problems too, and of the proof itself no more than is asked.


class _Problem(NamedTuple):
    message: str
    code: str


class _Fact(NamedTuple):
    """What a proof proves: when witnesses saw a log with an entry, and what that entry names, digest after digest."""

    times: tuple[int, ...]
    named: bytes


class _Glance(NamedTuple):
    """What a proof says of itself. Nothing of it is verified but that its hashes fit each other.

    Attributes:
        named: Digests of the evidence that its entry names, one after the other.
        signers: Ids of the keys that are said to have signed its checkpoint, once for each different signature.
        problem: Why it proves nothing, whatever its signatures are worth; empty for nothing of the kind.
    """

    named: bytes
    signers: bytes
    problem: str

    def names(self, sha256: bytes) -> bool:
        return _among(sha256, self.named)

    def lacks(self, key: VerifierKey, witnesses: Sequence[VerifierKey], quorum: int) -> str:
        """Say which signature is not there that would have to be; empty for none."""
        if not _among(key.id, self.signers):
            return "The checkpoint is not signed by its key."
        there = sum(_among(witness.id, self.signers) for witness in witnesses)
        return f"Of {quorum} witnesses {there} cosigned the checkpoint." if there < quorum else ""

    def signatures(self, key: VerifierKey, witnesses: Sequence[VerifierKey]) -> int:
        """Return how many signatures are checked at most."""
        ids = {key.id, *(witness.id for witness in witnesses)}
        return sum(self.signers[at : at + _ID] in ids for at in range(0, len(self.signers), _ID))


_T = TypeVar("_T")


class _Memo(Generic[_T]):
    """Remembers so many answers, the latest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[object, _T] = {}
        self._lock = threading.Lock()

    def get(self, mark: object, make: Callable[[], _T]) -> _T:
        found = self._known.get(mark)
        if found is None:
            found = make()
            with self._lock:
                while len(self._known) >= self._most:
                    del self._known[next(iter(self._known))]
                self._known[mark] = found
        return found


#: A few KiB each at most, so that both together stay below 16 MiB.
_glances: Final[_Memo[_Glance]] = _Memo(2 * MAX_INCLUSIONS)
_opened: Final[_Memo[_Fact | _Problem]] = _Memo(4 * MAX_INCLUSIONS)


def _mark(data: bytes) -> tuple[int, int]:
    # Not the proof, which would stay for as long as the answer, nor its SHA-256, which would be made again for each
    # piece. Two with one mark prove nothing false: what is remembered is true of a log, whoever asks for it.
    return hash(data), len(data)


def _glance(data: bytes) -> _Glance:
    return _glances.get(_mark(data), lambda: _look(data))


def _look(data: bytes) -> _Glance:
    from sealflow.audit import merkle
    from sealflow.audit.checkpoint import parse_text
    from sealflow.audit.note import parse_note

    named = b""
    try:
        proof = _parsed(data)
        named = _named_by(proof.extra)
        note = parse_note(proof.checkpoint)
        checkpoint = parse_text(note.text)
        leaf = merkle.leaf_hash(proof.extra)
        if not merkle.is_included(proof.index, checkpoint.size, leaf, proof.hashes, checkpoint.root):
            return _Glance(named, b"", "The proof does not lead from the entry to the root of its checkpoint.")
    except EvidenceError as error:
        return _Glance(named, b"", error.message)
    return _Glance(named, b"".join([item.id for item in dict.fromkeys(note.signatures)]), "")


def _named_by(line: bytes) -> bytes:
    """Return the digests of evidence that an entry's event names, one after the other.

    Raises:
        EvidenceError: ``AUDIT_MALFORMED``: it is no entry, or has no event.
    """
    # Few verifications need it, and all would pay for it.
    from sealflow.audit.entry import parse_entry
    from sealflow.audit.event import AuditEvent

    found = map(_SHA256.fullmatch, AuditEvent.parse(parse_entry(line).event).evidence)
    return b"".join([bytes.fromhex(match[1]) for match in found if match is not None])


def _open(data: bytes, key: VerifierKey, witnesses: tuple[VerifierKey, ...]) -> _Fact | _Problem:
    """Return when witnesses saw a log that holds a proof's entry, which is an event that its writer signed."""
    from sealflow.audit.entry import parse_entry
    from sealflow.audit.proof import open_proof

    try:
        proof = _parsed(data)
        named = _named_by(proof.extra)
        signed = open_proof(proof, proof.extra, key, witnesses)
        if not parse_entry(proof.extra).is_signed():
            raise EvidenceError("The log holds the entry, but its writer did not sign it.", code="AUDIT_SIGNATURE")
    except EvidenceError as error:
        return _Problem(error.message, error.code)
    return _Fact(tuple(signed.witnesses.values()), named)


def _among(item: bytes, items: bytes) -> bool:
    """Tell whether one of the items that stand one after the other, all of one length, is this one."""
    at = items.find(item)
    while at > 0 and at % len(item):
        at = items.find(item, at + 1)
    return at >= 0


def _parsed(data: bytes) -> Proof:
    if len(data) > MAX_INCLUSION:
        raise EvidenceError(f"The proof has more than {MAX_INCLUSION} bytes.", code="LOG_PROOF")
    from sealflow.audit import proof

    return proof.parse_proof(data)


def witnessed_time(times: Iterable[int], quorum: int, now: datetime.datetime) -> datetime.datetime:
    """Return by when so many witnesses had seen a checkpoint.

    Args:
        times: What each says, in seconds since 1970. Zero and the future say nothing.
        quorum: How many must have.
        now: The time of the check, aware.

    Raises:
        EvidenceError: ``LOG_UNWITNESSED``: not so many.
    """
    latest = (now + SKEW).timestamp()
    told = sorted(time for time in times if 0 < time <= latest)
    if quorum < 1 or len(told) < quorum:
        raise EvidenceError(
            f"Of {quorum} witnesses {len(told)} cosigned the checkpoint at a time that counts.", code="LOG_UNWITNESSED"
        )
    return datetime.datetime.fromtimestamp(told[quorum - 1], datetime.timezone.utc)


def believed_keys(log: WitnessedLog, revoked: Revocations) -> tuple[VerifierKey, tuple[VerifierKey, ...]]:
    """Return the keys of a log and of its witnesses that count.

    Args:
        log: The log.
        revoked: Keys that count no longer.

    Raises:
        EvidenceError: ``LOG_CHECKPOINT``: the log's own does not.
    """
    told = _all_keys(log)
    if not revoked.keys:
        return told[0][1], tuple([item for _, item in told[1:]])
    if told[0][0] in revoked.keys:
        raise EvidenceError("The log's key is revoked.", code="LOG_CHECKPOINT")
    return told[0][1], tuple([item for fingerprint, item in told[1:] if fingerprint not in revoked.keys])


@functools.lru_cache(maxsize=64)
def _all_keys(log: WitnessedLog) -> tuple[tuple[str, VerifierKey], ...]:
    """Return the keys of a log, which comes first, and of its witnesses, each with its fingerprint."""
    from sealflow.audit.note import VerifierKey

    try:
        keys = [VerifierKey.parse(text) for text in (log.log, *log.witnesses)]
    except UsageError as error:
        raise EvidenceError(error.message, code="LOG_CHECKPOINT") from None
    return tuple([(key.fingerprint, key) for key in keys])
