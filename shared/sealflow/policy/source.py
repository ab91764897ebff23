"""Where the policy comes from, and the three states: none configured, configured but not to be had, in force.

The admin's channel names the policy's place, the keys that may sign it and the least version. It is a file that only an
admin can write, or what an orchestrator took from its own configuration before any author's code ran; nothing that a
call, a DAG, a pipeline or an environment variable says can change it.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import stat
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sealflow import strictjson
from sealflow.collector import rare_collection
from sealflow.errors import EvidenceError, SealflowError, UnavailableError, UsageError
from sealflow.findings import Finding, printable
from sealflow.keys import PublicKey, load_public_key
from sealflow.policy.channel import ENVIRONMENT_FILE, MACHINE_FILE, is_there
from sealflow.policy.delivery import (
    Good,
    Kind,
    days_left,
    fetch,
    forget_opened,
    in_days,
    last_good,
    remembered,
    take,
    time_text,
    unavailable,
)
from sealflow.policy.globs import NAME_PREFIX, check_place, is_absolute, place_pattern
from sealflow.policy.requirement import NOTHING_REVOKED, Revocations
from sealflow.policy.signed import MAX_SIGNED, POLICY_TYPE, REVOCATIONS_TYPE, WAIVER_TYPE, open_signed
from sealflow.storage import Storages

if TYPE_CHECKING:
    from sealflow.policy.compose import AcceptedWaiver, CompiledPolicy
    from sealflow.policy.revocations import CompiledRevocations

#: How long a process uses a policy that it has loaded, in seconds.
FRESH_FOR: Final = 60.0

#: Most waivers that are read.
MAX_WAIVERS: Final = 256

_MAX_CHANNEL = 64 << 10
_MAX_WAIVER = 256 << 10


@dataclass(frozen=True)
class AdminChannel:
    """What an admin configures outside of the reach of authors.

    Attributes:
        policy: Location of the signed policy. Here and below a local one is absolute: what a relative one means is up
            to whoever chose the working directory.
        keys: Public keys of the admins: PEM texts, paths or ``file:`` URIs. Nothing else: which key service answers is
            up to variables that a task can set.
        minimum_version: Least version that is accepted; what protects a fresh worker from an old policy.
        managed: Patterns of the locations that are refused while the policy is not to be had; all by default.
        revocations: Location of the signed list of revocations; empty for none. Where one is named and not to be had,
            neither is the policy.
        revocations_minimum_version: Least version of that list.
        waivers: Folder of the waivers, by default ``<policy>.waivers``.
        waiver_keys: Further keys that may sign waivers and no policies.
        state: Folder in which the last good policy is kept; without it only the process remembers it.
        where: Where this stands, for messages.
    """

    policy: str
    keys: tuple[str, ...]
    minimum_version: int = 1
    managed: tuple[str, ...] = ("**",)
    revocations: str = ""
    revocations_minimum_version: int = 1
    waivers: str = ""
    waiver_keys: tuple[str, ...] = ()
    state: str = ""
    where: str = ""

    @classmethod
    def parse(cls, body: Any, where: str) -> AdminChannel:
        """Read a channel from a decoded JSON object.

        Raises:
            UsageError: A member is unknown, missing or of the wrong type.
        """
        if not isinstance(body, Mapping):
            raise UsageError(f"{where} is not a JSON object.")
        known = {item.name for item in fields(cls)} - {"where"}
        for name in body:
            if name not in known:
                raise UsageError(
                    f"{where} has the unknown member {printable(name)!r}; known: {', '.join(sorted(known))}."
                )
        values: dict[str, Any] = {"where": where}
        for name, value in body.items():
            if name in ("minimum_version", "revocations_minimum_version"):
                if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                    raise UsageError(f"{where}: {name} must be a whole number from 1.")
                values[name] = value
            elif name in ("keys", "managed", "waiver_keys"):
                listed = (value,) if isinstance(value, str) else value
                if not isinstance(listed, Sequence) or not listed or not all(_is_text(item) for item in listed):
                    raise UsageError(f"{where}: {name} must be a list of texts.")
                values[name] = tuple(listed)
            elif not _is_text(value):
                raise UsageError(f"{where}: {name} must be text.")
            else:
                values[name] = value
        if "policy" not in values or "keys" not in values:
            raise UsageError(f"{where} must name the policy and the keys that may sign it.")
        for pattern in values.get("managed", ()):
            problem = check_place(pattern) or (pattern.startswith(NAME_PREFIX) and "a logical name is no location")
            if problem:
                raise UsageError(f"{where}: managed: {problem}.")
        for name in ("policy", "revocations", "waivers", "state", "keys", "waiver_keys"):
            given = values.get(name) or ()
            for text in (given,) if isinstance(given, str) else given:
                if problem := _check_source(text, key=name in ("keys", "waiver_keys"), local=name == "state"):
                    raise UsageError(f"{where}: {name}: {problem}.")
        return cls(**values)

    def manages(self, places: Sequence[str]) -> bool:
        """Tell whether a location must be refused while the policy is not to be had."""
        from sealflow.policy.compose import concerns

        return concerns([place_pattern(pattern) for pattern in self.managed], places)


def _check_source(text: str, *, key: bool, local: bool) -> str:
    """Return why a place or key of the channel may not be used, empty when nothing is wrong with it."""
    if key and text.lstrip().startswith("-----BEGIN"):
        return ""
    if is_absolute(text) and (text.startswith(("/", "file:")) or not (key or local)):
        return ""
    kind = "PEM text or an absolute path" if key else "an absolute path" if local else "an absolute location"
    return f"{printable(text, 100)!r} is not {kind}"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


@dataclass(frozen=True)
class BrokenChannel:
    """An admin's file that is there and cannot be taken: a policy is configured, and it is not to be had."""

    error: SealflowError

    def manages(self, places: Sequence[str]) -> bool:
        """Nobody can say what is managed, so everything is."""
        return True


