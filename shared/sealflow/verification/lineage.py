"""Who vouches that bytes have the MD5 by which DVC knows them. Pure, like the judgement."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace

from sealflow.errors import EvidenceError
from sealflow.evidence.lineage import DvcLineage, parse_lineage
from sealflow.evidence.statement import parse_statement
from sealflow.evidence.store import StoredEvidence
from sealflow.findings import Finding, Signer
from sealflow.hashing import Digest
from sealflow.policy import Identity, Requirement
from sealflow.policy.decide import Fact, Shortfall, heard, missing
from sealflow.verification.authenticate import Authentic, authenticate


def judge_binding(
    digest: Digest,
    md5: str,
    evidence: Sequence[StoredEvidence],
    requirement: Requirement,
    *,
    subject: str,
    now: datetime.datetime,
    consumer: str,
) -> tuple[tuple[Signer, ...], tuple[Finding, ...]]:
    """Judge whether somebody who may has signed that the bytes with a digest have an MD5.

    A lineage statement is heard like provenance: from those who may speak for its producer and builder, no older than
    the rules allow, and from as many signers as they ask for.

    Args:
        digest: Artifact digest of bytes that were read.
        md5: What DVC records of them.
        evidence: Objects that claim to be lineage statements.
        requirement: Who may say it.
        subject: Path of the data, for findings.
        now: Time of the check, aware.
        consumer: Producer string of the task that checks.

    Returns:
        Those who vouch, and what must be said of them: that one counts for what he signed in time. Where nobody
        vouches, why not.

    Raises:
        UsageError: An identity rule names a key that does not exist or is of an unsupported kind.
    """
    if not requirement.identities:
        finding = Finding(
            "IDENTITY_RULE_MISSING", "refusal", subject, "Nobody was named who may sign.", rule="identities"
        )
        return (), (finding,)
    unavailable: dict[object, Finding] = {}
    refusals: list[Finding] = []
    facts: list[tuple[Fact, tuple[Identity, ...]]] = []
    signers: list[Signer] = []
    notes: list[Finding] = []
    for item in evidence:
        found = authenticate(
            item,
            requirement.identities,
            now=now,
            revoked=requirement.revoked,
            unavailable=unavailable,
            authorities=requirement.authorities,
            stamped=bool(requirement.stamped),
        )
        if not isinstance(found, Authentic):
            for finding in found:
                if finding.severity == "unverifiable":
                    unavailable[item.name] = finding
                else:
                    refusals.append(finding)
            continue
        said = _says(found, digest, md5)
        if isinstance(said, Finding):
            refusals.append(said)
            continue
        told = (said.producer, said.builder, "", said.signed_on, found.stamp, found.unstamped)
        fact = Fact("provenance", found.key.hint, found.identities, *told)
        speaking = heard(requirement, fact, now)
        if isinstance(speaking, Shortfall):
            refusals.append(_refusal(item.name, speaking))
            continue
        # A rule may count signers by either kind of evidence; a lineage statement is the only one here.
        facts += [(fact, speaking), (fact._replace(kind="signature"), speaking)]
        signers.append(Signer(speaking[0].name, f"sha256:{found.key.hint}", "lineage", item.name))
        notes += [replace(note, subject=f"{digest.path_segment}/{item.name}") for note in found.notes]
    revoked = requirement.revoked.digests.get(str(digest))
    if revoked is not None:
        finding = Finding(
            "ARTIFACT_REVOKED", "refusal", subject, "The artifact is revoked.", found=revoked, rule="revocations"
        )
        return (), (finding,)
    if not signers:
        missed = Finding(
            "MD5_UNBOUND",
            "refusal",
            subject,
            "Nobody who may has signed that these bytes have the recorded MD5.",
            expected=f"a lineage statement about {digest} and {md5}",
        )
        # An identity that cannot be asked might be the one who signed.
        return (), (missed, *refusals) if not unavailable else tuple(unavailable.values())
    short = missing(requirement, facts, now, pinned=True, consumer=consumer)
    if short:
        return (), tuple(unavailable.values()) or tuple(_refusal(subject, item) for item in short)
    return tuple(signers), tuple(notes)


def _says(found: Authentic, digest: Digest, md5: str) -> DvcLineage | Finding:
    name = found.item.name
    try:
        said = parse_lineage(parse_statement(found.bundle.payload))
    except EvidenceError as error:
        return Finding("EVIDENCE_MALFORMED", "refusal", name, error.message)
    if said.digest != digest:
        message = "The lineage statement is about another artifact."
        return Finding("EVIDENCE_OF_OTHER_ARTIFACT", "refusal", name, message, str(digest), str(said.digest))
    if said.md5 != md5:
        return Finding("MD5_MISMATCH", "refusal", name, "The signed MD5 is not the recorded one.", md5, said.md5)
    return said


def _refusal(subject: str, short: Shortfall) -> Finding:
    return Finding(
        short.code, "refusal", subject, short.message, expected=short.expected, found=short.found, rule=short.rule
    )
