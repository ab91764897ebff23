"""Since when a witnessed log has held a piece of evidence. Pure, and offline.

The log need not be there: its proof (C2SP tlog-proof) carries the entry along, leads from it to a checkpoint, and that
bears the cosignatures of witnesses, each with its time. Who wrote the entry makes no difference. Its event names the
evidence by the SHA-256 of all its bytes, and nobody knows that of a signature which is not made yet.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from sealflow.errors import EvidenceError, UsageError
from sealflow.evidence.store import MAX_INCLUSION, MAX_INCLUSIONS
from sealflow.evidence.timestamp import RESOLUTION, SKEW, Stamp
from sealflow.evidence.witnessed import WitnessedLog
from sealflow.policy.requirement import Revocations

if TYPE_CHECKING:
    from sealflow.audit.note import VerifierKey
    from sealflow.audit.proof import Proof

#: Most proofs that name a piece of evidence, and are looked at. One is usual; each takes a few signatures to check.
_MOST_TRIED: Final = 16


def earliest_inclusion(
    proofs: Iterable[bytes], sha256: str, logs: Sequence[WitnessedLog], now: datetime.datetime, revoked: Revocations
) -> Stamp | str:
    """Return since when one of the logs has held a piece of evidence, or why that is not proved.

    Args:
        proofs: What claims to prove it, of this piece or of others.
        sha256: Of the piece's bytes, in hex.
        logs: Which ones are believed.
        now: The time of the check, aware.
        revoked: Keys that count no longer, those of logs and witnesses too.
    """
    found: list[Stamp] = []
    problems: list[str] = []
    named = [data for data in proofs if sha256 in _named(data)]
    if not named:
        return "no proof of a log names it"
    for proof in named[:_MOST_TRIED]:
        for log in logs:
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
    key, witnesses = _keys(log, revoked)
    opened = _opened(data, key, witnesses)
    if isinstance(opened, _Problem):
        raise EvidenceError(opened.message, code=opened.code)
    time = witnessed_time(opened, log.quorum, now)
    if sha256 not in _named(data):
        raise EvidenceError("The entry names other evidence.", code="LOG_PROOF")
    return Stamp(time, time + RESOLUTION, log.name)


# Each piece of evidence about an artifact is asked for in each proof that lies with it: whatever depends on the proof
# alone is remembered, problems too, and of the proof itself no more than is asked.


class _Problem(NamedTuple):
    message: str
    code: str


@functools.lru_cache(maxsize=MAX_INCLUSIONS)
def _named(data: bytes) -> frozenset[str]:
    """Return the digests of evidence that a proof's entry names, in hex; none where it is none. Nothing is verified."""
    from sealflow.audit.entry import parse_entry
    from sealflow.audit.event import AuditEvent

    try:
        named = AuditEvent.parse(parse_entry(_parsed(data).extra).event).evidence
    except EvidenceError:
        return frozenset()
    return frozenset([item[7:] for item in named if item.startswith("sha256:")])


@functools.lru_cache(maxsize=MAX_INCLUSIONS)
def _opened(data: bytes, key: VerifierKey, witnesses: tuple[VerifierKey, ...]) -> tuple[int, ...] | _Problem:
    """Return when witnesses saw a log that holds a proof's entry, which is an event that its writer signed."""
    # Few verifications need it, and all would pay for it.
    from sealflow.audit.entry import parse_entry
    from sealflow.audit.event import AuditEvent
    from sealflow.audit.proof import open_proof

    try:
        proof = _parsed(data)
        signed = open_proof(proof, proof.extra, key, witnesses)
        entry = parse_entry(proof.extra)
        if not entry.is_signed():
            raise EvidenceError("The log holds the entry, but its writer did not sign it.", code="AUDIT_SIGNATURE")
        AuditEvent.parse(entry.event)
    except EvidenceError as error:
        return _Problem(error.message, error.code)
    return tuple(signed.witnesses.values())


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


def _keys(log: WitnessedLog, revoked: Revocations) -> tuple[VerifierKey, tuple[VerifierKey, ...]]:
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
