"""Random small worlds: policies, evidence and a call; whether the artifact passes; and ways to tighten.

Drawn by `random` from a seed, not by hypothesis member by member: that takes a hundred times as long, and the property
is about rare meetings of many members.
"""

from __future__ import annotations

import copy
import datetime
import functools
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from sealflow.errors import UsageError
from sealflow.hashing import Digest
from sealflow.keys import load_public_key
from sealflow.policy import Identity, Requirement, parse_identities
from sealflow.policy.compose import AcceptedWaiver, Arguments, CompiledPolicy, Ruling, compose, waived_rules
from sealflow.policy.decide import Fact, Shortfall, heard, missing, unsealed
from sealflow.policy.document import parse_policy, parse_waiver
from sealflow.policy.identities import KeyIdentity
from sealflow.policy.requirement import Revocations, Revoked
from sealflow.run_identity import RunIdentity
from sealflow.verification.ruling import RELAXABLE
from tests.pki import public_pem

Body = dict[str, Any]
#: A fact and its stamp, as in :class:`World`.
Piece = tuple[tuple[str, int, str, str, int], "int | None"]

NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.timezone.utc)
RUN = RunIdentity("airflow", "d1", "t1", "r1", None, 1, team="ml")
PLACE = "s3://b/x"
DIGEST = Digest("sha256", "ab" * 32)
KEYS = 3
PRODUCERS = ["airflow:d1/t1", "airflow:d2/t2"]
RECIPIENTS = {name: f"arn:aws:kms:eu-west-1:123456789012:key/{name}" for name in ("k", "l", "m")}
STAMPS = [1, 30, 24 * 40]
AUTHORITIES = {"company": {"roots": ["-----BEGIN CERTIFICATE-----"], "url": "https://tsa.example.org/"}}
AGES = ["1h", "1d", "30d"]


@functools.cache
def pem(number: int) -> str:
    return public_pem(ec.derive_private_key(number + 1, ec.SECP256R1())).decode()


@functools.cache
def hint(text: str) -> str:
    return load_public_key(text).hint


IDENTITIES: dict[str, Body] = {
    "a": {"key": 0},
    "b": {"key": 1},
    "c": {"key": 2},
    "a-again": {"key": 0},
    "a-limited": {"key": 0, "producers": [PRODUCERS[0]]},
    "b-limited": {"key": 1, "producers": [PRODUCERS[0]]},
    "b-other": {"key": 1, "producers": [PRODUCERS[1]]},
    "c-limited": {"key": 2, "producers": ["airflow:*/*"]},
}