@dataclass(frozen=True)
class InForce:
    """A policy in force.

    Attributes:
        policy: The policy.
        key: Fingerprint of the key that signed it.
        waivers: Waivers whose signatures hold.
        findings: What every verdict should say about it: that it or a key expires soon, that it stands in.
        problems: Waivers that were not taken, and why.
        revocations: The list of revocations; ``None`` where the channel names none.
        revocations_key: Fingerprint of the key that signed it.
        revoked: What counts no longer, the identities of this policy taken for what they hold.
    """

    policy: CompiledPolicy
    key: str
    waivers: tuple[AcceptedWaiver, ...] = ()
    findings: tuple[Finding, ...] = ()
    problems: tuple[str, ...] = field(default=())
    revocations: CompiledRevocations | None = None
    revocations_key: str = ""
    revoked: Revocations = NOTHING_REVOKED

    @property
    def until(self) -> datetime.datetime:
        """When the first of the documents expires."""
        ends = [item.document.expires for item in (self.policy, self.revocations) if item is not None]
        return min(ends)


def machine_channel() -> AdminChannel | BrokenChannel | None:
    """Return the admin's channel of this machine or Python environment, ``None`` where there is none."""
    for path, root_only in ((MACHINE_FILE, True), (os.path.join(sys.prefix, ENVIRONMENT_FILE), False)):
        try:
            if is_there(path):
                return AdminChannel.parse(_read_channel(path, root_only), path)
        except SealflowError as error:
            return BrokenChannel(error)
    return None


def _read_channel(path: str, root_only: bool) -> Any:
    try:
        # A named pipe in its place would block a plain open for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            info = os.fstat(file.fileno())
            data = file.read(_MAX_CHANNEL + 1) if stat.S_ISREG(info.st_mode) else b""
        owner = os.stat(__file__).st_uid
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {error.strerror}.", code="POLICY_UNAVAILABLE") from None
    if not stat.S_ISREG(info.st_mode):
        raise UsageError(f"{path} is not a file.")
    # Whoever owns this code can change what it does; nobody else may say whom it believes.
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or info.st_uid not in ({0} if root_only else {0, owner}):
        raise UsageError(
            f"{path} can be written by others than an admin.",
            code="POLICY_UNAVAILABLE",
            next_step=f"chown root {path} && chmod 644 {path}",
        )
    try:
        return strictjson.loads(data, limit=_MAX_CHANNEL, what=path)
    except EvidenceError as error:
        raise UsageError(error.message) from None


class _Loaded(NamedTuple):
    """What was loaded: when, by the process's clock and by the calendar, and whether it was the policy in its place."""

    at: float
    in_force: InForce
    #: The last good policy and list of revocations.
    good: Good[CompiledPolicy] | None
    listed: Good[CompiledRevocations] | None


