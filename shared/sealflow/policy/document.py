"""The policy document: its outer shape, strictly read. Waivers have the same form of their own.

A policy is written as YAML or JSON and signed as JSON. Everything here says what a document holds; what follows from it
for one artifact is :mod:`sealflow.policy.compose`.

This module imports pydantic, which takes a quarter of a second: it is imported only where a policy is configured.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from sealflow import strictjson
from sealflow.errors import EvidenceError, PolicyError, UsageError
from sealflow.findings import printable
from sealflow.policy.globs import NAME_PREFIX, check_pattern, check_place, is_absolute, place_pattern

API_VERSION: Final = "sealflow/v1"

#: Largest document in bytes, and the most rules and identities that one holds.
MAX_DOCUMENT: Final = 4 << 20
MAX_RULES: Final = 5000
MAX_IDENTITIES: Final = 5000
#: Most recipients that one document knows, and that one rule demands: an artifact has at most 32.
MAX_RECIPIENTS: Final = 1000
MAX_REQUIRED: Final = 32
#: Most witnesses of a log that is believed about time.
MAX_WITNESSES: Final = 16
#: Most timestamp authorities: each token is tried with each of them.
MAX_AUTHORITIES: Final = 16
#: Longest time for which the last good policy may stand in, in hours.
MAX_GRACE_HOURS: Final = 30 * 24
#: Longest life of a waiver.
MAX_WAIVER: Final = datetime.timedelta(days=92)

#: Fields whose capability has not landed, and what it will take. A policy that holds one is refused: an admin who
#: writes it relies on it.
NOT_LANDED: Final = {
    "gates": "gate results",
}

_API = re.compile(r"sealflow/v([1-9][0-9]{0,5})")
_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
#: Team name under which the rules of a call's own policy stand.
RESERVED_TEAM: Final = "policy"


_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds(text: str) -> int:
    """Return the seconds of a duration such as ``90m``, ``24h``, ``30d`` or ``2w``."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", text)
    if match is None:
        raise ValueError("a duration is a number with m, h, d or w, such as 24h or 30d")
    return int(match[1]) * _UNITS[match[2]]


def _artifact_digest(text: str) -> str:
    if not re.fullmatch(r"(sha256|dirHash):[0-9a-f]{64}", text):
        raise ValueError("an artifact digest is sha256: or dirHash: and 64 hex digits")
    return text


def _pattern(text: str) -> str:
    if problem := check_pattern(text):
        raise ValueError(problem)
    return text


def _place(text: str) -> str:
    if problem := check_place(text):
        raise ValueError(problem)
    return text


# Far enough for everybody, and far enough from the ends of the calendar that a time zone or a grace can be added.
_FIRST_YEAR: Final = 2000
_LAST_YEAR: Final = 2999


def _moment(value: Any) -> Any:
    # Numbers, and texts of digits, would be taken for seconds or milliseconds since 1970, by their size.
    if not isinstance(value, datetime.datetime) and not (isinstance(value, str) and _RFC3339.fullmatch(value)):
        raise ValueError("a time is written as 2027-06-30T00:00:00Z (RFC 3339)")
    return value


def _near(value: datetime.datetime) -> datetime.datetime:
    if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
        raise ValueError(f"a time lies between the years {_FIRST_YEAR} and {_LAST_YEAR}")
    return value


Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_moment), AfterValidator(_near)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Text = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Duration = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}[mhdw]$", examples=["24h", "30d"])]
Pattern = Annotated[Text, AfterValidator(_pattern)]
Place = Annotated[Text, AfterValidator(_place)]
Patterns = Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=100)]
Places = Annotated[tuple[Place, ...], Field(min_length=1, max_length=100)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1, max_length=100)]
HeaderName = Annotated[Text, Field(max_length=256)]