@dataclass(frozen=True)
class World:
    """Everything that a decision is made from. Documents are JSON; the last of the chain is the call's.

    Attributes:
        admin: The admin's policy.
        team: A team's, if there is one.
        call: The one that the call adds, if there is one.
        arguments: The call's other demands, ``identities`` as names in :data:`IDENTITIES`.
        facts: Kind, key, producer, name and age in hours of each piece of evidence.
        waivers: Names of the waived rules, one waiver each.
        revoked: Fingerprints of revoked keys, and since how many hours before now.
        stamps: For each piece of evidence how many hours ago an authority saw it; ``None``: none did.
        recipients: Names in :data:`RECIPIENTS` to whom the artifact is encrypted; ``None``: it lies in clear.
    """

    admin: Body
    team: Body | None = None
    call: Body | None = None
    arguments: Body = field(default_factory=dict)
    facts: tuple[tuple[str, int, str, str, int], ...] = ()
    waivers: tuple[tuple[str, ...], ...] = ()
    recipients: tuple[str, ...] | None = None
    revoked: tuple[tuple[str, int], ...] = ()
    stamps: tuple[int | None, ...] = ()

    @property
    def evidence(self) -> list[Piece]:
        return list(itertools.zip_longest(self.facts, self.stamps))

    @functools.cached_property
    def chain(self) -> list[CompiledPolicy]:
        made = [compiled(self.admin)]
        if self.team is not None:
            made.append(compiled(self.team, team="ml", within=["s3://b/**"]))
        if self.call is not None:
            made.append(compiled(self.call, team="policy"))
        return made

    @property
    def rules(self) -> list[Body]:
        """All rules of all policies."""
        return [rule for body in (self.admin, self.team, self.call) if body is not None for rule in body["rules"]]

    def ruling(self, names: Sequence[str] = (), waived: Sequence[AcceptedWaiver] = ()) -> Ruling:
        given = dict(self.arguments)
        for member in ("identities", "defaults"):
            if given.get(member) is not None:
                given[member] = parse_identities([identity(name) for name in given[member]])
        if given.get("kinds") is not None:
            given["kinds"] = frozenset(given["kinds"])
        if given.pop("pinned", False):
            given["digest"] = DIGEST
        since: dict[str, int] = {}
        for key, hours in self.revoked:
            since[key] = max(hours, since.get(key, hours))
        entries = {key: Revoked(NOW - datetime.timedelta(hours=hours), "stolen") for key, hours in since.items()}
        revoked = Revocations(entries, {})
        return compose(
            self.chain,
            Arguments(**given),
            places=(PLACE,),
            names=names,
            run=RUN,
            waivers=waived,
            revoked=revoked,
            now=NOW,
        )

    def accepted_waivers(self) -> list[AcceptedWaiver]:
        digests = {item.name: item.digest for policy in self.chain for item in policy.rules}
        found = []
        for number, names in enumerate(self.waivers):
            body = {
                "apiVersion": "sealflow/v1",
                "kind": "Waiver",
                "id": f"w{number}",
                "reason": "because of the flood",
                "scope": {"artifact": ["s3://b/**"]},
                "rules": [{"name": name, "digest": digests[name]} for name in names if name in digests],
                "not_before": "2026-05-30T00:00:00Z",
                "expires": "2026-06-20T00:00:00Z",
            }
            if body["rules"]:
                found.append(AcceptedWaiver(parse_waiver(json.dumps(body).encode()), "ff" * 32))
        return found

    def passes(self, waivers: Sequence[AcceptedWaiver]) -> bool:
        """Decide as a verification does, signed names included."""
        try:
            ruling = self.ruling((), waivers)
            passed, names = decide(ruling, self.evidence, self.recipients)
            if names:
                named = self.ruling(names, waivers)
                if named.rules != ruling.rules or named.managed != ruling.managed:
                    passed, _ = decide(named, self.evidence, self.recipients)
        except UsageError:
            return False
        return passed

    def names_nobody(self, waivers: Sequence[AcceptedWaiver]) -> bool:
        """Whether what waivers leave in force says of nobody that he may sign, with or without signed names."""
        ruling = self.ruling((), waivers)
        _, names = decide(ruling, self.evidence, self.recipients)
        for one in (ruling, self.ruling(names, waivers)):
            waived, _ = waived_rules(one, str(DIGEST))
            left = one.without(waived) if waived else one.requirement
            if left is not None and not left.identities:
                return True
        return False


def compiled(body: Body, **options: Any) -> CompiledPolicy:
    return CompiledPolicy(parse_policy(json.dumps(body).encode()), digest="cd" * 32, **options)


def identity(name: str) -> Body:
    """Return an identity as arguments and policies write it, without its name in the latter."""
    return {**IDENTITIES[name], "key": pem(IDENTITIES[name]["key"]), "name": name}


def document(rules: Sequence[Body], **more: Any) -> Body:
    identities = {name: {k: v for k, v in identity(name).items() if k != "name"} for name in IDENTITIES}
    head = {"apiVersion": "sealflow/v1", "version": 1, "expires": "2027-01-01T00:00:00Z"}
    recipients = {name: {"kms": arn} for name, arn in RECIPIENTS.items()}
    return {**head, "identities": identities, "recipients": recipients, "rules": list(rules), **more}


