"""How signed documents of the admin's channel arrive: fetched, opened, kept for an outage, and never an older version.

The policy and the list of revocations come in the same way. What differs between them is a :class:`Kind`.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from sealflow import strictjson
from sealflow.errors import SealflowError, UnavailableError
from sealflow.findings import Finding, printable
from sealflow.storage import Storages
from sealflow.storage.local import LocalStorage, replace_file, to_path

_WARN_DAYS: Final = (1, 7, 30)
_CLOCK: Final = datetime.timedelta(minutes=5)


class Dated(Protocol):
    """The members of a document that say how long it holds."""

    @property
    def version(self) -> int:
        """Rises with every change."""

    @property
    def expires(self) -> datetime.datetime:
        """Until when it holds."""

    @property
    def grace_hours(self) -> int:
        """How long it may stand in."""


class Compiled(Protocol):
    """A document that was opened."""

    @property
    def document(self) -> Dated:
        """What was signed."""

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the signed bytes."""

    @property
    def uri(self) -> str:
        """Where it lies."""


_C = TypeVar("_C", bound=Compiled)


@dataclass(frozen=True)
class Good(Generic[_C]):
    """A document that was seen good in its place.

    Attributes:
        item: The document.
        key: Fingerprint of the key that signed it.
        seen: When it last lay in its place.
    """

    item: _C
    key: str
    seen: datetime.datetime


@dataclass(frozen=True)
class Kind(Generic[_C]):
    """One kind of document of a channel.

    Attributes:
        uri: Where it lies.
        name: Its name in the state folder.
        noun: Its name in messages, as a sentence begins with it.
        limit: Most bytes of its signed form.
        open: Returns the document and its signer's fingerprint, or raises ``UnavailableError``.
        in_grace: Code of the warning that it stands in.
        soon: Code of the warning that it expires.
        cannot_follow: Returns why a document by this key cannot follow the last good one, empty where it can.
    """

    uri: str
    name: str
    noun: str
    limit: int
    open: Callable[[bytes], tuple[_C, str]]
    in_grace: str
    soon: str
    cannot_follow: Callable[[_C, _C, str], str] = lambda _, __, ___: ""


@dataclass(frozen=True)
class Taken(Generic[_C]):
    """A document that holds now.

    Attributes:
        item: The document.
        key: Fingerprint of the key that signed it.
        findings: What verdicts should say: that it stands in, that it expires soon.
        good: What to hand to the next call.
    """

    item: _C
    key: str
    findings: tuple[Finding, ...]
    good: Good[_C] | None


def take(
    kind: Kind[_C], state: str, storages: Storages, now: datetime.datetime, before: Good[_C] | None = None
) -> Taken[_C]:
    """Return the document that holds now.

    Args:
        kind: Which document.
        state: Folder in which the last good one is kept; empty for none.
        storages: Finds storage.
        now: The time, aware.
        before: The last good one that this process has seen.

    Raises:
        UnavailableError: ``POLICY_UNAVAILABLE`` or ``POLICY_TOO_NEW``: there is none, and why.
    """
    last = _LastGood(kind, state, before)
    findings: list[Finding] = []
    try:
        data = fetch(kind.uri, storages, kind.limit)
        item, key = kind.open(data)
        if last.version > item.document.version:
            raise unavailable(
                f"{printable(kind.uri)} has the version {item.document.version}, and version {last.version} "
                "was in force here before."
            )
        last.refuse(item, key)
    except UnavailableError as error:
        stand_in = last.stand_in(now)
        if stand_in is None:
            raise
        item, key, until = stand_in
        findings.append(_grace(kind, item, until, error.message))
    else:
        expires = item.document.expires
        if now >= expires:
            until = expires + datetime.timedelta(hours=item.document.grace_hours)
            if now >= until:
                raise unavailable(
                    f"{printable(kind.uri)} expired on {time_text(expires)}.",
                    "Sign it again with a later `expires`, and publish it.",
                )
            findings.append(_grace(kind, item, until, f"It expired on {time_text(expires)}."))
        else:
            last.keep(data, Good(item, key, now))
    if (days := days_left(item.document.expires, now)) is not None:
        message = f"{kind.noun} expires within {in_days(days)}."
        findings.append(Finding(kind.soon, "warning", item.uri, message, found=time_text(item.document.expires)))
    return Taken(item, key, tuple(findings), last.good)


def _grace(kind: Kind[_C], item: _C, until: datetime.datetime, why: str) -> Finding:
    return Finding(
        kind.in_grace,
        "warning",
        item.uri,
        f"Version {item.document.version} stands in. {why}",
        found=f"until {time_text(until)}",
        rule="grace_hours",
    )


