"""Revoke: the next version of the deployment's list of revocations, with a key, an identity or an artifact more."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from sealflow import strictjson
from sealflow.actions import context
from sealflow.actions.audit_review import parse_time
from sealflow.actions.recording import Recording
from sealflow.actions.respond_radius import find_target
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.errors import EvidenceError, PolicyError, SealflowError, UsageError
from sealflow.evidence import ArtifactRef
from sealflow.evidence.reference import is_reference
from sealflow.findings import printable
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import KeySigner, PassphraseCallback, PublicKey, load_signer
from sealflow.storage import Storages
from sealflow.storage.local import LocalStorage, replace_file

Kind = Literal["key", "identity", "digest"]

#: How long a list is believed that nobody gave another end; in its last 30 days verdicts warn of it.
DEFAULT_LIFE: Final = "90d"
#: How often the next version is made anew because somebody else was faster.
_ATTEMPTS: Final = 10
_MAX_MEMORY: Final = 4096
_SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}")
_LABELS: Final = ("subject:", "email:", "dns:", "uri:")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Revoked:
    """What was done.

    Attributes:
        place: Where the list lies.
        version: Its version now.
        expires: Until when it is believed.
        entries: What is revoked by this call, as the list has it.
        written: Whether a version was written; otherwise all of it was revoked already, from then on or earlier.
        warnings: What the admin should know.
    """

    place: str
    version: int
    expires: datetime.datetime
    entries: tuple[dict[str, str], ...]
    written: bool
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "list": self.place,
            "version": self.version,
            "expires": self.expires.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "revoked": list(self.entries),
            "written": self.written,
            "warnings": list(self.warnings),
        }


def revoke(
    subject: str | os.PathLike[str] | Digest | PublicKey | ArtifactRef | dict[str, Any],
    *,
    since: str,
    reason: str,
    list_place: str | None = None,
    signer: str | KeySigner,
    kind: Kind | None = None,
    ticket: str = "",
    life: str = DEFAULT_LIFE,
    new_list: bool = False,
    after: int | None = None,
    keys: Sequence[str] = (),
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    sink: AuditSink | None = None,
) -> Revoked:
    """Sign the next version of the list and put it in its place. The same again does nothing.

    Args:
        subject: A public key (path, URI, fingerprint), a reference, an artifact digest or location; a certificate name
            with its label (``email:…``); or an identity of the policy. ``sha256:…`` alone is revoked as a key and as an
            artifact: it can be only one of them, and to guess wrong would leave the other one in force.
        since: From when on; a date, an RFC 3339 time, or ``now``. For a key: the earliest time at which it may have
            been stolen.
        reason: Why, for those who are refused.
        list_place: Where the list lies, by default the admin's channel's.
        signer: URI of an admin's signer, or the signer.
        kind: What the subject is, where it could be several things.
        ticket: Ticket of the incident.
        life: How long the new version is believed at least.
        new_list: Whether this may be the first list. Without, there must be one: whoever removed it would otherwise
            have its entries forgotten.
        after: Version that must lie there. Needed where neither this machine nor the channel remembers one: who put an
            old list back would otherwise have what came after it forgotten.
        keys: Public keys one of which must have signed what lies there, besides the signer's own and the channel's.
        passphrase: Asked for the passphrase of an encrypted key.
        storages: Finds storage.
        sink: Takes audit events.

    Raises:
        UsageError: The subject is unclear or unknown, a time lies in the future, no list is named, or the signer cannot
            be opened.
        PolicyError: What lies there is no list of these keys, or others write it all the time.
        UnavailableError: The key service, the store or the audit log is out of reach.
    """
    from sealflow.actions.revocation_list import ListFile, read_list, sign_list
    from sealflow.policy.revocations import RevocationList

    storages = storages or Storages()
    surroundings = context.current()
    channel = surroundings.admin
    place = list_place or getattr(channel, "revocations", "")
    if not place:
        raise UsageError("No list of revocations is named.", next_step="Name its place: --list LOCATION.")
    key = load_signer(signer, passphrase) if isinstance(signer, str) else signer
    accepted = [key.public_key.pem.decode("ascii"), *keys, *getattr(channel, "keys", ())]
    entries = _entries(subject, kind, surroundings, storages, since, reason, ticket)
    ending = utc_now() + _duration(life)
    mark = f"sha256:{key.public_key.hint}"
    named = ", ".join(dict.fromkeys(_subject(item) for item in entries))
    with Recording("revoke", named, surroundings, key=mark, ruled=False, sink=sink) as recording:
        memory = _Memory(storages.for_uri(place).canonical(place))
        proved: _Known | None = None
        doubt: tuple[str, ...] = ()
        for attempt in range(_ATTEMPTS):
            # Before the list: another process may write both in between.
            known = proved or memory.read(channel)
            before = read_list(place, accepted, storages)
            if before is None and not new_list:
                raise UsageError(
                    f"There is no list of revocations at {printable(place)}.",
                    code="POLICY_VERSION",
                    next_step="Restore it, or its entries are forgotten. If there never was one: --new-list.",
                )
            document = before.document if before is not None else None
            _refuse_own(key, document, entries)
            missing = [item for item in entries if document is None or not _holds(document, item)]
            if before is not None and document is not None and not missing:
                if known is not None:
                    _refuse_old(place, document.version, before.digest, known, None)
                made = before
                break
            if before is not None and document is not None:
                _refuse_old(place, document.version, before.digest, known, None if proved else after)
                if proved is None and after is None and known is not None and known.since:
                    doubt = (
                        f"That version {document.version} is the newest list is what this machine remembers of "
                        f"{known.since}; compare it with a worker's (sealflow policy status).",
                    )
                # Whatever lies there next was made from it, or is refused.
                proved = _Known(document.version, before.digest)
            kept = [item.as_json(without="none") for item in document.revocations] if document else []
            body = {
                "apiVersion": "sealflow/v1",
                "kind": "Revocations",
                "version": document.version + 1 if document else 1,
                "expires": _text(max(ending, document.expires) if document else ending),
                "grace_hours": document.grace_hours if document else 0,
                "revocations": [*kept, *missing],
            }
            # All of them, also where one is revoked anew: who skipped the list that took it back needs that.
            if document is not None and document.withdrawn:
                body["withdrawn"] = [item.as_json(without="none") for item in document.withdrawn]
            try:
                made = sign_list(_checked(body), signer=key, output=place, keys=accepted[1:], storages=storages)
                break
            except PolicyError as error:
                # Somebody else wrote the version that was to be ours: his revocations are in the next one.
                if error.code != "POLICY_VERSION" or attempt == _ATTEMPTS - 1:
                    raise
        assert isinstance(made, ListFile)  # noqa: S101  (the loop ends no other way)
        assert isinstance(made.document, RevocationList)  # noqa: S101
        memory.keep(made.document.version, made.digest)
        recording.done(made.digest)
    where = storages.for_uri(place).canonical(place)
    return Revoked(
        where, made.document.version, made.document.expires, tuple(entries), made.written, (*made.warnings, *doubt)
    )


class _Known(NamedTuple):
    """The newest list that is known here: its version, and its digest where that is known too."""

    version: int
    digest: str = ""
    #: When this machine remembered it; empty for what the channel has delivered.
    since: str = ""


@dataclass(frozen=True)
class _Memory:
    """What this machine remembers of a list.

    Attributes:
        place: Where the list lies.
    """

    place: str

    @property
    def _path(self) -> str:
        state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
        return os.path.join(state, "sealflow", "revocations", f"{sha256_hex(self.place.encode())}.json")

    def read(self, channel: Any) -> _Known | None:
        """Return the newest list that this machine wrote, or that the channel has delivered.

        Raises:
            UsageError: What is kept here is none of ours.
        """
        from sealflow.policy.source import AdminChannel, last_good_revocations

        found: list[_Known] = []
        data = LocalStorage().get(self._path, _MAX_MEMORY)
        if data is not None:
            try:
                body = strictjson.loads(data, limit=_MAX_MEMORY, what="What is remembered of the list")
                version = strictjson.member(body, "version", int, "It")
                digest, since = (strictjson.member(body, name, str, "It") for name in ("digest", "since"))
                found.append(_Known(version, digest, since))
            except EvidenceError as error:
                raise UsageError(f"{self._path}: {error.message}") from None
        if isinstance(channel, AdminChannel) and channel.revocations:
            here = LocalStorage() if channel.revocations.startswith(("/", "file:")) else None
            where = here.canonical(channel.revocations) if here is not None else channel.revocations
            good = last_good_revocations(channel) if where == self.place else None
            if good is not None:
                found.append(_Known(good.document.version))
        # What the channel delivered says more than what is remembered.
        return max(found, key=lambda item: (item.version, not item.since), default=None)

    def keep(self, version: int, digest: str) -> None:
        """Remember a list that was read back or written here. What cannot be kept is asked for the next time."""
        with contextlib.suppress(OSError, SealflowError):
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            replace_file(
                self._path, strictjson.dumps({"version": version, "digest": digest, "since": _text(utc_now())}), 0o600
            )


def _refuse_old(place: str, version: int, digest: str, known: _Known | None, after: int | None) -> None:
    """Refuse to build on a list that may be an old one: what came after it would be gone, by an admin's signature.

    Raises:
        PolicyError: ``POLICY_VERSION``: it is one.
        UsageError: Nobody here can tell.
    """
    if known is None and after is None:
        raise UsageError(
            f"{printable(place)} has the version {version}, and nothing on this machine says that it is the newest.",
            code="POLICY_VERSION",
            next_step=f"Compare it with a worker's (`sealflow policy status`); if it is the newest: --after {version}.",
        )
    older = known is not None and version < known.version
    other = known is not None and version == known.version and bool(known.digest) and digest != known.digest
    if older or other or (after is not None and version != after):
        least = after if after is not None and not older else known.version if known is not None else after
        raise PolicyError(
            f"{printable(place)} has the version {version}{', but not the one that is known' if other else ''}; "
            f"version {least} was there before.",
            code="POLICY_VERSION",
            next_step="Find out who put it back, and restore the newest one first.",
        )


def _refuse_own(key: KeySigner, document: Any, entries: list[dict[str, str]]) -> None:
    """Refuse to sign with a key that counts no longer, and to take the signing key off with itself.

    Raises:
        UsageError: It is one.
    """
    mark = f"sha256:{key.public_key.hint}"
    revoked = any(item.key == mark for item in document.revocations) if document is not None else False
    if revoked or any(item.get("key") == mark for item in entries):
        raise UsageError(
            "The list is to be signed with a key that it revokes; no reader takes such a list.",
            code="KEY_REVOKED",
            next_step="Sign with the key of another admin; and take this one out of the channel's `keys`.",
        )


def _checked(body: dict[str, Any]) -> Any:
    from sealflow.policy.revocations import parse_revocations

    return parse_revocations(strictjson.dumps(body))


def _entries(
    subject: Any,
    kind: Kind | None,
    surroundings: context.Surroundings,
    storages: Storages,
    since: str,
    reason: str,
    ticket: str,
) -> list[dict[str, str]]:
    common = {"since": _since(since), "reason": reason} | ({"id": ticket} if ticket else {})
    return [{name: text, **common} for name, text in _named(subject, kind, surroundings, storages)]


def _named(
    subject: Any, kind: Kind | None, surroundings: context.Surroundings, storages: Storages
) -> list[tuple[Kind, str]]:
    """Return what is to be revoked: its kind and its name in the list."""
    text = subject if isinstance(subject, str) else ""
    if (text and kind == "identity") or text.startswith(_LABELS):
        if kind not in (None, "identity"):
            raise UsageError(f"{printable(text)} is a certificate name, and no {kind}.")
        _known(text, surroundings)
        return [("identity", text)]
    if kind is None and text and not is_reference(text) and _NAME.fullmatch(text):
        there = os.path.lexists(text)
        held = _identities(surroundings)
        if there and held is not None and text in held:
            raise UsageError(
                f"{printable(text)} is an identity of the policy, and a file lies here that is called so.",
                next_step="Say which is meant: --as identity, --as key or --as digest.",
            )
        if not there:
            _known(text, surroundings)
            return [("identity", text)]
    found = find_target(subject, storages)
    given: list[tuple[Kind, str]] = []
    if found.key and kind in (None, "key"):
        given.append(("key", f"sha256:{found.key}"))
    if found.digest is not None and kind in (None, "digest"):
        given.append(("digest", str(found.digest)))
    if not given:
        raise UsageError(f"{printable(found.text)} is no {kind}.")
    return given


def _identities(surroundings: context.Surroundings) -> frozenset[str] | None:
    """Return the identities of the admin's policy, ``None`` where it is not at hand."""
    if surroundings.admin is None:
        return None
    from sealflow.policy.source import policy_in_force

    try:
        return frozenset(policy_in_force(surroundings.admin, Storages(), utc_now()).policy.document.identities)
    except SealflowError:
        return None  # a policy that is not to be had must not keep anybody from revoking


