"""Verdicts in words that a person on call understands, with the next step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sealflow.findings import CODES
from sealflow_airflow.ui.index import Row

#: What a verb does to an artifact, as it is said of a task: before it is done, and when it is.
_VERBS: Final = {
    "sign": "sign",
    "upload": "upload",
    "verify": "use",
    "download": "download",
    "read": "read",
    "promote": "promote",
    "check_lineage": "check the lineage of",
    "sign_lineage": "sign the lineage of",
    "trace": "trace",
    "gate": "report that it made",
    "connection-read": "read",
    "variable-read": "read",
    "xcom-read": "read",
}
#: Verbs whose artifact comes in, and whose goes out.
IN: Final = frozenset({"verify", "download", "read", "check_lineage", "trace"})
SIGNED: Final = frozenset({"sign", "upload", "promote", "sign_lineage", "re-sign"})
OUT: Final = SIGNED | {"gate", "notary"}

_GROUPS: Final = {
    "evidence": "The artifact or its evidence is not what was signed. Do not use it until it is known why.",
    "identity": "The evidence holds, but who made it, or to whom it is open, is not what the policy accepts here.",
    "backend": "Nobody can say: something that the check needs was out of reach. It may pass when it is tried again.",
    "information": "",
}
#: What the codes mean that people on call see most; of others their group says it.
_MEANINGS: Final = {
    "SIGNATURE_INVALID": "What was signed is not what lies there now.",
    "FILE_CHANGED": "Files were changed since they were signed. Do not use them until it is known who did that.",
    "FILE_MISSING": "Files are gone that were signed. Do not use the rest until it is known why.",
    "DIGEST_MISMATCH": "Other bytes lie there than the task was told of. Do not use them until it is known why.",
    "EVIDENCE_MISSING": "Nobody has signed it, or its evidence lies elsewhere.",
    "SIGNATURE_MISSING": "Nobody whose signature counts has signed it.",
    "PROVENANCE_MISSING": "It is signed, and nothing signed says which run made it.",
    "SIGNER_NOT_ALLOWED": "It is signed, by somebody whom the policy does not name.",
    "KEY_REVOKED": "It is signed with a key that counts no longer: somebody else may hold it.",
    "KEY_EXPIRED": "It is signed with a key that has ended.",
    "ARTIFACT_REVOKED": "The admin has withdrawn this very artifact.",
    "SIGNERS_TOO_FEW": "Fewer have signed it than the policy asks for.",
    "PRODUCER_MISMATCH": "Another task made it than the one that should have.",
    "PRODUCER_NOT_ALLOWED": "Its signer may not speak for the task that is said to have made it.",
    "POLICY_UNAVAILABLE": "The policy could not be read, so nobody could say what is allowed.",
    "BACKEND_UNAVAILABLE": "A service that the check needs did not answer. It may pass when it is tried again.",
    "OUTLET_UNSIGNED": "The task said that it made this, and nothing signed shows it.",
    "OUTLET_UNDECLARED": "The task said that it made this, and its DAG does not say that it would.",
}
#: How outcomes are called.
LABELS: Final = {
    "passed": "passed",
    "done": "done",
    "failed": "refused",
    "unverifiable": "nobody can say",
    "error": "error",
}


@dataclass(frozen=True)
class Words:
    """A verdict in words.

    Attributes:
        label: The outcome in a word or three.
        headline: One sentence: who could not do what with which artifact.
        meaning: What it means; empty where the headline says it.
        next_step: What to do; empty where there is nothing to do.
        code: The code that decided; empty where none did.
        also: Further codes.
    """

    label: str
    headline: str
    meaning: str = ""
    next_step: str = ""
    code: str = ""
    also: tuple[str, ...] = ()


def words_of(row: Row) -> Words:
    """Return what a row says."""
    label = LABELS.get(row.outcome, row.outcome)
    what = row.artifact or row.digest or "an artifact whose name is kept elsewhere"
    who = task_of(row)
    if not row.refused:
        return Words(label, _praise(row, who, what), also=row.codes)
    first = row.codes[0] if row.codes else ""
    kind = CODES.get(first)
    verb = _VERBS.get(row.action, row.action)
    if row.outcome == "unverifiable":
        headline = f"Nobody could say whether {who} may {verb} {what}."
    elif row.outcome == "failed":
        headline = f"{who} may not {verb} {what}."
    else:
        headline = f"{who} could not {verb} {what}."
    return Words(
        label,
        headline,
        _MEANINGS.get(first) or (_GROUPS[kind.group] if kind is not None else ""),
        kind.next_step if kind is not None else "Look at the end of the task's log; it says what is wrong, and where.",
        first,
        row.codes[1:],
    )


def _praise(row: Row, who: str, what: str) -> str:
    if row.action == "verify":
        return f"{who} was given {what}; its evidence holds."
    if row.action == "sign":
        return f"{who} signed {what}."
    return f"{who} did {row.action} {what}."


def task_of(row: Row) -> str:
    """Return how a task is called on the pages."""
    if not row.task:
        return row.workflow or row.orchestrator
    return row.task if row.map_index < 0 else f"{row.task}[{row.map_index}]"


def worst(rows: Iterable[Row]) -> str:
    """Return the outcome that decides about many: ``failed``, ``unverifiable``, ``error``, ``passed`` or ``done``."""
    found = {row.outcome for row in rows}
    return next((item for item in ("failed", "unverifiable", "error", "passed", "done") if item in found), "")