class Strict(BaseModel):
    """A part of a document: every member is known and of its own type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Certificates(Strict):
    """Certificates under given roots, with one of these names (``subject:``, ``email:``, ``dns:``, ``uri:``)."""

    roots: tuple[Annotated[str, Field(min_length=1, max_length=65536)], ...] = Field(
        min_length=1,
        max_length=16,
        description="PEM text in a signed policy; paths in a draft, which signing replaces.",
    )
    names: Texts


class IdentityModel(Strict):
    """One who may sign: a pinned public key, or a certificate name under given roots."""

    key: Annotated[str, Field(min_length=1, max_length=8192)] | None = Field(
        default=None, description="PEM text in a signed policy; a path or URI in a draft, which signing replaces."
    )
    certificate: Certificates | None = None
    producers: Patterns | None = Field(default=None, description="Producers for which it may speak; absent: for all.")
    builders: Texts | None = Field(
        default=None, description="SLSA builder ids for which it may speak; absent: for all."
    )
    verifier: bool = Field(default=False, description="It signs verification summaries, and nothing else.")
    valid_from: Moment | None = Field(default=None, description="Before then nothing that it signed counts.")
    expires: Moment | None = Field(default=None, description="From then on nothing that it signed counts.")

    @model_validator(mode="after")
    def _one_kind(self) -> IdentityModel:
        if (self.key is None) == (self.certificate is None):
            raise ValueError("an identity needs exactly one of key and certificate")
        if self.verifier and (self.producers or self.builders):
            raise ValueError("a verifier is no producer; leave producers and builders out, or verifier")
        if self.valid_from is not None and self.expires is not None and self.valid_from >= self.expires:
            raise ValueError("valid_from lies before expires, or it never counts")
        return self


def _key_arn(text: str) -> str:
    from sealflow.encryption.awskms import AwsKmsRecipient

    try:
        arn = AwsKmsRecipient(f"awskms:{text}").arn
    except UsageError:
        arn = ""
    if arn != text:
        raise ValueError("an alias can be pointed elsewhere; write the ARN, arn:aws:kms:<region>:<account>:key/<id>")
    return text


def _namespace(text: str) -> str:
    from sealflow.encryption.recipient import KMS_PROVIDER

    if text == KMS_PROVIDER:
        raise ValueError(f"the namespace {KMS_PROVIDER} is that of keys in KMS; choose another")
    return text


class RecipientModel(Strict):
    """One who can open encrypted artifacts: an RSA public key, or a symmetric key in AWS KMS."""

    rsa: Annotated[str, Field(min_length=1, max_length=8192)] | None = Field(
        default=None, description="Public key, PEM text in a signed policy; a path in a draft, which signing replaces."
    )
    kms: Annotated[Text, AfterValidator(_key_arn)] | None = Field(default=None, description="The key's full ARN.")
    namespace: Annotated[HeaderName, AfterValidator(_namespace)] | None = Field(
        default=None, description="Key namespace in the header of an artifact, of an RSA key; absent: sealflow."
    )
    name: HeaderName | None = Field(
        default=None, description="Name in that header, of an RSA key; absent: the SHA-256 of the PEM text."
    )

    @model_validator(mode="before")
    @classmethod
    def _no_secret(cls, value: Any) -> Any:
        symmetric = isinstance(value, dict) and ("aes" in value or str(value.get("rsa", "")).startswith("aes:"))
        if symmetric:
            raise ValueError("a symmetric key is a secret, and a policy is read by all; name an RSA key or one in KMS")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> RecipientModel:
        if (self.rsa is None) == (self.kms is None):
            raise ValueError("a recipient needs exactly one of rsa and kms")
        if self.kms is not None and (self.namespace is not None or self.name is not None):
            raise ValueError("a key in KMS stands in the header by its ARN; leave namespace and name out")
        return self


class Scope(Strict):
    """Where a rule holds: every given field must match. Lists are alternatives; ``*`` and ``**`` as in locations."""

    artifact: Places | None = Field(
        default=None, description="Locations (s3://models/**, /data/**), or signed logical names (name:churn-*)."
    )
    orchestrator: tuple[Literal["airflow", "kfp", "python", "cli"], ...] | None = Field(default=None, min_length=1)
    team: Patterns | None = None
    dag: Patterns | None = None
    pipeline: Patterns | None = None
    task: Patterns | None = None

    @model_validator(mode="after")
    def _one_workflow(self) -> Scope:
        if self.dag and self.pipeline:
            raise ValueError("a task belongs to a dag or to a pipeline, never to both; write two rules")
        return self


class IdentityDemand(Strict):
    """Who must have signed, counted by distinct keys."""

    any_of: tuple[Name, ...] | None = Field(default=None, min_length=1, max_length=64)
    all_of: tuple[Name, ...] | None = Field(default=None, min_length=1, max_length=64)
    at_least: Annotated[int, Field(ge=1, le=64)] | None = None
    of: tuple[Name, ...] | None = Field(default=None, min_length=1, max_length=64)

    @model_validator(mode="after")
    def _one_form(self) -> IdentityDemand:
        forms = [self.any_of is not None, self.all_of is not None, self.at_least is not None or self.of is not None]
        if sum(forms) != 1 or (self.at_least is None) != (self.of is None):
            raise ValueError("identities takes exactly one of any_of, all_of, and at_least with of")
        names = self.names
        if len(names) > 1 and len(set(names)) != len(names):
            raise ValueError("identities names somebody twice")
        if self.of is not None and self.at_least is not None and self.at_least > len(self.of):
            raise ValueError(f"at_least {self.at_least} of {len(self.of)} can never hold")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All identities named."""
        return self.any_of or self.all_of or self.of or ()

    @property
    def count(self) -> int:
        """How many distinct ones must have signed."""
        return len(self.all_of) if self.all_of is not None else self.at_least or 1


