"""The evidence that travels in an artifact's metadata.

KFP carries nothing but an artifact's own path from task to task, so files beside it are lost. Its metadata is carried
too, and loses types on the way (numbers become floats, lists and objects come back wrapped); text survives. Hence one
text under one key, canonical JSON:

    {"digest": "sha256:…", "provenance": "<Base64 of the provenance bundle>", "sealflow_evidence": 1}

Whoever can reach the metadata store can write it. Nothing here is believed before the signature in it was checked.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sealflow import strictjson
from sealflow.errors import EvidenceError, UsageError
from sealflow.evidence import StoredEvidence
from sealflow.evidence.provenance import MAX_PROVENANCE_BUNDLE
from sealflow.hashing import Digest

#: Key in the artifact's metadata.
KEY: Final = "sealflow_evidence"
VERSION: Final = 1
#: Longest text in bytes: the longest provenance bundle in Base64, and the members around it.
MAX_TEXT: Final = 22 << 10

_MEMBERS = frozenset({"sealflow_evidence", "digest", "provenance"})
_WHAT = f"The metadata {KEY}"


@dataclass(frozen=True)
class EvidenceMetadata:
    """Evidence as it stands in metadata, unverified.

    Attributes:
        digest: Artifact digest that the producer noted, for lineage tools; a check never relies on it.
        provenance: The provenance bundle.
    """

    digest: Digest
    provenance: bytes

    def to_text(self) -> str:
        """Return the canonical text.

        Raises:
            UsageError: The bundle exceeds 16 KiB.
        """
        if len(self.provenance) > MAX_PROVENANCE_BUNDLE:
            raise UsageError(f"The provenance has {len(self.provenance)} bytes, more than {MAX_PROVENANCE_BUNDLE}.")
        body = {
            "sealflow_evidence": VERSION,
            "digest": str(self.digest),
            "provenance": base64.b64encode(self.provenance).decode("ascii"),
        }
        return strictjson.dumps(body).decode("utf-8")

    @classmethod
    def parse(cls, text: Any) -> EvidenceMetadata:
        """Read untrusted metadata.

        Raises:
            EvidenceError: Not text, too long, not this form, or of another version.
        """
        if not isinstance(text, str):
            raise EvidenceError(f"{_WHAT} is {type(text).__name__}, not text.")
        # Before encoding: a character has at least one byte.
        if len(text) > MAX_TEXT:
            raise EvidenceError(f"{_WHAT} has more than {MAX_TEXT} bytes.")
        body = strictjson.loads(text.encode("utf-8", "replace"), limit=MAX_TEXT, what=_WHAT)
        version = strictjson.member(body, "sealflow_evidence", int, _WHAT)
        if version != VERSION:
            raise EvidenceError(f"{_WHAT} has the version {version}; this release reads version {VERSION}.")
        strictjson.only_members(body, _MEMBERS, _WHAT)
        try:
            digest = Digest.parse(strictjson.member(body, "digest", str, _WHAT))
        except UsageError as error:
            raise EvidenceError(f"{_WHAT}: {error.message}") from None
        bundle = strictjson.base64_bytes(strictjson.member(body, "provenance", str, _WHAT), f"{_WHAT}: provenance")
        if len(bundle) > MAX_PROVENANCE_BUNDLE:
            raise EvidenceError(f"{_WHAT}: the provenance has more than {MAX_PROVENANCE_BUNDLE} bytes.")
        return cls(digest, bundle)


def from_metadata(metadata: Mapping[str, Any]) -> tuple[StoredEvidence, ...]:
    """Return what an artifact's metadata claims to be evidence; empty when it claims nothing.

    What is malformed is returned as such, so that the verification says so and decides.
    """
    if KEY not in metadata:
        return ()
    name = f"metadata {KEY}"
    try:
        return (StoredEvidence(name, EvidenceMetadata.parse(metadata[KEY]).provenance, "provenance"),)
    except EvidenceError as error:
        return (StoredEvidence(name, b"", "provenance", problem=error.message),)
