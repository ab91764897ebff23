"""Buckets that look safe and are not: each policy lets a stranger in, or lets plain HTTP through, by a trick."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sealflow.storage.aws import ask
from sealflow.verification.resource_policy import (
    EVERYBODY,
    MAX_POLICY,
    UnclearError,
    denies_plain_http,
    grants,
    read_policy,
)
from tests.postures import ACCOUNT, GOOD, policy, statement

pytestmark = pytest.mark.slow

ARN = f"arn:aws:s3:::{GOOD}"
STRANGER = "999999999999"


def let_in(*statements: Any) -> tuple[set[str], bool]:
    """Return who is let in, and whether anybody of them is unclear."""
    found = grants(read_policy(policy(*statements)))
    return {item.who for item in found if not item.unclear}, any(item.unclear for item in found)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param({"Principal": {"AWS": ["arn:aws:iam::123456789012:root", "*"]}}, id="among others"),
        pytest.param({"Principal": {"AWS": "arn:aws:iam::*:root"}}, id="every account's root"),
        pytest.param({"Principal": {"AWS": "arn:aws:iam::12345678901?:root"}}, id="an account with a wildcard"),
        pytest.param({"Principal": None, "NotPrincipal": {"AWS": f"arn:aws:iam::{STRANGER}:root"}}, id="all but one"),
        pytest.param({"Condition": {"Bool": {"aws:SecureTransport": "true"}}}, id="over TLS"),
        pytest.param({"Condition": {"StringEquals": {"aws:UserAgent": "secret"}}}, id="a user agent"),
        pytest.param({"Condition": {"StringLike": {"aws:Referer": "https://team/*"}}}, id="a referrer"),
        pytest.param({"Condition": {"StringEquals": {"s3:x-amz-acl": "private"}}}, id="a header"),
        pytest.param({"Condition": {"DateLessThan": {"aws:CurrentTime": "2099-01-01T00:00:00Z"}}}, id="until 2099"),
        pytest.param({"Action": "s3:GetObject", "Resource": f"{ARN}/public/*"}, id="one folder"),
    ],
)
def test_everybody_is_let_in(made: Any) -> None:
    body = {name: value for name, value in {**statement(), **made}.items() if value is not None}
    assert EVERYBODY in let_in(body)[0]


@pytest.mark.parametrize(
    "condition",
    [
        pytest.param({"StringEqualsIfExists": {"aws:PrincipalAccount": ACCOUNT}}, id="if exists: nobody has none"),
        pytest.param({"ForAllValues:StringEquals": {"aws:PrincipalAccount": [ACCOUNT]}}, id="for all of nothing"),
        pytest.param({"StringNotEquals": {"aws:PrincipalAccount": STRANGER}}, id="all but one account"),
        pytest.param({"StringLike": {"aws:PrincipalAccount": "*"}}, id="any account"),
        pytest.param({"StringLike": {"aws:PrincipalAccount": "12345678901*"}}, id="accounts that begin so"),
        pytest.param({"StringEquals": {"aws:PrincipalAccount": [ACCOUNT, "*"]}}, id="own and a star"),
        pytest.param({"StringEquals": {"aws:PrincipalAccount": []}}, id="of none"),
        pytest.param({"StringEquals": {"aws:PrincipalAccount": 123456789012}}, id="a number"),
        pytest.param({"StringEquals": {"aws:PrincipalAccount": "${aws:SourceAccount}"}}, id="a variable"),
        pytest.param({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/trainer"}}, id="a role of any account"),
        pytest.param({"StringLike": {"aws:PrincipalArn": f"*{ACCOUNT}*"}}, id="digits anywhere"),
        pytest.param({"ArnNotLike": {"aws:PrincipalArn": f"arn:aws:iam::{STRANGER}:*"}}, id="not a stranger"),
        pytest.param({"StringLike": {"aws:PrincipalOrgID": "o-*"}}, id="any organization"),
        pytest.param({"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}, id="every address"),
        pytest.param({"StringEquals": {"aws:SourceVpce": "vpce-1a2b3c4d"}}, id="an endpoint of nobody knows whom"),
        pytest.param({"Null": {"aws:PrincipalAccount": "true"}}, id="without an account"),
        pytest.param({"StringEquals": {"aws:SourceAccount": ACCOUNT}}, id="what services say, said by anybody"),
        pytest.param({"StringEquals": "aws:PrincipalAccount"}, id="no object"),
        pytest.param("aws:PrincipalAccount", id="a text"),
        pytest.param({"StringEquals": {"aws:PrincipalTag/team": "ml"}}, id="a tag that a stranger sets on himself"),
        pytest.param({"StringEquals": {"aws:PrincipalAccount\u200b": ACCOUNT}}, id="a key that looks like it"),
    ],
)
def test_a_condition_that_does_not_bind_is_unclear(condition: Any) -> None:
    found, unclear = let_in(statement(condition=condition))
    # Never nobody, and never the own account alone.
    assert unclear or EVERYBODY in found
    assert ACCOUNT not in found


def test_all_conditions_hold_together_so_one_that_binds_is_enough() -> None:
    condition = {
        "StringEquals": {"aws:PrincipalAccount": ACCOUNT},
        "IpAddress": {"aws:SourceIp": "10.0.0.0/8"},
        "StringLike": {"aws:PrincipalArn": "*"},
    }
    assert let_in(statement(condition=condition)) == ({ACCOUNT}, False)


@pytest.mark.parametrize(
    ("principal", "condition"),
    [
        ("config.amazonaws.com", {"StringEqualsIfExists": {"aws:SourceAccount": ACCOUNT}}),
        ("config.amazonaws.com", {"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}),
        ("config.amazonaws.com", {"ArnLike": {"aws:SourceArn": "arn:aws:config:*:*:*"}}),
        ("config.amazonaws.com", {"StringLike": {"aws:SourceArn": f"arn:aws:sns:*:{ACCOUNT}:*"}}),
        ("config.amazonaws.com", {"ArnLike": {"aws:SourceArn": "arn:aws:s3:::bucket"}}),
    ],
)
def test_a_service_acts_for_everybody_unless_bound(principal: str, condition: Any) -> None:
    found, unclear = let_in(statement(principal={"Service": principal}, condition=condition))
    assert unclear or found == {f"{principal} for anybody"}
    assert ACCOUNT not in found


@pytest.mark.parametrize(
    "principal",
    [
        {"AWS": "AIDAEXAMPLEEXAMPLEEX"},
        {"AWS": []},
        {"AWS": [1]},
        {"AWS": f" {ACCOUNT}"},
        {"AWS": f"{ACCOUNT}\n"},
        {"AWS": "arn:aws:iam:::user/bob"},
        {"Federated": "cognito-identity.amazonaws.com"},
        {"Unheard": ACCOUNT},
        {},
        "",
        [],
        None,
    ],
    ids=repr,
)
def test_a_principal_that_nobody_knows_is_unclear(principal: Any) -> None:
    body = {**statement(), "Principal": principal}
    found, unclear = let_in(body)
    assert unclear
    assert not found


def test_a_denial_elsewhere_takes_nobody_away() -> None:
    denied = statement("Deny", condition={"StringNotEquals": {"aws:PrincipalAccount": ACCOUNT}})
    assert let_in(statement(), denied) == ({EVERYBODY}, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"Statement": "x"}',
        '{"Statement": [1]}',
        '{"Version": "2012-10-17"}',
        '{"Statement": [{"Effect": "allow", "Principal": "*"}]}',
        '{"Statement": [{"Effect": "Allow", "principal": "*"}]}',
        '{"Statement": [{"Effect": "Deny", "Effect": "Allow", "Principal": "*"}]}',
        '{"Statement": [], "statement": []}',
        '{"Statement": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"Id": "' + "x" * MAX_POLICY + '", "Statement": []}',
        '{"Id": "\\ud800", "Statement": []}',
        None,
        {},
    ],
    ids=lambda text: repr(text)[:40],
)
def test_a_text_that_is_no_policy_is_not_understood(text: Any) -> None:
    with pytest.raises(UnclearError):
        read_policy(text)


PLAIN = {"Bool": {"aws:SecureTransport": "false"}}


def denied(**changes: Any) -> tuple[bool, bool]:
    body = {**statement("Deny", condition=PLAIN), **changes}
    made = {name: value for name, value in body.items() if value is not None}
    return denies_plain_http(read_policy(json.dumps({"Statement": made})), ARN)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, (True, True), id="as documented"),
        pytest.param({"Principal": {"AWS": ["*"]}}, (True, True), id="everybody, spelled out"),
        pytest.param({"Resource": "*"}, (True, True), id="everything"),
        pytest.param({"Resource": f"{ARN}*"}, (True, True), id="what begins so"),
        pytest.param({"Action": ["S3:*"]}, (True, True), id="actions have no case"),
        pytest.param({"Condition": {"Bool": {"AWS:securetransport": ["false"]}}}, (True, True), id="nor have keys"),
        pytest.param({"Resource": f"{ARN}/*"}, (False, True), id="objects only"),
        pytest.param({"Resource": ARN}, (True, False), id="bucket only"),
        pytest.param({"Resource": [ARN, f"{ARN}/a/*"]}, (True, False), id="one folder"),
        pytest.param({"Resource": [ARN, f"{ARN}/?*"]}, (True, False), id="a wildcard before the end"),
        pytest.param({"Resource": ["arn:aws:s3:::other", "arn:aws:s3:::other/*"]}, (False, False), id="another bucket"),
        pytest.param({"Effect": "Allow"}, (False, False), id="allowed"),
        pytest.param({"Action": "s3:GetObject"}, (False, False), id="one action"),
        pytest.param({"Action": None, "NotAction": "s3:PutObject"}, (False, False), id="all actions but one"),
        pytest.param({"Resource": None, "NotResource": f"{ARN}/a"}, (False, False), id="all objects but one"),
        pytest.param({"Principal": {"AWS": ACCOUNT}}, (False, False), id="one account"),
        pytest.param({"Principal": None, "NotPrincipal": {"AWS": ACCOUNT}}, (False, False), id="all but one account"),
        pytest.param({"Condition": {"Bool": {"aws:SecureTransport": "true"}}}, (False, False), id="TLS denied"),
        pytest.param(
            {"Condition": {"Bool": {"aws:SecureTransport": ["false", "true"]}}}, (False, False), id="two values"
        ),
        pytest.param(
            {"Condition": {**PLAIN, "IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, (False, False), id="from one net"
        ),
        pytest.param(
            {"Condition": {"Bool": {"aws:SecureTransport": "false", "aws:ViaAWSService": "false"}}},
            (False, False),
            id="unless a service",
        ),
        pytest.param(
            {"Condition": {"NumericLessThan": {"s3:TlsVersion": "1.2"}}}, (False, False), id="old TLS, but not none"
        ),
        pytest.param({"Condition": {"StringEquals": {"aws:SecureTransport": "false"}}}, (False, False), id="a text"),
        pytest.param({"Condition": {"Bool": {"aws:SecureTransport": 0}}}, (False, False), id="a number"),
        pytest.param({"Condition": {"Bool": {"aws:SecureTransport": [0.0]}}}, (False, False), id="a fraction"),
        pytest.param({"Condition": {"Bool": {"aws:SecureTransport": False}}}, (True, True), id="a boolean"),
    ],
)
def test_plain_http_is_denied_without_a_gap(changes: Any, expected: tuple[bool, bool]) -> None:
    assert denied(**changes) == expected


def test_the_two_halves_may_stand_in_two_statements() -> None:
    halves = [statement("Deny", condition=PLAIN, Resource=where) for where in (ARN, f"{ARN}/*")]
    assert denies_plain_http(read_policy(policy(*halves)), ARN) == (True, True)


@pytest.mark.parametrize("body", [b"", b"<", b"<html>", b"{}", b"\x00" * 64, b"<a/>" * 3, "<é/>".encode("utf-16")])
@pytest.mark.parametrize("status", [200, 403, 500])
def test_whatever_a_server_sends_is_an_answer(body: bytes, status: int) -> None:
    """botocore falls over some of these in ways of its own; each has to end as something that nobody knows."""
    import io

    import boto3
    from botocore.awsrequest import AWSResponse
    from botocore.config import Config

    class Raw(io.BytesIO):
        def stream(self, **_: Any) -> Any:
            yield self.read()

    config = Config(retries={"total_max_attempts": 1})
    s3 = boto3.session.Session().client(
        "s3", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b", config=config
    )
    s3.meta.events.register("before-send", lambda **_: AWSResponse("https://s3", status, {}, Raw(body)))
    for operation in ("get_bucket_location", "get_bucket_acl", "get_bucket_policy"):
        answer = ask(s3, operation, "x", Bucket="b")
        assert not answer.known or status == 200
        assert answer.body is None or "Policy" not in answer.body or operation == "get_bucket_policy"
