"""Timestamps in policies: what a rule demands, how demands join, and whom a policy may believe."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from sealflow.actions.policy_tables import read_table, run_table
from sealflow.errors import PolicyError
from sealflow.policy.compose import Arguments, compose
from sealflow.policy.document import parse_policy
from sealflow.policy.requirement import StampDemand
from sealflow.policy.revocations import CompiledRevocations, parse_revocations
from sealflow.run_identity import RunIdentity
from tests.core.policy.worlds import NOW, compiled, document, hint, pem
from tests.pki import certify

Body = dict[str, Any]

ROOT = certify("stamps root", ca=True).pem.decode()
BELIEVED = {"company": {"roots": [ROOT], "url": "https://tsa.example.org/"}}
PLAIN: Body = {"signature": {}, "provenance": {}}


def rule(name: str, evidence: Body | None) -> Body:
    require: Body = {"identities": {"any_of": ["a"]}, **({"evidence": evidence} if evidence is not None else {})}
    return {"name": name, "scope": {"artifact": ["s3://b/**"]}, "require": require}


def joined(*bodies: Body) -> Any:
    teams = [compiled(body, team=team) for body, team in zip(bodies, ("", "policy"), strict=False)]
    return compose(teams, Arguments(), places=("s3://b/x",), run=RunIdentity(), now=NOW).requirement


@pytest.mark.parametrize("kind", ["signature", "provenance"])
def test_one_rule_that_asks_is_enough(kind: str) -> None:
    asks = {**PLAIN, kind: {"timestamp": True}}
    for rules in ([rule("x", asks), rule("y", PLAIN)], [rule("y", PLAIN), rule("x", asks)], [rule("x", asks)]):
        found = joined(document(rules, timestamp_authorities=BELIEVED))
        assert found.stamped == (StampDemand("x", kind),)
        assert [item.name for item in found.authorities] == ["company"]
    assert joined(document([rule("y", PLAIN)], timestamp_authorities=BELIEVED)).stamped == ()


def test_a_call_can_demand_one_and_believe_nobody() -> None:
    asks = {**PLAIN, "signature": {"timestamp": True}}
    mine = document([rule("mine", asks)], timestamp_authorities={"mine": {"roots": [ROOT]}})
    found = joined(document([rule("x", PLAIN)]), mine)
    assert found.stamped == (StampDemand("policy/mine", "signature"),)
    assert found.authorities == ()


REFUSED: dict[str, Body] = {
    "no-roots": {"company": {"roots": []}},
    "no-authority": {"company": {}},
    "unknown-member": {"company": {"roots": [ROOT], "key": "x"}},
    "a-file": {"company": {"roots": [ROOT], "url": "file:///etc/passwd"}},
    "credentials": {"company": {"roots": [ROOT], "url": "https://me:secret@tsa.example.org/"}},
    "a-name-with-a-slash": {"a/b": {"roots": [ROOT]}},
    "too-many": {f"a{number}": {"roots": [ROOT]} for number in range(17)},
}


@pytest.mark.parametrize("authorities", REFUSED.values(), ids=REFUSED.keys())
def test_an_authority_is_read_strictly(authorities: Body) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(json.dumps(document([rule("x", None)], timestamp_authorities=authorities)).encode())
    assert "secret" not in caught.value.message or "me:secret" in str(authorities)


@pytest.mark.parametrize(
    "authorities", [{}, {"other": {"roots": [ROOT], "url": "https://x/"}}, {"company": {"roots": [ROOT]}}]
)
def test_a_signer_names_an_authority_that_can_be_asked(authorities: Body) -> None:
    signers = [{"uri": "file:/k.pem", "timestamp": "company"}]
    body = document([rule("x", None)], timestamp_authorities=authorities, signers=signers)
    with pytest.raises(PolicyError, match="timestamp authority"):
        parse_policy(json.dumps(body).encode())


def test_a_signers_uri_says_who_stamps() -> None:
    signers = [
        {"uri": "file:/k.pem?certificate=/c.pem", "timestamp": "company", "scope": {"artifact": ["s3://b/**"]}},
        {"uri": "file:/other.pem"},
    ]
    policy = compiled(document([rule("x", None)], timestamp_authorities=BELIEVED, signers=signers))
    assert policy.signer_for(("s3://b/x",), RunIdentity()) == "file:/k.pem?certificate=/c.pem&timestamp=company"
    assert policy.signer_for(("s3://c/x",), RunIdentity()) == "file:/other.pem"


# --- Supposed ---

SINCE = NOW - datetime.timedelta(days=5)


@pytest.mark.parametrize(
    ("stamp", "revoked", "expired", "demanded", "expect", "code"),
    [
        (None, False, False, False, "passed", None),
        (None, False, False, True, "refused", "TIMESTAMP_MISSING"),
        (6, False, False, True, "passed", None),
        (None, True, False, False, "refused", "KEY_REVOKED"),
        (6, True, False, False, "passed", None),
        (5, True, False, False, "refused", "KEY_REVOKED"),
        (4, True, False, False, "refused", "KEY_REVOKED"),
        (None, False, True, False, "refused", "KEY_EXPIRED"),
        (6, False, True, False, "passed", None),
        (1, False, True, False, "refused", "KEY_EXPIRED"),
        (6, True, True, True, "passed", None),
    ],
)
def test_what_a_table_supposes(
    stamp: int | None, revoked: bool, expired: bool, demanded: bool, expect: str, code: str | None
) -> None:
    """With the steps of the verification, days before now."""
    evidence = {kind: {"timestamp": True} for kind in PLAIN} if demanded else PLAIN
    body = document([rule("x", evidence)], timestamp_authorities=BELIEVED)
    if expired:
        body["identities"]["a"]["expires"] = (NOW - datetime.timedelta(days=2)).isoformat()
    entries = [{"key": f"sha256:{hint(pem(0))}", "since": SINCE.isoformat(), "reason": "stolen"}] if revoked else []
    head = {"apiVersion": "sealflow/v1", "kind": "Revocations", "version": 1, "expires": "2027-01-01T00:00:00Z"}
    listed = CompiledRevocations(parse_revocations(json.dumps({**head, "revocations": entries}).encode()), digest="")
    supposed: Body = {"by": "a", "producer": "cli"}
    if stamp is not None:
        supposed["timestamp"] = (NOW - datetime.timedelta(days=stamp)).isoformat()
    case = {"name": "c", "artifact": "s3://b/x", "evidence": [supposed], "expect": expect}
    table = {"apiVersion": "sealflow/v1", "kind": "PolicyTests", "now": NOW.isoformat(), "cases": [case]}
    (result,) = run_table(compiled(body), *read_table(json.dumps(table).encode(), "table"), listed)
    assert result.outcome.status == expect, result.outcome
    assert {item.code for item in result.outcome.shortfalls} == ({code} if code else set())
