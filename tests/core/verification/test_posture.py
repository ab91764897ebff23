"""The judgement of facts: each check passes on what it expects, and on nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from sealflow.findings import conclude
from sealflow.keys.posture_kms import KeyFacts, key_facts
from sealflow.storage.aws import Answer
from sealflow.storage.posture_s3 import BucketFacts, Trail, bucket_facts
from sealflow.verification.posture import CHECKS, Result, bucket_key, findings, judge, unneeded
from sealflow.verification.trail_selectors import coverage
from tests.postures import ACCOUNT, GOOD, TLS, client, policy, statement, world

pytestmark = pytest.mark.slow

DENIED = Answer(problem="It was refused (AccessDenied).", next_step="Allow it.", code="AccessDenied")
STRANGER = "999999999999"


class Facts(NamedTuple):
    bucket: BucketFacts
    key: KeyFacts


@pytest.fixture(scope="module")
def read() -> Iterator[Facts]:
    with world():
        bucket = bucket_facts(client("s3"), client, GOOD)
        found = bucket_key(bucket)
        assert found
        yield Facts(bucket, key_facts(client, found, None))


@pytest.fixture
def facts(read: Facts) -> Facts:
    """A bucket that passes every check."""
    return Facts(setting(read.bucket, versioning={"Status": "Enabled", "MFADelete": "Enabled"}), read.key)


def setting(bucket: BucketFacts, **changed: Any) -> BucketFacts:
    """Return the facts with other settings: what a service says, ``None`` for nothing, or an answer."""
    answers = {name: item if isinstance(item, Answer) else Answer(item) for name, item in changed.items()}
    return replace(bucket, settings={**bucket.settings, **answers})


def outcomes(facts: Facts, **options: Any) -> dict[str, Result]:
    return {item.check: item for item in judge(facts.bucket, [facts.key], **options)}


def of_policy(facts: Facts, *statements: Any, **options: Any) -> tuple[str, str]:
    """Return what comes of a bucket's policy: for everybody, and for other accounts."""
    body = {"Policy": policy(TLS, *statements)}
    found = outcomes(Facts(setting(facts.bucket, policy=body), facts.key), **options)
    return found["policy_public"].outcome, found["policy_accounts"].outcome


def test_a_good_bucket_passes_every_check(facts: Facts) -> None:
    found = outcomes(facts)
    assert {name: item.outcome for name, item in found.items()} == dict.fromkeys(CHECKS, "PASS")
    assert not list(findings(found.values()))


def test_everything_unknown_is_unknown_and_nothing_else(facts: Facts) -> None:
    bucket = replace(
        facts.bucket, owned=None, location=DENIED, settings=dict.fromkeys(facts.bucket.settings, DENIED), trails=DENIED
    )
    found = outcomes(Facts(bucket, KeyFacts("k", DENIED, DENIED, DENIED)))
    assert {item.outcome for item in found.values()} == {"UNKNOWN"}
    assert {item.outcome for item in judge(bucket, [])} == {"UNKNOWN"}
    status, decided = conclude(findings(found.values()))
    assert status == "unverifiable"
    assert {item.code for item in decided} == {"POSTURE_UNKNOWN"}
    # What only warns when it is wrong cannot stop a task when nobody knows.
    assert {item.rule for item in decided if item.severity == "warning"} == {"bucket_key", "replication", "lifecycle"}
    assert all(item.next_step for item in decided)


#: Other forms of an answer than those that are documented.
STRANGE: list[Any] = [{}, {"x": 1}, [], "Enabled", 1, True]


@pytest.mark.parametrize("strange", STRANGE, ids=repr)
def test_no_strange_answer_passes(facts: Facts, strange: Any) -> None:
    """Each member of each answer is replaced in turn; what then passes must not have looked at it."""
    checked = 0
    for name, answer in facts.bucket.settings.items():
        for path in paths(answer.body):
            changed = with_member(answer.body, path, strange)
            if changed == answer.body:
                continue
            found = outcomes(Facts(setting(facts.bucket, **{name: changed}), facts.key))
            names = LOOKED_AT.get((name, path[-1]), ())
            assert not [item for item in names if found[item].outcome == "PASS"], (name, path)
            checked += len(names)
    assert checked > 15


