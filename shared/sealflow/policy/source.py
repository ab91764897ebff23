"""Where the policy comes from, and the three states: none configured, configured but not to be had, in force.

The admin's channel names the policy's place, the keys that may sign it and the least version. It is a file that only an
admin can write, or what an orchestrator took from its own configuration before any author's code ran; nothing that a
call, a DAG, a pipeline or an environment variable says can change it.
"""

from __future__ import annotations

import contextlib
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
from sealflow.policy.globs import NAME_PREFIX, check_place, is_absolute, place_pattern
from sealflow.policy.signed import MAX_SIGNED, POLICY_TYPE, WAIVER_TYPE, open_signed
from sealflow.storage import Storages
from sealflow.storage.local import LocalStorage, replace_file, to_path

if TYPE_CHECKING:
    from sealflow.policy.compose import AcceptedWaiver, CompiledPolicy

#: How long a process uses a policy that it has loaded, in seconds.
FRESH_FOR: Final = 60.0

#: Most waivers that are read.
MAX_WAIVERS: Final = 256

_MAX_CHANNEL = 64 << 10
_MAX_WAIVER = 256 << 10
_WARN_DAYS = (1, 7, 30)


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
        waivers: Folder of the waivers, by default ``<policy>.waivers``.
        waiver_keys: Further keys that may sign waivers and no policies.
        state: Folder in which the last good policy is kept; without it only the process remembers it.
        where: Where this stands, for messages.
    """

    policy: str
    keys: tuple[str, ...]
    minimum_version: int = 1
    managed: tuple[str, ...] = ("**",)
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
            if name == "minimum_version":
                if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                    raise UsageError(f"{where}: minimum_version must be a whole number from 1.")
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
        for name in ("policy", "waivers", "state", "keys", "waiver_keys"):
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
    """

    policy: CompiledPolicy
    key: str
    waivers: tuple[AcceptedWaiver, ...] = ()
    findings: tuple[Finding, ...] = ()
    problems: tuple[str, ...] = field(default=())


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
    #: The last good policy, its signer, and when it was last seen in its place.
    good: tuple[CompiledPolicy, str, datetime.datetime] | None


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
        raise _unavailable(channel.error.message, channel.error.next_step) from None
    with _lock:
        known = _cache.get(channel)
        young = known is not None and time.monotonic() - known.at < FRESH_FOR
        if cached and known is not None and young and now < known.in_force.policy.document.expires:
            return known.in_force
        with rare_collection():
            loaded = _load(channel, storages, now, known.good if known is not None else None)
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
                    raise _unavailable(f"the key of the team {delegation.team}: {error.message}") from None
                data = _fetch(delegation.policy, storages)
                policy, _ = open_policy(
                    data,
                    keys,
                    max(delegation.minimum_version, known[1].document.version if known is not None else 1),
                    delegation.policy,
                    team=delegation.team,
                    within=delegation.artifact,
                )
                if policy.document.delegations:
                    raise _unavailable(f"{printable(delegation.policy)} delegates further, which only an admin can.")
                known = _teams[mark] = (time.monotonic(), policy)
        if now >= known[1].document.expires:
            raise _unavailable(f"{printable(delegation.policy)} expired on {_text(known[1].document.expires)}.")
        found.append(known[1])
    return found


def forget() -> None:
    """Forget all policies that this process has loaded."""
    with _lock:
        _cache.clear()
        _teams.clear()
        _opened.clear()


def _unavailable(message: str, next_step: str = "") -> UnavailableError:
    return UnavailableError(
        f"The policy is not to be had: {message}",
        code="POLICY_UNAVAILABLE",
        next_step=next_step or "Restore the signed policy at its place, or correct the admin's channel.",
    )


