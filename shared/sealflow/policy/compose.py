"""From policies to the requirement for one artifact in one task.

All matching rules apply. What they ask for is joined so that each joining can only make a check stricter:

=============  ==========================================================================================
field          composition
=============  ==========================================================================================
identities     every rule's demand must hold, and only evidence by somebody whom every rule names counts
evidence       union of the kinds; a timestamp where any rule asks for one
max_age        the least
producers      every rule's list must hold
freshness      ``pinned`` before any age, then the least age
loaders        every rule's list must hold
lineage        beginnings that every rule accepts, the highest level, every rule's demand on commits
recipients     all whom any rule requires, nobody whom any ``only`` leaves out, encrypted where any rule says so
reuse_verdict  only where every rule allows it: least age, verifiers whom every rule allows
audit          the furthest that any rule demands
level          the strictest: ``enforce``, ``audit``, ``off``
=============  ==========================================================================================

Whatever a call states itself is joined in the same way and always enforced. At the level ``audit`` and under waivers,
too, the identities that it names must have signed, and nothing signed may contradict the name and the producer that it
states.

An artifact is concerned by the rules that name its location in any reading, and by those that name something inside it:
who opens a folder opens what lies in it. A policy that names an artifact and has no rule for the task at hand refuses,
whatever the other policies say.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sealflow import strictjson
from sealflow.errors import PolicyError, UsageError
from sealflow.evidence.timestamp import Authority
from sealflow.evidence.witnessed import WitnessedLog
from sealflow.findings import printable
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys.signer import stamped_by
from sealflow.policy.globs import (
    NAME_PREFIX,
    hides,
    holds,
    includes,
    inside,
    literal,
    matches,
    overlaps,
    place_pattern,
    reaches,
)
from sealflow.policy.identities import Identity, KeyIdentity, parse_identities
from sealflow.policy.requirement import (
    CALL,
    EVIDENCE_KINDS,
    NOTHING_REVOKED,
    AgeDemand,
    Clause,
    FreshnessDemand,
    KnownRecipient,
    LineageDemand,
    LoaderDemand,
    ProducerDemand,
    RecipientDemand,
    Requirement,
    Revocations,
    StampDemand,
)
from sealflow.run_identity import RunIdentity

if TYPE_CHECKING:
    from sealflow.policy.document import TrustPolicy, Waiver
    from sealflow.policy.parties import IdentityModel, RecipientModel
    from sealflow.policy.rules import Rule, Scope

_PUBLIC_KEY: Final = re.compile(r"-----BEGIN PUBLIC KEY-----\n((?:[A-Za-z0-9+/=]{1,64}\n)+)-----END PUBLIC KEY-----\n")
#: The SubjectPublicKeyInfo of each kind of key that we take: what stands before the key itself, and the whole length.
_KEY_FORMS: Final = (
    (bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"), 91),
    (bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004"), 120),
    (bytes.fromhex("30819b301006072a8648ce3d020106052b810400230381860004"), 158),
    (bytes.fromhex("302a300506032b6570032100"), 44),
)
#: How far an audit event can get, one after the other.
AUDIT_LEVELS: Final = ("spooled", "sequenced", "included", "witnessed")
_LEVELS: Final = {"enforce": 2, "audit": 1, "off": 0}


class Arguments(NamedTuple):
    """What a call demands by itself.

    Attributes:
        identities: Who may sign; ``None`` where the call does not say.
        kinds: Kinds of evidence; ``None`` where the call does not say.
        digest: Expected artifact digest.
        name: Expected logical name.
        producer: Expected producer.
        files: Names of the files to check.
        accept_legacy: Accept what model-signing 0.2.0 wrote.
        defaults: Who may sign where neither the call nor a policy says so, from a connection or the environment.
    """

    identities: tuple[Identity, ...] | None = None
    kinds: frozenset[str] | None = None
    digest: Digest | None = None
    name: str | None = None
    producer: str | None = None
    files: tuple[str, ...] = ()
    accept_legacy: bool = False
    defaults: tuple[Identity, ...] = ()


class CompiledRule:
    """A rule, ready to be compared with locations.

    Attributes:
        rule: The rule as written.
        name: Its name, with the team's before it where a team wrote it.
        identities: Those whom it names.
        within: Patterns of the artifacts to which a delegation limits it; ``None`` without one.
    """

    def __init__(self, rule: Rule, policy: CompiledPolicy) -> None:
        self.rule = rule
        self.policy = policy
        self.name = policy.prefix + rule.name
        places, names = [], []
        for item in rule.scope.artifact or ():
            if item.startswith(NAME_PREFIX):
                names.append(item.removeprefix(NAME_PREFIX))
            else:
                places.append(place_pattern(item))
        self.places, self.names = tuple(places), tuple(names)
        demand = rule.require.identities
        self.identities = None if demand is None else tuple([policy.identities[name] for name in demand.names])
        self.at_least = 0 if demand is None else demand.count

    @cached_property
    def verifiers(self) -> tuple[Identity, ...]:
        """Verifiers whose summaries the rule takes."""
        reuse, known = self.rule.require.reuse_verdict, self.policy.verifiers
        return tuple(known[name] for name in reuse.verifiers or known) if reuse is not None else ()

    @property
    def _roots(self) -> tuple[str, ...]:
        lineage = self.rule.require.lineage
        return (lineage.roots or ()) if lineage is not None else ()

    @cached_property
    def lineage(self) -> LineageDemand | None:
        """Where the rule wants artifacts to come from."""
        demand = self.rule.require.lineage
        if demand is None:
            return None
        return LineageDemand(
            self.name,
            demand.traces,
            tuple(self.policy.identities[name] for name in self._roots),
            frozenset(Digest.parse(text) for text in demand.datasets or ()),
            int(demand.level[1]) if demand.level is not None else 0,
            (demand.commits.allowed_signers, demand.commits.branch) if demand.commits is not None else None,
        )

    @cached_property
    def recipients(self) -> RecipientDemand | None:
        """Who the rule wants to be able to open artifacts."""
        demand, known = self.rule.require.recipients, self.policy.recipients
        if demand is None:
            return None
        return RecipientDemand(
            self.name,
            tuple(known[name] for name in demand.required or ()),
            tuple(known[name] for name in demand.only) if demand.only is not None else None,
            demand.encrypted,
        )

    @property
    def digest(self) -> str:
        """``sha256:`` and the digest of the rule's text and of whom it names; a waiver is bound to it.

        Two deployments can have a rule of one text that believe different people, and share an admin.
        """
        demand = self.rule.require.identities
        known = self.policy.document.identities
        body: dict[str, Any] = {
            "rule": self.rule.as_json(without="defaults"),
            "identities": {
                name: known[name].as_json(without="defaults")
                for name in (*(demand.names if demand is not None else ()), *self._roots)
            },
        }
        if (opened := self.rule.require.recipients) is not None:
            listed = self.policy.document.recipients
            body["recipients"] = {name: listed[name].as_json() for name in opened.names}
        return "sha256:" + sha256_hex(strictjson.dumps(body))

    def touches(
        self, places: Sequence[str], names: Iterable[str], files: Sequence[str] = (), contents: Sequence[str] = ()
    ) -> bool:
        """Tell whether the artifact is one of those that the rule names, or holds one of them.

        Args:
            places: All readings of the artifact's location.
            names: Its signed logical names, as far as they are known.
            files: Names of the files in it that are opened; empty for all.
            contents: Names of all files in it, as far as they are known.
        """
        found = concerns(self.places, places, files, contents)
        found = found or any(matches(pattern, text) for pattern in self.names for text in names)
        within = self.policy.within
        return found and (within is None or concerns(within, places, files, contents))

    def holds(self, run: RunIdentity) -> bool:
        """Tell whether the rule holds in this task."""
        return scope_holds(self.rule.scope, run)


def concerns(
    patterns: Sequence[str], places: Sequence[str], files: Sequence[str] = (), contents: Sequence[str] = ()
) -> bool:
    """Tell whether patterns over locations name an artifact, or something inside it that is opened with it.

    Args:
        patterns: In the form of :func:`~sealflow.policy.globs.place_pattern`.
        places: All readings of the artifact's location.
        files: Names of the files in it that are opened; empty for all.
        contents: Names of all files in it, as far as they are known.
    """
    if any(matches(pattern, place) for pattern in patterns for place in places):
        return True
    if files:
        return any(matches(pattern, inside(place, name)) for name in files for place in places for pattern in patterns)
    if any(reaches(pattern, place) for pattern in patterns for place in places):
        return True
    return bool(contents) and any(
        holds(pattern, place, contents) for pattern in patterns if hides(pattern) for place in places
    )


def scope_holds(scope: Scope, run: RunIdentity) -> bool:
    """Tell whether a scope's fields other than the artifact hold for a task."""
    if scope.orchestrator is not None and run.orchestrator not in scope.orchestrator:
        return False
    if scope.dag is not None and (run.orchestrator != "airflow" or not _any(scope.dag, run.workflow)):
        return False
    if scope.pipeline is not None and (run.orchestrator != "kfp" or not _any(scope.pipeline, run.workflow)):
        return False
    if scope.team is not None and not _any(scope.team, run.team):
        return False
    return scope.task is None or _any(scope.task, run.task)


