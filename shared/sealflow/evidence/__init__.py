"""Evidence: signatures and attestations, their public formats, and the store where they lie."""

from sealflow.evidence.bundle import Bundle, make_bundle, parse_bundle
from sealflow.evidence.place import default_store
from sealflow.evidence.provenance import Provenance, parse_provenance
from sealflow.evidence.reference import ArtifactRef
from sealflow.evidence.store import EvidenceStore, StoredEvidence

__all__ = [
    "ArtifactRef",
    "Bundle",
    "EvidenceStore",
    "Provenance",
    "StoredEvidence",
    "default_store",
    "make_bundle",
    "parse_bundle",
    "parse_provenance",
]
