"""The policy document, strictly read. Waivers have a form of their own.

A policy is written as YAML or JSON and signed as JSON. The forms here, in :mod:`sealflow.policy.rules` and in
:mod:`sealflow.policy.parties` say what a document holds; what follows from it for one artifact is
:mod:`sealflow.policy.compose`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeVar

from sealflow import strictjson
from sealflow.errors import EvidenceError, PolicyError
from sealflow.findings import printable
from sealflow.policy.form import MOST_WORDED, Form, Problem, prepare, problems, read
from sealflow.policy.form_parts import About, Between, Matches, Size
from sealflow.policy.parties import Delegation, IdentityModel, RecipientModel, SignerChoice, TimestampAuthority
from sealflow.policy.rules import MAX_RECIPIENTS, Rule, Scope
from sealflow.policy.values import Api, ArtifactDigest, Moment, Name, Text
from sealflow.policy.values import seconds as seconds

API_VERSION: Final = "sealflow/v1"

#: Largest document in bytes, and the most rules and identities that one holds.
MAX_DOCUMENT: Final = 4 << 20
MAX_RULES: Final = 5000
MAX_IDENTITIES: Final = 5000
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

Version = Annotated[int, Between(1, 2**53)]
GraceHours = Annotated[int, Between(0, MAX_GRACE_HOURS)]


class TrustPolicy(Form):
    """Who may make what, and what must be proved before it is used."""

    apiVersion: Api  # noqa: N815  (the name in the document)
    version: Annotated[Version, About("Rises with every change.")]
    expires: Moment
    grace_hours: Annotated[
        GraceHours, About("How long the last good policy stands in for one that is expired or out of reach.")
    ] = 0
    identities: Annotated[Mapping[Name, IdentityModel], Size(0, MAX_IDENTITIES)] = MappingProxyType({})
    recipients: Annotated[Mapping[Name, RecipientModel], Size(0, MAX_RECIPIENTS)] = MappingProxyType({})
    signers: Annotated[tuple[SignerChoice, ...], Size(0, MAX_RULES)] = ()
    timestamp_authorities: Annotated[Mapping[Name, TimestampAuthority], Size(0, MAX_AUTHORITIES)] = MappingProxyType({})
    rules: Annotated[tuple[Rule, ...], Size(0, MAX_RULES)] = ()
    delegations: Annotated[tuple[Delegation, ...], Size(0, 1000)] = ()

    def _check(self) -> None:
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


_TeamsRule = Annotated[str, Matches(r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$"), Size(0, 201)]


class WaivedRule(Form):
    """A rule as it stood when it was waived."""

    name: Name | _TeamsRule
    digest: Annotated[
        str,
        Matches(r"^sha256:[0-9a-f]{64}$"),
        About("Digest of the rule's text and of the identities that it names."),
    ]


class Waiver(Form):
    """A signed exception: the named rules are audited instead of enforced, for this scope and until it expires."""

    apiVersion: Api  # noqa: N815
    kind: Literal["Waiver"]
    id: Name
    scope: Scope
    digest: Annotated[ArtifactDigest | None, About("Only these bytes.")] = None
    rules: Annotated[tuple[WaivedRule, ...], Size(1, 100)]
    reason: Annotated[Text, Size(10, 2000)]
    not_before: Moment
    expires: Moment

    def _check(self) -> None:
        if self.scope.artifact is None:
            raise ValueError("a waiver names the artifacts for which it holds: scope.artifact")
        if not self.not_before < self.expires <= self.not_before + MAX_WAIVER:
            raise ValueError(f"a waiver ends after it starts and within {MAX_WAIVER.days} days")


def policy_schema() -> dict[str, Any]:
    """Return the published JSON Schema of the policy (draft 2020-12)."""
    from sealflow.policy.form_models import schema_of

    return schema_of(TrustPolicy, "policy")


def waiver_schema() -> dict[str, Any]:
    """Return the published JSON Schema of a waiver (draft 2020-12)."""
    from sealflow.policy.form_models import schema_of

    return schema_of(Waiver, "waiver")


_F = TypeVar("_F", bound=Form)


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
    return parse_document(Waiver, data, what, most_worded=_MOST_WORDED_WAIVER)


def parse_document(
    form: type[_F], data: bytes, what: str, limit: int = MAX_DOCUMENT, *, most_worded: int = MOST_WORDED
) -> _F:
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
    if found := _not_landed(body):
        raise PolicyError(
            f"{what}: {found[0][1]}", code="POLICY_FIELD_NOT_LANDED", problems=found, next_step=_NOT_LANDED_STEP
        )
    try:
        return read(form, body)
    except ValueError:
        found = problems(form, data, body, most=most_worded)
        where = place(found[0][0])
        raise PolicyError(f"{what}{where and f' at {where}'}: {found[0][1]}.", problems=found) from None


#: Hundreds of waivers may lie beside a policy, by keys that are trusted less than an admin's.
_MOST_WORDED_WAIVER: Final = 2000
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


# Whoever loads this reads a policy, and tasks may be forked from a process that only loaded it.
prepare(TrustPolicy)
