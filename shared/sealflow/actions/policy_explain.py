"""Explain: what a policy demands of one artifact in one task, in words, and which rule demands it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sealflow.actions.context import Surroundings
from sealflow.actions.policies import Policies, places_of, policies_for
from sealflow.actions.policy_files import read_either
from sealflow.audit.event import utc_now
from sealflow.errors import UsageError
from sealflow.evidence import ArtifactRef
from sealflow.evidence.reference import is_reference
from sealflow.findings import printable
from sealflow.policy.compose import Arguments, CompiledRule, Ruling, compose, explain_miss
from sealflow.policy.decide import spoken
from sealflow.policy.globs import matches, place_pattern
from sealflow.policy.identities import KeyIdentity
from sealflow.policy.requirement import KnownRecipient, Requirement
from sealflow.run_identity import RunIdentity
from sealflow.storage import Storages


class Demand(NamedTuple):
    """One thing that must be proved.

    Attributes:
        what: ``level``, ``signers``, ``evidence``, ``max_age``, ``producers``, ``freshness``, ``loaders``,
            ``lineage``, ``recipients``, ``audit`` or ``reuse``.
        text: In words.
        rules: The rules that decide it.
    """

    what: str
    text: str
    rules: tuple[str, ...]


class Met(NamedTuple):
    """A rule that names the artifact.

    Attributes:
        rule: Its name.
        by: The pattern that matches, and the reading that it matches.
        level: Its level.
        because: Why it does not hold for the task; empty where it holds.
    """

    rule: str
    by: str
    level: str
    because: str


class Possible(NamedTuple):
    """A waiver whose scope takes in the artifact.

    Attributes:
        id: Its id.
        rules: The rules that it turns into audited ones here.
        text: Until when, why, and for which bytes; or why it changes nothing.
    """

    id: str
    rules: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Explanation:
    """What policies say about one artifact in one task.

    Attributes:
        artifact: The location.
        readings: All readings of the location.
        policies: The policies, in their order, with version and digest.
        task: Who acts.
        rules: The rules that name the artifact.
        outcome: In words, what holds.
        demands: What must be proved.
        signer: What a task that signs here uses; empty where no policy says so.
        waivers: Waivers about the artifact.
        notes: What was not looked at.
    """

    artifact: str
    readings: tuple[str, ...]
    policies: tuple[str, ...]
    task: str
    rules: tuple[Met, ...]
    outcome: str
    demands: tuple[Demand, ...]
    signer: str
    waivers: tuple[Possible, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "artifact": self.artifact,
            "readings": list(self.readings),
            "policies": list(self.policies),
            "task": self.task,
            "rules": [{"rule": m.rule, "by": m.by, "level": m.level, "because": m.because} for m in self.rules],
            "outcome": self.outcome,
            "demands": [{"what": d.what, "text": d.text, "rules": list(d.rules)} for d in self.demands],
            "signer": self.signer,
            "waivers": [{"id": w.id, "rules": list(w.rules), "text": w.text} for w in self.waivers],
            "notes": list(self.notes),
        }


def explain(
    artifact: str, surroundings: Surroundings, *, policy: str | None = None, names: Iterable[str] = ()
) -> Explanation:
    """Explain what holds for an artifact.

    Args:
        artifact: A location or reference; nothing needs to lie there.
        surroundings: Who acts, and the admin's channel.
        policy: A draft or signed policy to look at instead of the one in force.
        names: Signed logical names to suppose.

    Raises:
        UsageError: No policy is given and none is configured, or the artifact is no location.
        UnavailableError: A policy is configured and not to be had.
        PolicyError: The given policy cannot be taken.
    """
    uri = ArtifactRef.parse(artifact).uri if is_reference(artifact) else artifact
    canonical = Storages().for_uri(uri).canonical(uri)
    notes: list[str] = []
    if policy is not None:
        compiled, state = read_either(policy)
        policies = Policies(places_of(canonical), None, (compiled,), surroundings)
        notes.append(f"{printable(policy)} is {state}; it is read as the admin's.")
        for delegation in compiled.document.delegations:
            if any(matches(place_pattern(item), text) for item in delegation.artifact for text in policies.places):
                notes.append(f"The policy of the team {delegation.team} was not looked at; it can only add demands.")
    else:
        if surroundings.admin is None:
            raise UsageError(
                "No policy is configured here.",
                code="POLICY_MISSING",
                next_step="Name a draft or a signed policy with --policy.",
            )
        policies = policies_for(canonical, surroundings)
        if policies.in_force is None:
            notes.append("The policy is not to be had, and the admin's channel does not manage this artifact.")
        else:
            notes += [finding.message for finding in policies.in_force.findings]
            notes += [f"A waiver was not taken: {text}" for text in policies.in_force.problems]
    now = utc_now()
    given = tuple(names)
    waivers = policies.in_force.waivers if policies.in_force is not None else ()
    ruling = compose(
        policies.chain,
        Arguments(),
        places=policies.places,
        names=given,
        run=surroundings.run,
        waivers=waivers,
        now=now,
    )
    touching = [rule for item in policies.chain for rule in item.touching(policies.places, given)]
    if not given and any(rule.names for item in policies.chain for rule in item.rules):
        notes.append("Rules about signed logical names (name:…) were left out; state one with --name.")
    run = surroundings.run
    return Explanation(
        canonical,
        policies.places,
        tuple(
            f"{item.prefix or 'admin '}{printable(item.uri)}, version {item.document.version}, sha256:{item.digest}"
            for item in policies.chain
        ),
        f"{run.producer}{f' of team {run.team}' if run.team else ''}",
        tuple(_met(rule, policies.places, given, surroundings) for rule in touching),
        _outcome(ruling, touching, run),
        tuple(_demands(ruling)),
        policies.signer or "",
        tuple(_waivers(ruling)),
        tuple(dict.fromkeys(notes)),
    )


def _met(rule: CompiledRule, places: Sequence[str], names: Sequence[str], surroundings: Surroundings) -> Met:
    by = (
        next(
            (
                f"{pattern} matches {text}"
                for patterns, texts in ((rule.places, places), (rule.names, names))
                for pattern in patterns
                for text in texts
                if matches(pattern, text)
            ),
            "",
        )
        or f"{', '.join(rule.places)} names something inside it"
    )
    because = explain_miss(rule, surroundings.run)
    return Met(rule.name, by, rule.rule.level, because)


def _outcome(ruling: Ruling, touching: Sequence[CompiledRule], run: RunIdentity) -> str:
    if ruling.unmatched and any(rule.holds(run) for rule in touching):
        return "refused: under one reading of its location no rule holds for this task (POLICY_NO_RULE)"
    if ruling.unmatched:
        return "refused: the policy manages this artifact, and no rule holds for this task (POLICY_NO_RULE)"
    if ruling.level == "off":
        return "not managed: the rules that hold are off; the call alone says what must be proved"
    if not touching:
        return "not managed: no rule names this artifact; the call alone says what must be proved"
    if ruling.level == "audit":
        return "audited: what is missing is said, and refuses nothing; contradictions between bytes and evidence do"
    if not ruling.requirement.identities:
        return "refused always: no one is left who may sign (IDENTITY_RULE_MISSING)"
    return "enforced: passes when everything below is proved"


def _demands(ruling: Ruling) -> Iterable[Demand]:
    if not ruling.rules:
        return
    requirement = ruling.requirement
    level = tuple(rule.name for rule in ruling.rules if rule.rule.level == ruling.level)
    yield Demand("level", ruling.level, level)
    for clause in requirement.clauses:
        names = [_described(item) for item in clause.identities]
        text = (
            f"{clause.at_least} of {len(names)}, each with a key of its own" if clause.at_least > 1 else "one of them"
        )
        yield Demand("signers", f"{'; '.join(names)}: {text}", (clause.rule,))
    if len(requirement.clauses) > 1:
        everywhere = [
            item.name for item in requirement.identities if all(item in c.identities for c in requirement.clauses)
        ]
        text = f"only evidence by {', '.join(everywhere) or 'nobody'} counts: every rule must name the signer"
        yield Demand("signers", text, tuple(clause.rule for clause in requirement.clauses))
    for kind in sorted(requirement.kinds):
        yield Demand("evidence", kind, tuple(rule.name for rule in ruling.rules if _wants(rule, kind)))
    if requirement.ages:
        least = min(item.seconds for item in requirement.ages)
        deciding = tuple(item.rule for item in requirement.ages if item.seconds == least)
        yield Demand("max_age", f"provenance at most {spoken(least)} old, by its signer's clock", deciding)
    for producer in requirement.producers:
        patterns = ", ".join(producer.patterns)
        yield Demand("producers", f"made by {patterns}, proved by a key that speaks for nobody else", (producer.rule,))
    if requirement.freshness:
        strict = tuple(item.rule for item in requirement.freshness if item.seconds is None)
        ages = [item.seconds for item in requirement.freshness if item.seconds is not None]
        if strict:
            yield Demand("freshness", "the task must hold the artifact's reference, which pins the digest", strict)
        else:
            deciding = tuple(item.rule for item in requirement.freshness if item.seconds == min(ages))
            yield Demand("freshness", f"the artifact's reference, or at most {spoken(min(ages))} old", deciding)
    for loader in requirement.loaders:
        yield Demand("loaders", f"only in tasks of {', '.join(loader.patterns)}", (loader.rule,))
    yield from _lineage(requirement)
    yield from _recipients(requirement)
    furthest, deciding = ruling.audit
    if furthest:
        yield Demand("audit", f"the task goes on when the audit event of its action is {furthest}", deciding)
    if ruling.reuse is not None:
        names = [item.name for item in ruling.reuse.verifiers]
        text = f"a verdict of {', '.join(names) or 'nobody'}, at most {spoken(ruling.reuse.seconds)} old, may stand in"
        yield Demand("reuse", text, tuple(rule.name for rule in ruling.rules))


def _lineage(requirement: Requirement) -> Iterable[Demand]:
    if requirement.traces:
        roots, datasets = requirement.beginnings
        begins = [*(item.name for item in roots), *([f"{len(datasets)} listed datasets"] if datasets else [])]
        text = f"traced back to data of {', '.join(begins) or 'nobody'}"
        yield Demand("lineage", text, tuple(item.rule for item in requirement.lineage if item.traces))
    highest = max((item.level for item in requirement.lineage), default=0)
    if highest:
        deciding = tuple(item.rule for item in requirement.lineage if item.level == highest)
        yield Demand("lineage", f"a DVC repository is checked at level L{highest} or above", deciding)
    for item in requirement.lineage:
        if item.commits is not None:
            text = f"commits signed by allowed signers of the rule, on {item.commits[1]}"
            yield Demand("lineage", text, (item.rule,))


def _recipients(requirement: Requirement) -> Iterable[Demand]:
    strict = tuple(item.rule for item in requirement.recipients if item.encrypted)
    if strict:
        yield Demand("recipients", "stored encrypted; in clear it is refused", strict)
    when = "" if strict else "if it is encrypted: "
    for item in requirement.recipients:
        if item.required:
            yield Demand("recipients", f"{when}to {_listed(item.required)}", (item.rule,))
        if item.only is not None:
            yield Demand("recipients", f"{when}to nobody but {_listed(item.only)}", (item.rule,))


def _listed(recipients: Iterable[KnownRecipient]) -> str:
    return ", ".join(f"{item.name} ({printable(item.shown, 100)})" for item in recipients)


def _wants(rule: CompiledRule, kind: str) -> bool:
    require = rule.rule.require
    listed = require.evidence is None or kind in require.evidence
    return listed or (kind == "provenance" and bool(require.producers or require.freshness not in (None, "pinned")))


def _described(identity: Any) -> str:
    text = identity.name
    if isinstance(identity, KeyIdentity):
        text += f" (key sha256:{identity.public_key.hint[:12]}…)"
    else:
        text += f" ({', '.join(identity.names)})"
    if identity.producers:
        text += f" for {', '.join(identity.producers)}"
    if identity.valid_from is not None:
        text += f" from {identity.valid_from:%Y-%m-%d}"
    if identity.expires is not None:
        text += f" until {identity.expires:%Y-%m-%d}"
    return str(text)


def _waivers(ruling: Ruling) -> Iterable[Possible]:
    for item in ruling.waivers:
        waived = {(entry.name, entry.digest) for entry in item.waiver.rules}
        found = tuple(rule.name for rule in ruling.rules if (rule.name, rule.digest) in waived)
        until = f"until {item.waiver.expires:%Y-%m-%dT%H:%M:%SZ}: {printable(item.waiver.reason)}"
        if item.waiver.digest is not None:
            until += f" Only for {item.waiver.digest}."
        changed = [entry.name for entry in item.waiver.rules if entry.name not in found]
        if changed:
            until += f" Not for {', '.join(changed)}: the rule does not hold here, or was changed since."
        yield Possible(item.waiver.id, found, until)