class EvidenceDemand(Strict):
    """What one kind of evidence must fulfil beyond being there."""

    max_age: Duration | None = None
    timestamp: bool = Field(
        default=False,
        description="One of the policy's timestamp authorities has seen its signature: by a token, or in a log.",
    )


class FreshnessDemand(Strict):
    """How recent an artifact must be where no reference pins its digest."""

    max_age: Duration


class ReuseDemand(Strict):
    """A gate may accept a verification summary instead of reading everything again."""

    max_age: Duration
    verifiers: tuple[Name, ...] | None = Field(
        default=None, min_length=1, max_length=64, description="Identities marked `verifier`; absent: all of them."
    )


class CommitDemand(Strict):
    """Who must have signed the commit that a DVC repository is checked against, and where it must have been merged."""

    allowed_signers: Annotated[str, Field(min_length=1, max_length=262144)] = Field(
        description="As OpenSSH and Git read it; text in a signed policy, a path in a draft, which signing replaces."
    )
    branch: Text = Field(description="Full name of the branch, such as refs/remotes/origin/main.")


class LineageDemand(Strict):
    """Where an artifact must come from, and how closely DVC repositories are checked."""

    roots: tuple[Name, ...] | None = Field(
        default=None, min_length=1, max_length=64, description="Data owners: what they signed is a beginning."
    )
    datasets: tuple[Annotated[str, AfterValidator(_artifact_digest)], ...] | None = Field(
        default=None, min_length=1, max_length=10_000, description="Artifact digests that are beginnings too."
    )
    level: Literal["L1", "L2", "L3", "L4", "L5", "L6"] | None = Field(
        default=None, description="Least level at which DVC repositories in the scope are checked."
    )
    commits: CommitDemand | None = None

    @model_validator(mode="after")
    def _sound(self) -> LineageDemand:
        if self.roots is None and self.datasets is None and self.level is None:
            raise ValueError("lineage needs roots or datasets, where artifacts begin, or a level for DVC repositories")
        if self.commits is not None and (self.level is None or self.level < "L3"):
            raise ValueError("commits are looked at from level L3 on")
        return self

    @property
    def traces(self) -> bool:
        """Whether artifacts must be traced back to where they begin."""
        return self.roots is not None or self.datasets is not None


