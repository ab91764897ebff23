"""Artifacts that cross a task boundary, signed and verified.

    >>> import sealflow
    >>> ref = sealflow.sign("model.joblib")              # doctest: +SKIP
    >>> with sealflow.verified(ref) as path:             # doctest: +SKIP
    ...     model = joblib.load(path)

Names are loaded when they are first used: every DAG parse and every task pays for what this module imports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sealflow._version import __version__

if TYPE_CHECKING:
    from sealflow.actions.context import Settings, Surroundings, run
    from sealflow.actions.copy import promote, promote_artifact
    from sealflow.actions.download import download, download_artifact
    from sealflow.actions.reading import reading
    from sealflow.actions.sealed import sealed
    from sealflow.actions.sign import Signed, sign, sign_artifact
    from sealflow.actions.upload import upload, upload_artifact
    from sealflow.actions.verify import Checked, held, verified, verify, verify_artifact
    from sealflow.errors import SealflowError, UnavailableError, UsageError, VerificationError
    from sealflow.evidence.reference import ArtifactRef
    from sealflow.evidence.store import StoredEvidence
    from sealflow.findings import Finding, Verdict
    from sealflow.run_identity import RunIdentity
    from sealflow.storage.resolve import Storages

_WHERE = {
    "ArtifactRef": "sealflow.evidence.reference",
    "Checked": "sealflow.actions.verify",
    "Finding": "sealflow.findings",
    "RunIdentity": "sealflow.run_identity",
    "SealflowError": "sealflow.errors",
    "Settings": "sealflow.actions.context",
    "Signed": "sealflow.actions.sign",
    "Storages": "sealflow.storage.resolve",
    "StoredEvidence": "sealflow.evidence.store",
    "Surroundings": "sealflow.actions.context",
    "UnavailableError": "sealflow.errors",
    "UsageError": "sealflow.errors",
    "Verdict": "sealflow.findings",
    "VerificationError": "sealflow.errors",
    "download": "sealflow.actions.download",
    "download_artifact": "sealflow.actions.download",
    "held": "sealflow.actions.verify",
    "promote": "sealflow.actions.copy",
    "promote_artifact": "sealflow.actions.copy",
    "reading": "sealflow.actions.reading",
    "run": "sealflow.actions.context",
    "sealed": "sealflow.actions.sealed",
    "sign": "sealflow.actions.sign",
    "sign_artifact": "sealflow.actions.sign",
    "upload": "sealflow.actions.upload",
    "upload_artifact": "sealflow.actions.upload",
    "verified": "sealflow.actions.verify",
    "verify": "sealflow.actions.verify",
    "verify_artifact": "sealflow.actions.verify",
}

__all__ = [
    "ArtifactRef",
    "Checked",
    "Finding",
    "RunIdentity",
    "SealflowError",
    "Settings",
    "Signed",
    "Storages",
    "StoredEvidence",
    "Surroundings",
    "UnavailableError",
    "UsageError",
    "Verdict",
    "VerificationError",
    "__version__",
    "download",
    "download_artifact",
    "held",
    "promote",
    "promote_artifact",
    "reading",
    "run",
    "sealed",
    "sign",
    "sign_artifact",
    "upload",
    "upload_artifact",
    "verified",
    "verify",
    "verify_artifact",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'sealflow' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
