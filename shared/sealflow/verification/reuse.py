"""Which verification summary may stand in for reading the bytes, or for walking on. Pure, like the judgement.

A summary replaces one thing only: the reading and hashing of one version of one object, or the walk from an artifact to
its roots. Who signed the artifact itself, who may speak, what is expired or revoked and what the rules ask for is
judged anew every time, from the evidence itself.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sealflow.errors import EvidenceError
from sealflow.evidence.statement import parse_statement
from sealflow.evidence.store import MAX_ATTESTATION, StoredEvidence
from sealflow.evidence.summary import LINEAGE, MAX_SUMMARY, VERIFIER_IDS, Summary, parse_summary
from sealflow.evidence.timestamp import Authority
from sealflow.evidence.witnessed import WitnessedLog
from sealflow.findings import Finding
from sealflow.hashing import Digest
from sealflow.policy.decide import CLOCK_SKEW
from sealflow.policy.identities import Identity
from sealflow.policy.requirement import Revocations
from sealflow.verification.authenticate import Authentic, authenticate

#: Most refused summaries that a verdict names.
_MAX_NAMED = 10


@dataclass(frozen=True)
class Wanted:
    """What a summary must say, and who must say it.

    Attributes:
        digest: The artifact digest that the caller states.
        resource: Location and version, see :func:`sealflow.evidence.summary.resource_uri`; ``None`` where nobody reads
            bytes, so that the place makes no difference.
        policy: ``sha256:`` and the digest of the policy in force.
        requirement: ``sha256:`` and the digest of what is demanded now.
        seconds: Greatest age.
        verifiers: Who may say it.
        revoked: What counts no longer.
        now: The time of the check, aware.
        lineage: Whether a summary of a walk is wanted; those of the other kind are passed over.
        authorities: Whose word about time is believed.
    """

    digest: Digest
    resource: str | None
    policy: str
    requirement: str
    seconds: int
    verifiers: tuple[Identity, ...]
    revoked: Revocations
    now: datetime.datetime
    lineage: bool = False
    authorities: tuple[Authority | WitnessedLog, ...] = ()


class Accepted(NamedTuple):
    """A summary that may stand in.

    Attributes:
        summary: The summary.
        verifier: Name of the identity that signed it.
        key: Fingerprint of the key that signed it.
        evidence: Name of the object in the evidence store.
        notes: What must be said of the verifier.
    """

    summary: Summary
    verifier: str
    key: str
    evidence: str
    notes: tuple[Finding, ...] = ()


class _Refusal(NamedTuple):
    """Why a summary does not count; ``usual`` where time and changes of policy bring that about by themselves."""

    name: str
    message: str
    expected: str = ""
    found: str = ""
    usual: bool = False


def choose(objects: Sequence[StoredEvidence], wanted: Wanted) -> tuple[Accepted | None, tuple[Finding, ...]]:
    """Return the newest summary that may stand in, and warnings about those that may not.

    Never raises for what lies in the store: a planted object must not keep anybody from a full verification.
    """
    accepted: list[Accepted] = []
    denied: list[Accepted] = []
    refusals: list[_Refusal] = []
    for item in objects:
        signed = _open(item, wanted)
        if isinstance(signed, _Refusal):
            refusals.append(signed)
        elif (LINEAGE in signed.summary.levels) is not wanted.lineage:
            continue
        elif (refusal := _compare(signed, wanted)) is not None:
            refusals.append(refusal)
        else:
            (accepted if signed.summary.result == "PASSED" else denied).append(signed)
    best = max(accepted, key=lambda item: (item.summary.time, item.evidence), default=None)
    for other in denied:
        if best is None or other.summary.time >= best.summary.time:
            refusals.append(_Refusal(other.evidence, "The verifier refused the artifact.", "PASSED", "FAILED"))
            best = None
            break
    if best is not None:
        refusals = [item for item in refusals if not item.usual]
    return best, (*_warnings(refusals), *(best.notes if best is not None else ()))


def _open(item: StoredEvidence, wanted: Wanted) -> Accepted | _Refusal:
    """Return the summary when one of the verifiers signed it; nothing in it is looked at before."""
    if len(item.data) > MAX_ATTESTATION:
        return _Refusal(item.name, "The summary is too large.")
    unavailable: dict[object, Finding] = {}
    found = authenticate(
        item,
        wanted.verifiers,
        now=wanted.now,
        revoked=wanted.revoked,
        unavailable=unavailable,
        authorities=wanted.authorities,
    )
    if not isinstance(found, Authentic):
        # The reason that says most: not that of somebody who has nothing to do with it.
        reasons = sorted((*found, *unavailable.values()), key=lambda finding: finding.code == "SIGNER_NOT_ALLOWED")
        if not reasons:
            return _Refusal(item.name, "The policy names nobody whose verdicts it reuses.")
        return _Refusal(item.name, reasons[0].message, reasons[0].expected, reasons[0].found)
    if len(found.bundle.payload) > MAX_SUMMARY:
        return _Refusal(item.name, "The summary is too large.")
    try:
        summary = parse_summary(parse_statement(found.bundle.payload))
    except EvidenceError as error:
        return _Refusal(item.name, error.message)
    return Accepted(summary, found.identities[0].name, found.key.hint, item.name, found.notes)


def _compare(signed: Accepted, wanted: Wanted) -> _Refusal | None:
    summary = signed.summary
    age = (wanted.now - summary.time).total_seconds()
    when = summary.time.strftime("%Y-%m-%dT%H:%M:%SZ")
    name = signed.evidence
    if summary.verifier not in VERIFIER_IDS.values():
        return _Refusal(name, "The verifier's id is none of ours.", found=summary.verifier)
    if summary.digest != wanted.digest:
        return _Refusal(name, "The summary is about other bytes.", str(wanted.digest), str(summary.digest))
    if age < -CLOCK_SKEW:
        return _Refusal(name, "The summary is from the future.", found=when)
    for message, expected, found in (
        ("The summary is about another place or version.", wanted.resource, summary.resource),
        ("The summary was made under another policy.", wanted.policy, summary.policy),
        ("The policy demanded something else when the summary was made.", wanted.requirement, summary.requirement),
    ):
        if expected is not None and expected != found:
            return _Refusal(name, message, expected, found, usual=True)
    if age > wanted.seconds:
        return _Refusal(name, "The summary is too old.", f"at most {wanted.seconds} seconds old", when, usual=True)
    return None


def _warnings(refusals: Sequence[_Refusal]) -> tuple[Finding, ...]:
    """One finding for each reason: a store can hold many summaries that are merely old."""
    first: dict[str, _Refusal] = {}
    count: dict[str, int] = {}
    for item in refusals:
        first.setdefault(item.message, item)
        count[item.message] = count.get(item.message, 0) + 1
    return tuple(
        Finding(
            "SUMMARY_REFUSED",
            "warning",
            item.name,
            f"A verification summary does not count. {message}"
            + (f" The same holds for {count[message] - 1} more." if count[message] > 1 else ""),
            item.expected,
            item.found,
            "reuse_verdict",
        )
        for message, item in list(first.items())[:_MAX_NAMED]
    )
