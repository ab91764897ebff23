"""Policy: who may speak, and what must be proved before an artifact is used."""

from sealflow.policy.identities import CertificateIdentity, Identity, KeyIdentity, parse_identities
from sealflow.policy.requirement import CALL, EVIDENCE_KINDS, Clause, Requirement

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
