"""in-toto Statements v1: the frame of every payload that we sign or read."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sealflow import strictjson
from sealflow.errors import EvidenceError

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"

_MEMBERS = frozenset({"_type", "subject", "predicateType", "predicate"})
_MAX_PAYLOAD = 192 << 20


class Subject(NamedTuple):
    """What a statement is about: a name and an in-toto DigestSet."""

    name: str
    digests: dict[str, str]


class Statement(NamedTuple):
    """A parsed statement."""

    predicate_type: str
    subjects: tuple[Subject, ...]
    predicate: dict[str, Any]


def make_statement(subject_name: str, digests: dict[str, str], predicate_type: str, predicate: dict[str, Any]) -> bytes:
    """Return a statement about one subject as canonical JSON, ready to be signed."""
    return strictjson.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": subject_name, "digest": digests}],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def parse_statement(payload: bytes) -> Statement:
    """Parse a signed payload.

    Raises:
        EvidenceError: Not a Statement v1 in its exact form.
    """
    body = strictjson.loads(payload, limit=_MAX_PAYLOAD, what="The statement")
    if strictjson.member(body, "_type", str, "The statement") != STATEMENT_TYPE:
        raise EvidenceError(f"The statement is not of the type {STATEMENT_TYPE}.")
    strictjson.only_members(body, _MEMBERS, "The statement")
    subjects = []
    for item in strictjson.member(body, "subject", list, "The statement"):
        digests = strictjson.member(item, "digest", dict, "A subject")
        if not digests or not all(isinstance(value, str) for value in digests.values()):
            raise EvidenceError("A subject's digest set is empty or holds something that is no text.")
        subjects.append(Subject(strictjson.member(item, "name", str, "A subject"), digests))
    if not subjects:
        raise EvidenceError("The statement is about nothing.")
    predicate = strictjson.member(body, "predicate", dict, "The statement", required=False)
    return Statement(strictjson.member(body, "predicateType", str, "The statement"), tuple(subjects), predicate or {})
