"""The audit event: who did what to which artifact, and the outcome.

No secret can enter one: there is no free member.
"""

from __future__ import annotations

import datetime
import secrets
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sealflow import strictjson
from sealflow.errors import UsageError
from sealflow.run_identity import RunIdentity

#: Largest serialized event in bytes.
MAX_EVENT: Final = 60 << 10

_MAX_TEXT: Final = 4096
_MAX_CODES: Final = 100


def utc_now() -> datetime.datetime:
    """Return the present time, aware."""
    return datetime.datetime.now(datetime.timezone.utc)


@dataclass(frozen=True)
class AuditEvent:
    """One event.

    Attributes:
        action: The verb, such as ``sign`` or ``verify``.
        phase: ``intent`` before a key or an artifact is used, ``outcome`` after.
        run: Who acts.
        artifact: Location without credentials.
        digest: Artifact digest, empty while unknown.
        key: Fingerprint of the signing key, empty where none is used.
        outcome: ``done``, ``passed``, ``failed``, ``unverifiable`` or ``error``; empty for an intent.
        codes: Finding or error codes.
        policy: Digest of the rule that decided.
        signers: Fingerprints of the keys whose evidence a verification accepted.
        producer: Producer that accepted provenance names.
        correlation: Joins the outcome to its intent.
        id: Unique id.
        time: RFC 3339, UTC, microseconds.
    """

    action: str
    phase: Literal["intent", "outcome"]
    run: RunIdentity
    artifact: str
    digest: str = ""
    key: str = ""
    outcome: Literal["", "done", "passed", "failed", "unverifiable", "error"] = ""
    codes: tuple[str, ...] = ()
    policy: str = ""
    signers: tuple[str, ...] = ()
    producer: str = ""
    correlation: str = field(default_factory=lambda: secrets.token_hex(16))
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    time: str = field(default_factory=lambda: utc_now().isoformat(timespec="microseconds"))

    def __post_init__(self) -> None:
        if (self.phase == "outcome") != bool(self.outcome):
            raise UsageError("An outcome event needs an outcome, and an intent event has none.")
        for name in ("action", "artifact", "digest", "key", "policy", "producer", "correlation", "id", "time"):
            value = getattr(self, name)
            if not isinstance(value, str) or len(value) > _MAX_TEXT:
                raise UsageError(f"The audit event's member {name} must be text of at most {_MAX_TEXT} characters.")
        for name in ("codes", "signers"):
            values = getattr(self, name)
            if len(values) > _MAX_CODES:
                object.__setattr__(self, name, (*values[: _MAX_CODES - 1], "MORE"))

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form; empty members are left out."""
        members = {
            "sealflow_audit": 1,
            "id": self.id,
            "time": self.time,
            "action": self.action,
            "phase": self.phase,
            "run": {"producer": self.run.producer, "invocation": self.run.invocation, **self.run.as_dict()},
            "artifact": self.artifact,
            "digest": self.digest,
            "key": self.key,
            "outcome": self.outcome,
            "codes": list(self.codes),
            "policy": self.policy,
            "signers": list(self.signers),
            "producer": self.producer,
            "correlation": self.correlation,
        }
        return {name: value for name, value in members.items() if value not in ("", [])}

    def to_json(self) -> bytes:
        """Return canonical JSON.

        Raises:
            UsageError: It exceeds 60 KiB.
        """
        data = strictjson.dumps(self.as_dict())
        if len(data) > MAX_EVENT:
            raise UsageError(f"The audit event has {len(data)} bytes, more than {MAX_EVENT}.")
        return data