def shortfalls(
    requirement: Requirement, facts: Sequence[Piece], recipients: Sequence[str] | None
) -> tuple[list[Shortfall], set[str]]:
    """Return what is missing and the names in authentic provenance, as the judgement finds them."""
    found: list[Shortfall] = []
    names: set[str] = set()
    counted: list[tuple[Fact, tuple[Identity, ...]]] = []
    reasons: dict[str, list[Shortfall]] = {"signature": [], "provenance": []}
    if not requirement.identities:
        found.append(Shortfall("IDENTITY_RULE_MISSING", ""))
    for (kind, key, producer, name, age), hours in facts:
        text = pem(key)
        stamp = NOW - datetime.timedelta(hours=hours) if hours is not None and requirement.authorities else None
        holding = tuple(
            item
            for item in requirement.identities
            if isinstance(item, KeyIdentity)
            and item.source == text
            and not (item.outside_window(NOW) and (stamp is None or item.outside_window(stamp)))
        )
        if not holding:
            reasons[kind].append(Shortfall("SIGNER_NOT_ALLOWED", ""))
            continue
        revoked = requirement.revoked.keys.get(hint(text))
        if revoked is not None and (stamp is None or stamp >= revoked.since):
            reasons[kind].append(Shortfall("KEY_REVOKED", ""))
            continue
        finished = (NOW - datetime.timedelta(hours=age)).strftime("%Y-%m-%dT%H:%M:%SZ")
        fact = Fact("signature", hint(text), holding, stamp=stamp)
        if kind == "provenance":
            names.add(name)
            fact = Fact(kind, hint(text), holding, producer, "urn:builder", name, finished, stamp)
        speaking = heard(requirement, fact, NOW)
        if isinstance(speaking, Shortfall):
            reasons[kind].append(speaking)
        else:
            counted.append((fact, speaking))
    open_kinds = sorted(requirement.kinds - {fact.kind for fact, _ in counted})
    if requirement.identities:
        for kind in open_kinds:
            found += reasons[kind] or [Shortfall(f"{kind.upper()}_MISSING", "")]
    for short in missing(requirement, counted, NOW, pinned=requirement.digest is not None, consumer=RUN.producer):
        if short.code == "LOADER_NOT_ALLOWED" or (requirement.identities and not open_kinds):
            found.append(short)
    found += unsealed(
        requirement, None if recipients is None else [("aws-kms", RECIPIENTS[n].encode()) for n in recipients]
    )
    if str(DIGEST) in requirement.revoked.digests:
        found.append(Shortfall("ARTIFACT_REVOKED", ""))
    return found, names


def decide(ruling: Ruling, facts: Sequence[Piece], recipients: Sequence[str] | None) -> tuple[bool, tuple[str, ...]]:
    """Return whether facts pass under a ruling, by the steps of :func:`sealflow.verification.ruling.judge_ruling`."""
    found, names = shortfalls(ruling.requirement, facts, recipients)
    ordered = tuple(sorted(names))
    if ruling.unmatched:
        return False, ordered
    if not found:
        return True, ordered
    if not ruling.rules:
        return False, ordered
    audited = frozenset(rule.name for rule in ruling.rules)
    if ruling.level != "audit":
        audited, _ = waived_rules(ruling, str(DIGEST))
    if not audited or any(item.code not in RELAXABLE or ruling.insists(item.code, item.rule) for item in found):
        return False, ordered
    enforced = ruling.without(audited)
    return enforced is None or not shortfalls(enforced, facts, recipients)[0], ordered


# --- Drawing ---

NAMES = sorted(IDENTITIES)
PATTERNS = ["s3://b/**", "s3://b/**", "s3://b/x", "s3://b/*", "s3://other/**", "name:n*", "name:m"]
KINDS = [["signature"], ["provenance"], ["signature", "provenance"]]


def some(rnd: random.Random, items: Sequence[Any], least: int, most: int) -> list[Any]:
    unique = list(dict.fromkeys(items))
    return rnd.sample(unique, rnd.randint(least, min(most, len(unique))))


def one_in(rnd: random.Random, number: int) -> bool:
    return not rnd.randrange(number)