def scope_touches(scope: Scope, places: Sequence[str]) -> bool:
    """Tell whether a scope's artifact patterns take in an artifact; a scope without them takes in all."""
    return scope.artifact is None or any(
        matches(place_pattern(item), text)
        for item in scope.artifact
        if not item.startswith(NAME_PREFIX)
        for text in places
    )


def _takes_in(scope: Scope, places: Sequence[str], names: Sequence[str]) -> bool:
    """Tell whether a scope that loosens takes in an artifact: under every reading of its location, or every name."""
    patterns = scope.artifact or ()
    located = [place_pattern(item) for item in patterns if not item.startswith(NAME_PREFIX)]
    named = [item.removeprefix(NAME_PREFIX) for item in patterns if item.startswith(NAME_PREFIX)]
    return (bool(places) and all(_any(located, text) for text in places)) or (
        bool(names) and all(_any(named, text) for text in names)
    )


def _any(patterns: Iterable[str], text: str) -> bool:
    return any(matches(pattern, text) for pattern in patterns)


class CompiledPolicy:
    """A policy document with its identities and an index over its rules.

    Args:
        document: The document.
        digest: Hex SHA-256 of its signed bytes.
        uri: Where it lies.
        team: The team whose policy it is; empty for an admin's, ``policy`` for one that a call adds.
        within: Patterns of the artifacts to which a delegation limits it.
        signed: Whether keys must stand in it as PEM, as signing leaves them.

    Raises:
        PolicyError: Rules contradict each other, or a signed policy names a key by its place.
    """

    def __init__(
        self,
        document: TrustPolicy,
        *,
        digest: str = "",
        uri: str = "",
        team: str = "",
        within: Sequence[str] | None = None,
        signed: bool = True,
    ) -> None:
        self.document = document
        self.digest = digest
        self.uri = uri
        self.prefix = f"{team}/" if team else ""
        self.within = tuple(place_pattern(item) for item in within) if within is not None else None
        made = {name: _identity(name, model, signed) for name, model in document.identities.items()}
        made = _with_company(made, document, signed)
        self.verifiers = {name: item for name, item in made.items() if document.identities[name].verifier}
        self.identities = {name: item for name, item in made.items() if name not in self.verifiers}
        self.recipients = _recipients(document, self.prefix, signed)
        self.authorities = _authorities(document, signed)
        for index, item in enumerate(document.delegations):
            if signed and not _is_canonical(item.key):
                raise PolicyError(
                    f"The delegation to {item.team} names its key by its place, or in an unusual spelling.",
                    problems=[(("delegations", index, "key"), "a signed policy holds the key itself")],
                    next_step="Sign the policy with `sealflow policy sign`, which puts the keys into it.",
                )
        self.rules = tuple(CompiledRule(rule, self) for rule in document.rules)
        self._index: dict[str, list[CompiledRule]] = {}
        for rule in self.rules:
            for pattern in rule.places:
                self._index.setdefault(_folder(literal(pattern)), []).append(rule)
        self._indexed = sorted(self._index)
        self._by_name = tuple(rule for rule in self.rules if rule.names)
        if self.within is not None:
            _refuse_outside(self.rules, self.within)
        _refuse_contradictions(self.rules)

    @cached_property
    def hides(self) -> bool:
        """Whether a rule or a delegation may name something in a folder that only its listing shows."""
        given = (place_pattern(item) for delegation in self.document.delegations for item in delegation.artifact)
        return any(hides(pattern) for rule in self.rules for pattern in rule.places) or any(map(hides, given))

    def touching(
        self,
        places: Sequence[str],
        names: Iterable[str] = (),
        files: Sequence[str] = (),
        contents: Sequence[str] = (),
    ) -> list[CompiledRule]:
        """Return the rules that name an artifact or something inside it, whatever the task, sorted by name.

        Args:
            places: All readings of the artifact's location.
            names: Its signed logical names, as far as they are known.
            files: Names of the files in it that are opened; empty for all.
            contents: Names of all files in it, as far as they are known.
        """
        found: dict[int, CompiledRule] = {}
        names = tuple(names)
        folders: dict[str, None] = {}
        for place in places:
            folders.update(dict.fromkeys(_folders(place)))
            if files:
                for name in files:
                    folders.update(dict.fromkeys(_folders(inside(place, name))))
            else:
                below = inside(place, "")
                start = bisect_left(self._indexed, below)
                while start < len(self._indexed) and self._indexed[start].startswith(below):
                    folders[self._indexed[start]] = None
                    start += 1
        for folder in folders:
            for rule in self._index.get(folder, ()):
                found[id(rule)] = rule
        if names:
            found.update((id(rule), rule) for rule in self._by_name)
        hits = [rule for rule in found.values() if rule.touches(places, names, files, contents)]
        return sorted(hits, key=lambda rule: rule.rule.name) if len(hits) > 1 else hits

    def has_gap(
        self,
        touching: Sequence[CompiledRule],
        places: Sequence[str],
        files: Sequence[str],
        run: RunIdentity,
        contents: Sequence[str] = (),
    ) -> bool:
        """Tell whether the policy names an artifact and says nothing about it for this task.

        Each reading of the location is looked at by itself, so that an alias to which a rule of another kind applies is
        no way around the rules for the real place.

        Args:
            touching: What :meth:`touching` returned.
            places: All readings of the artifact's location.
            files: Names of the files in it that are opened; empty for all.
            run: The task.
            contents: Names of all files in it, as far as they are known.
        """
        if all(rule.holds(run) for rule in touching):
            return False
        found = [[rule for rule in touching if rule.touches((place,), (), files, contents)] for place in places]
        located = [rules for rules in found if rules]
        return any(not any(rule.holds(run) for rule in rules) for rules in located or [list(touching)])

    def signer_for(self, places: Sequence[str], run: RunIdentity) -> str | None:
        """Return the signer URI for an artifact: the first entry whose scope holds. It names who stamps, too."""
        for choice in self.document.signers:
            if scope_holds(choice.scope, run) and scope_touches(choice.scope, places):
                return choice.uri if choice.timestamp is None else stamped_by(choice.uri, choice.timestamp)
        return None