class _LastGood(Generic[_C]):
    """The last good document of a kind, so that an outage does not stop the work and no older version comes back.

    The process remembers it, and a folder where the channel names one. What lies there is the signed bytes and when
    they were last seen in their place. They are verified again like any others; whoever can write there can make an old
    document stand in until its own signed grace ends, and no other.
    """

    def __init__(self, kind: Kind[_C], state: str, before: Good[_C] | None) -> None:
        self._kind = kind
        self.good = before
        self._path = ""
        if state:
            name = hashlib.sha256(kind.uri.encode("utf-8")).hexdigest()[:32]
            self._path = os.path.join(to_path(state), f"{kind.name}-{name}.json")
            self._read()

    @property
    def version(self) -> int:
        return self.good.item.document.version if self.good else 0

    def _read(self) -> None:
        limit = 2 * self._kind.limit
        try:
            kept = LocalStorage().get(self._path, limit)
            if kept is None:
                return
            body = strictjson.loads(kept, limit=limit, what=self._path)
            data = strictjson.base64_bytes(strictjson.member(body, "bundle", str, self._path), self._path)
            seen = datetime.datetime.fromisoformat(strictjson.member(body, "seen", str, self._path))
            item, key = self._kind.open(data)
            if seen.tzinfo is None or not 2000 <= seen.year <= 2999:
                return
        except (ValueError, OverflowError, SealflowError):
            return  # nothing good is kept here
        mine = self.good
        if mine is None or (item.document.version, seen) > (mine.item.document.version, mine.seen):
            self.good = Good(item, key, seen)

    def refuse(self, item: _C, key: str) -> None:
        """Refuse what cannot follow the last good document.

        Raises:
            UnavailableError: It has that one's version and says something else, or the kind has another reason.
        """
        if self.good is None:
            return
        before = self.good.item
        shown = printable(self._kind.uri)
        if item.document.version == before.document.version and item.digest != before.digest:
            raise unavailable(
                f"{shown} is another version {item.document.version} than the one that was in force here before.",
                "Sign it again with a higher version, and find out who signed two of one number.",
            )
        if item.digest != before.digest and (why := self._kind.cannot_follow(before, item, key)):
            raise unavailable(f"{shown} {why}", "Find out who signed it; sign the next version on top of the last one.")

    def stand_in(self, now: datetime.datetime) -> tuple[_C, str, datetime.datetime] | None:
        """Return the kept document, its signer and until when it may stand in."""
        if self.good is None:
            return None
        document, seen = self.good.item.document, self.good.seen
        until = min(seen, document.expires) + datetime.timedelta(hours=document.grace_hours)
        if not seen - _CLOCK <= now < until:
            return None
        return self.good.item, self.good.key, until

    def keep(self, data: bytes, good: Good[_C]) -> None:
        """Keep a document that was just seen good; failing to write it down changes nothing for this check."""
        self.good = good
        if not self._path:
            return
        body = {"seen": good.seen.isoformat(), "bundle": base64.b64encode(data).decode("ascii")}
        with contextlib.suppress(OSError, SealflowError):
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            replace_file(self._path, strictjson.dumps(body), 0o600)


def last_good(kind: Kind[_C], state: str, before: Good[_C] | None = None) -> _C | None:
    """Return the last good document that this process or the state folder knows."""
    found = _LastGood(kind, state, before).good
    return found.item if found is not None else None


def fetch(uri: str, storages: Storages, limit: int) -> bytes:
    """Return what lies at a place.

    Raises:
        UnavailableError: ``POLICY_UNAVAILABLE``: nothing, or it cannot be read.
    """
    try:
        data = storages.for_uri(uri).get(uri, limit)
    except SealflowError as error:
        raise unavailable(error.message, error.next_step) from None
    if data is None:
        raise unavailable(f"Nothing lies at {printable(uri)}.")
    return data


def unavailable(message: str, next_step: str = "") -> UnavailableError:
    """Return the error that what an admin configured is not to be had."""
    return UnavailableError(
        f"The policy is not to be had: {message}",
        code="POLICY_UNAVAILABLE",
        next_step=next_step or "Restore the signed document at its place, or correct the admin's channel.",
    )


_opened: dict[tuple[Any, ...], Any] = {}
_MAX_OPENED: Final = 16
_T = TypeVar("_T")


def remembered(mark: tuple[Any, ...], make: Callable[[], _T]) -> _T:
    """Return what was made for a mark before, or make it: the same bytes come again every minute."""
    if mark in _opened:
        known: _T = _opened[mark]
        return known
    made = make()
    while len(_opened) >= _MAX_OPENED:
        _opened.pop(next(iter(_opened)), None)
    _opened[mark] = made
    return made


def forget_opened() -> None:
    """Forget what was opened."""
    _opened.clear()


def days_left(when: datetime.datetime, now: datetime.datetime) -> int | None:
    """Return 1, 7 or 30 where so few days are left, ``None`` where more are, or none."""
    left = when - now
    if left <= datetime.timedelta(0):
        return None
    return next((days for days in _WARN_DAYS if left <= datetime.timedelta(days=days)), None)


def in_days(days: int) -> str:
    """Return ``7 days``."""
    return f"{days} day{'s' * (days != 1)}"


def time_text(when: datetime.datetime) -> str:
    """Return a time as documents write it."""
    return when.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