#: Which checks rest on which member of which setting.
LOOKED_AT = {
    ("public_access_block", "PublicAccessBlockConfiguration"): ["bucket_public_access"],
    ("account_public_access_block", "PublicAccessBlockConfiguration"): ["account_public_access"],
    ("policy_status", "PolicyStatus"): ["policy_status"],
    ("policy_status", "IsPublic"): ["policy_status"],
    ("policy", "Policy"): ["policy_public", "policy_accounts", "tls_only"],
    ("acl", "Owner"): ["acl_grants"],
    ("ownership", "OwnershipControls"): ["acls_disabled"],
    ("ownership", "Rules"): ["acls_disabled"],
    ("ownership", "ObjectOwnership"): ["acls_disabled"],
    ("encryption", "ServerSideEncryptionConfiguration"): ["encryption_kms"],
    ("encryption", "ApplyServerSideEncryptionByDefault"): ["encryption_kms"],
    ("encryption", "SSEAlgorithm"): ["encryption_kms"],
    ("encryption", "KMSMasterKeyID"): ["encryption_kms"],
    ("versioning", "MFADelete"): ["mfa_delete"],
    ("object_lock", "ObjectLockConfiguration"): ["object_lock"],
    ("object_lock", "Rule"): ["object_lock"],
    ("object_lock", "DefaultRetention"): ["object_lock"],
    ("replication", "ReplicationConfiguration"): ["replication"],
}


def paths(body: Any, so_far: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for name, value in items:
        yield (*so_far, name)
        yield from paths(value, (*so_far, name))


def with_member(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(body) if isinstance(body, dict) else list(body)
    copy[path[0]] = with_member(copy[path[0]], path[1:], value)
    return copy


BLOCK = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)


@pytest.mark.parametrize(
    ("name", "body", "check", "outcome"),
    [
        *(
            pytest.param(
                "public_access_block",
                {"PublicAccessBlockConfiguration": BLOCK | {name: False}},
                "bucket_public_access",
                "FAIL",
                id=f"block without {name}",
            )
            for name in BLOCK
        ),
        pytest.param("public_access_block", None, "bucket_public_access", "FAIL", id="no block"),
        pytest.param(
            "account_public_access_block", None, "account_public_access", "FAIL", id="no block of the account"
        ),
        pytest.param("policy_status", {"PolicyStatus": {"IsPublic": True}}, "policy_status", "FAIL", id="public"),
        pytest.param("policy_status", {"PolicyStatus": {"IsPublic": "FALSE"}}, "policy_status", "UNKNOWN", id="a text"),
        pytest.param("policy", None, "tls_only", "FAIL", id="no policy"),
        pytest.param("policy", None, "policy_public", "PASS", id="no policy lets nobody in"),
        pytest.param("ownership", None, "acls_disabled", "FAIL", id="no ownership"),
        pytest.param(
            "ownership",
            {"OwnershipControls": {"Rules": [{"ObjectOwnership": "ObjectWriter"}]}},
            "acls_disabled",
            "FAIL",
            id="writer owns",
        ),
        pytest.param("encryption", None, "encryption_kms", "FAIL", id="no encryption"),
        pytest.param("versioning", {"Status": "Suspended"}, "versioning", "FAIL", id="suspended"),
        pytest.param("versioning", {}, "versioning", "FAIL", id="never versioned"),
        pytest.param("versioning", {"Status": "Enabled"}, "mfa_delete", "FAIL", id="no MFA"),
        pytest.param("versioning", {"Status": "enabled"}, "versioning", "UNKNOWN", id="another spelling"),
        pytest.param("object_lock", None, "object_lock", "FAIL", id="no lock"),
        pytest.param(
            "object_lock",
            {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}},
            "object_lock",
            "FAIL",
            id="no retention",
        ),
        pytest.param(
            "object_lock",
            {
                "ObjectLockConfiguration": {
                    "ObjectLockEnabled": "Enabled",
                    "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 0}},
                }
            },
            "object_lock",
            "UNKNOWN",
            id="for no day",
        ),
        pytest.param("logging", {}, "access_logging", "FAIL", id="no logs"),
        pytest.param(
            "logging", {"LoggingEnabled": {"TargetBucket": GOOD}}, "access_logging", "FAIL", id="logs into itself"
        ),
        pytest.param("logging", {"LoggingEnabled": {}}, "access_logging", "UNKNOWN", id="logs nowhere"),
        pytest.param("replication", None, "replication", "FAIL", id="no replication"),
        pytest.param("lifecycle", {"Rules": [{"Status": "Disabled"}]}, "lifecycle", "FAIL", id="disabled rule"),
    ],
)
def test_settings(facts: Facts, name: str, body: Any, check: str, outcome: str) -> None:
    found = outcomes(Facts(setting(facts.bucket, **{name: body}), facts.key))
    assert found[check].outcome == outcome
    assert found[check].next_step if outcome != "PASS" else True
    # Nothing but what looks at this setting changes.
    assert {item for item, result in found.items() if result.outcome != "PASS"} <= {check, *RELATED.get(name, ())}


