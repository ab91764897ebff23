"""Whether an encrypted object is the one that somebody signed for: the question before any of it is decrypted. Pure.

A stranger can encrypt to our public keys, and every recipient can make frames of his own. So nothing is decrypted that
no accepted statement names: message id, header and each frame.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sealflow.encryption import Header
from sealflow.errors import EvidenceError, UnavailableError
from sealflow.evidence import StoredEvidence
from sealflow.evidence.encryption import PREDICATE_TYPE, Encryption, FrameDigests, parse_encryption
from sealflow.evidence.statement import parse_statement
from sealflow.findings import CODES, Finding
from sealflow.hashing import sha256_hex
from sealflow.policy import Requirement
from sealflow.policy.decide import Fact, Shortfall, heard
from sealflow.verification.authenticate import Authentic, authenticate

#: Returns the list of frame digests that has a digest, ``None`` where there is none.
Lists = Callable[[str], bytes | None]


@dataclass(frozen=True)
class Bound:
    """An encrypted object for which an accepted signer stands.

    Attributes:
        said: What was signed.
        digests: The digests of header and frames, which have the signed digest.
        notes: What must be said of the signer.
    """

    said: Encryption
    digests: FrameDigests
    notes: tuple[Finding, ...] = ()


def judge_encryption(
    evidence: Iterable[StoredEvidence],
    requirement: Requirement,
    header: Header,
    frames: int,
    lists: Lists,
    *,
    now: datetime.datetime,
) -> Bound | tuple[Finding, ...]:
    """Return what binds an encrypted object, or why nothing does.

    Args:
        evidence: Statements about it, in any order; other kinds are passed over.
        requirement: Who may sign.
        header: Its header, of which nothing is proved yet.
        frames: Number of its frames, by its size.
        lists: Finds a list by its digest.
        now: Time of the check, aware.

    Raises:
        UsageError: An identity names a key that does not exist or is of an unsupported kind.
    """
    unavailable: dict[object, Finding] = {}
    reasons: list[Finding] = []
    for item in evidence:
        if item.kind not in (None, "encryption"):
            continue
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
            reasons += found
            continue
        answer = _judge(found, requirement, header, frames, lists, now)
        if isinstance(answer, Bound):
            return answer
        if answer is not None:
            reasons.append(answer)
    if not requirement.identities:
        subject = f"message {header.message_id.hex()}"
        return (
            Finding("IDENTITY_RULE_MISSING", "refusal", subject, "Nobody was named who may sign.", rule="identities"),
        )
    reasons += unavailable.values()
    doubtful = any(finding.severity == "unverifiable" for finding in reasons)
    # Where a statement is sound and only its signer the wrong one, that is the answer.
    strangers = bool(reasons) and all(CODES[finding.code].group == "identity" for finding in reasons)
    missing = Finding(
        "ENCRYPTION_UNBOUND",
        "warning" if doubtful or strangers else "refusal",
        f"message {header.message_id.hex()}",
        "No accepted signer stands for the bytes of this encrypted artifact, so none of it was decrypted.",
        rule="encryption",
    )
    return (*_weakened(reasons, doubtful), missing)


def _weakened(reasons: list[Finding], doubtful: bool) -> list[Finding]:
    # What could not be read may be the very statement that is missing: then nothing is refused, and nothing passes.
    if not doubtful:
        return reasons
    return [item if item.severity == "unverifiable" else _as_warning(item) for item in reasons]


def _as_warning(finding: Finding) -> Finding:
    from dataclasses import replace

    return replace(finding, severity="warning")


def _judge(
    piece: Authentic, requirement: Requirement, header: Header, frames: int, lists: Lists, now: datetime.datetime
) -> Bound | Finding | None:
    def refuse(code: str, message: str, expected: str = "", found: str = "", rule: str = "encryption") -> Finding:
        return Finding(code, "refusal", piece.item.name, message, expected=expected, found=found, rule=rule)

    try:
        statement = parse_statement(piece.bundle.payload)
        if piece.item.kind is None and statement.predicate_type != PREDICATE_TYPE:
            return None
        said = parse_encryption(statement)
    except EvidenceError as error:
        return refuse("EVIDENCE_MALFORMED", error.message)
    fact = Fact("signature", piece.key.hint, piece.identities, stamp=piece.stamp, unstamped=piece.unstamped)
    speaking = heard(requirement, fact, now)
    if isinstance(speaking, Shortfall):
        return refuse(**speaking._asdict())
    if said.message.hex != header.message_id.hex():
        message = "The statement is about another encrypted artifact."
        return refuse("EVIDENCE_OF_OTHER_ARTIFACT", message, said.message.hex, header.message_id.hex())
    if said.frames != frames:
        message = "The encrypted artifact has another number of frames than was signed."
        return refuse("MESSAGE_ALTERED", message, str(said.frames), str(frames))
    try:
        data = lists(said.list_sha256)
        if data is None:
            return refuse("EVIDENCE_MISSING", "The list of frame digests that was signed is not there.")
        if sha256_hex(data) != said.list_sha256:
            return refuse("EVIDENCE_ALTERED", "The list of frame digests is not the one that was signed.")
        digests = FrameDigests(data)
    except UnavailableError as error:
        code = error.code if error.code in CODES else "BACKEND_UNAVAILABLE"
        return Finding(code, "unverifiable", piece.item.name, error.message, next_step=error.next_step)
    except EvidenceError as error:
        return refuse(error.code if error.code in CODES else "EVIDENCE_MALFORMED", error.message)
    if digests.frames != said.frames:
        return refuse("EVIDENCE_MALFORMED", "The signed list has another number of digests than the statement says.")
    if digests.header.hex() != sha256_hex(header.raw):
        return refuse("MESSAGE_ALTERED", "The header of the encrypted artifact is not the one that was signed.")
    return Bound(said, digests, piece.notes)
