"""SLSA provenance v1: which artifact this is, which run made it, and from what.

Values of parameters are never written: evidence is signed and cannot be cleaned. A deployment key turns each value into
an HMAC, which answers "was it this value?" for those who hold the key and nothing else.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sealflow import strictjson
from sealflow._version import __version__
from sealflow.errors import EvidenceError, UsageError
from sealflow.evidence.statement import Statement, make_statement
from sealflow.findings import printable
from sealflow.hashing import Digest
from sealflow.run_identity import RunIdentity

PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:sealflow:build-type:task:v1"

#: Longest provenance bundle that we write: it must fit, as one string, into the metadata of a KFP artifact.
MAX_PROVENANCE_BUNDLE: Final = 16 << 10

# Annotation of a dependency that says what it is for.
_ROLE: Final = "sealflow_role"
_SOURCE: Final = "source"

#: Bytes of the longest logical name or reason that we write; readers take four times as many characters of any text.
MAX_TEXT: Final = 1024
# RFC 3339 in UTC, so that text order is time order.
_FINISHED = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", re.ASCII)


class Dependency(NamedTuple):
    """An input that was verified in this run.

    Attributes:
        uri: Its location, without credentials.
        digest: Its artifact digest.
        name: Its signed logical name.
        source: Whether it is part of what ran, such as code, and no data. Whoever signs could as well have left it
            out, so nothing is lost when a walk does not follow it.
    """

    uri: str
    digest: Digest
    name: str
    source: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the in-toto ResourceDescriptor."""
        found: dict[str, Any] = {"uri": self.uri, "digest": self.digest.as_digest_set(), "name": self.name}
        return found | {"annotations": {_ROLE: _SOURCE}} if self.source else found


class Provenance(NamedTuple):
    """What a signed provenance statement says.

    Attributes:
        name: Logical name of the artifact.
        digest: Artifact digest.
        producer: ``<orchestrator>:<workflow>/<task>``; ``python`` or ``cli`` outside of orchestrators.
        builder: SLSA ``builder.id``.
        invocation: SLSA ``invocationId``: the run.
        finished_on: When it was signed, as the signer claims; RFC 3339.
        dependencies: ``resolvedDependencies`` as they stand.
    """

    name: str
    digest: Digest
    producer: str
    builder: str
    invocation: str
    finished_on: str
    dependencies: tuple[dict[str, Any], ...]


def make_provenance_statement(
    name: str,
    digest: Digest,
    run: RunIdentity,
    *,
    dependencies: Sequence[Dependency] = (),
    parameters: Mapping[str, str] | None = None,
    parameter_key: bytes | None = None,
    adoption: str | None = None,
    now: datetime.datetime,
) -> bytes:
    """Return the provenance of one artifact as canonical JSON, ready to be signed.

    Args:
        name: Logical name of the artifact.
        digest: Its artifact digest, made from bytes that were read.
        run: Who makes it.
        dependencies: Inputs that were verified in this run.
        parameters: Parameter names and values; the values leave this function as HMAC-SHA-256 or not at all.
        parameter_key: The deployment's HMAC key.
        adoption: Why an artifact is taken over that existed before. It is written as it stands.
        now: The time of signing, aware.

    Raises:
        UsageError: The logical name or the reason is empty or too long, or one of them or the run's name holds control
            characters.
    """
    if adoption is not None and not check_reason(adoption):
        raise UsageError(f"A reason has 1 to {MAX_TEXT} bytes and no control characters.")
    if not name or printable(name, len(name)) != name or len(name.encode("utf-8")) > MAX_TEXT:
        raise UsageError(f"A logical name has 1 to {MAX_TEXT} bytes and no control characters.")
    for text in (run.producer, run.invocation):
        # What a check would refuse must not be signed.
        if len(text) > 4 * MAX_TEXT or printable(text, len(text)) != text:
            raise UsageError(f"The run's name {printable(text)!r} is too long or holds control characters.")
    sealed = {
        key: {"hmac-sha256": hmac.new(parameter_key, value.encode("utf-8"), hashlib.sha256).hexdigest()}
        if parameter_key
        else {"redacted": True}
        for key, value in (parameters or {}).items()
    }
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"artifact": name, "producer": run.producer, "parameters": sealed},
            "internalParameters": {"run": run.as_dict()}
            | ({"adoption": {"reason": adoption}} if adoption is not None else {}),
            "resolvedDependencies": [item.as_dict() for item in dependencies],
        },
        "runDetails": {
            "builder": {"id": run.builder_id, "version": {"sealflow": __version__}},
            "metadata": {"invocationId": run.invocation, "finishedOn": now.strftime("%Y-%m-%dT%H:%M:%SZ")},
        },
    }
    return make_statement(name, digest.as_digest_set(), PREDICATE_TYPE, predicate)


