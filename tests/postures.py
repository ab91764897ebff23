"""For tests: a bucket as it should be, and one as it should not be, in moto. moto knows no MFA for deleting."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: moto's own account.
ACCOUNT = "123456789012"
REGION = "eu-central-1"
#: Names of what `world` makes.
GOOD, BAD, LOGS = "models", "bad-models", "logs-of-models"
#: moto knows no MFA for deleting.
SKIP = {"mfa_delete": "moto knows none"}


def statement(effect: str = "Allow", principal: Any = "*", condition: Any = None, **more: Any) -> dict[str, Any]:
    """Return a statement of a bucket's policy."""
    body = {
        "Sid": "S1",
        "Effect": effect,
        "Principal": principal,
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{GOOD}", f"arn:aws:s3:::{GOOD}/*"],
        "Condition": condition,
        **more,
    }
    return {name: value for name, value in body.items() if value is not None}


TLS = statement("Deny", condition={"Bool": {"aws:SecureTransport": "false"}}, Sid="Tls")


def policy(*statements: dict[str, Any]) -> str:
    """Return a policy."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def client(service: str, region: str | None = None) -> Any:
    """Return a client of moto's one user."""
    import boto3

    return boto3.session.Session().client(service, region_name=region or REGION)


@contextmanager
def world() -> Iterator[str]:
    """moto in this process with the buckets; yields the ARN of the good bucket's key."""
    from moto import mock_aws

    kept = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    # The same for every client, also for those that name no region.
    os.environ["AWS_DEFAULT_REGION"] = REGION
    try:
        with mock_aws():
            yield _make()
    finally:
        for name in [name for name in os.environ if name.startswith("AWS_") and name not in kept]:
            del os.environ[name]
        os.environ.update(kept)


def _make() -> str:
    s3, kms, trail = client("s3"), client("kms"), client("cloudtrail")
    place = {"CreateBucketConfiguration": {"LocationConstraint": REGION}}
    s3.create_bucket(Bucket=LOGS, **place)
    s3.create_bucket(Bucket=GOOD, ObjectLockEnabledForBucket=True, **place)
    block = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    s3.put_public_access_block(Bucket=GOOD, PublicAccessBlockConfiguration=block)
    client("s3control").put_public_access_block(AccountId=ACCOUNT, PublicAccessBlockConfiguration=block)
    s3.put_bucket_policy(
        Bucket=GOOD,
        Policy=policy(TLS, statement(principal={"AWS": f"arn:aws:iam::{ACCOUNT}:role/trainer"}, Sid="Train")),
    )
    s3.put_bucket_ownership_controls(
        Bucket=GOOD, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    )
    key = kms.create_key(
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Sid": "Own",
                        "Effect": "Allow",
                        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
                        "Action": "kms:*",
                        "Resource": "*",
                    }
                ],
            }
        )
    )["KeyMetadata"]["Arn"]
    kms.enable_key_rotation(KeyId=key)
    s3.put_bucket_encryption(Bucket=GOOD, ServerSideEncryptionConfiguration=encrypted(key))
    s3.put_bucket_versioning(Bucket=GOOD, VersioningConfiguration={"Status": "Enabled", "MFADelete": "Enabled"})
    s3.put_object_lock_configuration(
        Bucket=GOOD,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 30}},
        },
    )
    s3.put_bucket_acl(Bucket=LOGS, ACL="log-delivery-write")
    s3.put_bucket_logging(
        Bucket=GOOD, BucketLoggingStatus={"LoggingEnabled": {"TargetBucket": LOGS, "TargetPrefix": "models/"}}
    )
    s3.put_bucket_versioning(Bucket=LOGS, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_replication(
        Bucket=GOOD,
        ReplicationConfiguration={
            "Role": f"arn:aws:iam::{ACCOUNT}:role/copy",
            "Rules": [
                {
                    "ID": "copy",
                    "Status": "Enabled",
                    "Prefix": "",
                    "Destination": {"Bucket": f"arn:aws:s3:::{LOGS}"},
                }
            ],
        },
    )
    s3.put_bucket_lifecycle_configuration(
        Bucket=GOOD,
        LifecycleConfiguration={
            "Rules": [
                {
                    "ID": "parts",
                    "Status": "Enabled",
                    "Filter": {"Prefix": ""},
                    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
                }
            ]
        },
    )
    s3.put_bucket_policy(
        Bucket=LOGS,
        Policy=policy(
            {
                "Effect": "Allow",
                "Principal": {"Service": "cloudtrail.amazonaws.com"},
                "Action": "s3:PutObject",
                "Resource": f"arn:aws:s3:::{LOGS}/*",
            }
        ),
    )
    trail.create_trail(
        Name="everything", S3BucketName=LOGS, IsMultiRegionTrail=True, EnableLogFileValidation=True, KmsKeyId=key
    )
    trail.put_event_selectors(
        TrailName="everything",
        EventSelectors=[
            {
                "ReadWriteType": "All",
                "IncludeManagementEvents": True,
                "DataResources": [{"Type": "AWS::S3::Object", "Values": [f"arn:aws:s3:::{GOOD}/"]}],
            }
        ],
    )
    trail.start_logging(Name="everything")
    s3.create_bucket(Bucket=BAD, **place)
    s3.put_bucket_acl(Bucket=BAD, ACL="public-read-write")
    s3.put_bucket_policy(
        Bucket=BAD,
        Policy=policy({"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{BAD}/*"}),
    )
    return str(key)


def encrypted(key: str, algorithm: str = "aws:kms") -> dict[str, Any]:
    """Return a default encryption."""
    default = {"SSEAlgorithm": algorithm} | ({"KMSMasterKeyID": key} if key else {})
    return {"Rules": [{"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": bool(key)}]}


def watched(seen: list[str]) -> Callable[[str, str | None], Any]:
    """Return a maker of clients that note what they send: service and operation."""

    def make(service: str, region: str | None) -> Any:
        made = client(service, region)
        made.meta.events.register("before-call", lambda model, **_: seen.append(f"{service}:{model.name}"))
        return made

    return make