def _folder(text: str) -> str:
    return text[: text.rfind("/") + 1]


def _folders(place: str) -> Iterable[str]:
    yield ""
    end = place.find("/") + 1
    while end:
        yield place[:end]
        end = place.find("/", end) + 1


def _identity(name: str, model: IdentityModel, signed: bool) -> Identity:
    sources = (model.key,) if model.key else model.certificate.roots if model.certificate else ()
    if signed and not all(source.startswith("-----BEGIN ") for source in sources):
        raise PolicyError(
            f"The identity {name} names a key by its place; what lies there is not signed.",
            problems=[(("identities", name), "a signed policy holds the key itself")],
            next_step="Sign the policy with `sealflow policy sign`, which puts the keys into it.",
        )
    if signed and model.key and not _is_canonical(model.key):
        raise PolicyError(
            f"The key of the identity {name} is spelled in an unusual way, or of a kind that we do not take.",
            problems=[(("identities", name, "key"), "two spellings of one key would hide that it is shared")],
            next_step="Sign the policy with `sealflow policy sign`, which spells keys in one way.",
        )
    body: dict[str, Any] = {"name": name}
    if model.key:
        body["key"] = model.key
    elif model.certificate:
        body["certificate"] = {"roots": list(model.certificate.roots), "names": list(model.certificate.names)}
    if model.producers:
        body["producers"] = list(model.producers)
    if model.builders:
        body["builders"] = list(model.builders)
    (identity,) = parse_identities([body])
    return replace(identity, valid_from=model.valid_from, expires=model.expires, canonical=signed and bool(model.key))


