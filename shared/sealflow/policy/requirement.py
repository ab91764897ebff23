"""What one check demands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from sealflow import strictjson
from sealflow.errors import UsageError
from sealflow.hashing import Digest, sha256_hex
from sealflow.policy.identities import Identity

#: Kinds of evidence that can be demanded. Both by default.
EVIDENCE_KINDS: Final = frozenset({"signature", "provenance"})


@dataclass(frozen=True)
class Requirement:
    """What must be proved about one artifact.

    Attributes:
        identities: Who may sign; none means that nothing passes.
        kinds: Kinds of evidence that must be there. ``signature`` alone is for bundles of other tools: it binds the
            bytes but neither a name nor a producer.
        digest: Expected artifact digest, from a reference.
        name: Expected logical name.
        producer: Expected producer.
        files: Names of the files to check; empty for the whole artifact.
        accept_legacy: Accept what model-signing 0.2.0 wrote (predicate and pre-authentication encoding).
    """

    identities: tuple[Identity, ...]
    kinds: frozenset[str] = EVIDENCE_KINDS
    digest: Digest | None = None
    name: str | None = None
    producer: str | None = None
    files: tuple[str, ...] = field(default=())
    accept_legacy: bool = False

    def __post_init__(self) -> None:
        if not self.kinds or not self.kinds <= EVIDENCE_KINDS:
            raise UsageError(
                f"`require` names {', '.join(sorted(map(str, self.kinds))) or 'nothing'}; "
                f"known kinds of evidence: {', '.join(sorted(EVIDENCE_KINDS))}."
            )
        if self.producer is not None and "provenance" not in self.kinds:
            raise UsageError(
                "`producer` can be checked only where provenance is required; a signature names none.",
                next_step="Add provenance to `require`, or leave `producer` out.",
            )

    def policy_digest(self) -> str:
        """Return ``sha256:`` and the digest of what this check trusts and demands, for the verdict.

        Raises:
            UnavailableError: A key or root cannot be read.
        """
        body: dict[str, Any] = {
            "identities": sorted((item.as_dict() for item in self.identities), key=strictjson.dumps),
            "require": sorted(self.kinds),
            "name": self.name,
            "producer": self.producer,
            "accept_legacy": self.accept_legacy,
        }
        return "sha256:" + sha256_hex(strictjson.dumps(body))