RELATED = {
    "policy": ("tls_only",),
    "versioning": ("mfa_delete", "versioning"),
    "encryption": ("bucket_key", "encryption_kms"),
}


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        ({"SSEAlgorithm": "AES256"}, "FAIL"),
        ({"SSEAlgorithm": "aws:kms"}, "FAIL"),
        ({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/team"}, "FAIL"),
        ({"SSEAlgorithm": "aws:kms:dsse", "KMSMasterKeyID": f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/k"}, "PASS"),
        ({"SSEAlgorithm": "AES256", "KMSMasterKeyID": f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/k"}, "FAIL"),
        ({"SSEAlgorithm": "aws:new"}, "UNKNOWN"),
    ],
)
def test_default_encryption(facts: Facts, rule: Any, outcome: str) -> None:
    body = {"ServerSideEncryptionConfiguration": {"Rules": [{"ApplyServerSideEncryptionByDefault": rule}]}}
    assert outcomes(Facts(setting(facts.bucket, encryption=body), facts.key))["encryption_kms"].outcome == outcome


@pytest.mark.parametrize(
    ("grantee", "outcome"),
    [
        ({"Type": "Group", "URI": "http://acs.amazonaws.com/groups/global/AllUsers"}, "FAIL"),
        ({"Type": "Group", "URI": "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"}, "FAIL"),
        ({"Type": "CanonicalUser", "ID": "a" * 64}, "FAIL"),
        ({"Type": "AmazonCustomerByEmail", "EmailAddress": "x@example.com"}, "FAIL"),
        ({"Type": "CanonicalUser", "ID": "own"}, "PASS"),
        ({"Type": "Group", "ID": "own", "URI": "http://acs.amazonaws.com/groups/global/AllUsers"}, "FAIL"),
        ("own", "UNKNOWN"),
    ],
)
def test_access_lists(facts: Facts, grantee: Any, outcome: str) -> None:
    body = {"Owner": {"ID": "own"}, "Grants": [{"Grantee": grantee, "Permission": "READ"}]}
    assert outcomes(Facts(setting(facts.bucket, acl=body), facts.key))["acl_grants"].outcome == outcome


ROLE = f"arn:aws:iam::{STRANGER}:role/reader"


@pytest.mark.parametrize(
    ("principal", "condition", "public", "accounts"),
    [
        pytest.param({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, None, "PASS", "PASS", id="own account"),
        pytest.param({"AWS": ACCOUNT}, None, "PASS", "PASS", id="own digits"),
        pytest.param({"AWS": ROLE}, None, "PASS", "FAIL", id="another account"),
        pytest.param({"AWS": [ACCOUNT, STRANGER]}, None, "PASS", "FAIL", id="own and another"),
        pytest.param("*", None, "FAIL", "FAIL", id="everybody"),
        pytest.param({"AWS": "*"}, None, "FAIL", "FAIL", id="every AWS principal"),
        pytest.param(
            "*", {"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}, "PASS", "PASS", id="everybody of the account"
        ),
        pytest.param(
            "*", {"StringEquals": {"AWS:principalaccount": [ACCOUNT]}}, "PASS", "PASS", id="keys have no case"
        ),
        pytest.param(
            "*", {"StringEquals": {"aws:PrincipalAccount": STRANGER}}, "PASS", "FAIL", id="everybody of another"
        ),
        pytest.param(
            "*", {"ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/*"}}, "PASS", "PASS", id="own roles"
        ),
        pytest.param(
            "*", {"StringEquals": {"aws:PrincipalOrgID": "o-abcdefghij"}}, "PASS", "FAIL", id="an organization"
        ),
        pytest.param({"Service": "logging.s3.amazonaws.com"}, None, "PASS", "FAIL", id="a service for anybody"),
        pytest.param(
            {"Service": "logging.s3.amazonaws.com"},
            {"StringEquals": {"aws:SourceAccount": ACCOUNT}},
            "PASS",
            "PASS",
            id="a service for the account",
        ),
        pytest.param(
            {"Service": "cloudtrail.amazonaws.com"},
            {"ArnEquals": {"aws:SourceArn": f"arn:aws:cloudtrail:eu-west-1:{ACCOUNT}:trail/t"}},
            "PASS",
            "PASS",
            id="a service for a trail of the account",
        ),
        pytest.param(
            {"AWS": "arn:aws:iam::cloudfront:user/CloudFront Origin Access Identity E1"},
            None,
            "UNKNOWN",
            "UNKNOWN",
            id="blanks in an ARN",
        ),
    ],
)
def test_principals(facts: Facts, principal: Any, condition: Any, public: str, accounts: str) -> None:
    assert of_policy(facts, statement(principal=principal, condition=condition)) == (public, accounts)


def test_allowed_accounts_and_organizations(facts: Facts) -> None:
    one = statement(principal={"AWS": ROLE})
    two = statement(condition={"StringEquals": {"aws:PrincipalOrgID": "o-abcdefghij"}})
    assert of_policy(facts, one, two, allowed=[STRANGER, "o-abcdefghij"]) == ("PASS", "PASS")
    assert of_policy(facts, one, two, allowed=[STRANGER]) == ("PASS", "FAIL")


def test_nobody_is_a_stranger_where_the_owner_is_unknown(facts: Facts) -> None:
    bucket = replace(facts.bucket, owner="", owned=None)
    assert of_policy(Facts(bucket, facts.key), statement(principal={"AWS": ROLE})) == ("PASS", "UNKNOWN")


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"KeyManager": "AWS"}, {"key_customer_managed": "FAIL"}),
        ({"AWSAccountId": STRANGER}, {"key_customer_managed": "FAIL"}),
        ({"AWSAccountId": None}, {"key_customer_managed": "UNKNOWN"}),
        ({"KeyState": "PendingDeletion"}, {"key_enabled": "FAIL"}),
        ({"KeyState": "Disabled"}, {"key_enabled": "FAIL"}),
        ({"KeyState": "Updating"}, {"key_enabled": "UNKNOWN"}),
        ({"KeySpec": "ECC_NIST_P256"}, {"key_rotation": "SKIPPED"}),
    ],
    ids=repr,
)
def test_keys(facts: Facts, change: Any, outcome: dict[str, str]) -> None:
    assert facts.key.metadata.body is not None
    metadata = Answer({"KeyMetadata": facts.key.metadata.body["KeyMetadata"] | change})
    found = outcomes(Facts(facts.bucket, replace(facts.key, metadata=metadata)))
    assert {name: item.outcome for name, item in found.items() if item.outcome != "PASS"} == outcome


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({"KeyRotationEnabled": False}, "FAIL"),
        ({}, "UNKNOWN"),
        (None, "SKIPPED"),
        ({"KeyRotationEnabled": True}, "PASS"),
        ({"KeyRotationEnabled": True, "RotationPeriodInDays": 365}, "PASS"),
        ({"KeyRotationEnabled": True, "RotationPeriodInDays": 90}, "PASS"),
        ({"KeyRotationEnabled": True, "RotationPeriodInDays": 367}, "FAIL"),
        ({"KeyRotationEnabled": True, "RotationPeriodInDays": 2560}, "FAIL"),
        ({"KeyRotationEnabled": True, "RotationPeriodInDays": "90"}, "UNKNOWN"),
        ({"KeyRotationEnabled": True, "RotationPeriodInDays": True}, "UNKNOWN"),
        ({"KeyRotationEnabled": False, "RotationPeriodInDays": 90}, "FAIL"),
    ],
    ids=repr,
)
def test_rotation(facts: Facts, body: Any, outcome: str) -> None:
    found = outcomes(Facts(facts.bucket, replace(facts.key, rotation=Answer(body))))
    assert found["key_rotation"].outcome == outcome


