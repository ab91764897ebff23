"""List keys: who each one is to a policy, what it is trusted for, until when, and whether it was revoked."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sealflow.actions import context
from sealflow.actions.policy_files import read_either, read_revocations
from sealflow.audit.event import utc_now
from sealflow.keys import PublicKey, load_public_key
from sealflow.keys.certificate import load_certificates
from sealflow.keys.public import read_key_file
from sealflow.policy.compose import CompiledPolicy
from sealflow.policy.delivery import days_left, in_days, time_text
from sealflow.policy.identities import CertificateIdentity, Identity, KeyIdentity
from sealflow.policy.requirement import NOTHING_REVOKED, Revocations, Revoked
from sealflow.policy.source import AdminChannel, policy_in_force, resolve
from sealflow.storage import Storages


@dataclass(frozen=True)
class Trust:
    """What a policy lets a key speak for, under one name.

    Attributes:
        identity: The name; ``policy``, ``waivers`` or a team for keys that sign those.
        role: ``signer``, ``verifier``, ``policy``, ``waivers`` or ``team``.
        producers: For whom it may speak; empty for all.
        builders: For which builders; empty for all.
        rules: Name of each rule that counts on it, with the rule's places.
        valid_from: When it begins to count, ``None`` for always.
        expires: When it ceases to, ``None`` for never.
        state: ``valid``, ``not yet``, ``expired`` or ``revoked``.
    """

    identity: str
    role: str
    producers: tuple[str, ...] = ()
    builders: tuple[str, ...] = ()
    rules: tuple[tuple[str, tuple[str, ...]], ...] = ()
    valid_from: datetime.datetime | None = None
    expires: datetime.datetime | None = None
    state: str = "valid"

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "identity": self.identity,
            "role": self.role,
            "producers": list(self.producers),
            "builders": list(self.builders),
            "rules": [{"name": name, "artifact": list(places)} for name, places in self.rules],
            "valid_from": time_text(self.valid_from) if self.valid_from else None,
            "expires": time_text(self.expires) if self.expires else None,
            "state": self.state,
        }


@dataclass
class Listed:
    """One key, or one set of certificate names.

    Attributes:
        key: ``sha256:`` and its fingerprint; empty for certificate names.
        algorithm: Such as ``ECDSA P-256``; empty for certificate names.
        names: Certificate names with their label.
        sources: Where the call named it.
        trust: What the policy says of it.
        revoked: Since when and why, ``None`` where it is not.
        warnings: What needs somebody's attention.
    """

    key: str = ""
    algorithm: str = ""
    names: tuple[str, ...] = ()
    sources: list[str] = field(default_factory=list)
    trust: list[Trust] = field(default_factory=list)
    revoked: Revoked | None = None
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "key": self.key,
            "algorithm": self.algorithm,
            "names": list(self.names),
            "sources": self.sources,
            "trust": [item.as_dict() for item in self.trust],
            "revoked": {"since": time_text(self.revoked.since), "reason": self.revoked.reason}
            if self.revoked is not None
            else None,
            "warnings": self.warnings,
        }


@dataclass(frozen=True)
class KeyList:
    """Keys and what they were looked up in.

    Attributes:
        keys: The keys.
        policy: Where the policy lies; empty where there is none.
        believed: How far the policy can be believed, in words.
        revocations: Where the list of revocations lies; empty where none was asked.
    """

    keys: tuple[Listed, ...]
    policy: str
    believed: str
    revocations: str

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "policy": self.policy,
            "believed": self.believed,
            "revocations": self.revocations,
            "keys": [item.as_dict() for item in self.keys],
        }


def list_keys(sources: Sequence[str] = (), *, policy: str | None = None, revocations: str | None = None) -> KeyList:
    """Return what is known of the given keys, without any of all keys that the policy knows.

    Args:
        sources: Public keys and certificates: paths, URIs or PEM texts.
        policy: A draft or signed policy; by default the one in force, if one is.
        revocations: A draft or signed list of revocations; by default the one in force, if one is.

    Raises:
        UsageError: No such key, policy or list.
        PolicyError: The policy or the list is none.
        UnavailableError: A key service does not answer, or the policy in force is not to be had.
    """
    now, channel = utc_now(), context.current().admin
    in_force = policy_in_force(channel, Storages(), now) if channel is not None else None
    compiled, believed = (in_force.policy, "in force") if in_force is not None else (None, "")
    if policy is not None:
        compiled, believed = read_either(policy)
    revoked = in_force.revoked if in_force is not None else NOTHING_REVOKED
    where = in_force.revocations.uri if in_force is not None and in_force.revocations is not None else ""
    if revocations is not None:
        given = read_revocations(revocations)
        revoked, where = resolve(given, compiled)[0] if compiled else given.resolved({}), revocations
    found: dict[str, Listed] = {}
    for source in sources:
        named, warnings = _named(source, now)
        item = found.setdefault(named.hint, _of_key(named, revoked))
        item.sources.append("" if source.lstrip().startswith("-----BEGIN") else source)
        item.warnings += warnings
    for key, names, trust in _trusted(compiled, revoked, now) if compiled is not None else ():
        mark = key.hint if key is not None else "\n".join(names)
        if sources and mark not in found:
            continue
        item = found.setdefault(mark, _of_key(key, revoked) if key is not None else _of_names(names, revoked))
        item.trust.append(trust)
        item.warnings += _ending(trust, now)
    if isinstance(channel, AdminChannel) and policy is None:
        for role, keys in (("policy", channel.keys), ("waivers", channel.waiver_keys)):
            for admin in map(load_public_key, keys):
                if not sources or admin.hint in found:
                    found.setdefault(admin.hint, _of_key(admin, revoked)).trust.append(
                        Trust(role, role, state="revoked" if admin.hint in revoked.keys else "valid")
                    )
    return KeyList(tuple(found.values()), compiled.uri if compiled is not None else "", believed, where)


def _of_key(key: PublicKey, revoked: Revocations) -> Listed:
    return Listed(f"sha256:{key.hint}", key.algorithm, revoked=revoked.keys.get(key.hint))


def _of_names(names: tuple[str, ...], revoked: Revocations) -> Listed:
    gone = [revoked.names[name] for name in names if name in revoked.names]
    return Listed(names=names, revoked=min(gone, key=lambda item: item.since) if gone else None)


def _named(source: str, now: datetime.datetime) -> tuple[PublicKey, list[str]]:
    """Return the key that a source names, and what its certificate warns of, where it is one."""
    inline = source.lstrip().startswith("-----BEGIN")
    plain = inline or source.startswith("file:") or ":" not in source
    data = source.encode("utf-8") if inline else read_key_file(source) if plain else b""
    if b"-----BEGIN CERTIFICATE-----" not in data:
        return load_public_key(source), []
    leaf = load_certificates(source)[0]
    return PublicKey(leaf.public_key()), _end(leaf.not_valid_after_utc, "The certificate", now)


def _trusted(
    policy: CompiledPolicy, revoked: Revocations, now: datetime.datetime
) -> Iterator[tuple[PublicKey | None, tuple[str, ...], Trust]]:
    for name, identity in (*policy.identities.items(), *policy.verifiers.items()):
        key = identity.public_key if isinstance(identity, KeyIdentity) else None
        names = identity.names if isinstance(identity, CertificateIdentity) else ()
        gone = key.hint in revoked.keys if key is not None else any(item in revoked.names for item in names)
        outside = identity.outside_window(now)
        state = {"KEY_NOT_YET_VALID": "not yet", "KEY_EXPIRED": "expired"}[outside.code] if outside else "valid"
        yield (
            key,
            names,
            Trust(
                policy.prefix + name,
                "verifier" if name in policy.verifiers else "signer",
                identity.producers,
                identity.builders,
                tuple(_rules(policy, identity)),
                identity.valid_from,
                identity.expires,
                "revoked" if gone else state,
            ),
        )
    for item in policy.document.delegations:
        key = load_public_key(item.key)
        state = "revoked" if key.hint in revoked.keys else "valid"
        rules = ((item.policy, item.artifact),)
        yield key, (), Trust(item.team, "team", rules=rules, state=state)


def _rules(policy: CompiledPolicy, identity: Identity) -> Iterator[tuple[str, tuple[str, ...]]]:
    for rule in policy.rules:
        roots = rule.lineage.roots if rule.lineage is not None else ()
        if identity in (*(rule.identities or ()), *rule.verifiers, *roots):
            yield rule.name, tuple(rule.rule.scope.artifact or ())


def _ending(trust: Trust, now: datetime.datetime) -> list[str]:
    if trust.state == "revoked" or trust.expires is None:
        return []
    return _end(trust.expires, trust.identity, now)


def _end(when: datetime.datetime, what: str, now: datetime.datetime) -> list[str]:
    if when <= now:
        return [f"{what} has expired, on {time_text(when)}."]
    left = days_left(when, now)
    return [f"{what} expires within {in_days(left)}, on {time_text(when)}."] if left is not None else []
