"""Policy: who may speak, and what must be proved before an artifact is used."""

from sealflow.policy.identities import CertificateIdentity, Identity, KeyIdentity, parse_identities
from sealflow.policy.requirement import EVIDENCE_KINDS, Requirement

__all__ = [
    "EVIDENCE_KINDS",
    "CertificateIdentity",
    "Identity",
    "KeyIdentity",
    "Requirement",
    "parse_identities",
]