_cache: dict[AdminChannel, _Loaded] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    # Another thread may have held the lock at that moment, and there is nobody in the child who would release it.
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def policy_in_force(
    channel: AdminChannel | BrokenChannel, storages: Storages, now: datetime.datetime, *, cached: bool = True
) -> InForce:
    """Return the policy that a channel names.

    Args:
        channel: The admin's channel.
        storages: Finds storage.
        now: The time, aware.
        cached: Take what this process loaded within the last minute.

    Raises:
        UnavailableError: ``POLICY_UNAVAILABLE`` or ``POLICY_TOO_NEW``: it is not to be had, and why. Retryable.
    """
    if isinstance(channel, BrokenChannel):
        raise unavailable(channel.error.message, channel.error.next_step) from None
    with _lock:
        known = _cache.get(channel)
        young = known is not None and time.monotonic() - known.at < FRESH_FOR
        if cached and known is not None and young and now < known.in_force.until:
            return known.in_force
        with rare_collection():
            loaded = _load(channel, storages, now, known)
        _cache[channel] = loaded
        return loaded.in_force


_teams: dict[tuple[str, str, int, tuple[str, ...]], tuple[float, CompiledPolicy]] = {}


def team_policies(
    in_force: InForce,
    places: Sequence[str],
    storages: Storages,
    now: datetime.datetime,
    contents: Sequence[str] = (),
) -> list[CompiledPolicy]:
    """Return the policies of the teams to whom the admin gave an artifact.

    Args:
        in_force: The admin's policy.
        places: All readings of the artifact's location.
        storages: Finds storage.
        now: The time, aware.
        contents: Names of all files in it, as far as they are known.

    Raises:
        UnavailableError: A team's policy is not to be had. It may hold what would refuse.
    """
    from sealflow.policy.compose import concerns

    found = []
    for delegation in in_force.policy.document.delegations:
        if not concerns([place_pattern(item) for item in delegation.artifact], places, (), contents):
            continue
        mark = (delegation.policy, delegation.key, delegation.minimum_version, (delegation.team, *delegation.artifact))
        with _lock:
            known = _teams.get(mark)
            if known is None or time.monotonic() - known[0] >= FRESH_FOR:
                try:
                    keys = [load_public_key(delegation.key)]
                except SealflowError as error:
                    raise unavailable(f"the key of the team {delegation.team}: {error.message}") from None
                data = fetch(delegation.policy, storages, MAX_SIGNED)
                policy, signer = open_policy(
                    data,
                    keys,
                    max(delegation.minimum_version, known[1].document.version if known is not None else 1),
                    delegation.policy,
                    team=delegation.team,
                    within=delegation.artifact,
                )
                if policy.document.delegations:
                    raise unavailable(f"{printable(delegation.policy)} delegates further, which only an admin can.")
                _refuse_revoked(signer, in_force.revoked, delegation.policy)
                known = _teams[mark] = (time.monotonic(), policy)
        if now >= known[1].document.expires:
            raise unavailable(f"{printable(delegation.policy)} expired on {time_text(known[1].document.expires)}.")
        found.append(known[1])
    return found


def forget() -> None:
    """Forget all policies that this process has loaded."""
    with _lock:
        _cache.clear()
        _teams.clear()
        forget_opened()


def _load(channel: AdminChannel, storages: Storages, now: datetime.datetime, before: _Loaded | None) -> _Loaded:
    try:
        keys = [load_public_key(source) for source in channel.keys]
    except SealflowError as error:
        raise unavailable(error.message, error.next_step) from None
    taken = take(_policy_of(channel, keys), channel.state, storages, now, before.good if before else None)
    policy = taken.item
    findings = [*taken.findings, *_warnings(policy, now)]
    listed = None
    revoked = NOTHING_REVOKED
    if channel.revocations:
        listed = take(_list_of(channel, keys), channel.state, storages, now, before.listed if before else None)
        revoked, unknown = resolve(listed.item, policy)
        findings += [*listed.findings, *unknown]
        _refuse_revoked(taken.key, revoked, channel.policy)
    waivers, problems = _waivers(channel, keys, storages, revoked)
    in_force = InForce(
        policy,
        taken.key,
        waivers,
        tuple(findings),
        problems,
        listed.item if listed is not None else None,
        listed.key if listed is not None else "",
        revoked,
    )
    return _Loaded(time.monotonic(), in_force, taken.good, listed.good if listed is not None else None)


def _policy_of(channel: AdminChannel, keys: Sequence[PublicKey]) -> Kind[CompiledPolicy]:
    def opened(data: bytes) -> tuple[CompiledPolicy, str]:
        found = open_policy(data, keys, channel.minimum_version, channel.policy)
        _refuse_admins_key(found[0], keys)
        return found

    return Kind(channel.policy, "policy", "The policy", MAX_SIGNED, opened, "POLICY_IN_GRACE", "POLICY_EXPIRES_SOON")


