"""Judges the proof that an audit log holds an entry. Needs no log and no network."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from sealflow import strictjson
from sealflow.audit.entry import MAX_ENTRY, Entry, parse_entry
from sealflow.audit.note import VerifierKey
from sealflow.audit.proof import open_proof, parse_proof
from sealflow.errors import EvidenceError
from sealflow.findings import CODES, Finding, Verdict, conclude


def judge_proof(
    data: bytes,
    where: str,
    key: VerifierKey,
    *,
    line: bytes | None = None,
    witnesses: Sequence[VerifierKey] = (),
    quorum: int = 0,
) -> tuple[Verdict, Entry | None]:
    """Tell whether a proof shows that the log holds an entry, and return the entry where it does.

    Args:
        data: The proof.
        where: Where it lies, for messages.
        key: The log's verifier key.
        line: The entry, by default the one that the proof carries along.
        witnesses: Keys of witnesses that count.
        quorum: How many of them must have cosigned.
    """
    findings: list[Finding] = []
    entry = None
    try:
        proof = parse_proof(data)
        line = proof.extra if line is None else line
        signed = open_proof(proof, line, key, witnesses)
        if len(signed.witnesses) < quorum:
            message = "Too few of the demanded witnesses cosigned the checkpoint."
            found = str(len(signed.witnesses))
            findings.append(Finding("LOG_UNWITNESSED", "refusal", where, message, str(quorum), found))
        entry = parse_entry(line)
        if not entry.is_signed():
            message = "The log holds the entry, but its writer did not sign it."
            findings.append(Finding("AUDIT_SIGNATURE", "refusal", where, message))
        try:
            strictjson.loads(entry.event, limit=MAX_ENTRY, what="The event of the entry")
        except EvidenceError as error:
            findings.append(Finding("AUDIT_MALFORMED", "refusal", where, error.message))
    except EvidenceError as error:
        code = error.code if error.code in CODES else "LOG_PROOF"
        findings.append(Finding(code, "refusal", where, error.message))
    status, ordered = conclude(findings)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Verdict(status, where, findings=ordered, checked_at=now), entry if status == "passed" else None