def _authorities(document: TrustPolicy, signed: bool) -> tuple[Authority | WitnessedLog, ...]:
    found: list[Authority | WitnessedLog] = []
    for name, item in document.timestamp_authorities.items():
        if item.log is not None and item.witnesses is not None:
            found.append(WitnessedLog(name, item.log, item.witnesses, item.quorum or len(item.witnesses)))
            continue
        roots = item.roots or ()
        if signed and not all(text.startswith("-----BEGIN ") for text in roots):
            raise PolicyError(
                f"The timestamp authority {name} names roots by their place; what lies there is not signed.",
                problems=[(("timestamp_authorities", name, "roots"), "a signed policy holds the roots themselves")],
                next_step="Sign the policy with `sealflow policy sign`, which puts them into it.",
            )
        found.append(Authority(name, roots, item.url or ""))
    return tuple(found)


def _recipients(document: TrustPolicy, prefix: str, signed: bool) -> dict[str, KnownRecipient]:
    """Return whom a policy knows as recipients, each under a name of its own in the headers of artifacts."""
    made: dict[str, KnownRecipient] = {}
    names: dict[tuple[str, bytes], str] = {}
    for name, model in document.recipients.items():
        item = _recipient(name, prefix, model, signed)
        if item.mark in names:
            raise PolicyError(
                f"The recipients {names[item.mark]} and {name} have one name in the headers of artifacts.",
                problems=[(("recipients", name), f"a header cannot tell it from {names[item.mark]}")],
                next_step="Remove one of them, or give it another `name`.",
            )
        made[name], names[item.mark] = item, name
    return made


def _recipient(name: str, prefix: str, model: RecipientModel, signed: bool) -> KnownRecipient:
    if model.rsa is None:
        from sealflow.encryption.recipient import KMS_PROVIDER

        assert model.kms is not None  # noqa: S101  (the only other kind)
        return KnownRecipient(prefix + name, KMS_PROVIDER, model.kms.encode("ascii"), model.kms)
    from sealflow.encryption.raw import NAMESPACE, RsaRecipient

    place = ("recipients", name, "rsa")
    try:
        opened = RsaRecipient.from_pem(
            model.rsa, f"The recipient {name}", namespace=model.namespace or NAMESPACE, name=model.name
        )
    except UsageError as error:
        raise PolicyError(error.message, problems=[(place, error.message)], next_step=error.next_step) from None
    pem = opened.public_pem.decode("ascii")
    if signed and pem != model.rsa:
        raise PolicyError(
            f"The key of the recipient {name} is spelled in an unusual way.",
            problems=[(place, "its name in the header is made from one spelling")],
            next_step="Sign the policy with `sealflow policy sign`, which spells keys in one way.",
        )
    return KnownRecipient(prefix + name, opened.provider, opened.name.encode("utf-8"), pem)


def _is_canonical(pem: str) -> bool:
    """Tell whether a key is written in the one way in which its fingerprint is made.

    By its form alone, since a policy can hold thousands of keys; whether it is a point of its curve shows when used.
    """
    match = _PUBLIC_KEY.fullmatch(pem)
    if match is None:
        return False
    try:
        der = binascii.a2b_base64(match[1])
    except binascii.Error:
        return False
    text = base64.b64encode(der).decode("ascii")
    lines = "".join(text[start : start + 64] + "\n" for start in range(0, len(text), 64))
    return lines == match[1] and any(len(der) == length and der.startswith(start) for start, length in _KEY_FORMS)