def _known(name: str, surroundings: context.Surroundings) -> None:
    """Refuse an identity that the policy at hand does not hold: a name mistyped would revoke nobody.

    Raises:
        UsageError: It is not there.
    """
    held = _identities(surroundings)
    if held is not None and not name.startswith(_LABELS) and name not in held:
        raise UsageError(
            f"The policy has no identity {printable(name)}; known: {printable(', '.join(sorted(held)), 600)}.",
            next_step="Name one of these, a certificate name (email:…), or the key itself.",
        )


def _since(text: str) -> str:
    now = utc_now()
    if text == "now":
        return _text(now)
    time = datetime.datetime.fromtimestamp(parse_time(text, "since") / 1_000_000, datetime.timezone.utc)
    if time > now + datetime.timedelta(minutes=5):
        raise UsageError(
            f"{printable(text)} lies in the future: until then everything that is signed would count.",
            next_step="Name the earliest time at which it may have been stolen, or now.",
        )
    return _text(time)


def _text(time: datetime.datetime) -> str:
    return time.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _duration(text: str) -> datetime.timedelta:
    from sealflow.policy.document import seconds

    try:
        return datetime.timedelta(seconds=seconds(text))
    except ValueError as error:
        raise UsageError(f"{printable(text, 60)!r}: {error}.") from None


def _subject(entry: dict[str, str]) -> str:
    return next(entry[name] for name in ("key", "identity", "digest") if name in entry)


def _holds(document: Any, entry: dict[str, str]) -> bool:
    """Tell whether a list has this already, from the same time on or from an earlier one."""
    time = datetime.datetime.fromisoformat(entry["since"].replace("Z", "+00:00"))
    names = ("key", "identity", "digest")
    wanted = {name: entry.get(name) for name in names}
    return any(
        {name: getattr(item, name) for name in names} == wanted and (item.digest is not None or item.at <= time)
        for item in document.revocations
    )
