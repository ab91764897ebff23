"""Steps that many conformance tests share."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sealflow
from sealflow import StoredEvidence, Verdict
from sealflow.actions.export import export_evidence
from sealflow.evidence.bundle import make_bundle
from sealflow.keys import load_signer


def sign_and_export(artifact: Path, signer: str, folder: Path, **options: Any) -> Path:
    """Sign with ours and return the exported ``.sig``."""
    ref = sealflow.sign(artifact, signer=signer, evidence_store=str(folder / "evidence"), **options)
    out = folder / "export"
    out.mkdir(exist_ok=True)
    signature, attestations = export_evidence(ref.as_dict(), str(out), overwrite=True)
    assert attestations.endswith(".intoto.jsonl")
    return Path(signature)


def check(artifact: Path, bundle: bytes, identities: Any, **options: Any) -> Verdict:
    """Ours on a bundle of another tool: the signature alone is demanded, and nothing but it is looked at."""
    return sealflow.verify(
        artifact,
        evidence=[StoredEvidence("model.sig", bundle)],
        only_given_evidence=True,
        require={"signature"},
        identities=identities,
        **options,
    )


def codes(verdict: Verdict) -> set[str]:
    """Codes of the findings that decided."""
    return {finding.code for finding in verdict.findings if finding.severity in ("refusal", "unverifiable")}


def signed(statement: Any, signer: str) -> bytes:
    """A bundle over any statement, however wrong."""
    return make_bundle(json.dumps(statement).encode(), load_signer(signer))


def payload_of(bundle: bytes) -> dict[str, Any]:
    """The statement in a bundle."""
    statement: dict[str, Any] = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    return statement


def oms_statement(files: Mapping[str, bytes], **serialization: Any) -> dict[str, Any]:
    """An OMS statement over files in the given order, made without our code."""
    digests = {name: hashlib.sha256(data) for name, data in files.items()}
    root = hashlib.sha256(b"".join(digest.digest() for digest in digests.values())).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model", "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "resources": [
                {"name": name, "digest": digest.hexdigest(), "algorithm": "sha256"} for name, digest in digests.items()
            ],
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False} | serialization,
        },
    }
