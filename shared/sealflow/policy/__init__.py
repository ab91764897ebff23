"""Policy: who may speak, and what must be proved before an artifact is used.

Names are loaded when they are first used: every task looks here for an admin's file, and most tasks find none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sealflow.policy.identities import CertificateIdentity, Identity, KeyIdentity, parse_identities
    from sealflow.policy.requirement import CALL, EVIDENCE_KINDS, Clause, Requirement

_WHERE = {
    "CALL": "sealflow.policy.requirement",
    "EVIDENCE_KINDS": "sealflow.policy.requirement",
    "CertificateIdentity": "sealflow.policy.identities",
    "Clause": "sealflow.policy.requirement",
    "Identity": "sealflow.policy.identities",
    "KeyIdentity": "sealflow.policy.identities",
    "Requirement": "sealflow.policy.requirement",
    "parse_identities": "sealflow.policy.identities",
}

__all__ = [
    "CALL",
    "EVIDENCE_KINDS",
    "CertificateIdentity",
    "Clause",
    "Identity",
    "KeyIdentity",
    "Requirement",
    "parse_identities",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'sealflow.policy' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