def test_a_key_that_is_gone(facts: Facts) -> None:
    gone = Answer(code="NotFoundException")
    found = outcomes(Facts(facts.bucket, KeyFacts("k", gone, gone, gone)))
    assert {found[name].outcome for name, check in CHECKS.items() if check.of_key} == {"FAIL"}


def test_a_key_policy_that_lets_everybody_in(facts: Facts) -> None:
    body = {"Policy": policy({"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"})}
    found = outcomes(Facts(facts.bucket, replace(facts.key, policy=Answer(body))))
    assert (found["key_policy_public"].outcome, found["key_policy_accounts"].outcome) == ("FAIL", "FAIL")


# --- Trails ---

TARGET = f"arn:aws:s3:::{GOOD}/"


def classic(*values: str, kind: str = "All", of: str = "AWS::S3::Object") -> dict[str, Any]:
    return {"EventSelectors": [{"ReadWriteType": kind, "DataResources": [{"Type": of, "Values": list(values)}]}]}


def advanced(*fields: dict[str, Any]) -> dict[str, Any]:
    always = [
        {"Field": "eventCategory", "Equals": ["Data"]},
        {"Field": "resources.type", "Equals": ["AWS::S3::Object"]},
    ]
    return {"AdvancedEventSelectors": [{"Name": "n", "FieldSelectors": [*always, *fields]}]}