def _load(
    channel: AdminChannel,
    storages: Storages,
    now: datetime.datetime,
    before: tuple[CompiledPolicy, str, datetime.datetime] | None,
) -> _Loaded:
    try:
        keys = [load_public_key(source) for source in channel.keys]
    except SealflowError as error:
        raise _unavailable(error.message, error.next_step) from None
    last = _LastGood(channel, keys, before)
    finding: Finding | None = None
    try:
        data = _fetch(channel.policy, storages)
        found = open_policy(data, keys, channel.minimum_version, channel.policy)
        _refuse_admins_key(found[0], keys)
        if last.version > found[0].document.version:
            raise _unavailable(
                f"{printable(channel.policy)} has the version {found[0].document.version}, and version {last.version} "
                "was in force here before."
            )
    except UnavailableError as error:
        stand_in = last.stand_in(now)
        if stand_in is None:
            raise
        policy, key, until = stand_in
        finding = _grace(policy, until, error.message)
    else:
        policy, key = found
        expires = policy.document.expires
        if now >= expires:
            until = expires + datetime.timedelta(hours=policy.document.grace_hours)
            if now >= until:
                raise _unavailable(
                    f"{printable(channel.policy)} expired on {_text(expires)}.",
                    "Sign the policy again with a later `expires`, and publish it.",
                )
            finding = _grace(policy, until, f"It expired on {_text(expires)}.")
        else:
            last.keep(data, found, now)
    waivers, problems = _waivers(channel, keys, storages)
    notes = [] if finding is None else [finding]
    in_force = InForce(policy, key, waivers, tuple(notes + _warnings(policy, now)), problems)
    return _Loaded(time.monotonic(), in_force, last.good)


def _refuse_admins_key(policy: CompiledPolicy, keys: Sequence[PublicKey]) -> None:
    admins = {key.pem.decode("ascii") for key in keys}
    for delegation in policy.document.delegations:
        if delegation.key in admins:
            raise _unavailable(
                f"the team {delegation.team} has an admin's key, so its policy could stand in for the admin's.",
                "Give the team a key of its own.",
            )


def _grace(policy: CompiledPolicy, until: datetime.datetime, why: str) -> Finding:
    return Finding(
        "POLICY_IN_GRACE",
        "warning",
        policy.uri,
        f"Version {policy.document.version} stands in. {why}",
        found=f"until {_text(until)}",
        rule="grace_hours",
    )


def _fetch(uri: str, storages: Storages) -> bytes:
    try:
        data = storages.for_uri(uri).get(uri, MAX_SIGNED)
    except SealflowError as error:
        raise _unavailable(error.message, error.next_step) from None
    if data is None:
        raise _unavailable(f"Nothing lies at {printable(uri)}.")
    return data


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
    if (known := _opened.get(mark)) is not None:
        return known
    made = _open_policy(data, keys, minimum_version, uri, team, within)
    while len(_opened) >= _MAX_OPENED:
        _opened.pop(next(iter(_opened)), None)
    _opened[mark] = made
    return made


# The same bytes come again every minute, and from the place where the last good policy is kept.
_opened: dict[tuple[Any, ...], tuple[CompiledPolicy, str]] = {}
_MAX_OPENED: Final = 16


def _open_policy(
    data: bytes, keys: Sequence[PublicKey], minimum_version: int, uri: str, team: str, within: Sequence[str] | None
) -> tuple[CompiledPolicy, str]:
    shown = printable(uri)
    try:
        opened = open_signed(data, keys, POLICY_TYPE)
    except EvidenceError as error:
        raise _unavailable(
            f"{shown}: {error.message}", "Sign it with `sealflow policy sign` and an admin's key."
        ) from None
    from sealflow.policy.compose import CompiledPolicy
    from sealflow.policy.document import parse_policy

    try:
        document = parse_policy(opened.payload, shown)
        if document.version < minimum_version:
            raise _unavailable(
                f"{shown} has the version {document.version}; the admin's channel asks for {minimum_version} or later."
            )
        compiled = CompiledPolicy(
            document, digest=hashlib.sha256(opened.payload).hexdigest(), uri=uri, team=team, within=within
        )
    except SealflowError as error:
        if error.code == "POLICY_TOO_NEW":
            raise UnavailableError(error.message, code=error.code, next_step=error.next_step) from None
        raise _unavailable(error.message, error.next_step) from None
    return compiled, opened.key


