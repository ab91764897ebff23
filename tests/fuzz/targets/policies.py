"""Policies, and what else an admin or a cloud says about access."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sealflow.errors import SealflowError
from tests.fuzz.targets.base import Target, text


def _policy(function: str, module: str = "document") -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        import importlib

        return getattr(importlib.import_module(f"sealflow.policy.{module}"), function)(data)

    return read


def _draft(data: bytes) -> object:
    from sealflow.policy.draft import parse_draft

    return parse_draft(data, "the draft").policy()


def _identities(data: bytes) -> object:
    from sealflow.policy.identities import parse_identities

    return parse_identities(text(data))


def _recipients(data: bytes) -> object:
    from sealflow.actions.recipients import recipient_uris

    return recipient_uris("[" + text(data).removeprefix("["))


def _resource_policy(data: bytes) -> object:
    from sealflow.verification.resource_policy import denies_plain_http, grants, read_policy

    statements = read_policy(text(data))
    return grants(statements), denies_plain_http(statements, "arn:aws:s3:::models")


def _unclear() -> tuple[type[Exception], ...]:
    from sealflow.verification.resource_policy import UnclearError

    return (SealflowError, UnclearError)


TARGETS: Final = [
    Target("policy", _policy("parse_policy"), ("sealflow.policy.document",)),
    Target("waiver", _policy("parse_waiver"), ("sealflow.policy.document",)),
    Target("revocations", _policy("parse_revocations", "revocations"), ("sealflow.policy.revocations",)),
    Target("draft", _draft, ("sealflow.policy.draft", "sealflow.strictyaml")),
    Target("identities", _identities, ("sealflow.policy.identities",)),
    Target("recipients", _recipients, ("sealflow.actions.recipients",)),
    Target("resource-policy", _resource_policy, ("sealflow.verification.resource_policy",), _unclear()),
]
