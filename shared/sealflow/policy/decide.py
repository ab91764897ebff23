"""The decision: what authenticated evidence adds up to under a requirement. Pure, and small enough to be tested whole.

The verification calls it with what signatures proved; ``sealflow policy test`` calls it with what an admin supposes.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sealflow.findings import printable
from sealflow.policy.globs import matches
from sealflow.policy.identities import Identity
from sealflow.policy.requirement import Clause, Requirement
from sealflow.run_identity import ADOPTED_BUILDER

#: How far ahead a signer's clock may be, in seconds.
CLOCK_SKEW = 300


class Fact(NamedTuple):
    """One piece of evidence whose signature holds and that speaks about the bytes at hand.

    Attributes:
        kind: ``signature`` or ``provenance``.
        key: Fingerprint of the key that signed.
        identities: Identities of the requirement to whom the key belongs.
        producer: Signed producer; provenance only, as all that follow.
        builder: Signed builder id.
        name: Signed logical name.
        finished_on: Signed time, RFC 3339 in UTC.
        stamp: By when an authority saw the signature, aware; ``None`` where none did, or nobody asked.
        unstamped: Why there is none.
    """

    kind: str
    key: str
    identities: tuple[Identity, ...]
    producer: str = ""
    builder: str = ""
    name: str = ""
    finished_on: str = ""
    stamp: datetime.datetime | None = None
    unstamped: str = ""


class Shortfall(NamedTuple):
    """What is missing: the members of a finding."""

    code: str
    message: str
    expected: str = ""
    found: str = ""
    rule: str = ""


def heard(requirement: Requirement, fact: Fact, now: datetime.datetime) -> tuple[Identity, ...] | Shortfall:
    """Return the identities that speak through a piece of evidence, or why it counts for nothing."""
    if requirement.stamped and fact.stamp is None and (unproved := _unstamped(requirement, fact)) is not None:
        return unproved
    if fact.kind == "provenance":
        refused = _about_content(requirement, fact, now)
        if refused is not None:
            return refused
    if fact.kind == "provenance":
        speaking = tuple([item for item in fact.identities if item.may_speak_for(fact.producer, fact.builder)])
    elif "provenance" not in requirement.kinds:
        # Nothing else will name a producer, so whoever may speak only for some cannot be heard.
        speaking = tuple([item for item in fact.identities if not item.producers and not item.builders])
    else:
        speaking = fact.identities
    if not speaking:
        return _silent(fact)
    return _speaking(requirement, fact, speaking)


def _unstamped(requirement: Requirement, fact: Fact) -> Shortfall | None:
    for demand in requirement.stamped:
        if demand.kind == fact.kind:
            return Shortfall(
                "TIMESTAMP_MISSING",
                "No timestamp authority of the policy has seen the signature.",
                f"a timestamp of {', '.join(item.name for item in requirement.authorities) or 'an authority'}",
                fact.unstamped or "no timestamp",
                demand.rule,
            )
    return None


def _silent(fact: Fact) -> Shortfall:
    """Say why nobody speaks through a piece of evidence."""
    rule = fact.identities[0].name if fact.identities else ""
    if fact.kind == "provenance":
        expected = ", ".join(text for item in fact.identities for text in (*item.producers, *item.builders))
        message, found = "The signer may not speak for this producer.", f"{fact.producer} ({fact.builder})"
        return Shortfall("PRODUCER_NOT_ALLOWED", message, expected, found, rule)
    message = (
        "The signer may speak for some producers only, and a bare signature names none." if fact.identities else ""
    )
    return Shortfall("PRODUCER_NOT_ALLOWED", message, rule=rule)


def _about_content(requirement: Requirement, fact: Fact, now: datetime.datetime) -> Shortfall | None:
    if requirement.name is not None and fact.name != requirement.name:
        return Shortfall(
            "NAME_MISMATCH", "The artifact was signed under another name.", requirement.name, fact.name, "name"
        )
    if fact.builder == ADOPTED_BUILDER:
        return Shortfall(
            "PROVENANCE_ADOPTED",
            "Somebody adopted the artifact as it lay there; who made it is not known.",
            "provenance of a run",
            f"adopted on {fact.finished_on}",
            "provenance",
        )
    if requirement.producer is not None and not matches(requirement.producer, fact.producer):
        return Shortfall(
            "PRODUCER_MISMATCH", "Another task made the artifact.", requirement.producer, fact.producer, "producer"
        )
    for demand in requirement.producers:
        if not any(matches(pattern, fact.producer) for pattern in demand.patterns):
            return Shortfall(
                "PRODUCER_MISMATCH",
                "Another task made the artifact.",
                ", ".join(demand.patterns),
                fact.producer,
                demand.rule,
            )
    for age in requirement.ages:
        old = _age(fact, now)
        if old is None or old > age.seconds or old < -CLOCK_SKEW:
            return Shortfall(
                "EVIDENCE_TOO_OLD",
                "The provenance is too old, or its signer's clock is wrong.",
                f"at most {spoken(age.seconds)} old",
                fact.finished_on,
                age.rule,
            )
    return None


def _speaking(requirement: Requirement, fact: Fact, speaking: tuple[Identity, ...]) -> tuple[Identity, ...] | Shortfall:
    for clause in requirement.clauses:
        if not any(clause.takes(item, fact.kind) for item in speaking):
            return Shortfall(
                "SIGNER_NOT_ALLOWED",
                "The signer is not one of those whom every rule accepts.",
                ", ".join(item.name for item in clause.identities),
                ", ".join(item.name for item in speaking),
                clause.rule,
            )
    if fact.kind == "provenance":
        for demand in requirement.producers:
            # A key that serves several producers says nothing about which of them made this. Each policy that knows the
            # key must agree: what one leaves out, another one may say.
            known = [item for item in fact.identities if item.company is not None]
            if not known or not all(item.is_alone(demand.patterns) for item in known):
                return Shortfall(
                    "KEY_SHARED",
                    "The signer's key may also speak for other producers, so it proves none of them.",
                    "a key only for " + ", ".join(demand.patterns),
                    "; ".join(f"{item.name}: {', '.join(item.company or ()) or 'any producer'}" for item in known),
                    demand.rule,
                )
    return speaking


def missing(
    requirement: Requirement,
    facts: Sequence[tuple[Fact, tuple[Identity, ...]]],
    now: datetime.datetime,
    *,
    pinned: bool,
    consumer: str,
) -> list[Shortfall]:
    """Return what the evidence that counts leaves open beyond the kinds of evidence.

    Args:
        requirement: What must be proved.
        facts: The evidence about the bytes at hand that is :func:`heard`, with those who speak through it.
        now: The time of the check, aware.
        pinned: Whether the caller stated the artifact's digest.
        consumer: Producer string of the task that checks.
    """
    found = []
    for clause in requirement.clauses:
        if clause.at_least > 1:
            most = distinct(clause, [item for item in facts if item[0].kind == clause.counted])
            if most < clause.at_least:
                names = ", ".join(item.name for item in clause.identities)
                found.append(
                    Shortfall(
                        "SIGNERS_TOO_FEW",
                        "Too few of those who must sign have signed, each with a key of its own.",
                        f"{clause.at_least} of {names}",
                        str(most),
                        clause.rule,
                    )
                )
    for freshness in requirement.freshness:
        if pinned:
            break
        ages = [_age(fact, now) for fact, _ in facts if fact.kind == "provenance"]
        limit = freshness.seconds
        if limit is None or not any(age is not None and -CLOCK_SKEW <= age <= limit for age in ages):
            found.append(
                Shortfall(
                    "FRESHNESS_UNPROVED",
                    "An older signed version would pass as well.",
                    "the artifact's reference" if limit is None else f"a reference, or at most {spoken(limit)} old",
                    "a location",
                    freshness.rule,
                )
            )
    for loader in requirement.loaders:
        if not any(matches(pattern, consumer) for pattern in loader.patterns):
            found.append(
                Shortfall(
                    "LOADER_NOT_ALLOWED",
                    "This task may not load the artifact.",
                    ", ".join(loader.patterns),
                    consumer,
                    loader.rule,
                )
            )
    return found


def untraced(requirement: Requirement) -> Shortfall:
    """Return what an artifact lacks whose lineage leads to no beginning, or has gaps."""
    roots, datasets = requirement.beginnings
    names = [item.name for item in roots] + ([f"{len(datasets)} listed datasets"] if datasets else [])
    return Shortfall(
        "LINEAGE_UNPROVED",
        "Signed provenance does not lead from the artifact back to its beginnings.",
        f"data of {', '.join(names) or 'nobody'}",
        rule=", ".join(item.rule for item in requirement.lineage if item.traces),
    )


def unsealed(requirement: Requirement, holders: Sequence[tuple[str, bytes]] | None) -> list[Shortfall]:
    """Return what is wrong with who can open an artifact.

    Args:
        requirement: What must be proved.
        holders: Provider and key information of every wrapped key in the artifact's header; ``None`` for a clear one.
            A header is its writer's word: that the key wrapped under a name is the right one shows in opening it.
    """
    found = []
    for demand in requirement.recipients:
        if holders is None:
            if demand.encrypted:
                text = "The artifact is stored in clear, and must be encrypted."
                found.append(Shortfall("ENCRYPTION_REQUIRED", text, "encrypted", "in clear", demand.rule))
            continue
        lacking = [item.name for item in demand.required if item.mark not in holders]
        if lacking:
            found.append(
                Shortfall(
                    "RECIPIENT_REQUIRED",
                    "The artifact is not encrypted to everybody who must be able to open it.",
                    ", ".join(lacking),
                    _shown(holders),
                    demand.rule,
                )
            )
        if demand.only is None:
            continue
        allowed = {item.mark for item in demand.only}
        others = [holder for holder in holders if holder not in allowed]
        if others:
            found.append(
                Shortfall(
                    "RECIPIENT_NOT_ALLOWED",
                    "The artifact is encrypted to somebody who may not open it.",
                    f"only {', '.join(item.name for item in demand.only)}",
                    _shown(others),
                    demand.rule,
                )
            )
    return found


def _shown(holders: Sequence[tuple[str, bytes]]) -> str:
    from sealflow.encryption.header import EncryptedDataKey

    keys = (EncryptedDataKey(provider, info, b"") for provider, info in holders)
    return printable(", ".join(f"{key.provider}:{key.name}" for key in keys))


def distinct(clause: Clause, facts: Iterable[tuple[Fact, tuple[Identity, ...]]]) -> int:
    """Return how many identities of a clause have signed, each with a key that no other one is counted for.

    The largest matching between identities and keys: neither one person with two keys nor two names on one key make
    two signers.
    """
    keys: dict[Identity, set[str]] = {}
    for fact, speaking in facts:
        for item in speaking:
            if clause.takes(item, fact.kind):
                keys.setdefault(item, set()).add(fact.key)
    taken: dict[str, Identity] = {}

    def place(item: Identity, tried: set[str]) -> bool:
        for key in sorted(keys[item]):
            if key not in tried:
                tried.add(key)
                if key not in taken or place(taken[key], tried):
                    taken[key] = item
                    return True
        return False

    return sum(place(item, set()) for item in keys)


def _age(fact: Fact, now: datetime.datetime) -> float | None:
    try:
        made = datetime.datetime.fromisoformat(fact.finished_on.removesuffix("Z"))
    except ValueError:
        return None
    return (now - made.replace(tzinfo=datetime.timezone.utc)).total_seconds()


def spoken(seconds: int) -> str:
    """Return a duration in words, in the largest unit that fits."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds % size == 0 and seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