class RecipientDemand(Strict):
    """Who must be able to open an artifact that is stored encrypted, and whether it must be."""

    required: tuple[Name, ...] | None = Field(
        default=None, min_length=1, max_length=MAX_REQUIRED, description="Each of them must be able to open it."
    )
    only: tuple[Name, ...] | None = Field(
        default=None, min_length=1, max_length=MAX_RECIPIENTS, description="Nobody else may be; absent: anybody may."
    )
    encrypted: bool = Field(
        default=False, description="A clear artifact is refused; otherwise the rule speaks of encrypted ones only."
    )

    @model_validator(mode="after")
    def _sound(self) -> RecipientDemand:
        if self.required is None and self.only is None and not self.encrypted:
            raise ValueError("recipients needs required or only, who opens artifacts, or encrypted: true")
        for named in (self.required or (), self.only or ()):
            if len(set(named)) != len(named):
                raise ValueError("recipients names somebody twice")
        left_out = [name for name in self.required or () if self.only is not None and name not in self.only]
        if left_out:
            raise ValueError(f"`only` leaves out {left_out[0]}, which is required")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All recipients named, each once."""
        return tuple(dict.fromkeys((*(self.required or ()), *(self.only or ()))))


class Require(Strict):
    """What must be proved."""

    identities: IdentityDemand | None = None
    evidence: dict[Literal["signature", "provenance"], EvidenceDemand] | None = Field(
        default=None, min_length=1, description="Absent: signature and provenance."
    )
    producers: Patterns | None = Field(default=None, description="Who must have made it, proved by a key of its own.")
    freshness: Literal["pinned"] | FreshnessDemand | None = None
    loaders: Patterns | None = Field(default=None, description="Producers in whose tasks it may be checked and opened.")
    lineage: LineageDemand | None = None
    recipients: RecipientDemand | None = None
    reuse_verdict: ReuseDemand | None = None
    audit: Literal["spooled", "sequenced", "included", "witnessed"] | None = Field(
        default=None, description="How far the audit event of an action must get before the task goes on."
    )


Level = Literal["enforce", "audit", "off"]
Lockable = Literal["identities", "evidence", "producers", "freshness", "loaders", "lineage", "recipients"]


class Rule(Strict):
    """One rule."""

    name: Name
    scope: Scope
    require: Require = Require()
    level: Level = "enforce"
    locked: tuple[Lockable, ...] = Field(
        default=(), description="Fields that team policies, authors and calls may not even tighten."
    )

    @model_validator(mode="after")
    def _sound(self) -> Rule:
        if self.scope.artifact is None:
            raise ValueError("a rule names the artifacts for which it holds: scope.artifact")
        if self.level == "off":
            broad = [item for item in self.scope.artifact if not _narrow(item)]
            if broad:
                raise ValueError(f"level off is never global, and {broad[0]!r} names no bucket or folder")
        producers = self.require.producers
        evidence = self.require.evidence
        if evidence is not None and "provenance" not in evidence:
            if producers:
                raise ValueError("producers can be checked only where provenance is required")
            if self.require.lineage is not None and self.require.lineage.traces:
                raise ValueError("lineage can be traced only where provenance is required")
            if isinstance(self.require.freshness, FreshnessDemand):
                raise ValueError("freshness by age can be checked only where provenance is required")
        if evidence is not None and (signature := evidence.get("signature")) is not None and signature.max_age:
            raise ValueError("a signature says no time; put max_age on provenance")
        return self


def _narrow(pattern: str) -> bool:
    # A literal bucket, host or first folder, in the one form in which locations are compared.
    text = place_pattern(pattern)
    text = text.partition("://")[2] if "://" in text else text.removeprefix(NAME_PREFIX)
    first = text.lstrip("/").partition("/")[0]
    return bool(first) and "*" not in first


class SignerChoice(Strict):
    """Which signer tasks in this scope use when none is named."""

    scope: Scope = Scope()
    uri: Text
    timestamp: Name | None = Field(
        default=None, description="One of `timestamp_authorities`, which has a url: it stamps what this signer signs."
    )

    @model_validator(mode="after")
    def _no_secret(self) -> SignerChoice:
        if "PRIVATE KEY" in self.uri:
            raise ValueError("a signer is named by a URI; the key itself never stands in a policy")
        return self


def _authority_url(text: str) -> str:
    from sealflow.evidence.timestamp import check_url

    try:
        check_url(text)
    except UsageError as error:
        raise ValueError(error.message.rstrip(".")) from None
    return text


def _log_key(text: str) -> str:
    from sealflow.audit.note import ED25519, VerifierKey

    return _verifier_key(text, VerifierKey.parse, ED25519, "a log (type 01)")


def _witness_key(text: str) -> str:
    from sealflow.audit.note import COSIGNATURE, VerifierKey

    return _verifier_key(text, VerifierKey.parse, COSIGNATURE, "a witness, which makes cosignatures (type 04)")


def _verifier_key(text: str, parse: Callable[[str], Any], kind: int, whose: str) -> str:
    try:
        key = parse(text)
    except UsageError as error:
        raise ValueError(error.message.rstrip(".")) from None
    if key.kind != kind:
        raise ValueError(f"the key of {key.name} is not that of {whose}")
    return text


class TimestampAuthority(Strict):
    """Who is believed about when something was signed: an authority (RFC 3161), or a log by its witnesses (C2SP)."""

    roots: tuple[Annotated[str, Field(min_length=1, max_length=65536)], ...] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="All that is trusted of an authority; PEM text in a signed policy, paths in a draft, which signing "
        "replaces.",
    )
    url: Annotated[Text, AfterValidator(_authority_url)] | None = Field(
        default=None,
        description="Where an authority is asked, http or https; absent: its tokens are believed, none is asked for.",
    )
    log: Annotated[Text, AfterValidator(_log_key)] | None = Field(
        default=None, description="Verifier key of an audit log, as `sealflow audit key` prints it; instead of `roots`."
    )
    witnesses: tuple[Annotated[Text, AfterValidator(_witness_key)], ...] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_WITNESSES,
        description="Verifier keys of those whose cosignatures of the log's checkpoints count, and whose clocks do.",
    )
    quorum: Annotated[int, Field(ge=1, le=MAX_WITNESSES)] | None = Field(
        default=None, description="How many witnesses must have seen a checkpoint; absent: all of them."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> TimestampAuthority:
        if (self.roots is None) == (self.log is None):
            raise ValueError("a timestamp authority has either roots or a log with witnesses")
        if self.log is None:
            if self.witnesses is not None or self.quorum is not None:
                raise ValueError("witnesses and quorum belong to a log")
            return self
        if self.url is not None or self.witnesses is None:
            raise ValueError("a log has witnesses and no url; its own key proves no time")
        # A witness is known by its name and its key; the log's holder must not be one.
        for told in ({text.partition("+")[0] for text in self.witnesses}, {_raw(text) for text in self.witnesses}):
            if len(told) < len(self.witnesses):
                raise ValueError("two of the witnesses have one name or one key")
        if _raw(self.log) in {_raw(text) for text in self.witnesses}:
            raise ValueError("a log cannot witness itself")
        if (self.quorum or 1) > len(self.witnesses):
            raise ValueError(f"a quorum of {self.quorum} cannot be had of {len(self.witnesses)} witnesses")
        return self


def _raw(text: str) -> bytes:
    from sealflow.audit.note import VerifierKey

    return VerifierKey.parse(text).raw


class Delegation(Strict):
    """A team's own policy, which tightens inside the artifacts given to it."""

    team: Name
    artifact: Places
    key: Annotated[str, Field(min_length=1, max_length=8192)] = Field(description="The team's public key, as PEM.")
    policy: Text = Field(description="Where the team's signed policy lies.")
    minimum_version: Annotated[int, Field(ge=1, le=2**53)] = 1

    @model_validator(mode="after")
    def _of_a_team(self) -> Delegation:
        if self.team == RESERVED_TEAM:
            raise ValueError(f"the name {RESERVED_TEAM} stands for a policy that a call adds; name the team otherwise")
        if any(item.startswith(NAME_PREFIX) for item in self.artifact):
            raise ValueError("a delegation is about locations; a logical name is whatever its signer writes")
        if not is_absolute(self.policy):
            raise ValueError("the place of a team's policy is absolute; another one depends on each task's folder")
        return self