@pytest.mark.parametrize(
    ("selectors", "kinds", "unclear"),
    [
        pytest.param(classic("arn:aws:s3"), "rw", "", id="all buckets"),
        pytest.param(classic("arn:aws:s3:::"), "rw", "", id="all buckets, spelled out"),
        pytest.param(classic(TARGET), "rw", "", id="the bucket"),
        pytest.param(classic(TARGET, kind="ReadOnly"), "r", "", id="reads"),
        pytest.param(classic(TARGET, kind="WriteOnly"), "w", "", id="writes"),
        pytest.param(classic(TARGET, kind="Some"), "", "rw", id="an unknown kind"),
        pytest.param(classic(f"{TARGET}a/"), "", "rw", id="a part of it"),
        pytest.param(classic(f"arn:aws:s3:::{GOOD}"), "", "", id="no slash"),
        pytest.param(classic(f"arn:aws:s3:::{GOOD[:-1]}"), "", "", id="begins alike"),
        pytest.param(classic("arn:aws:s3:::other/"), "", "", id="another bucket"),
        pytest.param(classic("arn:aws:lambda", of="AWS::Lambda::Function"), "", "", id="functions"),
        pytest.param({"EventSelectors": "all"}, "", "rw", id="no list"),
        pytest.param({}, "", "", id="none"),
        pytest.param(advanced(), "rw", "", id="advanced: all"),
        pytest.param(advanced({"Field": "resources.ARN", "StartsWith": [TARGET]}), "rw", "", id="advanced: bucket"),
        pytest.param(advanced({"Field": "readOnly", "Equals": ["true"]}), "r", "", id="advanced: reads"),
        pytest.param(advanced({"Field": "readOnly", "Equals": ["false"]}), "w", "", id="advanced: writes"),
        pytest.param(
            advanced({"Field": "readOnly", "Equals": ["true"]}, {"Field": "readOnly", "Equals": ["false"]}),
            "",
            "",
            id="advanced: neither",
        ),
        pytest.param(advanced({"Field": "readOnly", "NotEquals": ["false"]}), "", "rw", id="advanced: not writes"),
        pytest.param(
            advanced({"Field": "resources.ARN", "NotStartsWith": ["arn:aws:s3:::logs/"]}), "rw", "", id="but the logs"
        ),
        pytest.param(advanced({"Field": "resources.ARN", "NotStartsWith": [TARGET]}), "", "", id="all but this"),
        pytest.param(
            advanced({"Field": "resources.ARN", "NotStartsWith": [f"{TARGET}tmp/"]}), "", "rw", id="but a part"
        ),
        pytest.param(advanced({"Field": "resources.ARN", "Equals": [f"{TARGET}a"]}), "", "rw", id="one object"),
        pytest.param(advanced({"Field": "resources.ARN", "EndsWith": [".bin"]}), "", "rw", id="an ending"),
        pytest.param(advanced({"Field": "eventName", "Equals": ["GetObject"]}), "", "rw", id="one event"),
        pytest.param(
            advanced({"Field": "userIdentity.arn", "NotEquals": ["arn:aws:iam::1:role/x"]}), "", "rw", id="but one role"
        ),
        pytest.param(
            {"AdvancedEventSelectors": [{"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}]}]},
            "",
            "",
            id="management",
        ),
        pytest.param(
            {"AdvancedEventSelectors": [{"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Data"]}]}]},
            "",
            "rw",
            id="no type",
        ),
    ],
)
def test_selectors(selectors: Any, kinds: str, unclear: str) -> None:
    seen = coverage(selectors, TARGET)
    assert ("".join(sorted(k[0] for k in seen.kinds)), "".join(sorted(k[0] for k in seen.unclear))) == (kinds, unclear)