def check_reason(text: str) -> bool:
    """Tell whether a text can stand as a reason: not empty, not long, and nothing that hides in a terminal."""
    return bool(text.strip()) and printable(text, len(text)) == text and len(text.encode("utf-8")) <= MAX_TEXT


def adoption_reason(statement: Statement) -> str:
    """Return why the artifact was taken over as it lay there; empty where provenance says nothing of that kind."""
    place: Any = statement.predicate
    for name in ("buildDefinition", "internalParameters", "adoption", "reason"):
        place = place.get(name) if isinstance(place, dict) else None
    return printable(place, MAX_TEXT) if isinstance(place, str) else ""


def parse_provenance(statement: Statement) -> Provenance:
    """Parse a provenance statement of ours. Unknown members are ignored, as SLSA demands of consumers.

    Raises:
        EvidenceError: Another predicate or build type, several subjects, or a required member is missing.
    """
    if statement.predicate_type != PREDICATE_TYPE:
        raise EvidenceError(f"The predicate type is {statement.predicate_type[:120]!r}, not {PREDICATE_TYPE}.")
    if len(statement.subjects) != 1:
        raise EvidenceError(f"The provenance has {len(statement.subjects)} subjects instead of one.")
    subject = statement.subjects[0]
    digest = parse_digest_set(subject.digests)
    definition = strictjson.member(statement.predicate, "buildDefinition", dict, "The provenance")
    if strictjson.member(definition, "buildType", str, "buildDefinition") != BUILD_TYPE:
        raise EvidenceError(f"The build type is not {BUILD_TYPE}.")
    external = strictjson.member(definition, "externalParameters", dict, "buildDefinition")
    dependencies = strictjson.member(definition, "resolvedDependencies", list, "buildDefinition", required=False) or []
    details = strictjson.member(statement.predicate, "runDetails", dict, "The provenance")
    builder = strictjson.member(details, "builder", dict, "runDetails")
    metadata = strictjson.member(details, "metadata", dict, "runDetails")
    if not all(isinstance(item, dict) for item in dependencies):
        raise EvidenceError("A resolved dependency is no JSON object.")
    if not _FINISHED.fullmatch(finished := strictjson.member(metadata, "finishedOn", str, "metadata")):
        raise EvidenceError("The provenance's finishedOn is no time in UTC.")
    return Provenance(
        _shown(subject.name, "subject's name"),
        digest,
        _shown(strictjson.member(external, "producer", str, "externalParameters"), "producer"),
        _shown(strictjson.member(builder, "id", str, "builder"), "builder id"),
        _shown(strictjson.member(metadata, "invocationId", str, "metadata"), "invocationId"),
        finished,
        tuple(dependencies),
    )


def parse_dependencies(said: Provenance) -> tuple[Dependency, ...]:
    """Return the inputs that provenance names, in its order. Location and name may be empty; the digest binds.

    Raises:
        EvidenceError: A dependency has not exactly one digest of ours, or a location or name that is no short text.
    """
    found = []
    for item in said.dependencies:
        digests, uri, name = item.get("digest"), item.get("uri") or "", item.get("name") or ""
        if not isinstance(digests, dict):
            raise EvidenceError("A resolved dependency has no digest set.")
        if not isinstance(uri, str) or not isinstance(name, str):
            raise EvidenceError("The location or name of a resolved dependency is no text.")
        digest = parse_digest_set(digests)
        annotations = item.get("annotations")
        source = isinstance(annotations, dict) and annotations.get(_ROLE) == _SOURCE
        found.append(Dependency(_shown(uri, "dependency"), digest, _shown(name, "dependency"), source))
    return tuple(found)


def _shown(text: str, what: str) -> str:
    # An allowed signer may still be careless or hostile, and this text ends up in terminals, logs and rules.
    if len(text) <= 4 * MAX_TEXT and text.isprintable():
        return text
    if len(text) > 4 * MAX_TEXT or printable(text, len(text)) != text:
        raise EvidenceError(f"The provenance's {what} is too long or holds control characters.")
    return text


def parse_digest_set(digests: Mapping[str, str]) -> Digest:
    """Return the artifact digest in an in-toto DigestSet.

    Raises:
        EvidenceError: Not exactly one of ``sha256`` and ``dirHash``: two would let a file pass for a tree.
    """
    if len(digests) != 1:
        raise EvidenceError(f"The digest set holds {len(digests)} digests instead of one.")
    ((algorithm, value),) = digests.items()
    try:
        return _digest(f"{algorithm}:{value}")
    except UsageError as error:
        raise EvidenceError(error.message) from None


# A graph names each artifact as often as something was made from it.
_digest = functools.lru_cache(1 << 16)(Digest.parse)
