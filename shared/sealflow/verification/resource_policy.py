"""Whom a policy of a bucket or a key lets in, read so that a mistake can only be a stranger too many.

Source: IAM User Guide, "IAM JSON policy elements". Not an evaluator: it gives an upper bound of who may act, whatever
the action and the resource. `Deny` takes nobody away from it, and a condition does so only where it is understood.
Whatever is not understood is said to be unclear, and never counts as nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from sealflow import strictjson
from sealflow.errors import EvidenceError
from sealflow.findings import printable

#: Bytes of a policy; S3 takes 20 KiB, KMS 32 KiB.
MAX_POLICY: Final = 64 << 10

#: The one who is anybody, with or without credentials.
EVERYBODY: Final = "everybody"

_ELEMENTS: Final = frozenset(
    {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"}
)
_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_ORGANIZATION: Final = re.compile(r"o-[a-z0-9]{10,32}")
_ARN_ACCOUNT: Final = re.compile(r"arn:aws[a-z0-9-]*:(?:iam|sts)::([^:/]*):[^\s]+")
_ANY_ARN_ACCOUNT: Final = re.compile(r"arn:aws[a-z0-9-]*:[a-z0-9-]+:[a-z0-9-]*:([0-9]{12}):[^\s]+")

# Conditions that say who: each value names an account or an organization in the whole. A wildcard elsewhere in an ARN
# does no harm, the account stands in clear.
_EXACT: Final = frozenset({"StringEquals", "StringEqualsIgnoreCase"})
_ALIKE: Final = frozenset({"StringLike", "ArnEquals", "ArnLike"})
_ACCOUNT_KEYS: Final = frozenset({"aws:principalaccount", "kms:calleraccount"})
_ARN_KEYS: Final = frozenset({"aws:principalarn"})
_ORG_KEYS: Final = frozenset({"aws:principalorgid"})
_SOURCE_ACCOUNT_KEYS: Final = frozenset({"aws:sourceaccount"})
_SOURCE_ARN_KEYS: Final = frozenset({"aws:sourcearn"})
_SOURCE_ORG_KEYS: Final = frozenset({"aws:sourceorgid"})
# Conditions that say how, when or what, and that anybody can meet. What is not listed is unclear.
_SAYS_NOBODY: Final = frozenset(
    {"aws:securetransport", "aws:useragent", "aws:referer", "aws:currenttime", "aws:epochtime", "aws:requestedregion",
     "s3:prefix", "s3:delimiter", "s3:max-keys", "s3:tlsversion", "s3:signatureversion", "s3:authtype"}
)  # fmt: skip


class Grant(NamedTuple):
    """One who is let in.

    Attributes:
        who: :data:`EVERYBODY`, twelve digits of an account, an organization ``o-…``, or a name of somebody else.
        statement: The statement, for messages.
        unclear: Why nobody can say who it is; empty when that is known.
    """

    who: str
    statement: str
    unclear: str = ""


class UnclearError(Exception):
    """A policy has a form that is not understood."""


def read_policy(text: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the statements of a policy.

    Raises:
        UnclearError: It is no policy of a form that is known here.
    """
    if not isinstance(text, str):
        raise UnclearError("It is no text.")
    try:
        body = strictjson.loads(text.encode("utf-8", "surrogatepass"), limit=MAX_POLICY, what="The policy")
    except EvidenceError as error:
        raise UnclearError(error.message) from None
    if not isinstance(body, dict) or body.keys() - {"Version", "Id", "Statement"}:
        raise UnclearError("It has unknown members.")
    statements = body.get("Statement")
    listed = [statements] if isinstance(statements, dict) else statements
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise UnclearError("It has no list of statements.")
    for item in listed:
        if item.keys() - _ELEMENTS or item.get("Effect") not in ("Allow", "Deny"):
            raise UnclearError("A statement has unknown elements, or neither allows nor denies.")
    return tuple(listed)


def grants(statements: tuple[Mapping[str, Any], ...], canonical_owner: str = "") -> tuple[Grant, ...]:
    """Return everybody whom a policy may let in.

    Args:
        statements: Of the policy.
        canonical_owner: Canonical user id of the bucket's owner, where it is known; that one is nobody new.
    """
    found: list[Grant] = []
    for number, statement in enumerate(statements):
        if statement["Effect"] != "Allow":
            continue
        name = printable(statement.get("Sid") or f"statement {number + 1}", 80)
        conditions = tuple(_conditions(statement.get("Condition", {})))
        found += [
            item
            for item in _principals(statement, name, conditions)
            if not canonical_owner or item.who != canonical_owner
        ]
    return tuple(dict.fromkeys(found))


def _principals(statement: Mapping[str, Any], name: str, conditions: tuple[_Condition, ...]) -> Iterator[Grant]:
    if "NotPrincipal" in statement:
        # Everybody but those: also those who are nobody yet.
        yield Grant(EVERYBODY, name)
        return
    principal = statement.get("Principal")
    if principal == "*":
        principal = {"AWS": "*"}
    if not isinstance(principal, dict) or not principal:
        yield Grant("", name, "it names no principal")
        return
    for kind, named in principal.items():
        for value in _texts(named):
            if value is None:
                yield Grant("", name, "its principals are no texts")
            elif kind == "AWS":
                yield from _aws(value, name, conditions)
            elif kind == "CanonicalUser":
                yield Grant(value, name)
            elif kind == "Service":
                yield from _service(value, name, conditions)
            elif kind == "Federated" and (match := _ARN_ACCOUNT.fullmatch(value)) and _ACCOUNT.fullmatch(match[1]):
                yield Grant(match[1], name)
            else:
                yield Grant(value, name, f"what {printable(kind, 20)} principals are is not known here")