class TrustPolicy(Strict):
    """Who may make what, and what must be proved before it is used."""

    apiVersion: Literal["sealflow/v1"]  # noqa: N815  (the name in the document)
    version: Annotated[int, Field(ge=1, le=2**53)] = Field(description="Rises with every change.")
    expires: Moment
    grace_hours: Annotated[int, Field(ge=0, le=MAX_GRACE_HOURS)] = Field(
        default=0, description="How long the last good policy stands in for one that is expired or out of reach."
    )
    identities: dict[Name, IdentityModel] = Field(default_factory=dict, max_length=MAX_IDENTITIES)
    recipients: dict[Name, RecipientModel] = Field(default_factory=dict, max_length=MAX_RECIPIENTS)
    signers: tuple[SignerChoice, ...] = Field(default=(), max_length=MAX_RULES)
    timestamp_authorities: dict[Name, TimestampAuthority] = Field(default_factory=dict, max_length=MAX_AUTHORITIES)
    rules: tuple[Rule, ...] = Field(default=(), max_length=MAX_RULES)
    delegations: tuple[Delegation, ...] = Field(default=(), max_length=1000)

    @model_validator(mode="after")
    def _consistent(self) -> TrustPolicy:
        seen: set[str] = set()
        for rule in self.rules:
            if rule.name in seen:
                raise ValueError(f"two rules have the name {rule.name}")
            seen.add(rule.name)
            named = rule.require.identities.names if rule.require.identities else ()
            for name in named:
                if name not in self.identities:
                    raise ValueError(f"rule {rule.name} names the unknown identity {name}")
                if self.identities[name].verifier:
                    raise ValueError(f"rule {rule.name} names {name}, a verifier, as a signer of artifacts")
            lineage = rule.require.lineage
            for name in (lineage.roots or ()) if lineage else ():
                if name not in self.identities or self.identities[name].verifier:
                    raise ValueError(f"rule {rule.name} begins at data of {name}, which is no signer of this policy")
            for name in rule.require.recipients.names if rule.require.recipients else ():
                if name not in self.recipients:
                    raise ValueError(f"rule {rule.name} names the unknown recipient {name}")
            reuse = rule.require.reuse_verdict
            for name in (reuse.verifiers or ()) if reuse else ():
                if name not in self.identities or not self.identities[name].verifier:
                    raise ValueError(f"rule {rule.name} reuses verdicts of {name}, which is no verifier of this policy")
        for choice in self.signers:
            known = self.timestamp_authorities.get(choice.timestamp) if choice.timestamp is not None else None
            if choice.timestamp is not None and (known is None or known.url is None):
                raise ValueError(f"signers names {choice.timestamp}, which is no timestamp authority with a url")
        teams = [item.team for item in self.delegations]
        if len(set(teams)) != len(teams):
            raise ValueError("a team has two delegations; list all its artifacts in one")
        return self