def _list_of(channel: AdminChannel, keys: Sequence[PublicKey]) -> Kind[CompiledRevocations]:
    from sealflow.policy.revocations import MAX_SIGNED_LIST

    def opened(data: bytes) -> tuple[CompiledRevocations, str]:
        return open_revocations(data, keys, channel.revocations_minimum_version, channel.revocations)

    return Kind(
        channel.revocations,
        "revocations",
        "The list of revocations",
        MAX_SIGNED_LIST,
        opened,
        "REVOCATIONS_IN_GRACE",
        "REVOCATIONS_EXPIRE_SOON",
        _cannot_follow,
    )


def _cannot_follow(before: CompiledRevocations, item: CompiledRevocations, key: str) -> str:
    if before.names_key(key):
        return "is signed with a key that the last good list revokes."
    # Whoever signs on top of a list that was put back forgets in good faith.
    missing = item.lacks(before)
    return (
        f"forgets {printable(missing)}, which the last good list revokes, and does not withdraw it." if missing else ""
    )


def last_good_revocations(channel: AdminChannel) -> CompiledRevocations | None:
    """Return the last good list of revocations that this process or the channel's state folder knows.

    Raises:
        UsageError: A key of the channel cannot be read.
    """
    with _lock:
        known = _cache.get(channel)
    keys = [load_public_key(source) for source in channel.keys]
    return last_good(_list_of(channel, keys), channel.state, known.listed if known is not None else None)


def resolve(listed: CompiledRevocations, policy: CompiledPolicy) -> tuple[Revocations, list[Finding]]:
    """Return what a list takes away under a policy: identities taken for what they hold. And say which nobody has."""
    from sealflow.policy.identities import CertificateIdentity, KeyIdentity

    known = {**policy.identities, **policy.verifiers}
    held: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    findings = []
    for name in listed.identities:
        identity = known.get(name)
        if isinstance(identity, KeyIdentity):
            held[name] = ((identity.public_key.hint,), ())
        elif isinstance(identity, CertificateIdentity):
            held[name] = ((), identity.names)
        else:
            message = "The list revokes an identity that the policy does not know, which takes nothing away."
            findings.append(Finding("REVOCATION_UNKNOWN", "warning", name, message, rule="revocations"))
    return listed.resolved(held), findings


def _refuse_revoked(key: str, revoked: Revocations, uri: str) -> None:
    if (entry := revoked.keys.get(key)) is not None:
        raise unavailable(
            f"{printable(uri)} is signed with a revoked key, {key}: {entry.reason}.",
            "Sign the policy with another key of the channel, and take the revoked one out of it.",
        )


def _refuse_admins_key(policy: CompiledPolicy, keys: Sequence[PublicKey]) -> None:
    admins = {key.pem.decode("ascii") for key in keys}
    for delegation in policy.document.delegations:
        if delegation.key in admins:
            raise unavailable(
                f"the team {delegation.team} has an admin's key, so its policy could stand in for the admin's.",
                "Give the team a key of its own.",
            )


def open_policy(
    data: bytes,
    keys: Sequence[PublicKey],
    minimum_version: int,
    uri: str,
    *,
    team: str = "",
    within: Sequence[str] | None = None,
) -> tuple[CompiledPolicy, str]:
    """Return a policy and its signer from signed bytes: signature first, then form, then version.

    Raises:
        UnavailableError: ``POLICY_UNAVAILABLE`` or ``POLICY_TOO_NEW``, and why.
    """
    mark = (hashlib.sha256(data).digest(), *(key.hint for key in keys), minimum_version, uri, team, *(within or ()))
    return remembered(mark, lambda: _open_policy(data, keys, minimum_version, uri, team, within))


