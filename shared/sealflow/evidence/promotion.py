"""The promotion statement: somebody verified an artifact in one place and put it, as it is, into another."""

from __future__ import annotations

import datetime
from typing import Final

from sealflow.evidence.statement import make_statement
from sealflow.findings import Verdict
from sealflow.hashing import Digest
from sealflow.run_identity import RunIdentity

PREDICATE_TYPE: Final = "urn:sealflow:predicate:promotion:v1"
#: Kind under which a store keeps it.
KIND: Final = "promotion"


def make_promotion_statement(
    digest: Digest, source: str, destination: str, verdict: Verdict, run: RunIdentity, *, now: datetime.datetime
) -> bytes:
    """Return the statement about one promotion as canonical JSON, ready to be signed.

    Args:
        digest: Artifact digest.
        source: Where the artifact lay, without credentials.
        destination: Where it was put.
        verdict: What its check came to, before anything was put there.
        run: Who promotes.
        now: The time of signing, aware.
    """
    predicate = {
        "source": source,
        "destination": destination,
        "verdict": {
            "status": verdict.status,
            "policy": verdict.policy,
            "rules": list(verdict.rules),
            "producer": verdict.producer,
            "run": verdict.run,
            "signers": [{"key": item.key, "kind": item.kind} for item in verdict.signers],
            # What passed only because rules were audited or waived is told by them.
            "warnings": list(dict.fromkeys(item.code for item in verdict.findings if item.severity == "warning")),
        },
        "producer": run.producer,
        "builder": run.builder_id,
        "invocationId": run.invocation,
        "finishedOn": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return make_statement(verdict.name, digest.as_digest_set(), PREDICATE_TYPE, predicate)