def draw_require(rnd: random.Random) -> Body:
    body: Body = {}
    if not one_in(rnd, 5):
        chosen = some(rnd, NAMES, 1, 5)
        forms = [{"all_of": chosen[:2]}, {"at_least": rnd.randint(1, len(chosen)), "of": chosen}]
        body["identities"] = rnd.choice([*forms, *[{"any_of": some(rnd, NAMES, 3, 8)}] * 5])
    kinds = rnd.choice([None, None, *KINDS])
    if kinds is not None:
        body["evidence"] = {kind: {} for kind in kinds}
        if "provenance" in kinds and one_in(rnd, 2):
            body["evidence"]["provenance"] = {"max_age": rnd.choice(AGES)}
        for demand in body["evidence"].values():
            if one_in(rnd, 6):
                demand["timestamp"] = True
    named = kinds is None or "provenance" in kinds
    if named and one_in(rnd, 3):
        body["producers"] = rnd.choice([[PRODUCERS[0]], PRODUCERS, ["airflow:*/*"]])
    if one_in(rnd, 6):
        ages = [{"max_age": age} for age in AGES] if named else []
        body["freshness"] = rnd.choice(["pinned", *ages])
    if one_in(rnd, 8):
        body["loaders"] = rnd.choice([["airflow:d1/*"], ["airflow:d2/*"]])
    if one_in(rnd, 6):
        body["recipients"] = draw_recipients(rnd)
    return body


def draw_recipients(rnd: random.Random) -> Body:
    only = some(rnd, list(RECIPIENTS), 1, 3)
    return rnd.choice(
        [
            {"encrypted": True},
            {"only": only},
            {"required": only[:1], "encrypted": True},
            {"required": only, "only": only},
        ]
    )


def draw_rule(rnd: random.Random, name: str, within: bool = False) -> Body:
    scope: Body = {"artifact": some(rnd, PATTERNS, 1, 2)}
    if one_in(rnd, 4):
        scope["dag"] = rnd.choice([["d1"], ["d2"]])
    body: Body = {"name": name, "scope": scope, "require": draw_require(rnd)}
    body["level"] = rnd.choice(["enforce", "enforce", "audit", "audit", "off"])
    if body["level"] == "off" or within:
        scope["artifact"] = [item for item in scope["artifact"] if item not in ("name:n*", "s3://other/**")] or [PLACE]
    if one_in(rnd, 10):
        body["locked"] = some(rnd, ["identities", "evidence", "producers"], 0, 2)
    return body


def draw_document(rnd: random.Random, least: int = 0, within: bool = False) -> Body:
    return document([draw_rule(rnd, f"r{number}", within) for number in range(rnd.randint(least, 3))])


def draw_arguments(rnd: random.Random) -> Body:
    body: Body = {}
    if one_in(rnd, 3):
        body["identities"] = some(rnd, NAMES, 0, 4)
    if one_in(rnd, 3):
        body["defaults"] = some(rnd, NAMES, 0, 4)
    if one_in(rnd, 4):
        body["kinds"] = rnd.choice(KINDS)
    if one_in(rnd, 4):
        body["name"] = rnd.choice(["n1", "m"])
    if one_in(rnd, 4) and "provenance" in body.get("kinds", ["provenance"]):
        body["producer"] = rnd.choice([PRODUCERS[0], "airflow:*/*"])
    if one_in(rnd, 3):
        body["pinned"] = True
    return body


def draw_fact(rnd: random.Random) -> tuple[str, int, str, str, int]:
    producer = rnd.choice([*PRODUCERS, PRODUCERS[0], "airflow:d1/t9"])
    return (
        rnd.choice(["signature", "provenance"]),
        rnd.randrange(KEYS),
        producer,
        rnd.choice(["n1", "n1", "n2", "m"]),
        rnd.choice([0, 0, 0, 2, 48, -2]),
    )


def draw_facts(rnd: random.Random) -> list[tuple[str, int, str, str, int]]:
    """Return evidence that is often enough: what is refused for one reason alone is what could be let pass."""
    found = [draw_fact(rnd) for _ in range(rnd.choice([0, 0, 1, 3]))]
    for key in some(rnd, range(KEYS), 0, 2):
        producer, name = rnd.choice([PRODUCERS[0], PRODUCERS[0], PRODUCERS[1]]), rnd.choice(["n1", "m"])
        found += [("signature", key, producer, name, 0), ("provenance", key, producer, name, 0)]
    return found


