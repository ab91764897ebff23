"""How a bucket is set up: what S3, the account and CloudTrail say of it, one request a setting.

Nothing is judged here; :mod:`sealflow.verification.posture` does. Every request to the bucket names the account that
must own it, but for one: where all are refused, one that names nobody tells a stranger's bucket from a missing
permission.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sealflow.storage.aws import Answer, Clients, ask, is_aws, unread


def _absent(*codes: str) -> frozenset[str]:
    return frozenset(codes)


#: For each setting of a bucket: the request, the permission, and the refusals that mean that nothing is set.
_BUCKET: Final[dict[str, tuple[str, str, frozenset[str]]]] = {
    "public_access_block": (
        "get_public_access_block",
        "s3:GetBucketPublicAccessBlock",
        _absent("NoSuchPublicAccessBlockConfiguration"),
    ),
    "policy_status": ("get_bucket_policy_status", "s3:GetBucketPolicyStatus", _absent("NoSuchBucketPolicy")),
    "policy": ("get_bucket_policy", "s3:GetBucketPolicy", _absent("NoSuchBucketPolicy")),
    "acl": ("get_bucket_acl", "s3:GetBucketAcl", _absent()),
    "ownership": (
        "get_bucket_ownership_controls",
        "s3:GetBucketOwnershipControls",
        _absent("OwnershipControlsNotFoundError"),
    ),
    "encryption": (
        "get_bucket_encryption",
        "s3:GetEncryptionConfiguration",
        _absent("ServerSideEncryptionConfigurationNotFoundError"),
    ),
    "versioning": ("get_bucket_versioning", "s3:GetBucketVersioning", _absent()),
    "object_lock": (
        "get_object_lock_configuration",
        "s3:GetBucketObjectLockConfiguration",
        _absent("ObjectLockConfigurationNotFoundError"),
    ),
    "logging": ("get_bucket_logging", "s3:GetBucketLogging", _absent()),
    "replication": (
        "get_bucket_replication",
        "s3:GetReplicationConfiguration",
        _absent("ReplicationConfigurationNotFoundError"),
    ),
    "lifecycle": (
        "get_bucket_lifecycle_configuration",
        "s3:GetLifecycleConfiguration",
        _absent("NoSuchLifecycleConfiguration"),
    ),
}

#: For each request its permission; a document lists them as the least that the check needs.
PERMISSIONS: Final[dict[str, str]] = {
    **{operation: permission for operation, permission, _ in _BUCKET.values()},
    "get_bucket_location": "s3:GetBucketLocation",
    "account_public_access_block": "s3:GetAccountPublicAccessBlock",
    "describe_trails": "cloudtrail:DescribeTrails",
    "get_trail_status": "cloudtrail:GetTrailStatus",
    "get_event_selectors": "cloudtrail:GetEventSelectors",
}

_NOT_ASKED: Final = Answer(problem="Nobody asked.", next_step="Do not skip the check.")
_NOT_AWS: Final = "The bucket does not lie in AWS, and AWS was not asked about it."
_NO_ACCOUNT: Final = "Nobody said which account owns the bucket."
_OTHERS: Final = "The bucket belongs to another account; nothing else was asked."


@dataclass(frozen=True)
class Trail:
    """A trail of CloudTrail.

    Attributes:
        body: What ``describe_trails`` says of it.
        status: Answer of ``get_trail_status``.
        selectors: Answer of ``get_event_selectors``.
    """

    body: Mapping[str, Any]
    status: Answer
    selectors: Answer


@dataclass(frozen=True)
class BucketFacts:
    """What was said of a bucket.

    Attributes:
        bucket: Its name.
        prefix: Key prefix of what is going to be read, empty for the whole bucket.
        aws: Whether AWS itself was asked.
        partition: ``aws``, ``aws-cn``, ``aws-us-gov`` …
        region: Where it lies, empty when unknown.
        owner: Number of the account that must own it, empty when nobody said.
        owned: Whether it does; ``None``: nobody knows, as :attr:`location` says.
        caller: Number of the account that asked, empty when unknown.
        location: Answer of the first request.
        settings: Answer for each setting.
        trails: Answer of ``describe_trails``.
        trail: Each of them.
    """

    bucket: str
    prefix: str
    aws: bool
    partition: str
    region: str
    owner: str
    owned: bool | None
    caller: str
    location: Answer
    settings: Mapping[str, Answer] = field(repr=False)
    trails: Answer = field(repr=False)
    trail: tuple[Trail, ...] = field(default=(), repr=False)


def bucket_facts(
    s3: Any,
    clients: Clients,
    bucket: str,
    prefix: str = "",
    owner: str | None = None,
    without: frozenset[str] = frozenset(),
) -> BucketFacts:
    """Ask everything about a bucket.

    Args:
        s3: The boto3 client that reads the bucket.
        clients: Makes clients of the other services.
        bucket: The bucket's name.
        prefix: Key prefix of what is going to be read.
        owner: Number of the account that must own it; ``None``: the account that asks.
        without: Settings that nobody wants to know, and ``trails`` for those of CloudTrail.

    Raises:
        UsageError: A client cannot be made from the configuration.
    """
    aws = is_aws(s3)
    caller = _caller(s3, clients)
    expected = owner or caller
    trail: tuple[Trail, ...] = ()
    owned, location = _owned(s3, bucket, expected, aws)
    region = _region(location, s3) if location.known else ""
    if owned is False:
        stranger = Answer(problem=_OTHERS, next_step="Find out who made it, and do not use it.", code="OtherOwner")
        settings = dict.fromkeys([*_BUCKET, "account_public_access_block"], stranger)
        trails = stranger
    else:
        named = {"Bucket": bucket} | ({"ExpectedBucketOwner": expected} if expected else {})
        settings = {
            name: _NOT_ASKED if name in without else ask(s3, operation, permission, absent=absent, **named)
            for name, (operation, permission, absent) in _BUCKET.items()
        }
        settings["account_public_access_block"] = (
            _NOT_ASKED if "account_public_access_block" in without else _account_block(s3, clients, expected, region)
        )
        trails, trail = (_NOT_ASKED, ()) if "trails" in without else _trails(s3, clients, region, expected, caller)
    partition = str(s3.meta.partition or "aws")
    return BucketFacts(
        bucket, prefix, aws, partition, region, expected, owned, caller, location, settings, trails, trail
    )


def _caller(s3: Any, clients: Clients) -> str:
    sts = clients("sts", s3.meta.region_name or "us-east-1")
    if _strange(s3, sts):
        return ""
    answer = ask(sts, "get_caller_identity", "sts:GetCallerIdentity")
    account = (answer.body or {}).get("Account")
    return account if isinstance(account, str) and len(account) == 12 and account.isdecimal() else ""


def _strange(s3: Any, client: Any) -> bool:
    """Tell whether AWS would be asked about a store that is not its own."""
    return is_aws(client) and not is_aws(s3)


def _owned(s3: Any, bucket: str, owner: str, aws: bool) -> tuple[bool | None, Answer]:
    def located(**named: Any) -> Answer:
        return ask(s3, "get_bucket_location", PERMISSIONS["get_bucket_location"], **{"Bucket": bucket, **named})

    if not owner:
        return None, located()
    location = located(ExpectedBucketOwner=owner)
    if location.known:
        # A store that does not look at the owner's number says yes to every number.
        heeded = aws or not located(ExpectedBucketOwner="0" * 12 if owner != "0" * 12 else "9" * 12).known
        return (True if heeded else None), location
    if location.code in ("AccessDenied", "403") and located().known:
        return False, location
    return None, location


def _region(location: Answer, s3: Any) -> str:
    # Two regions keep the names that they had before there were regions.
    said = (location.body or {}).get("LocationConstraint")
    if said is None or said == "":
        return "us-east-1"
    if not isinstance(said, str):
        return str(s3.meta.region_name or "")
    return "eu-west-1" if said == "EU" else said


def _account_block(s3: Any, clients: Clients, owner: str, region: str) -> Answer:
    if not owner:
        return Answer(problem=_NO_ACCOUNT, next_step="Name it (`bucket_owner`).")
    control = clients("s3control", region or s3.meta.region_name)
    if _strange(s3, control):
        return Answer(problem=_NOT_AWS, next_step="Skip the check with the reason why this does not matter here.")
    return ask(
        control,
        "get_public_access_block",
        PERMISSIONS["account_public_access_block"],
        absent=_absent("NoSuchPublicAccessBlockConfiguration"),
        AccountId=owner,
    )


def _trails(s3: Any, clients: Clients, region: str, owner: str, caller: str) -> tuple[Answer, tuple[Trail, ...]]:
    if not region:
        return Answer(
            problem="Nobody knows in which region the bucket lies.", next_step="Allow s3:GetBucketLocation."
        ), ()
    made: dict[str, Any] = {}

    def client(where: str) -> Any:
        if where not in made:
            made[where] = clients("cloudtrail", where)
        return made[where]

    if _strange(s3, client(region)):
        return Answer(problem=_NOT_AWS, next_step="Skip the check with the reason why this does not matter here."), ()
    if not caller or caller != owner:
        # Trails of this account record what this account does; those of the owner record everybody.
        return Answer(
            problem="Only the trails of the account that owns the bucket record everybody's accesses.",
            next_step="Run this check in that account.",
        ), ()
    listed = ask(client(region), "describe_trails", PERMISSIONS["describe_trails"], includeShadowTrails=True)
    bodies = (listed.body or {}).get("trailList", ())
    if not listed.known:
        return listed, ()
    if not isinstance(bodies, list) or not all(_is_trail(body) for body in bodies):
        return unread("describe_trails", "trailList"), ()
    trails = []
    for body in bodies:
        # A trail is asked where it was made; elsewhere only its shadow is known.
        home, arn = client(body.get("HomeRegion") or region), body["TrailARN"]
        trails.append(
            Trail(
                body,
                ask(home, "get_trail_status", PERMISSIONS["get_trail_status"], Name=arn),
                ask(home, "get_event_selectors", PERMISSIONS["get_event_selectors"], TrailName=arn),
            )
        )
    return listed, tuple(trails)


def _is_trail(body: Any) -> bool:
    return (
        isinstance(body, Mapping)
        and isinstance(body.get("TrailARN"), str)
        and isinstance(body.get("HomeRegion", ""), str)
    )