class WaivedRule(Strict):
    """A rule as it stood when it was waived."""

    name: Name | Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", max_length=201)]
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] = Field(
        description="Digest of the rule's text and of the identities that it names."
    )


class Waiver(Strict):
    """A signed exception: the named rules are audited instead of enforced, for this scope and until it expires."""

    apiVersion: Literal["sealflow/v1"]  # noqa: N815
    kind: Literal["Waiver"]
    id: Name
    scope: Scope
    digest: Annotated[str, AfterValidator(_artifact_digest)] | None = Field(
        default=None, description="Only these bytes."
    )
    rules: tuple[WaivedRule, ...] = Field(min_length=1, max_length=100)
    reason: Annotated[Text, Field(min_length=10)]
    not_before: Moment
    expires: Moment

    @model_validator(mode="after")
    def _bounded(self) -> Waiver:
        if self.scope.artifact is None:
            raise ValueError("a waiver names the artifacts for which it holds: scope.artifact")
        if not self.not_before < self.expires <= self.not_before + MAX_WAIVER:
            raise ValueError(f"a waiver ends after it starts and within {MAX_WAIVER.days} days")
        return self


def policy_schema() -> dict[str, Any]:
    """Return the published JSON Schema of the policy (draft 2020-12)."""
    return schema_of(TrustPolicy, "policy")


def waiver_schema() -> dict[str, Any]:
    """Return the published JSON Schema of a waiver (draft 2020-12)."""
    return schema_of(Waiver, "waiver")


