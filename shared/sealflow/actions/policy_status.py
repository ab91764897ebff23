"""Status: which of the three states holds in this process, and why."""

from __future__ import annotations

import datetime
from typing import Any, Final

from sealflow.actions.context import Surroundings
from sealflow.audit.event import utc_now
from sealflow.errors import SealflowError, UnavailableError
from sealflow.policy.source import AdminChannel, InForce, policy_in_force
from sealflow.storage import Storages

#: Most revocations that are listed.
_SHOWN: Final = 20


def status(surroundings: Surroundings) -> dict[str, Any]:
    """Return the state of the policy.

    Args:
        surroundings: The admin's channel; the policy is read anew, with this process's own credentials.

    Returns:
        ``state`` is ``none``, ``unavailable`` (with ``code``, ``reason`` and ``next_step``) or ``in_force``.
    """
    channel = surroundings.admin
    if channel is None:
        return {"state": "none"}
    body: dict[str, Any] = {"state": "unavailable"}
    if isinstance(channel, AdminChannel):
        body["channel"] = {
            "where": channel.where,
            "policy": channel.policy,
            "minimum_version": channel.minimum_version,
            "managed": list(channel.managed),
            "revocations": channel.revocations,
            "waivers": channel.waivers or channel.policy.rstrip("/") + ".waivers",
            "state": channel.state,
        }
    now = utc_now()
    try:
        return {**body, **_in_force(policy_in_force(channel, Storages(), now, cached=False), now)}
    except UnavailableError as error:
        return {**body, **_reason(error)}


def _reason(error: SealflowError) -> dict[str, Any]:
    return {"code": error.code, "reason": error.message, "next_step": error.next_step}


def _in_force(found: InForce, now: datetime.datetime) -> dict[str, Any]:
    document = found.policy.document
    return {
        "state": "in_force",
        "version": document.version,
        "digest": f"sha256:{found.policy.digest}",
        "key": f"sha256:{found.key}",
        "expires": _text(document.expires),
        "grace_hours": document.grace_hours,
        "rules": {level: sum(rule.level == level for rule in document.rules) for level in ("enforce", "audit", "off")},
        "teams": [item.team for item in document.delegations],
        "revocations": _revocations(found),
        "waivers": [
            {
                "id": item.waiver.id,
                "rules": [rule.name for rule in item.waiver.rules],
                "artifact": list(item.waiver.scope.artifact or ()),
                "reason": item.waiver.reason,
                "key": f"sha256:{item.key}",
                "expires": _text(item.waiver.expires),
                "holds": item.waiver.not_before <= now < item.waiver.expires,
            }
            for item in found.waivers
        ],
        "waivers_refused": list(found.problems),
        "warnings": [{"code": item.code, "message": item.message, "found": item.found} for item in found.findings],
    }


def _revocations(found: InForce) -> dict[str, Any] | None:
    listed = found.revocations
    if listed is None:
        return None
    entries = listed.document.revocations
    kinds = {"keys": "key", "identities": "identity", "digests": "digest"}
    return {
        "version": listed.document.version,
        "digest": f"sha256:{listed.digest}",
        "key": f"sha256:{found.revocations_key}",
        "expires": _text(listed.document.expires),
        "grace_hours": listed.document.grace_hours,
        **{name: sum(getattr(item, member) is not None for item in entries) for name, member in kinds.items()},
        "latest": [
            {"subject": item.subject, "since": _text(item.at), "reason": item.reason, "id": item.id or ""}
            for item in sorted(entries, key=lambda item: item.at, reverse=True)[:_SHOWN]
        ],
    }


def _text(when: datetime.datetime) -> str:
    return when.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
