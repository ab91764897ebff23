"""A verdict under a ruling: what audited and waived rules would have refused is said, and does not refuse.

Integrity is never relaxed: bytes that contradict their evidence stay refused at every level.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Final

from sealflow.findings import Finding, conclude
from sealflow.policy.compose import AcceptedWaiver, Ruling, waived_rules
from sealflow.verification.judge import Case, Judgement, judge

#: Refusals that say that something is missing or that somebody is not the right one. Every other refusal says that
#: bytes and evidence contradict each other, or that somebody withdrew them.
RELAXABLE: Final = frozenset(
    {
        "CERTIFICATE_EXPIRED",
        "CERTIFICATE_NAME",
        "CERTIFICATE_NOT_YET_VALID",
        "CERTIFICATE_UNTRUSTED",
        "CERTIFICATE_USAGE",
        "ENCRYPTION_REQUIRED",
        "EVIDENCE_MISSING",
        "EVIDENCE_OF_OTHER_ARTIFACT",
        "EVIDENCE_TOO_OLD",
        "FRESHNESS_UNPROVED",
        "IDENTITY_RULE_MISSING",
        "KEY_EXPIRED",
        "KEY_NOT_YET_VALID",
        "KEY_SHARED",
        "LINEAGE_UNPROVED",
        "LOADER_NOT_ALLOWED",
        "NAME_MISMATCH",
        "POLICY_NO_RULE",
        "PRODUCER_MISMATCH",
        "PRODUCER_NOT_ALLOWED",
        "PROVENANCE_ADOPTED",
        "PROVENANCE_MISSING",
        "RECIPIENT_NOT_ALLOWED",
        "RECIPIENT_REQUIRED",
        "SIGNATURE_LEGACY",
        "SIGNATURE_MISSING",
        "SIGNATURE_UNSUPPORTED",
        "SIGNERS_TOO_FEW",
        "SIGNER_NOT_ALLOWED",
        "TIMESTAMP_MISSING",
    }
)


def judge_ruling(case: Case, ruling: Ruling) -> Judgement:
    """Judge one artifact under what the policies say about it.

    Args:
        case: The case; its requirement is the ruling's.
        ruling: The ruling.

    Raises:
        UsageError: An identity names a key that does not exist or is of an unsupported kind.
    """
    if ruling.unmatched:
        return _no_rule(case)
    found = judge(case)
    if found.verdict.passed or not ruling.rules:
        return found
    digest = found.verdict.digest or str(case.manifest.digest if not case.requirement.files else "")
    waived, used = waived_rules(ruling, digest)
    audited = frozenset(rule.name for rule in ruling.rules) if ruling.level == "audit" else waived
    if not audited:
        return found
    return _relaxed(case, ruling, found, audited, used if ruling.level != "audit" else ())


def _relaxed(
    case: Case, ruling: Ruling, found: Judgement, audited: frozenset[str], used: tuple[AcceptedWaiver, ...]
) -> Judgement:
    refusals = [finding for finding in found.verdict.findings if finding.severity == "refusal"]
    if any(finding.code not in RELAXABLE or ruling.insists(finding.code, finding.rule) for finding in refusals):
        return found
    enforced = ruling.without(audited)
    if enforced is None:
        # Nothing is enforced but integrity, which reading the bytes has shown.
        kept = found
        rest = [finding for finding in found.verdict.findings if finding.severity != "refusal"]
    else:
        kept = judge(replace(case, requirement=enforced))
        if not kept.verdict.passed:
            return found if kept.verdict.status == "failed" else kept
        rest = list(kept.verdict.findings)
    subject = case.location.uri
    rest += [replace(finding, severity="warning") for finding in refusals]
    if used:
        rest += [_waived(subject, item) for item in used]
    else:
        names = ", ".join(sorted(audited))
        message = "The rules are only audited; enforced, they would refuse this artifact."
        rest.append(Finding("POLICY_AUDIT", "warning", subject, message, rule=names))
    status, ordered = conclude(dict.fromkeys(rest))
    verdict = dataclasses.replace(
        kept.verdict,
        status=status,
        findings=ordered,
        held=case.held and status == "passed",
        rules=case.requirement.rules,
    )
    return kept._replace(verdict=verdict, relaxed=True)


def _waived(subject: str, item: AcceptedWaiver) -> Finding:
    waiver = item.waiver
    return Finding(
        "WAIVER_USED",
        "warning",
        subject,
        f"A waiver stands in for what is missing: {waiver.reason}",
        expected=", ".join(entry.name for entry in waiver.rules),
        found=f"until {waiver.expires.strftime('%Y-%m-%dT%H:%M:%SZ')}, signed with sha256:{item.key}",
        rule=waiver.id,
    )


def _no_rule(case: Case) -> Judgement:
    subject = case.location.uri
    finding = Finding(
        "POLICY_NO_RULE",
        "refusal",
        subject,
        "The policy manages this artifact, and no rule holds for this task.",
        expected="a rule",
        found=case.consumer,
        rule="rules",
    )
    judged = judge(case)
    status, ordered = conclude([finding, *(item for item in judged.verdict.findings if item.severity == "note")])
    verdict = dataclasses.replace(judged.verdict, status=status, findings=ordered, held=False)
    return Judgement(verdict, None, (), judged.location)
