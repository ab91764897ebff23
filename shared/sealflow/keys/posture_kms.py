"""How a key in AWS KMS is set up, one request a setting. Nothing is judged here, and the key is not used."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from sealflow.errors import UsageError
from sealflow.findings import printable
from sealflow.keys.signer import split_query
from sealflow.storage.aws import Answer, Clients, ask, is_aws

#: For each request its permission; a document lists them as the least that the check needs.
PERMISSIONS: Final = {
    "describe_key": "kms:DescribeKey",
    "get_key_rotation_status": "kms:GetKeyRotationStatus",
    "get_key_policy": "kms:GetKeyPolicy",
}

_ARN: Final = re.compile(r"arn:aws[a-z0-9-]*:kms:([a-z0-9-]+):[0-9]{12}:(?:key|alias)/[A-Za-z0-9/_-]+")
_NO_KEY: Final = frozenset({"NotFoundException", "NotFound"})
#: What KMS says of the rotation of keys that it never rotates.
NO_ROTATION: Final = "UnsupportedOperationException"


@dataclass(frozen=True)
class KeyFacts:
    """What was said of a key.

    Attributes:
        key: As it was named: ARN, id or alias.
        metadata: Answer of ``describe_key``; nothing set: there is no such key.
        rotation: Answer of ``get_key_rotation_status``; nothing set: KMS never rotates keys of this kind.
        policy: Answer of ``get_key_policy``.
    """

    key: str
    metadata: Answer = field(repr=False)
    rotation: Answer = field(repr=False)
    policy: Answer = field(repr=False)


def key_id(uri: str) -> tuple[str, str | None]:
    """Return what an ``awskms:`` URI names: the key's ARN, id or alias, and the region as far as it says.

    Raises:
        UsageError: It is the URI of another kind of key, or names none.
    """
    bare, options = split_query(uri, frozenset({"region", "certificate"}))
    named = unquote(bare.removeprefix("awskms:").lstrip("/"))
    if not bare.startswith("awskms:") or not named:
        raise UsageError(
            f"{printable(uri)} names no key in AWS KMS.", next_step="Write awskms:<key ARN> or awskms:alias/name."
        )
    return named, options.get("region")


def key_facts(clients: Clients, key: str, region: str | None, *, aws: bool = True) -> KeyFacts:
    """Ask everything about a key.

    Args:
        clients: Makes clients.
        key: ARN, id or alias.
        region: Where it lies, for ids and aliases; an ARN says it itself.
        aws: Whether AWS itself may be asked.

    Raises:
        UsageError: A client cannot be made from the configuration.
    """
    match = _ARN.fullmatch(key)
    client = clients("kms", match[1] if match else region)
    if is_aws(client) and not aws:
        answer = Answer(
            problem="The bucket does not lie in AWS, and AWS was not asked about its key.",
            next_step="Skip the check with the reason why this does not matter here.",
        )
        return KeyFacts(key, answer, answer, answer)
    metadata = ask(client, "describe_key", PERMISSIONS["describe_key"], absent=_NO_KEY, KeyId=key)
    # An alias is good enough for one request only: it can be pointed elsewhere between two.
    found: Any = (metadata.body or {}).get("KeyMetadata")
    arn = found.get("Arn") if isinstance(found, dict) else None
    named = arn if isinstance(arn, str) and arn else key
    if metadata.known and metadata.body is None:
        return KeyFacts(key, metadata, metadata, metadata)
    return KeyFacts(
        key,
        metadata,
        ask(
            client,
            "get_key_rotation_status",
            PERMISSIONS["get_key_rotation_status"],
            absent=frozenset({NO_ROTATION}),
            KeyId=named,
        ),
        ask(client, "get_key_policy", PERMISSIONS["get_key_policy"], KeyId=named, PolicyName="default"),
    )