def schema_of(model: type[BaseModel], name: str) -> dict[str, Any]:
    """Return the published JSON Schema of a kind of document."""
    body = model.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:sealflow:schema:{name}:v1", **body}


Problem = tuple[tuple[Any, ...], str]
_Model = TypeVar("_Model", bound=BaseModel)


def parse_policy(data: bytes, what: str = "The policy") -> TrustPolicy:
    """Read a policy from JSON.

    Raises:
        PolicyError: ``POLICY_TOO_NEW``, ``POLICY_FIELD_NOT_LANDED`` or ``POLICY_MALFORMED``; ``problems`` lists all.
    """
    return parse_document(TrustPolicy, data, what)


def parse_waiver(data: bytes, what: str = "The waiver") -> Waiver:
    """Read a waiver from JSON.

    Raises:
        PolicyError: As :func:`parse_policy`.
    """
    return parse_document(Waiver, data, what)


def parse_document(model: type[_Model], data: bytes, what: str, limit: int = MAX_DOCUMENT) -> _Model:
    """Read a kind of document from JSON of at most ``limit`` bytes.

    Raises:
        PolicyError: As :func:`parse_policy`.
    """
    try:
        body = strictjson.loads(data, limit=limit, what=what)
    except EvidenceError as error:
        raise PolicyError(error.message) from None
    if not isinstance(body, dict):
        raise PolicyError(f"{what} is no mapping.")
    _check_version(body, what)
    problems = _not_landed(body)
    if problems:
        raise PolicyError(
            f"{what}: {problems[0][1]}", code="POLICY_FIELD_NOT_LANDED", problems=problems, next_step=_NOT_LANDED_STEP
        )
    try:
        # From the bytes, so that JSON's own types decide: "1" is no number and 1 is no text.
        return model.model_validate_json(data)
    except ValidationError as error:
        found = problems_of(error)
        where = place(found[0][0])
        raise PolicyError(f"{what}{where and f' at {where}'}: {found[0][1]}.", problems=found) from None


def problems_of(error: ValidationError) -> list[Problem]:
    """Return each problem's path, in the model's terms, and one sentence."""
    return [(tuple(item["loc"]), _message(dict(item))) for item in error.errors(include_url=False)]


_NOT_LANDED_STEP = "Remove the field; this release cannot hold it, and will not pretend to."


def _check_version(body: Mapping[str, Any], what: str) -> None:
    match = _API.fullmatch(body["apiVersion"]) if isinstance(body.get("apiVersion"), str) else None
    if match is not None and int(match[1]) > 1:
        raise PolicyError(
            f"{what} has the apiVersion {match[0]}; this release reads {API_VERSION}.",
            code="POLICY_TOO_NEW",
            problems=[(("apiVersion",), f"{match[0]} is newer than this release")],
            next_step="Upgrade sealflow here, or sign the policy in the older form.",
        )


def _not_landed(body: Mapping[str, Any]) -> list[Problem]:
    found: list[Problem] = []
    rules = body.get("rules")
    for index, rule in enumerate(rules if isinstance(rules, list) else ()):
        require = rule.get("require") if isinstance(rule, dict) else None
        for name in require if isinstance(require, dict) else ():
            if name in NOT_LANDED:
                text = f"`{name}` needs {NOT_LANDED[name]}, which this release does not have"
                found.append((("rules", index, "require", name), text))
    return found


def place(loc: tuple[Any, ...]) -> str:
    """Return ``rules[3].require.identities`` for a path of names and indices."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{printable(part, 60)}"
    return text.lstrip(".")


def _message(item: Mapping[str, Any]) -> str:
    text = str(item["msg"]).removeprefix("Value error, ").rstrip(".")
    kind = item["type"]
    if kind == "extra_forbidden":
        return "this field is unknown"
    if kind == "missing":
        return "this field is missing"
    shown = item.get("input")
    if isinstance(shown, (str, int, float, bool)) and "PRIVATE" not in str(shown):
        text += f" (found {printable(shown, 60)!r})"
    return text[:1].lower() + text[1:]