class _LastGood:
    """The last good policy of a channel, so that an outage does not stop the work and no older version comes back.

    The process remembers it, and a folder where the channel names one. What lies there is the signed bytes and when
    they were last seen in their place. They are verified again like any others; whoever can write there can make an old
    policy stand in until its own signed grace ends, and no other.
    """

    def __init__(
        self,
        channel: AdminChannel,
        keys: Sequence[PublicKey],
        before: tuple[CompiledPolicy, str, datetime.datetime] | None,
    ) -> None:
        self._channel = channel
        self.good = before
        self._path = ""
        if channel.state:
            name = hashlib.sha256(channel.policy.encode("utf-8")).hexdigest()[:32]
            self._path = os.path.join(to_path(channel.state), f"policy-{name}.json")
            self._read(keys)

    @property
    def version(self) -> int:
        return self.good[0].document.version if self.good else 0

    def _read(self, keys: Sequence[PublicKey]) -> None:
        try:
            kept = LocalStorage().get(self._path, 2 * MAX_SIGNED)
            if kept is None:
                return
            body = strictjson.loads(kept, limit=2 * MAX_SIGNED, what=self._path)
            data = strictjson.base64_bytes(strictjson.member(body, "bundle", str, self._path), self._path)
            seen = datetime.datetime.fromisoformat(strictjson.member(body, "seen", str, self._path))
            policy, key = open_policy(data, keys, self._channel.minimum_version, self._channel.policy)
            _refuse_admins_key(policy, keys)
            if seen.tzinfo is None or not 2000 <= seen.year <= 2999:
                return
        except (ValueError, OverflowError, SealflowError):
            return  # nothing good is kept here
        mine = self.good
        if mine is None or (policy.document.version, seen) > (mine[0].document.version, mine[2]):
            self.good = (policy, key, seen)

    def stand_in(self, now: datetime.datetime) -> tuple[CompiledPolicy, str, datetime.datetime] | None:
        """Return the kept policy, its signer and until when it may stand in."""
        if self.good is None:
            return None
        policy, key, seen = self.good
        until = min(seen, policy.document.expires) + datetime.timedelta(hours=policy.document.grace_hours)
        if not seen - datetime.timedelta(minutes=5) <= now < until:
            return None
        return policy, key, until

    def keep(self, data: bytes, found: tuple[CompiledPolicy, str], now: datetime.datetime) -> None:
        """Keep a policy that was just seen good; failing to write it down changes nothing for this check."""
        self.good = (*found, now)
        if not self._path:
            return
        import base64

        body = {"seen": now.isoformat(), "bundle": base64.b64encode(data).decode("ascii")}
        with contextlib.suppress(OSError, SealflowError):
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            replace_file(self._path, strictjson.dumps(body), 0o600)


def _waivers(
    channel: AdminChannel, admin_keys: Sequence[PublicKey], storages: Storages
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
            accepted.append(AcceptedWaiver(parse_waiver(opened.payload, name), opened.key))
        except SealflowError as error:
            problems.append(f"{printable(name)}: {error.message}")
    return tuple(accepted), tuple(problems)


def _warnings(policy: CompiledPolicy, now: datetime.datetime) -> list[Finding]:
    """Say what expires within 30, 7 or 1 days."""
    found = []
    if (days := _soon(policy.document.expires, now)) is not None:
        message = f"The policy expires within {days} day{'s' * (days != 1)}."
        until = _text(policy.document.expires)
        found.append(Finding("POLICY_EXPIRES_SOON", "warning", policy.uri, message, found=until))
    for identity in (*policy.identities.values(), *policy.verifiers.values()):
        if identity.expires is not None and (days := _soon(identity.expires, now)) is not None:
            message = f"The identity expires within {days} day{'s' * (days != 1)}."
            found.append(Finding("KEY_EXPIRES_SOON", "warning", identity.name, message, found=_text(identity.expires)))
    return found


def _soon(when: datetime.datetime, now: datetime.datetime) -> int | None:
    left = when - now
    if left <= datetime.timedelta(0):
        return None
    return next((days for days in _WARN_DAYS if left <= datetime.timedelta(days=days)), None)


def _text(when: datetime.datetime) -> str:
    return when.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
