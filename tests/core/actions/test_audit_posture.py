"""The check against moto, refusals of a service, and a store that is not AWS."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sealflow.actions import audit_posture
from sealflow.actions.audit_posture import Posture, check_posture
from sealflow.actions.recording import Recording
from sealflow.cli.app import app
from sealflow.errors import UsageError, VerificationError
from sealflow.keys import posture_kms
from sealflow.storage import Storages, posture_s3
from sealflow.verification.posture import CHECKS
from tests.postures import ACCOUNT, BAD, GOOD, LOGS, SKIP, client, watched
from tests.servers.s3 import S3Server

# Each check asks a dozen settings of a server or of what stands for one.
pytestmark = pytest.mark.server

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The audit events, which go nowhere else."""
    seen: list[Any] = []

    class Sink:
        def record(self, event: Any) -> None:
            seen.append(event)

    monkeypatch.setattr(
        audit_posture, "Recording", lambda *given, **named: Recording(*given, **{**named, "sink": Sink()})
    )
    return seen


@pytest.fixture(autouse=True)
def _recorded(events: list[Any]) -> None:
    pass


class Raw(io.BytesIO):
    """A body as botocore reads it."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


def refusing(*operations: str, code: str = "AccessDenied", status: int = 403) -> Callable[[str, str | None], Any]:
    """Return a maker of clients to whom these operations are refused (``s3:GetBucketAcl``; all without)."""

    def make(service: str, region: str | None) -> Any:
        made = client(service, region)
        made.meta.events.register("before-call", refuse)
        return made

    def refuse(model: Any, **_: Any) -> Any:
        name = f"{model.service_model.service_name}:{model.name}"
        if operations and name not in operations:
            return None
        from botocore.awsrequest import AWSResponse

        error = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        return AWSResponse("", status, {}, Raw(b"<Error/>")), error

    return make


def posture(location: str = f"s3://{GOOD}", make: Callable[[str, str | None], Any] = client, **options: Any) -> Posture:
    storages = Storages(s3_client=make("s3", None))
    return check_posture(location, storages=storages, clients=make, **{"skip": SKIP, "strict": False, **options})


def outcomes(found: Posture) -> dict[str, str]:
    return {item.check: item.outcome for item in found.results}


def test_a_good_bucket_passes(aws: str) -> None:
    found = posture(strict=True)
    assert found.verdict.status == "passed"
    assert outcomes(found) == {**dict.fromkeys(CHECKS, "PASS"), "mfa_delete": "SKIPPED"}
    assert [item.code for item in found.verdict.findings] == ["POSTURE_SKIPPED"]
    assert found.verdict.policy.startswith("sha256:")


def test_a_bad_bucket_fails_every_check_of_its_own(aws: str) -> None:
    found = posture(f"s3://{BAD}/")
    passed = {name for name, outcome in outcomes(found).items() if outcome == "PASS"}
    assert passed == {"bucket_owner", "account_public_access"}
    assert (found.verdict.status, found.verdict.exit_status) == ("failed", 3)
    with pytest.raises(VerificationError, match="POSTURE_FAILED"):
        posture(f"s3://{BAD}", strict=True)


def test_more_keys_are_looked_at(aws: str) -> None:
    weak = client("kms").create_key()["KeyMetadata"]["Arn"]
    found = posture(kms_keys=[f"awskms:{weak}", f"awskms:{aws}", f"awskms:///{weak}?region=eu-central-1"])
    rotation = {item.resource: item.outcome for item in found.results if item.check == "key_rotation"}
    assert rotation == {aws: "PASS", weak: "FAIL"}


def test_a_key_that_is_to_be_deleted_fails(aws: str) -> None:
    kms = client("kms")
    going = kms.create_key()["KeyMetadata"]["Arn"]
    kms.schedule_key_deletion(KeyId=going.rpartition("/")[2], PendingWindowInDays=7)
    found = posture(kms_keys=[f"awskms:{going}"])
    assert {i.resource: i.found for i in found.results if i.check == "key_enabled"}[going] == "PendingDeletion"


@pytest.mark.parametrize("name", ["get_bucket_policy", "get_bucket_acl", "get_bucket_versioning", "describe_key"])
def test_a_missing_permission_is_unknown_and_named(aws: str, name: str) -> None:
    operation = "".join(part.title() for part in name.split("_"))
    service, permissions = ("kms", posture_kms) if "key" in name else ("s3", posture_s3)
    code = "AccessDeniedException" if service == "kms" else "AccessDenied"
    found = posture(make=refusing(f"{service}:{operation}", code=code), skip={**SKIP, "policy_accounts": "x"})
    assert (found.verdict.status, found.verdict.exit_status) == ("unverifiable", 5)
    unknown = [item for item in found.results if item.outcome == "UNKNOWN"]
    assert unknown
    assert all(permissions.PERMISSIONS[name] in item.next_step for item in unknown)
    with pytest.raises(VerificationError) as raised:
        posture(make=refusing(f"{service}:{operation}", code=code), strict=True)
    assert raised.value.retryable


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("AccessDenied", 403),
        ("SlowDown", 503),
        ("Throttling", 400),
        ("ExpiredToken", 400),
        ("InternalError", 500),
        ("NotImplemented", 501),
        ("NoSuchKey", 404),
        ("", 400),
        ("Weird\x1b[31m", 418),
    ],
)
def test_whatever_every_service_refuses_nothing_passes(aws: str, code: str, status: int) -> None:
    found = posture(make=refusing(code=code, status=status), bucket_owner=ACCOUNT)
    assert "PASS" not in outcomes(found).values()
    assert found.verdict.status != "passed"
    assert "\x1b" not in json.dumps(found.as_dict())


def test_throttling_is_tried_again(aws: str) -> None:
    seen: list[int] = []

    def make(service: str, region: str | None) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(retries={"mode": "standard", "max_attempts": 5})
        made = boto3.session.Session().client(service, region_name=region, config=config)
        if service == "s3":
            made.meta.events.register("before-send.s3.GetBucketVersioning", busy)
        return made

    def busy(**_: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        seen.append(1)
        if len(seen) > 2:
            return None
        body = b"<Error><Code>SlowDown</Code></Error>"

        return AWSResponse("https://s3", 503, {}, Raw(body))

    assert outcomes(posture(make=make))["versioning"] == "PASS"
    assert len(seen) == 3


def owned_by(account: str, seen: list[Any]) -> Callable[[str, str | None], Any]:
    """Return a maker of clients that refuse, as S3 does, when another owner is expected; moto does not look."""

    def make(service: str, region: str | None) -> Any:
        made = client(service, region)
        if service == "s3":
            made.meta.events.register("before-call.s3", refuse)
        return made

    def refuse(model: Any, params: Any, **_: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        expected = params["headers"].get("x-amz-expected-bucket-owner")
        seen.append((model.name, expected))
        if expected in (None, account):
            return None
        error = {"Error": {"Code": "AccessDenied", "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        return AWSResponse("", 403, {}, Raw(b"<Error/>")), error

    return make


def test_every_request_to_the_bucket_names_its_owner(aws: str) -> None:
    seen: list[Any] = []
    assert posture(make=owned_by(ACCOUNT, seen)).verdict.status == "passed"
    assert len(seen) == 12
    assert {owner for _, owner in seen} == {ACCOUNT}


def test_the_bucket_of_a_stranger_fails_and_nothing_else_is_asked(aws: str) -> None:
    seen: list[Any] = []
    found = posture(make=owned_by("999999999999", seen))
    assert [name for name, _ in seen] == ["GetBucketLocation"] * 2
    assert outcomes(found)["bucket_owner"] == "FAIL"
    assert set(outcomes(found).values()) == {"FAIL", "UNKNOWN", "SKIPPED"}
    assert (found.verdict.status, found.verdict.findings[0].rule) == ("failed", "bucket_owner")


def test_the_owner_comes_from_the_call_then_from_the_settings(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_BUCKET_OWNERS", f"{GOOD}=999999999999")
    seen: list[Any] = []
    posture(make=owned_by(ACCOUNT, seen))
    assert seen[0] == ("GetBucketLocation", "999999999999")
    seen.clear()
    assert posture(make=owned_by(ACCOUNT, seen), bucket_owner=ACCOUNT).verdict.status == "passed"


def test_trails_of_another_account_say_nothing(aws: str) -> None:
    found = posture(bucket_owner="111111111111")
    assert {outcomes(found)[name] for name in ("data_events_read", "trail_kms")} == {"UNKNOWN"}


def test_a_bucket_that_is_not_there_fails(aws: str) -> None:
    found = posture("s3://nobody-made-this")
    assert outcomes(found)["bucket_owner"] == "FAIL"
    assert "PASS" not in {outcomes(found)[name] for name in CHECKS if name != "account_public_access"} - {"SKIPPED"}


#: Other than these the check sends nothing; docs/reference/posture.md lists the permissions.
NO_PERMISSION = {"sts:GetCallerIdentity"}


def iam_policy() -> set[str]:
    """Return the actions of the policy that the reference shows."""
    text = (ROOT / "docs" / "reference" / "posture.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```json\n(\{\n *\"Version\".*?)```", text, flags=re.DOTALL)
    return {
        action
        for item in json.loads(block)["Statement"]
        for action in ([item["Action"]] if isinstance(item["Action"], str) else item["Action"])
    }


def test_least_privilege_is_what_is_sent_and_what_is_documented(aws: str) -> None:
    seen: list[str] = []
    posture(make=watched(seen))
    permissions = posture_s3.PERMISSIONS | posture_kms.PERMISSIONS

    def snake(name: str) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()

    needed = set()
    for call in set(seen) - NO_PERMISSION:
        service, _, name = call.partition(":")
        key = "account_public_access_block" if service == "s3control" else snake(name)
        needed.add(permissions[key])
        # Reads, all of them.
        assert name.startswith(("Get", "Describe"))
    assert needed == set(permissions.values()) == iam_policy()


def test_what_nobody_wants_to_know_is_not_asked(aws: str) -> None:
    seen: list[str] = []
    trails = ("data_events_read", "data_events_write", "trail_validation", "trail_multi_region", "trail_kms")
    skip = dict.fromkeys([*trails, "account_public_access", *(n for n, c in CHECKS.items() if c.of_key)], "elsewhere")
    found = posture(make=watched(seen), skip={**SKIP, **skip})
    assert found.verdict.status == "passed"
    assert not [item for item in seen if not item.startswith(("s3:", "sts:"))]


def test_it_is_in_the_audit_log(aws: str, events: list[Any]) -> None:
    posture(f"s3://{BAD}/models/")
    intent, outcome = events
    assert (intent.action, intent.phase, intent.artifact) == ("posture", "intent", f"s3://{BAD}/models")
    assert (outcome.outcome, outcome.codes) == ("failed", ("POSTURE_FAILED",))
    assert outcome.policy.startswith("sha256:")


@pytest.mark.parametrize(
    ("location", "options", "message"),
    [
        pytest.param("/data", {}, "does not lie in S3", id="a path"),
        pytest.param("s3://", {}, "no plain bucket", id="no bucket"),
        pytest.param(f"s3://{GOOD}", {"kms_keys": ["file:/k.pem"]}, "no key in AWS KMS", id="a file"),
        pytest.param(f"s3://{GOOD}", {"kms_keys": "awskms:k"}, "as lists", id="a text"),
        pytest.param(f"s3://{GOOD}", {"kms_keys": [f"awskms:k{n}" for n in range(21)]}, "At most 20", id="many keys"),
        pytest.param(f"s3://{GOOD}", {"bucket_owner": "me"}, "is no account", id="an owner"),
        pytest.param(f"s3://{GOOD}", {"allow_accounts": ["*"]}, "is no account or organization", id="all accounts"),
        pytest.param(f"s3://{GOOD}", {"skip": {"all": "x"}}, "There is no check 'all'", id="an unknown check"),
        pytest.param(f"s3://{GOOD}", {"skip": {"tls_only": " "}}, "without a reason", id="no reason"),
        pytest.param(f"s3://{GOOD}", {"skip": ["tls_only"]}, "as a mapping", id="no reasons"),
        pytest.param(f"s3://{GOOD}", {"skip": dict.fromkeys(CHECKS, "x")}, "nothing is checked", id="all skipped"),
        pytest.param(
            f"s3://{GOOD}",
            {"skip": {name: "x" for name, check in CHECKS.items() if not check.advisory}},
            "nothing is checked",
            id="all skipped that decide",
        ),
    ],
)
def test_arguments_that_cannot_work(events: list[Any], location: str, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_posture(location, **options)
    assert not events


# --- A store that is not AWS ---


@pytest.mark.server
def test_a_store_that_is_not_aws_passes_nothing_that_it_cannot_say(
    s3_server: S3Server, s3_versioned_bucket: str
) -> None:
    asked: list[str] = []

    def make(service: str, region: str | None) -> Any:
        import boto3
        from botocore.config import Config

        made = boto3.session.Session().client(
            service,
            region_name=region or "us-east-1",
            aws_access_key_id="no",
            aws_secret_access_key="no",
            config=Config(retries={"total_max_attempts": 1}),
        )
        made.meta.events.register("before-call", lambda **_: asked.append(service))
        return made

    s3 = s3_server.client()
    found = check_posture(
        f"s3://{s3_versioned_bucket}",
        storages=Storages(s3_client=s3),
        clients=make,
        bucket_owner=ACCOUNT,
        strict=False,
    )
    by_name = {item.check: item for item in found.results}
    # Its own keys are not sent to AWS, and AWS says nothing about its buckets.
    assert not asked
    for name in ("bucket_owner", "account_public_access", "data_events_read", "trail_kms"):
        assert by_name[name].outcome == "UNKNOWN", name
        assert by_name[name].next_step
    assert by_name["versioning"].outcome == "PASS"
    assert by_name["acl_grants"].outcome == "PASS"
    assert by_name["tls_only"].outcome == "FAIL"
    assert found.verdict.status == "failed"
    if s3_server.kind == "ceph":
        unknown = {item.check: item.found for item in found.results if item.outcome == "UNKNOWN"}
        # It answers some of these requests with a listing of the bucket, which says nothing.
        assert "unknown form" in unknown["acls_disabled"]
        assert "unknown form" in unknown["encryption_kms"]


@pytest.mark.server
def test_skips_with_reasons_say_what_does_not_matter_there(s3_server: S3Server, s3_versioned_bucket: str) -> None:
    skip = dict.fromkeys([name for name in CHECKS if name not in ("versioning", "acl_grants")], "not AWS: gateway")
    found = check_posture(
        f"s3://{s3_versioned_bucket}", storages=Storages(s3_client=s3_server.client()), bucket_owner=ACCOUNT, skip=skip
    )
    assert found.verdict.status == "passed"
    assert len(found.verdict.findings) == len(skip)


# --- The command ---


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["audit", "posture", *arguments])


def test_command_tells_each_check(aws: str) -> None:
    done = run(f"s3://{BAD}", "--skip", "mfa_delete=object lock = enough")
    assert done.exit_code == 3
    lines = done.stdout.splitlines()
    assert lines[0] == f"failed    s3://{BAD}/"
    assert any(line.split() == ["FAIL", "versioning", "nothing"] for line in lines)
    assert any(line.startswith("SKIPPED mfa_delete") and line.endswith("object lock = enough") for line in lines)
    assert any(line.startswith("WARN    lifecycle") for line in lines)
    assert "next: Enable it: aws s3api put-bucket-versioning." in done.stdout


def test_command_as_json(aws: str) -> None:
    done = run(
        f"s3://{GOOD}", "--skip", "mfa_delete=moto", "--bucket-owner", ACCOUNT, "--kms-key", f"awskms:{aws}", "--json"
    )
    assert done.exit_code == 0, done.output
    body = json.loads(done.stdout)
    assert body["verdict"]["status"] == "passed"
    assert {item["check"] for item in body["checks"]} == set(CHECKS)
    (tls,) = [item for item in body["checks"] if item["check"] == "tls_only"]
    assert tls["prowler"] == ["s3_bucket_secure_transport_policy"]


def test_command_that_only_reports(aws: str) -> None:
    done = run(f"s3://{BAD}", "--report-only", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["verdict"]["status"] == "failed"


def test_command_lets_accounts_in(aws: str) -> None:
    done = run(f"s3://{LOGS}", "--allow-account", "999999999999", "--allow-account", "o-abcdefghij", "--json")
    assert done.exit_code == 3


@pytest.mark.parametrize("text", ["tls_only", "=x", "tls_only="])
def test_command_wants_a_reason(text: str) -> None:
    done = run(f"s3://{GOOD}", "--skip", text)
    assert isinstance(done.exception, UsageError)


def test_the_reference_names_every_check() -> None:
    text = (ROOT / "docs" / "reference" / "posture.md").read_text(encoding="utf-8")
    rows = [
        f"| `{name}` | {check.expected}{' (only warns)' if check.advisory else ''} | "
        f"{', '.join(f'`{item}`' for item in check.prowler)} |"
        for name, check in CHECKS.items()
    ]
    assert "\n".join(["| check | expected | Prowler |", "| --- | --- | --- |", *rows]) in text
