"""The audit event: who did what to which artifact, and the outcome.

No secret can enter one: there is no free member. Every member has a form of its own, and what is read back must be
the one canonical text of its event.
"""

from __future__ import annotations

import datetime
import functools
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Final, Literal

from sealflow import strictjson
from sealflow.errors import EvidenceError, UsageError
from sealflow.run_identity import RunIdentity

#: Largest serialized event in bytes.
MAX_EVENT: Final = 60 << 10
#: Longest text of one member in characters.
MAX_TEXT: Final = 4096
#: Longest code, fingerprint or other short text in characters.
MAX_SHORT: Final = 256
#: Most codes, signers or bundles of evidence.
MAX_LISTED: Final = 100
#: What somebody says and nobody proves.
CLAIMS: Final = ("triggered_by",)
#: The deployment's word for a writer: who gives it, and a signature.
VOUCH: Final = ("key", "signature")

Phase = Literal["intent", "outcome", "end"]
Outcome = Literal["", "done", "passed", "failed", "unverifiable", "error"]

#: Members with a form of their own, and this form; empty, they are left out.
FORMS: Final[Mapping[str, str]] = {
    "id": r"[0-9a-f]{32}",
    "time": r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}\+00:00",
    "correlation": r"[0-9a-f]{32}",
    "action": r"[a-z][a-z_-]{0,63}",
    "after": r"([0-9a-f]{64})?",
    "details": r"(sha256:[0-9a-f]{64})?",
}
_FORMS: Final = {name: re.compile(form) for name, form in FORMS.items()}
#: Members that hold any text, and the longest one in characters.
TEXTS: Final[Mapping[str, int]] = {
    "artifact": MAX_TEXT,
    "digest": MAX_SHORT,
    "version": MAX_TEXT,
    "key": MAX_TEXT,
    "recipient": MAX_TEXT,
    "policy": MAX_SHORT,
    "rule": MAX_TEXT,
    "producer": MAX_TEXT,
    "host": MAX_SHORT,
}
_DERIVED: Final = ("producer", "invocation")
_LISTS: Final = ("codes", "signers", "evidence")


def utc_now() -> datetime.datetime:
    """Return the present time, aware."""
    return datetime.datetime.now(datetime.timezone.utc)


