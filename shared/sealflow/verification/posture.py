"""The judgement of how a bucket and its keys are set up. Pure: facts in, one result for each check out.

A result is ``PASS`` only where a service said what is expected. What could not be asked, or has a form that is not
understood, is ``UNKNOWN``; it is never ``PASS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from sealflow.findings import Finding, printable
from sealflow.keys.posture_kms import KeyFacts
from sealflow.storage.aws import Answer
from sealflow.storage.posture_s3 import BucketFacts, Trail
from sealflow.verification.resource_policy import (
    EVERYBODY,
    Grant,
    UnclearError,
    denies_plain_http,
    grants,
    read_policy,
)
from sealflow.verification.trail_selectors import Kind, coverage

Outcome = Literal["PASS", "FAIL", "UNKNOWN", "SKIPPED"]

#: A year; KMS lets a key rotate each 90 to 2560 days, 365 by default.
_MAX_ROTATION_DAYS: Final = 366


class Check(NamedTuple):
    """One check.

    Attributes:
        expected: What must hold.
        next_step: What to do where it does not.
        prowler: Checks of Prowler that look at the same setting.
        advisory: Whether it only warns.
        of_key: Whether it is about a key and not about the bucket.
    """

    expected: str
    next_step: str
    prowler: tuple[str, ...] = ()
    advisory: bool = False
    of_key: bool = False


#: Every check, by its name, in the order in which they are shown.
CHECKS: Final[dict[str, Check]] = {
    "bucket_owner": Check(
        "the bucket of the named account",
        "Find out who made the bucket; write nothing there, and believe nothing that lies there.",
        ("s3_bucket_shadow_resource_vulnerability",),
    ),
    "bucket_public_access": Check(
        "all four public access blocks of the bucket",
        "Turn them on: aws s3api put-public-access-block.",
        ("s3_bucket_level_public_access_block",),
    ),
    "account_public_access": Check(
        "all four public access blocks of the account",
        "Turn them on: aws s3control put-public-access-block.",
        ("s3_account_level_public_access_blocks",),
    ),
    "policy_status": Check(
        "a policy that S3 itself does not call public",
        "Name in the policy who may come in.",
        ("s3_bucket_public_access", "s3_bucket_policy_public_write_access"),
    ),
    "policy_public": Check(
        "no statement of the policy that lets everybody in",
        "Name accounts or roles as principals, or bind them by aws:PrincipalAccount.",
        ("s3_bucket_public_access", "s3_bucket_policy_public_write_access"),
    ),
    "policy_accounts": Check(
        "a policy that lets in the owner's account and the allowed ones",
        "Take the others out of the policy, or allow their account if they are right.",
        ("s3_bucket_cross_account_access",),
    ),
    "tls_only": Check(
        "Deny to everybody of s3:* on the bucket and on bucket/* where aws:SecureTransport is false",
        "Add that statement to the bucket's policy, with no further condition.",
        ("s3_bucket_secure_transport_policy",),
    ),
    "acl_grants": Check(
        "an access list that grants something to the owner alone",
        "Remove the grants: aws s3api put-bucket-acl --acl private.",
        ("s3_bucket_public_list_acl", "s3_bucket_public_write_acl"),
    ),
    "acls_disabled": Check(
        "object ownership BucketOwnerEnforced",
        "Set it: aws s3api put-bucket-ownership-controls.",
        ("s3_bucket_acl_prohibited",),
    ),
    "encryption_kms": Check(
        "default encryption with a key in KMS that the bucket names by its ARN",
        "Set it: aws s3api put-bucket-encryption, with aws:kms and the whole ARN of a key of yours.",
        ("s3_bucket_kms_encryption",),
    ),
    "bucket_key": Check(
        "an S3 bucket key, which asks KMS less often",
        "Set BucketKeyEnabled with the default encryption; CloudTrail then shows fewer uses of the key.",
        advisory=True,
    ),
    "versioning": Check(
        "versioning enabled",
        "Enable it: aws s3api put-bucket-versioning.",
        ("s3_bucket_object_versioning",),
    ),
    "mfa_delete": Check(
        "MFA for deleting versions",
        "Enable it as the account's root user, or skip the check with the reason (such as object lock).",
        ("s3_bucket_no_mfa_delete",),
    ),
    "object_lock": Check(
        "object lock with a default retention",
        "Set it: aws s3api put-object-lock-configuration.",
        ("s3_bucket_object_lock",),
    ),
    "access_logging": Check(
        "access logs, in another bucket",
        "Set it: aws s3api put-bucket-logging.",
        ("s3_bucket_server_access_logging_enabled",),
    ),
    "data_events_read": Check(
        "a running trail of CloudTrail that records every read of objects here",
        "Add an event selector for AWS::S3::Object with this bucket to a trail.",
        ("cloudtrail_s3_dataevents_read_enabled",),
    ),
    "data_events_write": Check(
        "a running trail of CloudTrail that records every write of objects here",
        "Add an event selector for AWS::S3::Object with this bucket to a trail.",
        ("cloudtrail_s3_dataevents_write_enabled",),
    ),
    "trail_validation": Check(
        "digests over the log files of these trails",
        "Set EnableLogFileValidation on the trail.",
        ("cloudtrail_log_file_validation_enabled",),
    ),
    "trail_multi_region": Check(
        "trails of all regions",
        "Set IsMultiRegionTrail on the trail.",
        ("cloudtrail_multi_region_enabled",),
    ),
    "trail_kms": Check(
        "log files of these trails encrypted with a key in KMS",
        "Name a key: aws cloudtrail update-trail --kms-key-id.",
        ("cloudtrail_kms_encryption_enabled",),
    ),
    "replication": Check(
        "a rule that replicates the bucket",
        "Nothing, if a copy elsewhere is not needed.",
        ("s3_bucket_cross_region_replication",),
        advisory=True,
    ),
    "lifecycle": Check(
        "a rule for the life of objects",
        "Nothing, if all is to be kept; old versions and unfinished uploads stay for ever.",
        ("s3_bucket_lifecycle_enabled",),
        advisory=True,
    ),
    "key_customer_managed": Check(
        "a key that the owner's account or an allowed one manages itself",
        "Make a key of your own, and name its ARN.",
        of_key=True,
    ),
    "key_enabled": Check(
        "an enabled key that nobody wants to delete",
        "Enable it: aws kms enable-key; first cancel-key-deletion where it is to be deleted.",
        ("kms_cmk_not_deleted_unintentionally",),
        of_key=True,
    ),
    "key_rotation": Check(
        "rotation of the key each year or more often",
        "Turn it on: aws kms enable-key-rotation.",
        ("kms_cmk_rotation_enabled",),
        of_key=True,
    ),
    "key_policy_public": Check(
        "no statement of the key's policy that lets everybody in",
        "Name accounts or roles as principals.",
        ("kms_key_not_publicly_accessible",),
        of_key=True,
    ),
    "key_policy_accounts": Check(
        "a key's policy that lets in the owner's account and the allowed ones",
        "Take the others out of the policy, or allow their account if they are right.",
        of_key=True,
    ),
}


@dataclass(frozen=True)
class Result:
    """What came of one check.

    Attributes:
        check: A key of :data:`CHECKS`.
        resource: What was looked at: ``s3://bucket`` or a key.
        outcome: ``PASS``, ``FAIL``, ``UNKNOWN``, or ``SKIPPED`` where the check was left out.
        found: What was there, why nobody knows, or the reason for leaving it out.
        next_step: What can be done.
    """

    check: str
    resource: str
    outcome: Outcome
    found: str = ""
    next_step: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        check = CHECKS[self.check]
        return {
            "check": self.check,
            "resource": printable(self.resource),
            "outcome": self.outcome,
            "expected": check.expected,
            "found": printable(self.found),
            "prowler": list(check.prowler),
            "advisory": check.advisory,
            "next_step": printable(self.next_step),
        }

    def finding(self) -> Finding | None:
        """Return it as a finding, ``None`` where all is well."""
        check = CHECKS[self.check]
        subject = f"{self.check} {self.resource}"
        if self.outcome == "PASS":
            return None
        if self.outcome == "SKIPPED":
            return Finding("POSTURE_SKIPPED", "note", subject, f"Left out: {self.found}", rule=self.check)
        if self.outcome == "UNKNOWN":
            return Finding(
                "POSTURE_UNKNOWN",
                "warning" if check.advisory else "unverifiable",
                subject,
                f"Nobody knows whether there is what is expected: {self.found}",
                check.expected,
                "no answer",
                self.check,
                self.next_step,
            )
        return Finding(
            "POSTURE_FAILED",
            "warning" if check.advisory else "refusal",
            subject,
            "It is not set up as expected.",
            check.expected,
            self.found,
            self.check,
            self.next_step,
        )


class _Said(NamedTuple):
    outcome: Outcome
    found: str
    next_step: str = ""


def judge(
    bucket: BucketFacts,
    keys: Sequence[KeyFacts],
    *,
    allowed: Iterable[str] = (),
    skipped: Mapping[str, str] | None = None,
) -> tuple[Result, ...]:
    """Judge a bucket and keys.

    Args:
        bucket: What was said of the bucket.
        keys: What was said of its key, and of others.
        allowed: Accounts and organizations that may be let in beside the owner's account.
        skipped: Checks that are left out, each with the reason.
    """
    skipped = skipped or {}
    place = _Place(bucket, frozenset(allowed))
    results = []
    for name, check in CHECKS.items():
        if check.of_key:
            continue
        results.append(_result(name, f"s3://{bucket.bucket}", partial(_OF_BUCKET[name], place), skipped))
    for name, check in CHECKS.items():
        if not check.of_key:
            continue
        for key in keys:
            results.append(_result(name, key.key, partial(_OF_KEY[name], key, place), skipped))
        if not keys:
            results.append(_result(name, f"s3://{bucket.bucket}", partial(_no_key, place), skipped))
    return tuple(results)


def _result(name: str, resource: str, judged: Callable[[], _Said], skipped: Mapping[str, str]) -> Result:
    if name in skipped:
        return Result(name, resource, "SKIPPED", skipped[name])
    said = judged()
    step = said.next_step or (CHECKS[name].next_step if said.outcome == "FAIL" else "")
    return Result(name, resource, said.outcome, said.found, step)


def unneeded(skipped: Iterable[str]) -> frozenset[str]:
    """Return the settings that nobody need ask for when these checks are left out; ``keys`` stands for the keys."""
    left_out = frozenset(skipped)
    return frozenset(setting for setting, checks in _NEEDED_BY.items() if checks <= left_out)


def bucket_key(bucket: BucketFacts) -> str | None:
    """Return the key in KMS that the default encryption of a bucket names, ``None`` where it names none."""
    found = _default_encryption(bucket.settings["encryption"])
    return found[1] or None if isinstance(found, tuple) else None


class _Place:
    """A bucket, and who may be let in."""

    def __init__(self, facts: BucketFacts, allowed: frozenset[str]) -> None:
        self.facts = facts
        self.arn = f"arn:{facts.partition}:s3:::{facts.bucket}"
        self.allowed = allowed | ({facts.owner} if facts.owner else set())

    def setting(self, name: str) -> Answer:
        return self.facts.settings[name]

    def says(self, name: str, *path: str) -> Any:
        """Return a member of a setting, ``None`` where it is not there."""
        found: Any = self.setting(name).body
        for step in path:
            found = found.get(step) if isinstance(found, Mapping) else None
        return found


def _unknown(answer: Answer) -> _Said:
    return _Said("UNKNOWN", answer.problem, answer.next_step)


def _unclear(what: str) -> _Said:
    return _Said("UNKNOWN", f"The answer has an unknown form: {what}.", "Look at the setting yourself.")


def _is(value: Any, good: Any, *bad: Any) -> _Said:
    """Judge a value of which all forms are known; ``None`` is a setting that is not there."""
    if type(value) is type(good) and value == good:
        return _Said("PASS", str(value))
    if value is None or any(type(value) is type(item) and value == item for item in bad):
        return _Said("FAIL", "nothing" if value is None else str(value))
    return _unclear(printable(value, 60))


# --- The bucket ---


def _owner(place: _Place) -> _Said:
    facts = place.facts
    if facts.owned:
        return _Said("PASS", facts.owner)
    if facts.owned is False:
        return _Said("FAIL", f"a bucket that is not of {facts.owner}")
    if not facts.location.known:
        if facts.location.code == "NoSuchBucket":
            return _Said(
                "FAIL", "no bucket, and anybody may make one of this name", "Make it, or correct the location."
            )
        step = facts.location.next_step
        if facts.location.code in ("AccessDenied", "403"):
            step = f"Allow s3:GetBucketLocation, and check that {facts.owner or 'its account'} owns the bucket."
        return _Said("UNKNOWN", facts.location.problem, step)
    if not facts.owner:
        return _Said(
            "UNKNOWN", "Nobody said which account must own it.", "Name it (`bucket_owner`, SEALFLOW_BUCKET_OWNERS)."
        )
    return _Said(
        "UNKNOWN",
        "The store pays no heed to the owner that a request names.",
        "Skip the check with the reason why nobody else can make buckets there.",
    )


def _access_block(answer: Answer) -> _Said:
    if not answer.known:
        return _unknown(answer)
    if answer.body is None:
        return _Said("FAIL", "none of them")
    block = answer.body.get("PublicAccessBlockConfiguration")
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    if not isinstance(block, Mapping) or not all(isinstance(block.get(name, False), bool) for name in names):
        return _unclear("PublicAccessBlockConfiguration")
    missing = [name for name in names if not block.get(name, False)]
    return _Said("FAIL", f"without {', '.join(missing)}") if missing else _Said("PASS", "all four")


def _policy_status(place: _Place) -> _Said:
    answer = place.setting("policy_status")
    if not answer.known:
        return _unknown(answer)
    if answer.body is None:
        return _Said("PASS", "no policy")
    public = place.says("policy_status", "PolicyStatus", "IsPublic")
    if not isinstance(public, bool):
        return _unclear("IsPublic")
    return _Said("FAIL", "public") if public else _Said("PASS", "not public")


def _bucket_policy(place: _Place) -> tuple[Mapping[str, Any], ...] | _Said:
    answer = place.setting("policy")
    if not answer.known:
        return _unknown(answer)
    if answer.body is None:
        return ()
    return _statements(answer)


def _statements(answer: Answer) -> tuple[Mapping[str, Any], ...] | _Said:
    try:
        return read_policy((answer.body or {}).get("Policy"))
    except UnclearError as error:
        return _Said("UNKNOWN", f"The policy is not understood: {error}", "Read the policy yourself.")


def _policy_public(place: _Place) -> _Said:
    return _nobody(_bucket_policy(place), _canonical(place))


def _policy_accounts(place: _Place) -> _Said:
    return _known_accounts(_bucket_policy(place), place, _canonical(place))


def _canonical(place: _Place) -> str:
    said = place.says("acl", "Owner", "ID")
    return said if place.facts.owned and isinstance(said, str) else ""


def _nobody(statements: tuple[Mapping[str, Any], ...] | _Said, canonical: str = "") -> _Said:
    if isinstance(statements, _Said):
        return statements
    found = grants(statements, canonical)
    public = [item for item in found if item.who == EVERYBODY and not item.unclear]
    if public:
        return _Said("FAIL", f"everybody, by {_names(public)}")
    unclear = [item for item in found if item.unclear]
    return _not_understood(unclear) if unclear else _Said("PASS", "nobody" if not found else "named principals")


def _known_accounts(statements: tuple[Mapping[str, Any], ...] | _Said, place: _Place, canonical: str = "") -> _Said:
    if isinstance(statements, _Said):
        return statements
    found = [item for item in grants(statements, canonical) if item.unclear or item.who not in place.allowed]
    strangers = [item for item in found if not item.unclear]
    if strangers and not place.facts.owner:
        return _Said(
            "UNKNOWN", "Nobody said which account owns it, so nobody is a stranger.", "Name it (`bucket_owner`)."
        )
    if strangers:
        who = ", ".join(dict.fromkeys(printable(item.who, 80) for item in strangers[:5]))
        return _Said("FAIL", f"{who}, by {_names(strangers)}")
    return _not_understood(found) if found else _Said("PASS", "nobody else")


def _not_understood(unclear: Sequence[Grant]) -> _Said:
    first = unclear[0]
    return _Said(
        "UNKNOWN",
        f"Who is let in by {first.statement} is not understood: {first.unclear}.",
        "Name accounts or roles in the policy, or read it and skip the check with the reason.",
    )


def _names(found: Sequence[Grant]) -> str:
    return ", ".join(dict.fromkeys(item.statement for item in found[:5]))


def _tls_only(place: _Place) -> _Said:
    statements = _bucket_policy(place)
    if isinstance(statements, _Said):
        return statements
    if not statements:
        return _Said("FAIL", "no policy")
    bucket, objects = denies_plain_http(statements, place.arn)
    if bucket and objects:
        return _Said("PASS", "such a Deny")
    return _Said(
        "FAIL",
        "such a Deny only for the " + ("bucket" if bucket else "objects") if bucket or objects else "no such Deny",
    )


def _acl_grants(place: _Place) -> _Said:
    answer = place.setting("acl")
    if not answer.known:
        return _unknown(answer)
    listed, owner = place.says("acl", "Grants"), place.says("acl", "Owner", "ID")
    if not isinstance(listed, list) or not isinstance(owner, str) or not owner:
        return _unclear("Grants, Owner")
    others = []
    for item in listed:
        grantee = item.get("Grantee") if isinstance(item, Mapping) else None
        if not isinstance(grantee, Mapping):
            return _unclear("Grantee")
        if grantee.get("ID") == owner and not grantee.get("URI"):
            continue
        uri = grantee.get("URI")
        others.append(str(uri).rpartition("/")[2] if uri else str(grantee.get("ID") or "somebody"))
    if others:
        return _Said("FAIL", f"grants to {', '.join(printable(item, 80) for item in dict.fromkeys(others))}")
    return _Said("PASS", "the owner alone")


def _acls_disabled(place: _Place) -> _Said:
    answer = place.setting("ownership")
    if not answer.known:
        return _unknown(answer)
    if answer.body is None:
        return _Said("FAIL", "nothing")
    rules = place.says("ownership", "OwnershipControls", "Rules")
    if not isinstance(rules, list) or len(rules) != 1 or not isinstance(rules[0], Mapping):
        return _unclear("OwnershipControls")
    return _is(rules[0].get("ObjectOwnership"), "BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter")


def _default_encryption(answer: Answer) -> tuple[str, str, bool] | _Said:
    """Return algorithm, key and whether a bucket key is used."""
    if not answer.known:
        return _unknown(answer)
    if answer.body is None:
        return "", "", False
    configuration = answer.body.get("ServerSideEncryptionConfiguration")
    rules = configuration.get("Rules") if isinstance(configuration, Mapping) else None
    if not isinstance(rules, list) or len(rules) != 1 or not isinstance(rules[0], Mapping):
        return _unclear("ServerSideEncryptionConfiguration")
    default = rules[0].get("ApplyServerSideEncryptionByDefault")
    if not isinstance(default, Mapping):
        return _unclear("ApplyServerSideEncryptionByDefault")
    algorithm, key = default.get("SSEAlgorithm"), default.get("KMSMasterKeyID") or ""
    if algorithm not in ("AES256", "aws:kms", "aws:kms:dsse") or not isinstance(key, str):
        return _unclear("SSEAlgorithm")
    return algorithm, key if algorithm != "AES256" else "", rules[0].get("BucketKeyEnabled") is True


def _encryption_kms(place: _Place) -> _Said:
    found = _default_encryption(place.setting("encryption"))
    if isinstance(found, _Said):
        return found
    algorithm, key, _ = found
    if key and not key.startswith("arn:"):
        # S3 looks such a name up in the account of whoever writes.
        return _Said("FAIL", f"{algorithm} with {key}, which is another key for a writer from another account")
    if key:
        return _Said("PASS", f"{algorithm} with {key}")
    return _Said(
        "FAIL", f"{algorithm} with a key of AWS" if algorithm.startswith("aws:kms") else algorithm or "nothing"
    )


def _bucket_key_used(place: _Place) -> _Said:
    found = _default_encryption(place.setting("encryption"))
    if isinstance(found, _Said):
        return found
    return _Said("PASS", "a bucket key") if found[2] else _Said("FAIL", "none")


def _versioning(place: _Place) -> _Said:
    answer = place.setting("versioning")
    return _is(place.says("versioning", "Status"), "Enabled", "Suspended") if answer.known else _unknown(answer)


def _mfa_delete(place: _Place) -> _Said:
    answer = place.setting("versioning")
    return _is(place.says("versioning", "MFADelete"), "Enabled", "Disabled") if answer.known else _unknown(answer)


def _object_lock(place: _Place) -> _Said:
    answer = place.setting("object_lock")
    if not answer.known:
        return _unknown(answer)
    lock = place.says("object_lock", "ObjectLockConfiguration")
    if answer.body is None or lock is None:
        return _Said("FAIL", "nothing")
    if not isinstance(lock, Mapping) or lock.get("ObjectLockEnabled") != "Enabled":
        return _unclear("ObjectLockConfiguration")
    retention = place.says("object_lock", "ObjectLockConfiguration", "Rule", "DefaultRetention")
    if retention is None:
        return _Said("FAIL", "object lock without a default retention")
    if not isinstance(retention, Mapping) or retention.get("Mode") not in ("GOVERNANCE", "COMPLIANCE"):
        return _unclear("DefaultRetention")
    days, years = retention.get("Days"), retention.get("Years")
    span = years if days is None else days
    if type(span) is not int or span < 1:
        return _unclear("DefaultRetention")
    return _Said("PASS", f"{retention['Mode']}, {span} {'years' if days is None else 'days'}")


def _access_logging(place: _Place) -> _Said:
    answer = place.setting("logging")
    if not answer.known:
        return _unknown(answer)
    enabled = place.says("logging", "LoggingEnabled")
    if enabled is None:
        return _Said("FAIL", "nothing")
    target = enabled.get("TargetBucket") if isinstance(enabled, Mapping) else None
    if not isinstance(target, str) or not target:
        return _unclear("LoggingEnabled")
    return (
        _Said("FAIL", "logs in the bucket itself") if target == place.facts.bucket else _Said("PASS", f"s3://{target}")
    )


def _rules(name: str, *path: str) -> Callable[[_Place], _Said]:
    def said(place: _Place) -> _Said:
        answer = place.setting(name)
        if not answer.known:
            return _unknown(answer)
        if answer.body is None:
            return _Said("FAIL", "nothing")
        rules = place.says(name, *path)
        if not isinstance(rules, list) or not all(isinstance(item, Mapping) for item in rules):
            return _unclear(path[-1])
        enabled = sum(item.get("Status") == "Enabled" for item in rules)
        return _Said("PASS", f"{enabled} rules") if enabled else _Said("FAIL", "no enabled rule")

    return said


# --- CloudTrail ---


def _recording(place: _Place, kind: Kind) -> tuple[list[Trail], _Said]:
    """Return the trails that record accesses of a kind, and what that says."""
    facts = place.facts
    if not facts.trails.known:
        return [], _unknown(facts.trails)
    target = f"{place.arn}/{facts.prefix}"
    good: list[Trail] = []
    maybe: _Said | None = None
    failing: _Said | None = None
    for trail in facts.trail:
        name = printable(trail.body.get("Name") or trail.body["TrailARN"], 80)
        if trail.body.get("HomeRegion") != facts.region and trail.body.get("IsMultiRegionTrail") is not True:
            continue
        if not trail.selectors.known:
            maybe = maybe or _unknown(trail.selectors)
            continue
        seen = coverage(trail.selectors.body or {}, target)
        if kind in seen.unclear:
            maybe = maybe or _Said(
                "UNKNOWN",
                f"What the selectors of {name} leave out is not understood.",
                "Add a selector for this bucket without further conditions.",
            )
        elif kind in seen.kinds:
            said = trail.status.body or {}
            # It stays until a delivery succeeds again; what is not delivered nobody can read.
            running, lost = said.get("IsLogging"), said.get("LatestDeliveryError") or ""
            if not trail.status.known:
                maybe = maybe or _unknown(trail.status)
            elif not isinstance(running, bool) or not isinstance(lost, str):
                maybe = maybe or _unclear("IsLogging, LatestDeliveryError")
            elif running and not lost:
                good.append(trail)
            elif running:
                failing = failing or _Said(
                    "FAIL",
                    f"{name} cannot deliver ({printable(lost, 80)})",
                    "Repair the bucket or the key of the trail.",
                )
    if good:
        return good, _Said(
            "PASS", ", ".join(printable(item.body.get("Name") or item.body["TrailARN"], 80) for item in good[:5])
        )
    none = _Said("FAIL", f"{len(facts.trail)} trails, and none that does" if facts.trail else "no trail")
    return [], maybe or failing or none


def _data_events(kind: Kind) -> Callable[[_Place], _Said]:
    return lambda place: _recording(place, kind)[1]


def _of_trails(member: str, holds: Callable[[Any], bool]) -> Callable[[_Place], _Said]:
    """Judge a property of the trails that record the bucket: reads and writes each need one that has it."""

    def said(place: _Place) -> _Said:
        kinds: tuple[Kind, ...] = ("read", "write")
        for kind in kinds:
            trails, outcome = _recording(place, kind)
            if not trails:
                return outcome if outcome.outcome == "UNKNOWN" else _Said("FAIL", f"no trail that records {kind}s")
            if not any(holds(item.body.get(member)) for item in trails):
                name = printable(trails[0].body.get("Name") or trails[0].body["TrailARN"], 80)
                return _Said("FAIL", f"{name} records {kind}s without")
        return _Said("PASS", "yes")

    return said


# --- Keys ---


def _no_key(place: _Place) -> _Said:
    found = _default_encryption(place.setting("encryption"))
    if isinstance(found, _Said):
        return found
    return _Said("SKIPPED", "There is no key to look at; encryption_kms says why.")


def _metadata(key: KeyFacts) -> Mapping[str, Any] | _Said:
    if not key.metadata.known:
        return _unknown(key.metadata)
    if key.metadata.body is None:
        return _Said("FAIL", "no such key")
    found = key.metadata.body.get("KeyMetadata")
    return found if isinstance(found, Mapping) else _unclear("KeyMetadata")


def _customer_managed(key: KeyFacts, place: _Place) -> _Said:
    found = _metadata(key)
    if isinstance(found, _Said):
        return found
    said = _is(found.get("KeyManager"), "CUSTOMER", "AWS")
    account = found.get("AWSAccountId")
    if said.outcome != "PASS":
        return said._replace(found=f"a key that {said.found} manages") if said.outcome == "FAIL" else said
    if not isinstance(account, str) or not account:
        return _unclear("AWSAccountId")
    if account in place.allowed:
        return _Said("PASS", f"a key of {account}")
    if not place.facts.owner:
        return _Said("UNKNOWN", "Nobody said which account owns the bucket.", "Name it (`bucket_owner`).")
    return _Said("FAIL", f"a key of {account}")


def _key_enabled(key: KeyFacts, place: _Place) -> _Said:
    found = _metadata(key)
    if isinstance(found, _Said):
        return found
    bad = ("Disabled", "PendingDeletion", "PendingReplicaDeletion", "PendingImport", "Unavailable", "Creating")
    return _is(found.get("KeyState"), "Enabled", *bad)


def _key_rotation(key: KeyFacts, place: _Place) -> _Said:
    found = _metadata(key)
    if isinstance(found, _Said):
        return found
    if (key.rotation.known and key.rotation.body is None) or found.get("KeySpec") not in (None, "SYMMETRIC_DEFAULT"):
        return _Said("SKIPPED", f"KMS rotates no keys of the kind {found.get('KeySpec') or 'of this one'}.")
    if not key.rotation.known:
        return _unknown(key.rotation)
    said = key.rotation.body or {}
    rotated, days = said.get("KeyRotationEnabled"), said.get("RotationPeriodInDays", 365)
    if rotated is None:
        return _unclear("KeyRotationEnabled")
    if rotated is not True:
        return _is(rotated, True, False)
    if type(days) is not int or days < 1:
        return _unclear("RotationPeriodInDays")
    return _Said("PASS" if days <= _MAX_ROTATION_DAYS else "FAIL", f"every {days} days")


def _key_policy(key: KeyFacts) -> tuple[Mapping[str, Any], ...] | _Said:
    if not key.policy.known:
        return _unknown(key.policy)
    if key.policy.body is None:
        return _Said("FAIL", "no such key")
    return _statements(key.policy)


def _key_policy_public(key: KeyFacts, place: _Place) -> _Said:
    return _nobody(_key_policy(key))


def _key_policy_accounts(key: KeyFacts, place: _Place) -> _Said:
    return _known_accounts(_key_policy(key), place)


_OF_BUCKET: Final[dict[str, Callable[[_Place], _Said]]] = {
    "bucket_owner": _owner,
    "bucket_public_access": lambda place: _access_block(place.setting("public_access_block")),
    "account_public_access": lambda place: _access_block(place.setting("account_public_access_block")),
    "policy_status": _policy_status,
    "policy_public": _policy_public,
    "policy_accounts": _policy_accounts,
    "tls_only": _tls_only,
    "acl_grants": _acl_grants,
    "acls_disabled": _acls_disabled,
    "encryption_kms": _encryption_kms,
    "bucket_key": _bucket_key_used,
    "versioning": _versioning,
    "mfa_delete": _mfa_delete,
    "object_lock": _object_lock,
    "access_logging": _access_logging,
    "data_events_read": _data_events("read"),
    "data_events_write": _data_events("write"),
    "trail_validation": _of_trails("LogFileValidationEnabled", lambda value: value is True),
    "trail_multi_region": _of_trails("IsMultiRegionTrail", lambda value: value is True),
    "trail_kms": _of_trails("KmsKeyId", lambda value: isinstance(value, str) and bool(value)),
    "replication": _rules("replication", "ReplicationConfiguration", "Rules"),
    "lifecycle": _rules("lifecycle", "Rules"),
}

_OF_KEY: Final[dict[str, Callable[[KeyFacts, _Place], _Said]]] = {
    "key_customer_managed": _customer_managed,
    "key_enabled": _key_enabled,
    "key_rotation": _key_rotation,
    "key_policy_public": _key_policy_public,
    "key_policy_accounts": _key_policy_accounts,
}

_KEY_CHECKS: Final = frozenset(_OF_KEY)
#: For each setting the checks that look at it.
_NEEDED_BY: Final[dict[str, frozenset[str]]] = {
    "public_access_block": frozenset({"bucket_public_access"}),
    "account_public_access_block": frozenset({"account_public_access"}),
    "policy_status": frozenset({"policy_status"}),
    "policy": frozenset({"policy_public", "policy_accounts", "tls_only"}),
    "acl": frozenset({"acl_grants", "policy_public", "policy_accounts"}),
    "ownership": frozenset({"acls_disabled"}),
    "encryption": frozenset({"encryption_kms", "bucket_key"}) | _KEY_CHECKS,
    "versioning": frozenset({"versioning", "mfa_delete"}),
    "object_lock": frozenset({"object_lock"}),
    "logging": frozenset({"access_logging"}),
    "trails": frozenset(
        {"data_events_read", "data_events_write", "trail_validation", "trail_multi_region", "trail_kms"}
    ),
    "replication": frozenset({"replication"}),
    "lifecycle": frozenset({"lifecycle"}),
    "keys": _KEY_CHECKS,
}


def findings(results: Iterable[Result]) -> Iterator[Finding]:
    """Yield the findings that results add up to."""
    for result in results:
        found = result.finding()
        if found is not None:
            yield found