def test_a_prefix_is_covered_by_its_folder() -> None:
    assert coverage(classic(f"{TARGET}models/"), f"{TARGET}models/v1/").kinds == {"read", "write"}
    assert coverage(classic(f"{TARGET}models/v1/"), f"{TARGET}models/").unclear == {"read", "write"}


@pytest.mark.parametrize(
    ("change", "check", "outcome"),
    [
        pytest.param({"status": Answer({"IsLogging": False})}, "data_events_read", "FAIL", id="stopped"),
        pytest.param({"status": DENIED}, "data_events_read", "UNKNOWN", id="status unknown"),
        pytest.param({"status": Answer({})}, "data_events_read", "UNKNOWN", id="status strange"),
        pytest.param(
            {"status": Answer({"IsLogging": True, "LatestDeliveryError": "NoSuchBucket"})},
            "data_events_read",
            "FAIL",
            id="delivers nothing",
        ),
        pytest.param(
            {"status": Answer({"IsLogging": True, "LatestDeliveryError": ""})},
            "data_events_read",
            "PASS",
            id="delivers",
        ),
        pytest.param(
            {"status": Answer({"IsLogging": True, "LatestDeliveryError": 1})},
            "data_events_read",
            "UNKNOWN",
            id="delivery strange",
        ),
        pytest.param({"selectors": DENIED}, "data_events_write", "UNKNOWN", id="selectors unknown"),
        pytest.param({"selectors": Answer({})}, "data_events_write", "FAIL", id="no data events"),
        pytest.param({"LogFileValidationEnabled": False}, "trail_validation", "FAIL", id="no digests"),
        pytest.param({"LogFileValidationEnabled": "false"}, "trail_validation", "FAIL", id="a text"),
        pytest.param({"IsMultiRegionTrail": False}, "trail_multi_region", "FAIL", id="one region"),
        pytest.param({"KmsKeyId": None}, "trail_kms", "FAIL", id="no key"),
        pytest.param(
            {"IsMultiRegionTrail": False, "HomeRegion": "us-east-1"}, "data_events_read", "FAIL", id="elsewhere"
        ),
    ],
)
def test_trails(facts: Facts, change: Any, check: str, outcome: str) -> None:
    (trail,) = facts.bucket.trail
    body = {**trail.body, **{name: item for name, item in change.items() if not isinstance(item, Answer)}}
    answers = {name: item for name, item in change.items() if isinstance(item, Answer)}
    made = Trail(**{"body": body, "status": trail.status, "selectors": trail.selectors, **answers})
    assert outcomes(Facts(replace(facts.bucket, trail=(made,)), facts.key))[check].outcome == outcome