@dataclass(frozen=True)
class AuditEvent:
    """One event.

    Attributes:
        action: The verb, such as ``sign`` or ``verify``; ``end`` at the end of a chain.
        phase: ``intent`` before a key or an artifact is used, ``outcome`` after, ``end`` for the last of a chain.
        run: Who acts. Whatever builder it names is left to provenance.
        artifact: Location without credentials.
        digest: Artifact digest, empty while unknown.
        version: Version of the object, where the store keeps versions.
        key: Fingerprint of the key that is used, or URI of a key without one; empty where none is used.
        recipient: Key that unwrapped the data key of an encrypted artifact, as its header calls it:
            ``<provider>:<name>``, the name being a fingerprint or an ARN; empty where none did.
        outcome: ``done``, ``passed``, ``failed``, ``unverifiable`` or ``error``; only an outcome has one.
        codes: Finding or error codes.
        policy: Digest of the policy that decided.
        rule: Names of its rules that applied, joined with ", ".
        signers: Fingerprints of the keys whose evidence a verification accepted.
        evidence: ``sha256:`` digests of the bundles that were made: each a signature with all that it is over.
        producer: Producer that accepted provenance names.
        host: Name of the machine or pod.
        claims: What somebody says and nobody proves: ``triggered_by``, the user who started the run.
        details: ``sha256:`` digest of a payload with a salt that lies elsewhere and may be deleted.
        count: Entries of the chain, this one included; only the end has it.
        after: Writer id of the chain that this one goes on for, in the first event after a squatted slot.
        vouch: In a chain's first event, what the deployment's ``audit_signer`` says of the writer: ``key``, its
            fingerprint, and ``signature``, Base64, over :func:`vouched`.
        correlation: Joins the outcome to its intent.
        id: Unique id.
        time: RFC 3339, UTC, microseconds.
    """

    action: str
    phase: Phase
    run: RunIdentity
    artifact: str = ""
    digest: str = ""
    version: str = ""
    key: str = ""
    recipient: str = ""
    outcome: Outcome = ""
    codes: tuple[str, ...] = ()
    policy: str = ""
    rule: str = ""
    signers: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    producer: str = ""
    host: str = ""
    claims: Mapping[str, str] = field(default_factory=dict)
    details: str = ""
    count: int | None = None
    after: str = ""
    vouch: Mapping[str, str] = field(default_factory=dict)
    correlation: str = field(default_factory=lambda: secrets.token_hex(16))
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    time: str = field(default_factory=lambda: utc_now().isoformat(timespec="microseconds"))

    def __post_init__(self) -> None:
        self._check_phase()
        for name, longest in TEXTS.items():
            _check_text(name, getattr(self, name), longest)
        for name, form in _FORMS.items():
            value = getattr(self, name)
            if not isinstance(value, str) or not form.fullmatch(value):
                raise UsageError(f"The audit event's member {name} must have the form {form.pattern}.")
        for name in _LISTS:
            values = getattr(self, name)
            for value in values:
                _check_text(name, value, MAX_SHORT)
            if len(values) > MAX_LISTED:
                object.__setattr__(self, name, (*values[: MAX_LISTED - 1], "MORE"))
        for name, known in (("claims", CLAIMS), ("vouch", VOUCH)):
            for key, value in getattr(self, name).items():
                if key not in known:
                    raise UsageError(f"The audit event's member {name} has no member {key[:80]!r}.")
                _check_text(name, value, MAX_TEXT)
        if self.vouch and len(self.vouch) != len(VOUCH):
            raise UsageError("The audit event's member vouch needs key and signature.")
        if self.run.builder:
            object.__setattr__(self, "run", replace(self.run, builder=""))

    def _check_phase(self) -> None:
        if (self.phase == "outcome") != bool(self.outcome):
            raise UsageError("An outcome event needs an outcome, and no other has one.")
        if (self.phase == "end") != (self.count is not None) or (self.count is not None and self.count < 1):
            raise UsageError("The end of a chain needs the count of its entries, and no other event has one.")

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
            "version": self.version,
            "key": self.key,
            "recipient": self.recipient,
            "outcome": self.outcome,
            "codes": list(self.codes),
            "policy": self.policy,
            "rule": self.rule,
            "signers": list(self.signers),
            "evidence": list(self.evidence),
            "producer": self.producer,
            "host": self.host,
            "claims": dict(self.claims),
            "details": self.details,
            "count": self.count,
            "after": self.after,
            "vouch": dict(self.vouch),
            "correlation": self.correlation,
        }
        return {name: value for name, value in members.items() if value not in ("", [], {}, None)}

    def to_json(self) -> bytes:
        """Return canonical JSON.

        Raises:
            UsageError: It exceeds 60 KiB, or text in it has no UTF-8 form.
        """
        try:
            data = strictjson.dumps(self.as_dict())
        except UnicodeEncodeError:
            raise UsageError("The audit event holds half of a surrogate pair.") from None
        if len(data) > MAX_EVENT:
            raise UsageError(f"The audit event has {len(data)} bytes, more than {MAX_EVENT}.")
        return data

    @classmethod
    def parse(cls, data: bytes) -> AuditEvent:
        """Read an event strictly: known members of the right form, in the one canonical text.

        Raises:
            EvidenceError: ``AUDIT_MALFORMED``.
        """
        try:
            body = _read_canonical(data)
            if body is None:
                # Here it is refused, and the reason found. The two ways agree: what is canonical is strict.
                body = strictjson.loads(data, limit=MAX_EVENT, what="The audit event", most_values=4 * MAX_LISTED)
                _reader()[0](body)
                if strictjson.dumps(body) != data:
                    raise EvidenceError("The audit event is not the canonical JSON of what it says.")
            event = cls._of(body)
            datetime.datetime.fromisoformat(event.time)
        except (EvidenceError, UsageError) as error:
            raise EvidenceError(error.message, code="AUDIT_MALFORMED") from None
        except ValueError as error:
            raise EvidenceError(_first_problem(error), code="AUDIT_MALFORMED") from None
        return event

    @classmethod
    def _of(cls, body: dict[str, Any]) -> AuditEvent:
        """Return the event whose JSON form the model accepted.

        Not by the constructor: what it checks of each member the model has checked, and a review reads millions. What
        several members say together is checked here.
        """
        said = body["run"]
        known = {**said}
        for name in _DERIVED:
            del known[name]
        run = RunIdentity(**known)
        if type(body["sealflow_audit"]) is not int:
            raise EvidenceError("The audit event's version is equal to 1, and written in another way.")
        if said["producer"] != run.producer or said["invocation"] != run.invocation:
            raise EvidenceError("What the audit event derives from its run is not what follows from it.")
        event = object.__new__(cls)
        members = {**_EMPTY, "claims": {}, "vouch": {}, **body, "run": run}
        del members["sealflow_audit"]
        for name in _LISTS:
            members[name] = tuple(members[name])
        # A frozen dataclass takes its members nowhere else.
        event.__dict__.update(members)
        event._check_phase()
        return event


