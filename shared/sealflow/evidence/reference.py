"""ArtifactRef: the small token that tasks hand to each other instead of a bare location.

The digest in it is bound; the location is a hint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from sealflow import strictjson
from sealflow.errors import EvidenceError, UsageError
from sealflow.hashing import Digest

#: Largest text form in bytes.
MAX_REF: Final = 2 << 10

_MEMBERS = frozenset({"sealflow_ref", "uri", "digest", "evidence", "version_id", "encrypted"})


@dataclass(frozen=True)
class ArtifactRef:
    """A reference to an artifact.

    Attributes:
        uri: Where the artifact lies, without credentials.
        digest: Its artifact digest.
        evidence: Location of the evidence store.
        version_id: Object version in a versioned bucket.
        encrypted: Whether the stored bytes are encrypted.
    """

    uri: str
    digest: Digest
    evidence: str
    version_id: str | None = None
    encrypted: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, which fits XCom, asset extras and KFP parameters.

        Raises:
            UsageError: It exceeds 2 KiB.
        """
        body: dict[str, Any] = {
            "sealflow_ref": 1,
            "uri": self.uri,
            "digest": str(self.digest),
            "evidence": self.evidence,
            "encrypted": self.encrypted,
        }
        if self.version_id is not None:
            body["version_id"] = self.version_id
        if len(strictjson.dumps(body)) > MAX_REF:
            raise UsageError(f"The reference to {self.uri[:100]}… exceeds {MAX_REF} bytes; use shorter locations.")
        return body

    def to_json(self) -> str:
        """Return the canonical JSON text."""
        return strictjson.dumps(self.as_dict()).decode("utf-8")

    @classmethod
    def parse(cls, value: Any) -> ArtifactRef:
        """Read a reference from its JSON text or its decoded form.

        Raises:
            UsageError: Not a reference, one of a newer major version, or one with unknown members.
        """
        if isinstance(value, cls):
            return value
        try:
            if not isinstance(value, (str, bytes)):
                value = strictjson.dumps(value)
            data = value.encode("utf-8") if isinstance(value, str) else value
            body = strictjson.loads(data, limit=MAX_REF, what="The artifact reference")
            version = strictjson.member(body, "sealflow_ref", int, "The artifact reference")
            if version != 1:
                raise UsageError(
                    f"This artifact reference has the version {version}; this release reads version 1.",
                    next_step="Update sealflow in this task.",
                )
            strictjson.only_members(body, _MEMBERS, "The artifact reference")
            what = "The artifact reference"
            return cls(
                strictjson.member(body, "uri", str, what),
                Digest.parse(strictjson.member(body, "digest", str, what)),
                strictjson.member(body, "evidence", str, what),
                strictjson.member(body, "version_id", str, what, required=False),
                strictjson.member(body, "encrypted", bool, what),
            )
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"This is no artifact reference: {type(error).__name__}.") from None
        except EvidenceError as error:
            raise UsageError(error.message, code="REFERENCE_MALFORMED") from None

    def moved_to(self, uri: str) -> ArtifactRef:
        """Return the same artifact at another location."""
        return replace(self, uri=uri, version_id=None)


def is_reference(value: Any) -> bool:
    """Tell whether ``value`` looks like an :class:`ArtifactRef` in any of its forms, rather than a location."""
    if isinstance(value, str):
        return value.lstrip().startswith("{")
    return isinstance(value, (ArtifactRef, dict))