def _open_policy(
    data: bytes, keys: Sequence[PublicKey], minimum_version: int, uri: str, team: str, within: Sequence[str] | None
) -> tuple[CompiledPolicy, str]:
    shown = printable(uri)
    try:
        opened = open_signed(data, keys, POLICY_TYPE)
    except EvidenceError as error:
        raise unavailable(
            f"{shown}: {error.message}", "Sign it with `sealflow policy sign` and an admin's key."
        ) from None
    from sealflow.policy.compose import CompiledPolicy
    from sealflow.policy.document import parse_policy

    try:
        document = parse_policy(opened.payload, shown)
        if document.version < minimum_version:
            raise unavailable(
                f"{shown} has the version {document.version}; the admin's channel asks for {minimum_version} or later."
            )
        compiled = CompiledPolicy(
            document, digest=hashlib.sha256(opened.payload).hexdigest(), uri=uri, team=team, within=within
        )
    except SealflowError as error:
        if error.code == "POLICY_TOO_NEW":
            raise UnavailableError(error.message, code=error.code, next_step=error.next_step) from None
        raise unavailable(error.message, error.next_step) from None
    return compiled, opened.key


def open_revocations(
    data: bytes, keys: Sequence[PublicKey], minimum_version: int, uri: str
) -> tuple[CompiledRevocations, str]:
    """Return a list of revocations and its signer from signed bytes: signature first, then form, then version.

    Raises:
        UnavailableError: ``POLICY_UNAVAILABLE`` or ``POLICY_TOO_NEW``, and why.
    """
    mark = ("revocations", hashlib.sha256(data).digest(), *(key.hint for key in keys), minimum_version, uri)
    return remembered(mark, lambda: _open_revocations(data, keys, minimum_version, uri))


def _open_revocations(
    data: bytes, keys: Sequence[PublicKey], minimum_version: int, uri: str
) -> tuple[CompiledRevocations, str]:
    from sealflow.policy.revocations import compile_revocations

    shown = printable(uri)
    try:
        opened = open_signed(data, keys, REVOCATIONS_TYPE)
        digest = hashlib.sha256(opened.payload).hexdigest()
        made = compile_revocations(opened.payload, shown, digest=digest, uri=uri)
    except EvidenceError as error:
        raise unavailable(f"{shown}: {error.message}", "Sign the list with an admin's key.") from None
    except SealflowError as error:
        if error.code == "POLICY_TOO_NEW":
            raise UnavailableError(error.message, code=error.code, next_step=error.next_step) from None
        raise unavailable(error.message, error.next_step) from None
    version = made.document.version
    if version < minimum_version:
        raise unavailable(
            f"{shown} has the version {version}; the admin's channel asks for {minimum_version} or later."
        )
    if made.names_key(opened.key):
        raise unavailable(
            f"{shown} is signed with a key that it revokes itself, {opened.key}.",
            "Sign it with another key of the channel, and take the revoked one out of it.",
        )
    return made, opened.key


def _waivers(
    channel: AdminChannel, admin_keys: Sequence[PublicKey], storages: Storages, revoked: Revocations
) -> tuple[tuple[AcceptedWaiver, ...], tuple[str, ...]]:
    """Read all waivers. They only loosen, so what cannot be read or believed is left out and told."""
    from sealflow.policy.compose import AcceptedWaiver
    from sealflow.policy.document import parse_waiver

    accepted: list[AcceptedWaiver] = []
    problems: list[str] = []
    try:
        keys = [*admin_keys, *(load_public_key(source) for source in channel.waiver_keys)]
        folder = channel.waivers or channel.policy.rstrip("/") + ".waivers"
        storage = storages.for_uri(folder)
        names = storage.list_objects(folder, MAX_WAIVERS)
    except SealflowError as error:
        return (), (error.message,)
    if len(names) > MAX_WAIVERS:
        problems.append(f"{printable(folder)} holds more than {MAX_WAIVERS} objects; the others were not read.")
    for name in names[:MAX_WAIVERS]:
        try:
            data = storage.get(f"{folder.rstrip('/')}/{name}", _MAX_WAIVER)
            opened = open_signed(data or b"", keys, WAIVER_TYPE)
            if opened.key in revoked.keys:
                problems.append(f"{printable(name)}: It is signed with a revoked key.")
                continue
            accepted.append(AcceptedWaiver(parse_waiver(opened.payload, name), opened.key))
        except SealflowError as error:
            problems.append(f"{printable(name)}: {error.message}")
    return tuple(accepted), tuple(problems)


def _warnings(policy: CompiledPolicy, now: datetime.datetime) -> list[Finding]:
    """Say which identities expire within 30, 7 or 1 days."""
    found = []
    for identity in (*policy.identities.values(), *policy.verifiers.values()):
        if identity.expires is not None and (days := days_left(identity.expires, now)) is not None:
            message, until = f"The identity expires within {in_days(days)}.", time_text(identity.expires)
            found.append(Finding("KEY_EXPIRES_SOON", "warning", identity.name, message, found=until))
    return found
