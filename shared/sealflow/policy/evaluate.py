"""The whole decision over facts: what a verification concludes from evidence whose signatures hold.

The verification takes the same steps in the same order, with :mod:`sealflow.policy.decide`, while it reads bundles and
bytes; here the facts are supposed. A test runs both over the same cases and compares what they say.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from sealflow.policy.compose import Ruling, waived_rules
from sealflow.policy.decide import Fact, Shortfall, heard, missing, unsealed, untraced
from sealflow.policy.identities import Identity
from sealflow.policy.requirement import Requirement

Status = Literal["passed", "refused", "audited", "unmanaged"]

_MISSING: Final = {"signature": "SIGNATURE_MISSING", "provenance": "PROVENANCE_MISSING"}


class Outcome(NamedTuple):
    """What facts add up to under a ruling.

    Attributes:
        status: ``passed``; ``refused``; ``audited``: enforced, the rules would refuse; ``unmanaged``: no rule is
            concerned.
        shortfalls: What is missing, also where that is only audited.
        names: Logical names in all accepted provenance.
    """

    status: Status
    shortfalls: tuple[Shortfall, ...] = ()
    names: tuple[str, ...] = ()


def evaluate(
    ruling: Ruling,
    facts: Sequence[Fact],
    now: datetime.datetime,
    *,
    pinned: bool,
    consumer: str,
    relaxable: frozenset[str],
    digest: str = "",
    traced: bool = False,
    holders: Sequence[tuple[str, bytes]] | None = None,
) -> Outcome:
    """Return what facts add up to, as a verification of the bytes that they speak about would.

    Args:
        ruling: What the policies say.
        facts: Evidence whose signatures hold; ``identities`` are all to whom the key belongs.
        now: The time of the check, aware.
        pinned: Whether a reference states the artifact's digest.
        consumer: Producer string of the task that checks.
        relaxable: Codes that an audited or waived rule lets pass.
        digest: The artifact's digest, for revocations and waivers that are bound to one.
        traced: Whether signed provenance leads back to where rules want the artifact to come from.
        holders: Provider and key information of every wrapped key in the artifact's header; ``None`` for a clear one.
    """
    found, names = _shortfalls(ruling.requirement, facts, now, pinned, consumer, digest, traced, holders)
    if ruling.unmatched:
        message = "The policy manages this artifact, and no rule holds for this task."
        return Outcome("refused", (Shortfall("POLICY_NO_RULE", message, "a rule", consumer, "rules"),))
    if not ruling.managed:
        return Outcome("unmanaged", names=names)
    if not found:
        return Outcome("passed", names=names)
    audited = frozenset(rule.name for rule in ruling.rules)
    if ruling.level != "audit":
        audited, _ = waived_rules(ruling, digest)
    if audited and all(item.code in relaxable for item in found):
        enforced = ruling.without(audited)
        if enforced is None or not _shortfalls(enforced, facts, now, pinned, consumer, digest, traced, holders)[0]:
            return Outcome("audited", found, names)
    return Outcome("refused", found, names)


def _shortfalls(
    requirement: Requirement,
    facts: Sequence[Fact],
    now: datetime.datetime,
    pinned: bool,
    consumer: str,
    digest: str,
    traced: bool,
    holders: Sequence[tuple[str, bytes]] | None,
) -> tuple[tuple[Shortfall, ...], tuple[str, ...]]:
    found: list[Shortfall] = []
    if not requirement.identities:
        found.append(Shortfall("IDENTITY_RULE_MISSING", "Nobody was named who may sign.", rule="identities"))
    counted: list[tuple[Fact, tuple[Identity, ...]]] = []
    reasons: dict[str, list[Shortfall]] = {kind: [] for kind in _MISSING}
    for fact in facts:
        holding, refused = _holding(requirement, fact, now)
        if not holding:
            reasons[fact.kind] += refused
            continue
        speaking = heard(requirement, fact._replace(identities=holding), now)
        if isinstance(speaking, Shortfall):
            reasons[fact.kind].append(speaking)
        else:
            counted.append((fact, speaking))
    open_kinds = sorted(requirement.kinds - {fact.kind for fact, _ in counted})
    if not facts and open_kinds:
        found.append(Shortfall("EVIDENCE_MISSING", "There is no evidence for these bytes.", rule="evidence"))
    elif requirement.identities:
        for kind in open_kinds:
            nothing = Shortfall(_MISSING[kind], f"There is no {kind} for these bytes.", rule=kind)
            found += reasons[kind] or [nothing]
    if digest in requirement.revoked.digests:
        text = f"{digest}: {requirement.revoked.digests[digest]}"
        found.append(Shortfall("ARTIFACT_REVOKED", "The artifact is revoked.", found=text, rule="revocations"))
    for short in missing(requirement, counted, now, pinned=pinned, consumer=consumer):
        # Without the kinds of evidence there is nobody to count yet.
        if short.code == "LOADER_NOT_ALLOWED" or (requirement.identities and not open_kinds):
            found.append(short)
    found += unsealed(requirement, holders)
    if requirement.traces and not traced and not found:
        found.append(untraced(requirement))
    names = tuple(sorted({fact.name for fact, _ in counted if fact.kind == "provenance" and fact.name}))
    return tuple(dict.fromkeys(found)), names


def _holding(
    requirement: Requirement, fact: Fact, now: datetime.datetime
) -> tuple[tuple[Identity, ...], list[Shortfall]]:
    """Return whom of the requirement the key belongs to, or why none of them counts."""
    holding: list[Identity] = []
    refused: list[Shortfall] = []
    for identity in requirement.identities:
        # By now, or else by the time at which it was stamped.
        outside = identity.outside_window(now)
        if outside is not None and fact.stamp is not None:
            outside = identity.outside_window(fact.stamp)
        if outside is not None:
            refused.append(Shortfall(outside.code, outside.message, rule=identity.name))
        elif identity not in fact.identities:
            refused.append(
                Shortfall("SIGNER_NOT_ALLOWED", "Signed with another key.", found=fact.key, rule=identity.name)
            )
        elif (revoked := requirement.revoked.keys.get(fact.key)) is not None and (
            fact.stamp is None or fact.stamp >= revoked.since
        ):
            refused.append(
                Shortfall(
                    "KEY_REVOKED",
                    "The signer is revoked.",
                    found=f"sha256:{fact.key}: {revoked.reason}",
                    rule=identity.name,
                )
            )
        else:
            holding.append(identity)
    return tuple(holding), refused
