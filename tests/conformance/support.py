"""Steps that many conformance tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sealflow
from sealflow import StoredEvidence, Verdict
from sealflow.actions.export import export_evidence


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