def draw_world(rnd: random.Random) -> World:
    believed = {} if one_in(rnd, 4) else {"timestamp_authorities": AUTHORITIES}
    facts = draw_facts(rnd)
    made = World(
        {**draw_document(rnd, 1), **believed},
        draw_document(rnd, within=True) if one_in(rnd, 2) else None,
        draw_document(rnd) if one_in(rnd, 3) else None,
        draw_arguments(rnd),
        tuple(facts),
        revoked=tuple((hint(pem(key)), rnd.choice(STAMPS)) for key in some(rnd, range(KEYS), 0, rnd.choice([0, 0, 2]))),
        stamps=tuple(rnd.choice([None, *STAMPS]) for _ in facts),
    )
    known = [item["name"] for item in made.admin["rules"]]
    known += [f"ml/{item['name']}" for item in (made.team or {"rules": []})["rules"]]
    waived = [tuple(some(rnd, known, 1, 2)) for _ in range(rnd.choice([0, 0, 1, 2]))]
    recipients = rnd.choice([None, None, ("k",), ("k", "l"), ("k", "l", "m")])
    return replace(made, waivers=tuple(waived), recipients=recipients)


def tighten(rnd: random.Random, world: World) -> tuple[str, World] | None:
    """Return a world in which more is asked for, and what was done; ``None`` where that could not be done here."""
    ruling = world.ruling()
    managed = bool(ruling.rules) and ruling.level in ("audit", "enforce")
    which = rnd.choice(
        # Some of them twice: most worlds have a rule, and fewer somebody who was revoked.
        ["rule", "call", "team", "argument", "edit", "revoke", "waiver", "expire", "unbelieved", "unstamped"]
        if one_in(rnd, 2)
        else ["rule", "argument", "edit", "revoke"]
    )
    if which in ("rule", "call", "team"):
        owner = rnd.choice(["admin", "team", "call"]) if which == "rule" else which
        before = getattr(world, owner)
        # The first rule that holds changes who is asked; the property begins there.
        if not (managed or ruling.unmatched) or (before is not None and (which != "rule" or _gap(world, owner))):
            return None
        if ruling.rules and _nobody_named(world, ruling, owner):
            return None
        body = copy.deepcopy(before) if before is not None else document([])
        body["rules"].append(draw_rule(rnd, "added", within=owner == "team"))
        made = replace(world, **{owner: body})
        # Where nobody is named nobody's revocation is seen; that refuses, and where it is only audited it does not.
        ruling = made.ruling()
        if world.revoked and ruling.rules and _nobody_named(made, ruling, owner):
            return None
        return f"{owner}: {body['rules'][-1]}", made
    if which == "argument":
        return _argued(rnd, world, ruling)
    if which == "unstamped":
        worn = [at for at, stamp in enumerate(world.stamps) if stamp is not None]
        if not worn:
            return None
        gone = rnd.choice(worn)
        left = tuple(None if at == gone else stamp for at, stamp in enumerate(world.stamps))
        return "a token less", replace(world, stamps=left)
    if which == "waiver":
        return ("no waivers", replace(world, waivers=())) if world.waivers else None
    owner = rnd.choice(["admin", "team", "call"])
    body = copy.deepcopy(getattr(world, owner))
    if body is None:
        return None
    if which in ("revoke", "expire", "unbelieved"):
        # What nobody may say any longer does not say which rules an artifact needs, and contradicts nobody.
        stated = {"name", "producer"} & world.arguments.keys()
        if stated or '"name:' in json.dumps([world.admin, world.team, world.call]):
            return None
    if which == "revoke":
        entry = (hint(pem(rnd.randrange(KEYS))), rnd.choice(STAMPS))
        return "revocation", replace(world, revoked=(*world.revoked, entry))
    if which == "unbelieved":
        admin = {name: value for name, value in world.admin.items() if name != "timestamp_authorities"}
        return ("nobody believed", replace(world, admin=admin)) if admin != world.admin else None
    if which == "expire":
        body["identities"][rnd.choice(NAMES)]["expires"] = "2026-05-01T00:00:00Z"
        return "expired identity", replace(world, **{owner: body})
    if not body["rules"]:
        return None
    done = _edited(rnd, rnd.choice(body["rules"]))
    return (f"{owner}: {done}", replace(world, **{owner: body})) if done else None


