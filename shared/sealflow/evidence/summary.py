"""SLSA verification summaries v1: a verifier read these bytes under that policy, and this was the result.

The specification (https://slsa.dev/spec/v1.1/verification_summary) says what is in one. A reader of ours takes no other
members than these; ``policy`` carries, as an annotation, the digest of what the policy demanded of just this artifact
in just this task. ``SLSA_`` levels are not claimed: a policy of ours does not evaluate them.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from sealflow import strictjson
from sealflow._version import __version__
from sealflow.errors import EvidenceError
from sealflow.evidence.provenance import parse_digest_set
from sealflow.evidence.statement import Statement, make_statement
from sealflow.evidence.store import SUMMARY
from sealflow.findings import printable
from sealflow.hashing import Digest

PREDICATE_TYPE: Final = "https://slsa.dev/verification_summary/v1"

#: Kind of the evidence object.
KIND: Final = SUMMARY

#: Version of the SLSA specification whose form this is.
SLSA_VERSION: Final = "1.1"

#: Largest statement in bytes; most of a large one is the list of the evidence that was accepted.
MAX_SUMMARY: Final = 256 << 10

#: Verifiers name the place where the bytes were read; a place with other security has another id and other keys.
VERIFIER_IDS: Final[dict[str, str]] = {
    "airflow": "urn:sealflow:verifier:airflow-task-process:v1",
    "kfp": "urn:sealflow:verifier:kfp-task-process:v1",
    "python": "urn:sealflow:verifier:python-process:v1",
    "cli": "urn:sealflow:verifier:command-line:v1",
}

#: Level of a summary that says: everything that it was made from was followed to its roots. Such a summary says nothing
#: of bytes, and those about bytes nothing of lineage.
LINEAGE: Final = "SEALFLOW_LINEAGE"

#: Annotation of ``policy``: digest of the requirement that was judged by.
REQUIREMENT: Final = "sealflow_requirement"

_MAX_TEXT = 4096
_MAX_LEVELS = 32
_MAX_INPUTS = 4096
_PREDICATE = frozenset(
    {"verifier", "timeVerified", "resourceUri", "policy", "inputAttestations", "verificationResult", "verifiedLevels"}
    | {"dependencyLevels", "slsaVersion"}
)
_VERIFIER = frozenset({"id", "version"})
_POLICY = frozenset({"uri", "digest", "annotations"})
_INPUT = frozenset({"uri", "digest"})
_RESULTS = ("PASSED", "FAILED")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Summary:
    """What a signed verification summary says.

    Attributes:
        digest: Artifact digest that was verified.
        verifier: Id of the verifier.
        time: When, as the verifier claims; aware.
        resource: Where the artifact lay, see :func:`resource_uri`.
        policy: ``sha256:`` and the digest of the policy in force.
        requirement: ``sha256:`` and the digest of what was demanded.
        result: ``PASSED`` or ``FAILED``.
        levels: ``verifiedLevels`` as they stand.
        inputs: Number of attestations that were accepted.
    """

    digest: Digest
    verifier: str
    time: datetime.datetime
    resource: str
    policy: str
    requirement: str
    result: str
    levels: tuple[str, ...]
    inputs: int


def resource_uri(uri: str, version_id: str | None) -> str:
    """Return the ``resourceUri`` of an artifact: its canonical location, and its version where the store has versions.

    No two pairs give the same text.
    """
    # The location of a local file is escaped already, and keys of object stores are taken literally.
    local = uri.startswith("file:")
    escaped = uri if local else uri.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
    return escaped if version_id is None else f"{escaped}?versionId={quote(version_id, safe='')}"


def make_summary_statement(
    name: str,
    digest: Digest,
    *,
    orchestrator: str,
    now: datetime.datetime,
    resource: str,
    policy_uri: str,
    policy: str,
    requirement: str,
    levels: Sequence[str],
    inputs: Sequence[tuple[str, str]],
) -> bytes:
    """Return the summary of a passed verification as canonical JSON, ready to be signed.

    Args:
        name: Name of the subject.
        digest: Artifact digest, made from bytes that were read.
        orchestrator: Where this process runs.
        now: The time of the verification, aware.
        resource: See :func:`resource_uri`.
        policy_uri: Where the policy in force lies.
        policy: ``sha256:`` and its digest.
        requirement: ``sha256:`` and the digest of what was demanded.
        levels: What was verified, in names of ours.
        inputs: Location (may be empty) and SHA-256 in hex of each accepted attestation.
    """
    predicate: dict[str, Any] = {
        "verifier": {"id": VERIFIER_IDS[orchestrator], "version": {"sealflow": __version__}},
        "timeVerified": now.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "resourceUri": resource,
        "policy": {
            "uri": policy_uri,
            "digest": {"sha256": policy.removeprefix("sha256:")},
            "annotations": {REQUIREMENT: requirement},
        },
        "inputAttestations": [{"digest": {"sha256": sha}} | ({"uri": uri} if uri else {}) for uri, sha in inputs],
        "verificationResult": "PASSED",
        "verifiedLevels": list(levels),
        "slsaVersion": SLSA_VERSION,
    }
    statement = make_statement(name, digest.as_digest_set(), PREDICATE_TYPE, predicate)
    if len(statement) > MAX_SUMMARY:
        # The specification wants all of them or none.
        del predicate["inputAttestations"]
        statement = make_statement(name, digest.as_digest_set(), PREDICATE_TYPE, predicate)
    return statement


def parse_summary(statement: Statement) -> Summary:
    """Parse a summary of ours.

    Raises:
        EvidenceError: Another predicate, several subjects, a member that is unknown, missing or not of its form.
    """
    if statement.predicate_type != PREDICATE_TYPE:
        raise EvidenceError(f"The predicate type is {statement.predicate_type[:120]!r}, not {PREDICATE_TYPE}.")
    if len(statement.subjects) != 1:
        raise EvidenceError(f"The summary has {len(statement.subjects)} subjects instead of one.")
    what = "The summary"
    predicate = statement.predicate
    strictjson.only_members(predicate, _PREDICATE, what)
    verifier = strictjson.member(predicate, "verifier", dict, what)
    strictjson.only_members(verifier, _VERIFIER, "verifier")
    strictjson.member(verifier, "version", dict, "verifier", required=False)
    strictjson.member(predicate, "dependencyLevels", dict, what, required=False)
    strictjson.member(predicate, "slsaVersion", str, what, required=False)
    policy, requirement = _parse_policy(strictjson.member(predicate, "policy", dict, what))
    result = strictjson.member(predicate, "verificationResult", str, what)
    if result not in _RESULTS:
        raise EvidenceError(f"The verification result {printable(result, 40)!r} is unknown.")
    levels = strictjson.member(predicate, "verifiedLevels", list, what)
    if not 1 <= len(levels) <= _MAX_LEVELS or not all(isinstance(item, str) for item in levels):
        raise EvidenceError(f"verifiedLevels holds 1 to {_MAX_LEVELS} texts.")
    return Summary(
        parse_digest_set(statement.subjects[0].digests),
        _shown(strictjson.member(verifier, "id", str, "verifier"), "verifier's id"),
        _parse_time(strictjson.member(predicate, "timeVerified", str, what)),
        _shown(strictjson.member(predicate, "resourceUri", str, what), "resourceUri"),
        policy,
        requirement,
        result,
        tuple(_shown(item, "level") for item in levels),
        _count_inputs(strictjson.member(predicate, "inputAttestations", list, what, required=False) or []),
    )


def _parse_policy(body: Mapping[str, Any]) -> tuple[str, str]:
    strictjson.only_members(dict(body), _POLICY, "policy")
    _shown(strictjson.member(body, "uri", str, "policy"), "policy's uri")
    digests = strictjson.member(body, "digest", dict, "policy")
    if digests.keys() != {"sha256"}:
        raise EvidenceError("The policy of the summary is not named by exactly its SHA-256.")
    sha256 = strictjson.member(digests, "sha256", str, "policy")
    annotations = strictjson.member(body, "annotations", dict, "policy")
    strictjson.only_members(annotations, frozenset({REQUIREMENT}), "policy's annotations")
    requirement: str = strictjson.member(annotations, REQUIREMENT, str, "policy's annotations")
    if not _SHA256.fullmatch(sha256) or not _DIGEST.fullmatch(requirement):
        raise EvidenceError("A digest in the policy of the summary is no SHA-256 in lower-case hex.")
    return f"sha256:{sha256}", requirement


def _parse_time(text: str) -> datetime.datetime:
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        raise EvidenceError("The summary's timeVerified is no time in UTC.") from None


def _count_inputs(items: list[Any]) -> int:
    if len(items) > _MAX_INPUTS:
        raise EvidenceError(f"The summary names more than {_MAX_INPUTS} attestations.")
    for item in items:
        digests = strictjson.member(item, "digest", dict, "An input attestation")
        strictjson.only_members(item, _INPUT, "An input attestation")
        if not _SHA256.fullmatch(strictjson.member(digests, "sha256", str, "An input attestation")):
            raise EvidenceError("The digest of an input attestation is no SHA-256 in lower-case hex.")
        strictjson.member(item, "uri", str, "An input attestation", required=False)
    return len(items)


def _shown(text: str, what: str) -> str:
    # An allowed verifier may still be careless or hostile, and this text ends up in terminals and logs.
    if not text or len(text) > _MAX_TEXT or printable(text, len(text)) != text:
        raise EvidenceError(f"The summary's {what} is empty, too long, or holds control characters.")
    return text
