"""Who may vouch for the writers of audit events: from policies, the call and the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sealflow.actions.context import Surroundings
from sealflow.audit.event import utc_now
from sealflow.verification.vouching import Vouchers

if TYPE_CHECKING:
    from sealflow.policy.compose import CompiledPolicy


def vouchers_for(
    surroundings: Surroundings, identities: Any = None, added: str | CompiledPolicy | None = None
) -> Vouchers | None:
    """Return who may vouch for writers, ``None`` where nobody is named.

    The admin's policy, one more policy and the call each name identities; where several do, a key counts only where
    each of them lets it speak. Policies of teams say nothing here: they are about artifacts.

    Args:
        surroundings: Who asks, the admin's channel and the settings, whose identities stand in where neither a policy
            nor the call names any.
        identities: Identity rules of the call, see :mod:`sealflow.policy.identities`.
        added: One more policy, a draft's path or a policy already read.

    Raises:
        UnavailableError: The admin's policy, or a key, is not to be had.
        PolicyError: The added policy cannot be taken.
        UsageError: These are no identity rules.
    """
    from sealflow.policy.identities import Identity, parse_identities

    now = utc_now()
    policies: list[CompiledPolicy] = []
    revoked: dict[str, str] = {}
    if surroundings.admin is not None:
        from sealflow.policy.source import policy_in_force
        from sealflow.storage import Storages

        in_force = policy_in_force(surroundings.admin, Storages(), now)
        policies.append(in_force.policy)
        revoked = {key: entry.reason for key, entry in in_force.revoked.keys.items()}
    if added is not None:
        from sealflow.actions.policies import read_added

        policies.append(read_added(added))
    groups: list[tuple[Identity, ...]] = [tuple(item.identities.values()) for item in policies if item.identities]
    groups.append(parse_identities(identities))
    if not any(groups):
        groups = [parse_identities(surroundings.settings.identities)]
    groups = [group for group in groups if group]
    return Vouchers.of(groups, revoked, now) if groups else None