def _argued(rnd: random.Random, world: World, ruling: Ruling) -> tuple[str, World] | None:
    given = dict(world.arguments)
    member = rnd.choice(["identities", "kinds", "name", "producer", "narrower", "more-kinds"])
    if member == "narrower":
        if not given.get("identities"):
            return None
        given["identities"] = given["identities"][1:]
    elif member in ("identities", "kinds", "more-kinds") and not ruling.rules:
        return None  # without a rule the call's word takes the place of the settings'
    elif member == "more-kinds":
        if not given.get("kinds"):
            return None
        given["kinds"] = KINDS[2]
    elif member in given:
        return None
    elif member == "identities":
        given["identities"] = some(rnd, NAMES, 0, 4)
    elif member == "kinds":
        given["kinds"] = rnd.choice(KINDS)
    elif member == "name":
        given["name"] = rnd.choice(["n1", "m"])
    else:
        given["producer"] = rnd.choice([PRODUCERS[0], "airflow:*/*"])
    return f"argument {member}", replace(world, arguments=given)


_NUMBER = {"admin": 0, "team": 1, "call": -1}


def _nobody_named(world: World, ruling: Ruling, owner: str) -> bool:
    """Whether nobody is named yet by the policy that says whom to believe, and its owner, or one above, writes now.

    Where that policy's rules are waived the next one takes its place, whoever writes.
    """
    waived = {name for names in world.waivers for name in names}
    kept = [rule for rule in ruling.rules if rule.name not in waived]
    first = kept[0].policy if kept else None
    nobody = not any(rule.identities is not None for rule in kept if rule.policy is first)
    rank = {"": 0, "ml/": 1, "policy/": 2}[ruling.rules[0].policy.prefix]
    return nobody and (len(kept) < len(ruling.rules) or list(_NUMBER).index(owner) <= rank)


def _gap(world: World, owner: str) -> bool:
    touching = world.chain[_NUMBER[owner]].touching((PLACE,), ("n1", "n2", "m"))
    return any(not rule.holds(RUN) for rule in touching)


def _narrow(rnd: random.Random, demand: Body) -> None:
    """Ask for more of who opens an artifact, in one of the four ways."""
    only = demand.get("only", list(RECIPIENTS))
    required = demand.get("required", [])
    more = [name for name in only if name not in required]
    if more and one_in(rnd, 2):
        demand["required"] = [*required, more[0]]
    elif more and len(only) > 1:
        demand["only"] = [name for name in only if name != more[0]]
    else:
        demand["encrypted"] = True


def _edited(rnd: random.Random, rule: Body) -> str:
    require = rule["require"]
    demand = require.get("identities")
    kinds = require.get("evidence")
    which = rnd.choice(
        [
            "at_least",
            "any_of",
            "all_of",
            "level",
            "producers",
            "loaders",
            "freshness",
            "max_age",
            "timestamp",
            "recipients",
            "locked",
        ]
    )
    if which == "at_least" and demand and demand.get("at_least", 99) < len(demand.get("of", ())):
        demand["at_least"] += 1
    elif which == "any_of" and demand and len(demand.get("any_of", ())) > 1:
        demand["any_of"].pop()
    elif which == "all_of" and demand and "any_of" in demand:
        require["identities"] = {"all_of": demand["any_of"]}
    elif which == "level" and rule["level"] == "audit":
        rule["level"] = "enforce"
    elif which == "producers" and "producers" not in require and (kinds is None or "provenance" in kinds):
        require["producers"] = [PRODUCERS[0]]
    elif which == "loaders" and "loaders" not in require:
        require["loaders"] = ["airflow:d2/*"]
    elif which == "freshness" and "freshness" not in require:
        require["freshness"] = "pinned"
    elif which == "max_age" and kinds and "provenance" in kinds and kinds["provenance"].get("max_age") != "1h":
        kinds["provenance"]["max_age"] = "1h"
    elif which == "timestamp" and kinds and (plain := [kind for kind in kinds if "timestamp" not in kinds[kind]]):
        kinds[plain[0]]["timestamp"] = True
    elif which == "recipients":
        demand = require.setdefault("recipients", {})
        _narrow(rnd, demand)
    elif which == "locked":
        rule["locked"] = ["identities", "evidence", "producers"]
    else:
        return ""
    return which