def test_one_trail_that_records_is_enough(facts: Facts) -> None:
    (trail,) = facts.bucket.trail
    other = replace(trail, selectors=DENIED, status=DENIED)
    found = outcomes(Facts(replace(facts.bucket, trail=(other, trail)), facts.key))
    assert {item.outcome for item in found.values()} == {"PASS"}


def test_no_trail(facts: Facts) -> None:
    found = outcomes(Facts(replace(facts.bucket, trail=()), facts.key))
    failed = {name for name, item in found.items() if item.outcome == "FAIL"}
    assert failed == {"data_events_read", "data_events_write", "trail_validation", "trail_multi_region", "trail_kms"}


# --- What is left out, and how results are told ---


def test_what_is_skipped_is_shown_with_its_reason(facts: Facts) -> None:
    bucket = setting(facts.bucket, versioning={"Status": "Enabled"})
    found = outcomes(Facts(bucket, facts.key), skipped={"mfa_delete": "object lock protects"})
    assert found["mfa_delete"].outcome == "SKIPPED"
    status, told = conclude(findings(found.values()))
    assert status == "passed"
    assert [(item.code, item.severity, "object lock protects" in item.message) for item in told] == [
        ("POSTURE_SKIPPED", "note", True)
    ]


def test_a_failure_outweighs_what_nobody_knows(facts: Facts) -> None:
    bucket = setting(facts.bucket, versioning={}, acl=DENIED)
    status, told = conclude(findings(outcomes(Facts(bucket, facts.key)).values()))
    assert (status, told[0].code, told[0].expected, told[0].found) == (
        "failed",
        "POSTURE_FAILED",
        "versioning enabled",
        "nothing",
    )


def test_what_warns_does_not_fail(facts: Facts) -> None:
    bucket = setting(facts.bucket, replication=None, lifecycle=DENIED)
    status, told = conclude(findings(outcomes(Facts(bucket, facts.key)).values()))
    assert (status, {item.severity for item in told}, len(told)) == ("passed", {"warning"}, 2)


def test_settings_that_only_skipped_checks_look_at_are_not_needed() -> None:
    assert unneeded(["mfa_delete"]) == frozenset()
    assert unneeded(["mfa_delete", "versioning", "replication"]) == {"versioning", "replication"}
    assert unneeded(CHECKS) >= {"keys", "trails", "policy", "account_public_access_block"}


def test_every_check_says_what_it_expects_and_what_to_do() -> None:
    assert len(CHECKS) == 27
    assert all(check.expected and check.next_step for check in CHECKS.values())