def _aws(value: str, name: str, conditions: tuple[_Condition, ...]) -> Iterator[Grant]:
    match = _ARN_ACCOUNT.fullmatch(value)
    account = match[1] if match else value
    if _ACCOUNT.fullmatch(account):
        yield Grant(account, name)
    elif "*" in account or "?" in account:
        yield from _limited(name, conditions, service=False)
    elif match and account:
        # No account of a customer: a distribution of CloudFront, whose visitors are anybody, is written so.
        yield Grant(account, name)
    else:
        yield Grant(value, name, "its principal is no account, and no ARN with one")


def _service(value: str, name: str, conditions: tuple[_Condition, ...]) -> Iterator[Grant]:
    """Services act for all their customers, so what counts is for whom."""
    for item in _limited(name, conditions, service=True):
        yield item._replace(who=f"{value} for anybody") if item.who == EVERYBODY else item


def _limited(name: str, conditions: tuple[_Condition, ...], *, service: bool) -> Iterator[Grant]:
    """Yield who is left of everybody under conditions, all of which must hold: so any one of them is a bound."""
    bounds = [bound for item in conditions if (bound := item.bound(service=service))]
    if bounds:
        for who in min(bounds, key=len):
            yield Grant(who, name)
        return
    strange = sorted({item.key for item in conditions if not item.says_nobody})
    if strange:
        yield Grant(EVERYBODY, name, f"everybody under conditions that are not understood: {', '.join(strange)}")
    else:
        yield Grant(EVERYBODY, name)


class _Condition(NamedTuple):
    operator: str
    key: str
    values: tuple[str | None, ...]

    @property
    def says_nobody(self) -> bool:
        """Whether anybody can meet it."""
        return self.key in _SAYS_NOBODY or self.key.startswith("s3:x-amz-")

    def bound(self, *, service: bool) -> frozenset[str]:
        """Return who can meet it: accounts and organizations; empty where that is not known."""
        account_keys = _SOURCE_ACCOUNT_KEYS if service else _ACCOUNT_KEYS
        arn_keys = _SOURCE_ARN_KEYS if service else _ARN_KEYS
        org_keys = _SOURCE_ORG_KEYS if service else _ORG_KEYS
        pattern: re.Pattern[str]
        if self.key in account_keys and self.operator in (_EXACT | {"StringLike"}):
            pattern = _ACCOUNT
        elif self.key in org_keys and self.operator in (_EXACT | {"StringLike"}):
            pattern = _ORGANIZATION
        elif self.key in arn_keys and self.operator in (_EXACT | _ALIKE):
            pattern = _ANY_ARN_ACCOUNT if service else _ARN_ACCOUNT
        else:
            return frozenset()
        found = set()
        for value in self.values:
            match = pattern.fullmatch(value) if value is not None else None
            if match is None:
                return frozenset()
            who = match[1] if pattern.groups else match[0]
            if not (_ACCOUNT.fullmatch(who) or _ORGANIZATION.fullmatch(who)):
                return frozenset()
            found.add(who)
        return frozenset(found)


def _conditions(block: Any) -> Iterator[_Condition]:
    if not isinstance(block, dict):
        yield _Condition("", "a condition that is no object", ())
        return
    for operator, keys in block.items():
        if not isinstance(keys, dict):
            yield _Condition(operator, f"{printable(operator, 40)} that is no object", ())
            continue
        for key, values in keys.items():
            # Names of keys have no case; those of operators do here.
            yield _Condition(operator, printable(key, 80).lower(), tuple(_texts(values)))


def _texts(value: Any) -> Iterator[str | None]:
    """Yield the texts of one or a list of them, ``None`` for what is none; an empty list holds one that is none."""
    listed = value if isinstance(value, list) else [value]
    for item in listed or [None]:
        yield item if isinstance(item, str) and item else None


def denies_plain_http(statements: tuple[Mapping[str, Any], ...], arn: str) -> tuple[bool, bool]:
    """Tell whether a bucket's policy denies everybody everything without TLS: for the bucket, and for its objects.

    Only the one form counts that leaves no gap: `Deny` to everybody of every action, on the one condition that
    ``aws:SecureTransport`` is false.

    Args:
        statements: Of the policy.
        arn: Of the bucket.
    """
    bucket = objects = False
    for statement in statements:
        if not _denies_all_plain(statement):
            continue
        for resource in _texts(statement.get("Resource")):
            start = resource[:-1] if resource and resource.endswith("*") else None
            if start is not None and ("*" in start or "?" in start):
                start = None
            bucket = bucket or resource == arn or (start is not None and arn.startswith(start))
            objects = objects or (start is not None and f"{arn}/".startswith(start))
    return bucket, objects


def _denies_all_plain(statement: Mapping[str, Any]) -> bool:
    if statement["Effect"] != "Deny" or {"NotPrincipal", "NotAction", "NotResource"} & statement.keys():
        return False
    principal = statement.get("Principal")
    if principal != "*" and not (isinstance(principal, dict) and "*" in tuple(_texts(principal.get("AWS")))):
        return False
    if not {"*", "s3:*"} & {item.lower() for item in _texts(statement.get("Action")) if item}:
        return False
    block = statement.get("Condition")
    if not isinstance(block, dict) or len(block) != 1:
        return False
    ((operator, keys),) = block.items()
    if operator not in ("Bool", "BoolIfExists") or not isinstance(keys, dict) or len(keys) != 1:
        return False
    ((key, value),) = keys.items()
    values = value if isinstance(value, list) else [value]
    # A number is no boolean, though 0 equals False.
    return key.lower() == "aws:securetransport" and len(values) == 1 and (values[0] is False or values[0] == "false")
