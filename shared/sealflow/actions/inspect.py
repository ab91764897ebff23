"""Inspect: show what evidence says, without believing any of it."""

from __future__ import annotations

from typing import Any

from sealflow.errors import EvidenceError, UsageError
from sealflow.evidence import ArtifactRef, EvidenceStore, default_store, parse_bundle, parse_provenance
from sealflow.evidence import provenance as provenance_format
from sealflow.evidence import summary as summary_format
from sealflow.evidence.oms import LEGACY_PREDICATE_TYPE, PREDICATE_TYPE, parse_oms_statement
from sealflow.evidence.reference import is_reference
from sealflow.evidence.statement import Statement, parse_statement
from sealflow.hashing import Digest
from sealflow.storage import Storages

_MOST_ARTIFACTS = 100


def inspect_evidence(
    artifact: Any, *, evidence_store: str | None = None, storages: Storages | None = None
) -> list[dict[str, Any]]:
    """Describe every piece of evidence about an artifact, unverified.

    With a reference only the evidence of its digest is shown; with a location all that its store holds, since hashing
    the bytes is the verification's business.

    Raises:
        UsageError: The store is unknown.
        UnavailableError: The store cannot be read.
    """
    storages = storages or Storages()
    ref = ArtifactRef.parse(artifact) if is_reference(artifact) else None
    if evidence_store is None:
        evidence_store = ref.evidence if ref is not None else default_store(str(artifact), storages)
    store = EvidenceStore(evidence_store, storages)
    digests: list[Digest] = [ref.digest] if ref is not None else store.digests(_MOST_ARTIFACTS)
    return [
        {"digest": str(digest), "object": item.name, "altered": item.altered, **describe(item.data)}
        for digest in digests
        for item in store.collect(digest).objects
    ]


def describe(data: bytes) -> dict[str, Any]:
    """Describe one bundle, unverified; a malformed one is described by its error."""
    try:
        bundle = parse_bundle(data)
        statement = parse_statement(bundle.payload)
        body: dict[str, Any] = {
            "verified": False,
            "signed_with": "keyless certificate"
            if bundle.keyless
            else f"certificate chain of {len(bundle.chain)}"
            if bundle.chain
            else f"key sha256:{bundle.hint}"
            if bundle.hint
            else "a key without hint",
            "predicate_type": statement.predicate_type,
            "subjects": [{"name": subject.name, "digest": subject.digests} for subject in statement.subjects[:10]],
        }
        if bundle.chain:
            from sealflow.keys.certificate import names, parse_chain

            found = names(parse_chain(bundle.chain)[0])
            body["certificate_names"] = [f"subject:{found.subject}", *found.alternative]
        if statement.predicate_type in (PREDICATE_TYPE, LEGACY_PREDICATE_TYPE):
            manifest = parse_oms_statement(statement)
            body["files"] = len(manifest.resources)
            body["serialization"] = dict(manifest.serialization._asdict())
        elif statement.predicate_type == provenance_format.PREDICATE_TYPE:
            parsed = parse_provenance(statement)
            body["provenance"] = {
                "name": parsed.name,
                "producer": parsed.producer,
                "builder": parsed.builder,
                "run": parsed.invocation,
                "finished_on": parsed.finished_on,
                "inputs": list(parsed.dependencies),
            }
            if reason := provenance_format.adoption_reason(statement):
                body["provenance"]["adopted_because"] = reason
        elif statement.predicate_type == summary_format.PREDICATE_TYPE:
            body["summary"] = _describe_summary(statement)
        return body
    except (EvidenceError, UsageError) as error:
        return {"verified": False, "error": str(error)}


def _describe_summary(statement: Statement) -> dict[str, Any]:
    try:
        said = summary_format.parse_summary(statement)
    except EvidenceError as error:
        # Other verifiers write other members.
        return {"error": error.message}
    return {
        "result": said.result,
        "verifier": said.verifier,
        "time": said.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "resource": said.resource,
        "policy": said.policy,
        "requirement": said.requirement,
        "levels": list(said.levels),
        "inputs": said.inputs,
    }