def _with_company(made: Mapping[str, Identity], document: TrustPolicy, signed: bool) -> dict[str, Identity]:
    """Tell each identity for whom anybody who holds its key may speak: all entries with this key count."""
    groups: dict[Any, list[Identity]] = {}
    marks: dict[str, list[Any]] = {}
    for name, identity in made.items():
        marks[name] = _marks(identity, document.identities[name], signed)
        for mark in marks[name]:
            groups.setdefault(mark, []).append(identity)
    result = {}
    for name, identity in made.items():
        peers = {id(peer): peer for mark in marks[name] for peer in groups[mark]}.values()
        everybody = any(not peer.producers for peer in peers)
        spoken = () if everybody else tuple(dict.fromkeys(text for peer in peers for text in peer.producers))
        result[name] = replace(identity, company=spoken)
        if document.identities[name].verifier and len(peers) > 1:
            others = [peer.name for peer in peers if not document.identities[peer.name].verifier]
            if others:
                raise PolicyError(
                    f"The verifier {name} has the key of {others[0]}, which signs artifacts.",
                    problems=[(("identities", name), f"the key of {others[0]}: who produces cannot vouch for itself")],
                )
    return result


def _marks(identity: Identity, model: IdentityModel, signed: bool) -> list[Any]:
    if isinstance(identity, KeyIdentity):
        # In a signed policy each key has one spelling, and its fingerprint is the digest of that.
        return [identity.source if signed else identity.public_key.hint]
    assert model.certificate is not None  # noqa: S101  (the only other kind)
    # Whoever gets one certificate of a name gets the next one; under which of several roots cannot be told apart.
    return [("certificate", name) for name in model.certificate.names]


def _refuse_outside(rules: Sequence[CompiledRule], within: Sequence[str]) -> None:
    """Refuse rules of a team about artifacts that were not given to it."""
    for index, rule in enumerate(rules):
        for pattern in rule.places:
            if not any(includes(wide, pattern) for wide in within):
                raise PolicyError(
                    f"The rule {rule.name} is about {printable(pattern)}, which is not among the team's artifacts.",
                    code="POLICY_DELEGATION",
                    problems=[(("rules", index, "scope", "artifact"), f"outside of {', '.join(within)}")],
                )


def _refuse_contradictions(rules: Sequence[CompiledRule]) -> None:
    """Refuse two rules that can meet at one artifact and together leave nobody who could satisfy them."""
    # Only rules that name somebody can contradict each other.
    speaking = sorted(
        (literal(pattern), pattern, number)
        for number, rule in enumerate(rules)
        if _names_somebody(rule)
        for pattern in rule.places
    )
    # Most rules make one of a few demands.
    marks: dict[Any, int] = {}
    mark = [marks.setdefault(_believed(rule), len(marks)) for rule in rules]
    known: dict[tuple[int, int], str] = {}
    above: list[tuple[str, str, int]] = []
    for text, pattern, number in speaking:
        # Whatever can match two patterns starts with the longer of their two literal beginnings, so only patterns whose
        # beginnings lie one in the other can meet.
        while above and not text.startswith(above[-1][0]):
            above.pop()
        for _, other, index in above:
            pair = (mark[number], mark[index])
            if index == number or known.get(pair) == "" or not overlaps(pattern, other):
                continue
            if pair not in known:
                known[pair] = _contradicted((rules[number], rules[index]))
            if known[pair] and tasks_meet(rules[number], rules[index]):
                first, second = sorted((number, index))
                raise _contradiction(rules, rules[second], rules[first], known[pair])
        above.append((text, pattern, number))


def _names_somebody(rule: CompiledRule) -> bool:
    require = rule.rule.require
    return any(item is not None for item in (require.identities, require.lineage, require.recipients))


def _believed(rule: CompiledRule) -> Any:
    """Return whom a rule believes, and whom it wants as recipients, in the names of its policy."""
    require = rule.rule.require
    demand, lineage, opened = require.identities, require.lineage, require.recipients
    return (
        demand and (demand.names, demand.count),
        lineage and (lineage.roots, lineage.datasets),
        opened and (opened.required, opened.only),
    )


def _contradiction(rules: Sequence[CompiledRule], rule: CompiledRule, other: CompiledRule, member: str) -> PolicyError:
    return PolicyError(
        f"The rules {rule.name} and {other.name} can meet at one artifact, and nobody satisfies both.",
        code="POLICY_CONTRADICTION",
        problems=[(("rules", _position(rules, rule), "require", member), f"contradicts {other.name}")],
        next_step=f"Name the same {member} in both, or let their scopes not overlap.",
    )


def _position(rules: Sequence[CompiledRule], rule: CompiledRule) -> int:
    return next(index for index, item in enumerate(rules) if item is rule)


def can_meet(first: CompiledRule, second: CompiledRule) -> bool:
    """Tell whether two rules may hold for one artifact in one task."""
    return tasks_meet(first, second) and any(overlaps(left, right) for left in first.places for right in second.places)