#: What members are that an event does not say, but for mappings, of which each event has its own.
_EMPTY: Final[Mapping[str, Any]] = {
    item.name: item.default for item in fields(AuditEvent) if item.default is not MISSING
}


def _read_canonical(data: bytes) -> dict[str, Any] | None:
    """Return the JSON form of an event whose text is canonical and which the model accepts, ``None`` for others.

    A third of the time that the strict way takes. What equals the canonical text of some value is JSON in UTF-8 that
    names no member twice and holds no half of a surrogate pair, whoever read the value from it; and the model bounds
    its depth and its number of values.
    """
    if len(data) > MAX_EVENT:
        return None
    validate, from_json, to_json = _reader()
    try:
        body: dict[str, Any] = from_json(data)
        validate(body)
        if to_json(body) != data or not all(map(_is_sorted, (body, body["run"], *map(body.get, _MAPPINGS)))):
            return None
    except ValueError:
        return None
    return body


_MAPPINGS: Final = ("claims", "vouch")


def _is_sorted(members: Mapping[str, Any] | None) -> bool:
    return not members or list(members) == sorted(members)


@functools.cache
def _reader() -> tuple[Callable[[Any], object], Callable[[bytes], Any], Callable[[Any], bytes]]:
    """Return what checks an event's JSON form strictly, and what reads and writes JSON in its order, fast."""
    from pydantic_core import from_json, to_json

    from sealflow.audit.event_model import EventModel

    return EventModel.__pydantic_validator__.validate_python, from_json, to_json


def _first_problem(error: ValueError) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return "The audit event's time is none."
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(item)[:80] for item in first["loc"])
    return f"The audit event's member {where}: {first['msg'][:200]}."


def _check_text(name: str, value: object, longest: int) -> None:
    if not isinstance(value, str) or len(value) > longest:
        raise UsageError(f"The audit event's member {name} must be text of at most {longest} characters.")


def vouched(writer: str, run: RunIdentity) -> bytes:
    """Return what the deployment's ``audit_signer`` signs to vouch for a writer.

    Args:
        writer: The writer's id.
        run: The run that its first event names.
    """
    return f"sealflow-audit-writer/v1 {writer} {run.invocation}".encode()


def event_schema() -> dict[str, Any]:
    """Return the published JSON Schema (2020-12) of an event."""
    from sealflow.audit.event_model import EventModel

    body: dict[str, Any] = _plain(EventModel.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "sealflow audit event", **body}


def _plain(schema: Any) -> Any:
    """Leave out what the model's reader adds: titles of members, and defaults, which stand for absence."""
    if isinstance(schema, dict):
        return {name: _plain(value) for name, value in schema.items() if name not in ("title", "default")}
    return [_plain(value) for value in schema] if isinstance(schema, list) else schema
