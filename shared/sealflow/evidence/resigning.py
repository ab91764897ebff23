"""The re-signing statement: somebody verified an artifact anew and signed with another key what had been signed of it.

A verifier needs no such statement; the bundles over the old payloads count by themselves. It tells those who ask later
why one payload has two signatures, who did it, and on the strength of which evidence.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final

from sealflow import strictjson
from sealflow.errors import EvidenceError
from sealflow.evidence.statement import Statement, make_statement
from sealflow.findings import Verdict
from sealflow.hashing import Digest
from sealflow.run_identity import RunIdentity

PREDICATE_TYPE: Final = "urn:sealflow:predicate:re-signing:v1"
#: Kind under which a store keeps it.
KIND: Final = "re-sign"


def make_resigning_statement(
    verdict: Verdict,
    digest: Digest,
    evidence: Sequence[tuple[str, str, str]],
    reason: str,
    run: RunIdentity,
    *,
    now: datetime.datetime,
) -> bytes:
    """Return the statement about one act as canonical JSON, ready to be signed.

    Args:
        verdict: What the check came to, before anything was signed.
        digest: Artifact digest.
        evidence: Kind, SHA-256 in hex and signer's fingerprint of each earlier bundle whose payload is signed again.
        reason: Why.
        run: Who does it.
        now: The time of signing, aware.
    """
    predicate = {
        "reason": reason,
        "evidence": [
            {"kind": kind, "digest": {"sha256": sha256}, "key": key} for kind, sha256, key in sorted(set(evidence))
        ],
        "verdict": {
            "status": verdict.status,
            "policy": verdict.policy,
            "rules": list(verdict.rules),
            "warnings": list(dict.fromkeys(item.code for item in verdict.findings if item.severity == "warning")),
        },
        "producer": run.producer,
        "builder": run.builder_id,
        "invocationId": run.invocation,
        "finishedOn": now.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return make_statement(verdict.name or "artifact", digest.as_digest_set(), PREDICATE_TYPE, predicate)


def resigned_evidence(statement: Statement) -> frozenset[str]:
    """Return the SHA-256 in hex of each earlier bundle that a statement names.

    Raises:
        EvidenceError: Another predicate, or one of another form.
    """
    if statement.predicate_type != PREDICATE_TYPE:
        raise EvidenceError(f"The predicate type is {statement.predicate_type[:120]!r}, not {PREDICATE_TYPE}.")
    what = "The re-signing statement"
    found = []
    for item in strictjson.member(statement.predicate, "evidence", list, what):
        digests = strictjson.member(item, "digest", dict, what)
        found.append(strictjson.member(digests, "sha256", str, what))
    return frozenset(found)