def tasks_meet(first: CompiledRule, second: CompiledRule) -> bool:
    """Tell whether two rules may hold in one task."""
    one, two = first.rule.scope, second.rule.scope
    if one.orchestrator and two.orchestrator and not set(one.orchestrator) & set(two.orchestrator):
        return False
    if (one.dag and two.pipeline) or (one.pipeline and two.dag):
        return False
    for name in ("dag", "pipeline", "task", "team"):
        mine, theirs = getattr(one, name), getattr(two, name)
        if mine and theirs and not any(overlaps(left, right) for left in mine for right in theirs):
            return False
    return True


def _contradicted(rules: Sequence[CompiledRule]) -> str:
    """Return the field in which rules leave nobody who could satisfy all of them, empty for none."""
    return "identities" if not _satisfiable(rules) else "recipients" if not _sealable(rules) else ""


def _sealable(rules: Sequence[CompiledRule]) -> bool:
    """Tell whether an encrypted artifact can have the recipients that rules want."""
    demands = [demand for rule in rules if (demand := rule.rule.require.recipients) is not None]
    limits = [set(demand.only) for demand in demands if demand.only is not None]
    if not limits:
        return True
    allowed = set.intersection(*limits)
    return bool(allowed) and allowed.issuperset(name for demand in demands for name in demand.required or ())


def _satisfiable(rules: Sequence[CompiledRule]) -> bool:
    demands = [(rule.identities, rule.at_least) for rule in rules if rule.identities is not None]
    everywhere = set.intersection(*(set(names) for names, _ in demands)) if demands else set()
    traced = [rule.lineage for rule in rules if rule.lineage is not None and rule.lineage.traces]
    if len(traced) > 1:
        roots = set.intersection(*(set(item.roots) for item in traced))
        if not roots and not frozenset.intersection(*(item.datasets for item in traced)):
            return False
    return all(len(everywhere.intersection(names)) >= count for names, count in demands)


class AcceptedWaiver(NamedTuple):
    """A waiver whose signature holds.

    Attributes:
        waiver: The waiver.
        key: Fingerprint of the key that signed it.
    """

    waiver: Waiver
    key: str


class Reuse(NamedTuple):
    """Under which condition a verification summary stands in for reading everything again."""

    seconds: int
    verifiers: tuple[Identity, ...]


@dataclass(frozen=True)
class Ruling:
    """What the policies say about one artifact in one task.

    Attributes:
        requirement: All that the matching rules and the call ask for.
        rules: The matching rules.
        level: ``enforce``, ``audit``, ``off``, or empty where no policy is concerned.
        managed: Whether some rule names the artifact.
        waivers: Waivers whose scope takes in this artifact and task.
        reuse: Whether a verification summary may be taken; ``None`` for never.
        policy: Digest of the admin's policy in force, empty without one.
        uri: Where that policy lies.
        call_adds: Whether the call asks for more than the admin's policy and its teams'.
    """

    requirement: Requirement
    rules: tuple[CompiledRule, ...] = ()
    level: str = ""
    managed: bool = False
    waivers: tuple[AcceptedWaiver, ...] = ()
    reuse: Reuse | None = None
    policy: str = ""
    uri: str = ""
    call_adds: bool = True
    _arguments: Arguments = field(default_factory=Arguments, repr=False)

    @property
    def unmatched(self) -> bool:
        """Whether the artifact is managed and yet no rule holds for this task, which is a refusal."""
        return self.managed and not self.rules

    @property
    def audit(self) -> tuple[str, tuple[str, ...]]:
        """How far the audit event of an action must get, empty for no demand, and the rules that say so."""
        asked = [
            (rule.rule.require.audit, rule.name)
            for rule in self.rules
            if self.level == "enforce" and rule.rule.require.audit is not None
        ]
        furthest = max((level for level, _ in asked), key=AUDIT_LEVELS.index, default="")
        return furthest, tuple(name for level, name in asked if level == furthest)

    def insists(self, code: str, rule: str) -> bool:
        """Tell whether a refusal is about what the call itself states, which no level and no waiver lets pass.

        Args:
            code: Code of the refusal.
            rule: What asked for the check.
        """
        stated = self._arguments
        if code == "NAME_MISMATCH":
            return stated.name is not None
        return code == "PRODUCER_MISMATCH" and rule == "producer" and stated.producer is not None

    def without(self, names: frozenset[str]) -> Requirement | None:
        """Return what must hold when these rules are only audited, ``None`` when nothing is left but integrity."""
        kept = tuple(rule for rule in self.rules if rule.name not in names)
        if not kept and self._arguments.identities is None:
            return None
        whole = self.requirement
        left = _requirement(kept, self._arguments, whole.revoked, whole.policies, whole.authorities)
        # Those whom the call names must have signed all that was asked for; that rules are audited takes nothing of it.
        return left if self._arguments.identities is None else replace(left, kinds=self.requirement.kinds)


