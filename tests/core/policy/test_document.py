"""The policy document: every field strictly, and what an admin could not have meant is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from sealflow.errors import PolicyError
from sealflow.policy.compose import CompiledPolicy
from sealflow.policy.document import (
    NOT_LANDED,
    parse_policy,
    parse_waiver,
    place,
    policy_schema,
    seconds,
    waiver_schema,
)
from tests.core.policy.worlds import document, pem
from tests.fuzz.test_policy import POLICY, WAIVER

Body = dict[str, Any]
Edit = Callable[[Body], object]


def edited(body: Body, edit: Edit) -> bytes:
    changed = copy.deepcopy(body)
    edit(changed)
    return json.dumps(changed).encode()


def rule(body: Body) -> Body:
    return body["rules"][0]


def require(body: Body) -> Body:
    return rule(body)["require"]


# --- Refused, with the place ---

REFUSED: dict[str, tuple[str, Edit]] = {
    # They are a document of their own; one place is enough.
    "revocations": ("revocations", lambda b: b.update(revocations=[])),
    "unknown-top-level": ("default", lambda b: b.update(default="allow")),
    "kind-of-a-waiver": ("kind", lambda b: b.update(kind="Waiver")),
    "version-missing": ("version", lambda b: b.pop("version")),
    "version-as-text": ("version", lambda b: b.update(version="3")),
    "version-as-float": ("version", lambda b: b.update(version=3.0)),
    "version-as-bool": ("version", lambda b: b.update(version=True)),
    "version-negative": ("version", lambda b: b.update(version=-1)),
    "version-null": ("version", lambda b: b.update(version=None)),
    "expires-missing": ("expires", lambda b: b.pop("expires")),
    "expires-date": ("expires", lambda b: b.update(expires="2027-01-01")),
    "expires-naive": ("expires", lambda b: b.update(expires="2027-01-01T00:00:00")),
    "expires-number": ("expires", lambda b: b.update(expires=1893456000)),
    "expires-digits": ("expires", lambda b: b.update(expires="1893456000")),
    "expires-far": ("expires", lambda b: b.update(expires="9999-01-01T00:00:00Z")),
    "grace-negative": ("grace_hours", lambda b: b.update(grace_hours=-1)),
    "grace-long": ("grace_hours", lambda b: b.update(grace_hours=721)),
    "grace-text": ("grace_hours", lambda b: b.update(grace_hours="24")),
    "identities-as-list": ("identities", lambda b: b.update(identities=[])),
    "identity-name": ("identities.a b.[key]", lambda b: b["identities"].update({"a b": {"key": pem(0)}})),
    "identity-name-newline": ("identities.a\\u000a.[key]", lambda b: b["identities"].update({"a\n": {"key": pem(0)}})),
    "identity-both": (
        "identities.a",
        lambda b: b["identities"]["a"].update(certificate={"roots": ["x"], "names": ["dns:x"]}),
    ),
    "identity-neither": ("identities.x", lambda b: b["identities"].update(x={})),
    "identity-unknown-field": ("identities.a.oidc", lambda b: b["identities"]["a"].update(oidc="x")),
    "identity-producers-text": ("identities.a.producers", lambda b: b["identities"]["a"].update(producers="x")),
    "identity-producers-empty": ("identities.a.producers", lambda b: b["identities"]["a"].update(producers=[])),
    "identity-valid-from-number": ("identities.a.valid_from", lambda b: b["identities"]["a"].update(valid_from=1)),
    "identity-never-valid": (
        "identities.a",
        lambda b: b["identities"]["a"].update(valid_from="2027-02-01T00:00:00Z", expires="2027-01-01T00:00:00Z"),
    ),
    "identity-verifier-text": ("identities.a.verifier", lambda b: b["identities"]["a"].update(verifier="true")),
    "identity-verifier-and-producer": (
        "identities.x",
        lambda b: b["identities"].update(x={"key": pem(0), "verifier": True, "producers": ["a"]}),
    ),
    "certificate-without-roots": (
        "identities.x.certificate.roots",
        lambda b: b["identities"].update(x={"certificate": {"roots": [], "names": ["dns:x"]}}),
    ),
    "certificate-without-names": (
        "identities.x.certificate.names",
        lambda b: b["identities"].update(x={"certificate": {"roots": ["x"], "names": []}}),
    ),
    "rules-as-mapping": ("rules", lambda b: b.update(rules={})),
    "rule-without-name": ("rules[0].name", lambda b: rule(b).pop("name")),
    "rule-with-slash": ("rules[0].name", lambda b: rule(b).update(name="team/rule")),
    "rule-twice": ("", lambda b: b["rules"].append(copy.deepcopy(rule(b)))),
    "rule-unknown-field": ("rules[0].when", lambda b: rule(b).update(when="always")),
    "rule-level": ("rules[0].level", lambda b: rule(b).update(level="warn")),
    "rule-level-case": ("rules[0].level", lambda b: rule(b).update(level="Enforce")),
    "rule-level-bool": ("rules[0].level", lambda b: rule(b).update(level=False)),
    "locked-unknown": ("rules[0].locked[0]", lambda b: rule(b).update(locked=["level"])),
    "scope-missing": ("rules[0].scope", lambda b: rule(b).pop("scope")),
    "scope-without-artifact": ("rules[0]", lambda b: rule(b)["scope"].pop("artifact")),
    "scope-artifact-empty": ("rules[0].scope.artifact", lambda b: rule(b)["scope"].update(artifact=[])),
    "scope-artifact-text": ("rules[0].scope.artifact", lambda b: rule(b)["scope"].update(artifact="**")),
    "scope-artifact-nowhere": ("rules[0].scope.artifact[0]", lambda b: rule(b)["scope"].update(artifact=["m/**"])),
    "scope-artifact-alias": ("rules[0].scope.artifact[0]", lambda b: rule(b)["scope"].update(artifact=["s3a://m/**"])),
    "scope-artifact-arn": (
        "rules[0].scope.artifact[0]",
        lambda b: rule(b)["scope"].update(artifact=["arn:aws:s3:::m"]),
    ),
    "scope-artifact-dots": ("rules[0].scope.artifact[0]", lambda b: rule(b)["scope"].update(artifact=["/a/../b"])),
    "scope-artifact-newline": ("rules[0].scope.artifact[0]", lambda b: rule(b)["scope"].update(artifact=["/a\n"])),
    "scope-orchestrator": ("rules[0].scope.orchestrator[0]", lambda b: rule(b)["scope"].update(orchestrator=["argo"])),
    "scope-dag-and-pipeline": ("rules[0].scope", lambda b: rule(b)["scope"].update(pipeline=["p"])),
    "scope-unknown": ("rules[0].scope.user", lambda b: rule(b)["scope"].update(user=["root"])),
    "identities-unknown-one": ("", lambda b: require(b).update(identities={"any_of": ["nobody"]})),
    "identities-two-forms": (
        "rules[0].require.identities",
        lambda b: require(b).update(identities={"any_of": ["a"], "all_of": ["b"]}),
    ),
    "identities-no-form": ("rules[0].require.identities", lambda b: require(b).update(identities={})),
    "identities-at-least-alone": (
        "rules[0].require.identities",
        lambda b: require(b).update(identities={"at_least": 1}),
    ),
    "identities-of-alone": ("rules[0].require.identities", lambda b: require(b).update(identities={"of": ["a"]})),
    "identities-too-many": (
        "rules[0].require.identities",
        lambda b: require(b).update(identities={"at_least": 3, "of": ["a", "b"]}),
    ),
    "identities-none-needed": (
        "rules[0].require.identities.at_least",
        lambda b: require(b).update(identities={"at_least": 0, "of": ["a"]}),
    ),
    "identities-twice": (
        "rules[0].require.identities",
        lambda b: require(b).update(identities={"at_least": 2, "of": ["a", "a"]}),
    ),
    "identities-empty": ("rules[0].require.identities.any_of", lambda b: require(b).update(identities={"any_of": []})),
    "evidence-unknown": (
        "rules[0].require.evidence.vibes.[key]",
        lambda b: require(b).update(evidence={"vibes": {}}),
    ),
    "evidence-empty": ("rules[0].require.evidence", lambda b: require(b).update(evidence={})),
    "evidence-age-of-a-signature": (
        "rules[0]",
        lambda b: require(b).update(evidence={"signature": {"max_age": "1h"}, "provenance": {}}),
    ),
    "evidence-producers-without-provenance": ("rules[0]", lambda b: require(b).update(evidence={"signature": {}})),
    "age-zero": (
        "rules[0].require.evidence.provenance.max_age",
        lambda b: require(b).update(evidence={"provenance": {"max_age": "0h"}}),
    ),
    "age-number": (
        "rules[0].require.evidence.provenance.max_age",
        lambda b: require(b).update(evidence={"provenance": {"max_age": 24}}),
    ),
    "age-unit": (
        "rules[0].require.evidence.provenance.max_age",
        lambda b: require(b).update(evidence={"provenance": {"max_age": "1y"}}),
    ),
    "freshness-word": ("rules[0].require.freshness", lambda b: require(b).update(freshness="always")),
    "loaders-empty": ("rules[0].require.loaders", lambda b: require(b).update(loaders=[])),
    "producers-empty": ("rules[0].require.producers", lambda b: require(b).update(producers=[])),
    "reuse-without-age": ("rules[0].require.reuse_verdict.max_age", lambda b: require(b).update(reuse_verdict={})),
    "reuse-by-a-signer": (
        "",
        lambda b: require(b).update(reuse_verdict={"max_age": "1h", "verifiers": ["a"]}),
    ),
    "signer-private-key": (
        "signers[0]",
        lambda b: b["signers"][0].update(uri="-----BEGIN PRIVATE KEY-----"),
    ),
    "delegation-without-key": ("delegations[0].key", lambda b: b["delegations"][0].pop("key")),
    "delegation-twice": ("", lambda b: b["delegations"].append(copy.deepcopy(b["delegations"][0]))),
    "delegation-policy": ("delegations[0]", lambda b: b["delegations"][0].update(team="policy")),
    "delegation-policy-relative": ("delegations[0]", lambda b: b["delegations"][0].update(policy="team.json")),
    "delegation-policy-other-case": ("delegations[0]", lambda b: b["delegations"][0].update(policy="File:///t.json")),
    "delegation-policy-no-scheme": ("delegations[0]", lambda b: b["delegations"][0].update(policy="://t.json")),
    "delegation-policy-other-host": ("delegations[0]", lambda b: b["delegations"][0].update(policy="file://h/t.json")),
    "delegation-by-name": ("delegations[0]", lambda b: b["delegations"][0].update(artifact=["name:x"])),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    where, edit = REFUSED[case]
    with pytest.raises(PolicyError) as caught:
        parse_policy(edited(POLICY, edit))
    assert caught.value.code == "POLICY_MALFORMED"
    found = [place(item[0]).replace("\n", "\\u000a") for item in caught.value.problems]
    assert any(text == where or text.startswith(where) for text in found), found
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "narrow"),
    [
        ("**", False),
        ("*/x", False),
        ("name:*", False),
        ("/**", False),
        ("/*/x", False),
        ("file:/**", False),
        ("file:///**", False),
        ("file://localhost/**", False),
        ("FILE://localhost/**", False),
        ("s3://**", False),
        ("s3://models*/**", False),
        ("name:churn", True),
        ("/scratch/**", True),
        ("file:/scratch/**", True),
        ("file://localhost/scratch/**", True),
        ("s3://scratch/**", True),
        ("s3://scratch", True),
    ],
)
def test_off_is_never_global(pattern: str, narrow: bool) -> None:
    data = edited(POLICY, lambda b: b["rules"].append({"name": "o", "scope": {"artifact": [pattern]}, "level": "off"}))
    if narrow:
        assert parse_policy(data).rules[-1].level == "off"
    else:
        with pytest.raises(PolicyError, match="never global"):
            parse_policy(data)


@pytest.mark.parametrize("field", NOT_LANDED)
def test_what_has_not_landed_is_said_and_not_ignored(field: str) -> None:
    for value in ({}, [], "x", None, False):
        with pytest.raises(PolicyError) as caught:
            parse_policy(edited(POLICY, lambda b, value=value: require(b).update({field: value})))
        assert caught.value.code == "POLICY_FIELD_NOT_LANDED"
        assert place(caught.value.problems[0][0]) == f"rules[0].require.{field}"


@pytest.mark.parametrize(
    ("version", "code"),
    [
        ("sealflow/v2", "POLICY_TOO_NEW"),
        ("sealflow/v10", "POLICY_TOO_NEW"),
        ("sealflow/v0", "POLICY_MALFORMED"),
        ("sealflow/v01", "POLICY_MALFORMED"),
        ("sealflow/v1 ", "POLICY_MALFORMED"),
        ("sealflow/v2beta1", "POLICY_MALFORMED"),
        ("other/v2", "POLICY_MALFORMED"),
        (2, "POLICY_MALFORMED"),
    ],
)
def test_versions(version: Any, code: str) -> None:
    """A newer form may hold fields of its own, so its version is said before anything else is."""
    for reader, body in ((parse_policy, POLICY), (parse_waiver, WAIVER)):
        with pytest.raises(PolicyError) as caught:
            reader(edited(body, lambda b: b.update(apiVersion=version, something="new")))
        assert caught.value.code == code


def test_all_problems_are_listed() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(edited(POLICY, lambda b: (b.update(version=0), rule(b).update(level="x"), b.update(z=1))))
    assert {place(item[0]) for item in caught.value.problems} == {"version", "rules[0].level", "z"}


REFUSED_WAIVERS: dict[str, Edit] = {
    "no-kind": lambda b: b.pop("kind"),
    "other-kind": lambda b: b.update(kind="Policy"),
    "a-policys-field": lambda b: b.update(version=1),
    "no-artifact": lambda b: b["scope"].pop("artifact"),
    "no-rules": lambda b: b.update(rules=[]),
    "rule-as-text": lambda b: b.update(rules=["models"]),
    "rule-without-digest": lambda b: b["rules"][0].pop("digest"),
    "rule-with-two-slashes": lambda b: b["rules"][0].update(name="a/b/c"),
    "rule-by-pattern": lambda b: b["rules"][0].update(name="*"),
    "short-reason": lambda b: b.update(reason="x"),
    "long": lambda b: b.update(expires="2026-06-01T00:00:00Z"),
    "backwards": lambda b: b.update(expires="2025-12-31T00:00:00Z"),
    "of-no-length": lambda b: b.update(expires=b["not_before"]),
    "at-the-end-of-time": lambda b: b.update(not_before="9999-12-31T00:00:00Z", expires="9999-12-31T01:00:00Z"),
    "digest": lambda b: b.update(digest="md5:" + "0" * 32),
}


@pytest.mark.parametrize("case", REFUSED_WAIVERS)
def test_refused_waivers(case: str) -> None:
    parse_waiver(json.dumps(WAIVER).encode())
    with pytest.raises(PolicyError):
        parse_waiver(edited(WAIVER, REFUSED_WAIVERS[case]))


@pytest.mark.parametrize(
    ("text", "expected"), [("1m", 60), ("90m", 5400), ("24h", 86400), ("30d", 2592000), ("2w", 1209600)]
)
def test_durations(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "0d", "1.5h", "1H", "1h ", "1h\n", "1000000h", "\u0661h"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(text)


@pytest.mark.parametrize(("schema", "body"), [(policy_schema(), POLICY), (waiver_schema(), WAIVER)])
def test_the_published_schema_takes_what_we_take(schema: Body, body: Body) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator.validate(body)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**body, "default": "allow"})


SPELLINGS: dict[str, Callable[[str], str]] = {
    "without-the-last-line-break": lambda text: text.rstrip("\n"),
    "with-one-more": lambda text: text + "\n",
    "carriage-returns": lambda text: text.replace("\n", "\r\n"),
    "one-long-line": lambda text: (
        text.replace("\n", "").replace("KEY-----M", "KEY-----\nM").replace("-----END", "\n-----END")
    ),
    "a-preface": lambda text: "my key\n" + text,
    "two-keys": lambda text: text * 2,
    "spaces": lambda text: text.replace("\n", " \n"),
    "another-label": lambda text: text.replace("PUBLIC KEY", "EC PUBLIC KEY"),
    "not-base64": lambda text: text.replace("M", "!", 1),
    "spare-bits": lambda text: text.replace("==\n", "=A\n"),
    "empty": lambda text: "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
    "short": lambda text: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_a_key_has_one_spelling(case: str) -> None:
    """Else one key under two spellings would look like two."""
    text = SPELLINGS[case](pem(0))
    assert text != pem(0)
    for change in (
        lambda b: b["identities"]["a"].update(key=text),
        lambda b: b["delegations"][0].update(key=text),
    ):
        with pytest.raises(PolicyError):
            CompiledPolicy(parse_policy(edited(POLICY, change)))


def test_every_kind_of_key_that_we_make_is_taken() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    from tests.pki import public_pem

    kinds: list[Any] = [ec.generate_private_key(curve) for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())]
    for key in [*kinds, ed25519.Ed25519PrivateKey.generate()]:
        body = document([])
        body["identities"] = {"a": {"key": public_pem(key).decode()}}
        CompiledPolicy(parse_policy(json.dumps(body).encode()))
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256K1())):
        body["identities"] = {"a": {"key": public_pem(key).decode()}}
        with pytest.raises(PolicyError):
            CompiledPolicy(parse_policy(json.dumps(body).encode()))