def compose(
    policies: Sequence[CompiledPolicy],
    arguments: Arguments,
    *,
    places: Sequence[str],
    names: Iterable[str] = (),
    contents: Sequence[str] = (),
    run: RunIdentity,
    waivers: Sequence[AcceptedWaiver] = (),
    revoked: Revocations = NOTHING_REVOKED,
    now: datetime.datetime,
) -> Ruling:
    """Return what policies and call together demand of one artifact in one task.

    Args:
        policies: The admin's policy first, then those of teams, then one that the call adds.
        arguments: The call's own demands.
        places: All readings of the artifact's location.
        names: Signed logical names of the artifact, as far as they are known.
        contents: Names of all files in it, as far as they are known.
        run: The task that checks.
        waivers: Waivers whose signatures hold.
        revoked: What counts no longer.
        now: The time of the check, aware.

    Raises:
        PolicyError: ``POLICY_LOCKED``: the call or a team sets what a rule locks, or the call loosens.
    """
    names = tuple(names)
    touched = [(policy, policy.touching(places, names, arguments.files, contents)) for policy in policies]
    touching = [rule for _, found in touched for rule in found]
    gap = any(policy.has_gap(found, places, arguments.files, run, contents) for policy, found in touched)
    rules = () if gap else tuple(rule for rule in touching if rule.holds(run))
    level = max((rule.rule.level for rule in rules), key=_LEVELS.__getitem__, default="")
    digests = tuple(policy.digest for policy in policies if policy.digest)
    applied = rules if level != "off" else ()
    managed = bool(touching) and level != "off"
    if applied:
        _check_locks(applied, arguments)
    # A waiver must take in all that is opened.
    inner = [inside(place, name) for place in places for name in arguments.files] or places
    admin = policies[0] if policies else None
    own = admin is not None and admin.prefix != CALL_PREFIX
    return Ruling(
        _requirement(applied, arguments, revoked, digests, policies[0].authorities if policies else ()),
        applied,
        level,
        managed,
        tuple(item for item in waivers if _applies(item.waiver, inner, names, run, now)) if applied else (),
        _reuse(applied),
        f"sha256:{admin.digest}" if admin is not None and own and admin.digest else "",
        admin.uri if admin is not None and own else "",
        arguments != Arguments(digest=arguments.digest, defaults=arguments.defaults)
        or any(policy.prefix == CALL_PREFIX for policy in policies),
        arguments,
    )


def compose_without_policy(arguments: Arguments, run: RunIdentity) -> Ruling:
    """Return what a call demands where no policy says anything.

    Raises:
        UsageError: The demands do not go together.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    return compose((), arguments, places=(), run=run, now=now)


#: Prefix of rules in a policy that a call adds.
CALL_PREFIX: Final = "policy/"


def _requirement(
    rules: Sequence[CompiledRule],
    arguments: Arguments,
    revoked: Revocations,
    digests: tuple[str, ...],
    authorities: tuple[Authority | WitnessedLog, ...],
) -> Requirement:
    clauses = [
        Clause(rule.name, rule.identities, rule.at_least, _kinds(rule)) for rule in rules if rule.identities is not None
    ]
    kinds: set[str] = set(arguments.kinds or ())
    producers, ages, freshness, loaders, lineage, recipients, stamped = [], [], [], [], [], [], []
    for rule in rules:
        require = rule.rule.require
        kinds |= _kinds(rule)
        if require.producers:
            producers.append(ProducerDemand(rule.name, require.producers))
        for kind, demand in (require.evidence or {}).items():
            if demand.max_age:
                ages.append(AgeDemand(rule.name, _seconds(demand.max_age)))
            if demand.timestamp:
                stamped.append(StampDemand(rule.name, kind))
        if require.freshness == "pinned":
            freshness.append(FreshnessDemand(rule.name, None))
        elif require.freshness is not None:
            freshness.append(FreshnessDemand(rule.name, _seconds(require.freshness.max_age)))
        if require.loaders:
            loaders.append(LoaderDemand(rule.name, require.loaders))
        if rule.lineage is not None:
            lineage.append(rule.lineage)
        if rule.recipients is not None:
            recipients.append(rule.recipients)
    if rules and arguments.producer is not None:
        kinds.add("provenance")
    if rules and not any(rule.identities is not None for rule in rules if rule.policy is rules[0].policy):
        # Whom to believe is for the policy that stands first; if others could fill the gap they would loosen it.
        clauses = []
    elif arguments.identities is not None:
        # An empty list believes nobody.
        clauses = [*clauses, Clause(CALL, arguments.identities)] if arguments.identities else []
        if rules and any(item.producers or item.builders for item in arguments.identities):
            # Whom somebody may speak for shows in provenance only.
            kinds.add("provenance")
    elif not rules and arguments.defaults:
        # A connection or the environment says whom to believe only where no policy does.
        clauses = [Clause(CALL, arguments.defaults)]
    return Requirement(
        tuple(clauses),
        frozenset(kinds) if rules or arguments.kinds is not None else EVIDENCE_KINDS,
        arguments.digest,
        arguments.name,
        arguments.producer,
        arguments.files,
        arguments.accept_legacy,
        tuple(producers),
        tuple(ages),
        tuple(freshness),
        tuple(loaders),
        tuple(lineage),
        tuple(recipients),
        revoked,
        tuple(rule.name for rule in rules),
        digests,
        tuple(stamped),
        # Whom to believe is for the policy that stands first, here too.
        authorities,
    )


def _kinds(rule: CompiledRule) -> frozenset[str]:
    """Return the kinds of evidence that a rule demands, those included that its other fields need."""
    require = rule.rule.require
    kinds = EVIDENCE_KINDS if require.evidence is None else frozenset[str](require.evidence)
    aged = require.freshness is not None and require.freshness != "pinned"
    traced = require.lineage is not None and require.lineage.traces
    return kinds | {"provenance"} if require.producers or aged or traced else kinds


def _seconds(text: str) -> int:
    from sealflow.policy.values import seconds

    return seconds(text)


def _check_locks(rules: Sequence[CompiledRule], arguments: Arguments) -> None:
    if arguments.accept_legacy:
        raise PolicyError(
            f"`accept_legacy` would loosen the rule {rules[0].name}.",
            code="POLICY_LOCKED",
            next_step="Have the artifact signed again in the present form.",
        )
    set_by_call = {"identities": arguments.identities is not None, "producers": arguments.producer is not None}
    for rule in rules:
        for name in rule.rule.locked:
            if name == "evidence" and arguments.kinds is not None:
                # Kinds that the rules demand anyway tighten nothing; what those below add is what the lock is about.
                above = [_kinds(other) for other in rules if _ranks(other.policy) <= _ranks(rule.policy)]
                set_by_call[name] = not arguments.kinds <= frozenset().union(*above)
            if set_by_call.get(name):
                raise PolicyError(
                    f"The rule {rule.name} locks `{name}`, which this call sets.",
                    code="POLICY_LOCKED",
                    next_step="Leave the parameter out; the policy decides it.",
                )
            for other in rules:
                if _ranks(rule.policy) < _ranks(other.policy) and _sets(other.rule, name):
                    raise PolicyError(
                        f"The rule {rule.name} locks `{name}`, which {other.name} sets.",
                        code="POLICY_LOCKED",
                        next_step=f"Remove the field from {other.name}.",
                    )


def _ranks(policy: CompiledPolicy) -> int:
    # What an admin locks holds against teams and calls, what a team locks against calls.
    return 0 if not policy.prefix else 2 if policy.prefix == CALL_PREFIX else 1


def _sets(rule: Rule, name: str) -> bool:
    return getattr(rule.require, name) is not None


def _reuse(rules: Sequence[CompiledRule]) -> Reuse | None:
    demands = [rule.rule.require.reuse_verdict for rule in rules]
    if not rules or any(demand is None for demand in demands):
        return None
    everywhere = [item for item in rules[0].verifiers if all(item in rule.verifiers for rule in rules[1:])]
    return Reuse(min(_seconds(demand.max_age) for demand in demands if demand is not None), tuple(everywhere))


def _applies(
    waiver: Waiver, places: Sequence[str], names: Sequence[str], run: RunIdentity, now: datetime.datetime
) -> bool:
    return (
        waiver.not_before <= now < waiver.expires
        and _takes_in(waiver.scope, places, names)
        and scope_holds(waiver.scope, run)
    )


def waived_rules(ruling: Ruling, digest: str) -> tuple[frozenset[str], tuple[AcceptedWaiver, ...]]:
    """Return the names of the rules that waivers turn into audited ones for these bytes, and those waivers.

    A waiver holds for a rule as it stood when the waiver was signed, and for nothing else of that name.
    """
    names: set[str] = set()
    used = []
    for item in ruling.waivers:
        if item.waiver.digest is not None and item.waiver.digest != digest:
            continue
        waived = {(entry.name, entry.digest) for entry in item.waiver.rules}
        found = {rule.name for rule in ruling.rules if (rule.name, rule.digest) in waived}
        if found and not found <= names:
            used.append(item)
            names |= found
    return frozenset(names), tuple(used)


def explain_miss(rule: CompiledRule, run: RunIdentity) -> str:
    """Say why a rule that names the artifact does not hold for a task."""
    scope = rule.rule.scope
    for label, wanted, found in (
        ("orchestrator", scope.orchestrator, run.orchestrator),
        ("team", scope.team, run.team),
        ("dag", scope.dag, run.workflow if run.orchestrator == "airflow" else ""),
        ("pipeline", scope.pipeline, run.workflow if run.orchestrator == "kfp" else ""),
        ("task", scope.task, run.task),
    ):
        if wanted is not None and not _any(wanted, found):
            return f"{label} is {printable(found) or 'unknown'}, not {', '.join(wanted)}"
    return ""


__all__ = [
    "AUDIT_LEVELS",
    "AcceptedWaiver",
    "Arguments",
    "CompiledPolicy",
    "CompiledRule",
    "Reuse",
    "Ruling",
    "can_meet",
    "compose",
    "concerns",
    "explain_miss",
    "scope_holds",
    "scope_touches",
    "waived_rules",
]
