"""What a task reports to the Execution API, read strictly.

The message is Airflow's own and internal. Its shape is that of the releases named here; a message of another shape is
not guessed at: it comes back as :class:`Unknown`, with every text in it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, cast

from sealflow import strictjson
from sealflow.errors import EvidenceError

#: Releases of Airflow whose messages are known, as ``major.minor``; a test reads the installed one's own models.
KNOWN_RELEASES: Final = frozenset({"3.3"})
#: Largest message that is read, in bytes, and the most values in it: brackets and commas. Airflow keeps what is in it
#: in its database, and who reads it holds up others.
MAX_BODY: Final = 4 << 20
MAX_VALUES: Final = 100_000
#: Most outlets, and most events, of one task.
MAX_LISTED: Final = 1000

_MEMBERS: Final = frozenset({"state", "end_date", "task_outlets", "outlet_events", "rendered_map_index"})
_OUTLET: Final = frozenset({"name", "uri", "type"})
_EVENT: Final = frozenset({"dest_asset_key", "extra", "partition_key", "source_alias_name", "dest_asset_extra"})
_KEY: Final = frozenset({"name", "uri"})
OutletType = Literal["Asset", "AssetNameRef", "AssetUriRef", "AssetAlias"]
_TYPES: Final = frozenset({"Asset", "AssetNameRef", "AssetUriRef", "AssetAlias"})

# Wherever the API is mounted, and whatever a proxy left of its prefix. Routes end with `$`, which lets a line end pass.
_STATE: Final = re.compile(r"/execution/+task-instances/+([^/]+)/+state/*\n?\Z")


class Outlet(NamedTuple):
    """An outlet that the task's message lists."""

    type: OutletType
    name: str
    uri: str


class Event(NamedTuple):
    """An event that the task's message tells of an asset.

    Attributes:
        name: The asset's name.
        uri: Its uri.
        extra: What is to be told with it.
        alias: Name of the alias through which it is told, ``None`` for an outlet's own.
    """

    name: str
    uri: str
    extra: Mapping[str, Any]
    alias: str | None


@dataclass(frozen=True)
class Success:
    """A task says that it has succeeded."""

    outlets: tuple[Outlet, ...]
    events: tuple[Event, ...]

    def texts(self) -> Iterator[str]:
        """Yield each location in it."""
        yield from (outlet.uri or outlet.name for outlet in self.outlets)
        yield from (event.uri for event in self.events)

    @property
    def places(self) -> list[str] | None:
        """Every location in it; ``None`` where a database must say which one is meant."""
        if any(outlet.type != "Asset" for outlet in self.outlets):
            return None
        return [outlet.uri for outlet in self.outlets]


@dataclass(frozen=True)
class Unknown:
    """A message that may say that a task has succeeded, in a form that is not known.

    Attributes:
        why: What is strange about it.
        strings: Every text in it.
    """

    why: str
    strings: tuple[str, ...]

    def texts(self) -> Iterator[str]:
        """Yield each text in it."""
        yield from self.strings


def reported_instance(method: str, path: str) -> str | None:
    """Return which task instance's state a request sets, as it stands in the path; ``None`` for other requests."""
    if method.upper() != "PATCH":
        return None
    found = _STATE.search(path)
    return found[1] if found else None


def parse_instance(text: str) -> uuid.UUID | None:
    """Return a task instance's id in any spelling that Airflow takes, ``None`` for something else."""
    try:
        return uuid.UUID(text.strip())
    except ValueError:
        return None


class UnreadableError(ValueError):
    """A message that others may read and we do not: too large or too deep, a member named twice, no UTF-8, NaN."""


def may_succeed(data: bytes) -> bool:
    """Tell whether a message may set the state to success, whoever reads it and in whatever encoding."""
    return b"success" in data or b"\\u" in data or b"\0" in data


def parse_report(data: bytes) -> Success | Unknown | None:
    """Read the body of a request that sets a state; ``None`` where it does not set the state to success.

    What is read here has one meaning to every reader. There is no second, more lenient one: that would be another
    reader than Airflow's, and what lies between the two is where an author would hide.

    Raises:
        UnreadableError: Nobody here reads it, and it may set the state to success. No worker of Airflow's sends such a
            message, unless an author puts it into the extra of an event.
    """
    if not may_succeed(data):
        return None
    try:
        body = strictjson.loads(data, limit=MAX_BODY, what="The message", most_values=MAX_VALUES)
    except EvidenceError as error:
        if _plainly_another_state(data):
            return None
        raise UnreadableError(error.message) from None
    if not isinstance(body, dict) or body.get("state") != "success":
        return None
    try:
        return _success(body)
    except _StrangeError as error:
        return Unknown(str(error), tuple(_strings(body)))


_OTHER_STATE: Final = re.compile(rb'\s*\{\s*"state"\s*:\s*"(?!success")[a-z_]+"')
#: The letters of the name, as they can be written otherwise.
_ESCAPED: Final = (b"\\u0073", b"\\u0074", b"\\u0061", b"\\u0065")


def _plainly_another_state(data: bytes) -> bool:
    """Tell whether a message sets another state to every reader: it begins so, and names no state anywhere else.

    So begin those of Airflow's workers; a task that defers sends along whatever it needs later, however large or deep.
    """
    once = data.count(b'"state"') == 1 and b"\0" not in data and not any(item in data for item in _ESCAPED)
    return once and _OTHER_STATE.match(data) is not None


class _StrangeError(ValueError):
    """A message has not the known shape."""


def _success(body: dict[str, Any]) -> Success:
    _only(body, _MEMBERS, "the message")
    outlets = [_outlet(item) for item in _items(body, "task_outlets")]
    events = [_event(item) for item in _items(body, "outlet_events")]
    return Success(tuple(outlets), tuple(events))


def _items(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = body.get(name, [])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise _StrangeError(f"{name} is no list of objects")
    if len(found) > MAX_LISTED:
        raise _StrangeError(f"{name} has more than {MAX_LISTED} items")
    return found


def _outlet(item: dict[str, Any]) -> Outlet:
    _only(item, _OUTLET, "an outlet")
    name, uri, kind = (item.get(member) for member in ("name", "uri", "type"))
    if not isinstance(kind, str) or kind not in _TYPES:
        raise _StrangeError("an outlet is of an unknown type")
    if not all(value is None or isinstance(value, str) for value in (name, uri)):
        raise _StrangeError("an outlet's name or uri is no text")
    return Outlet(cast(OutletType, kind), name or "", uri or "")


def _event(item: dict[str, Any]) -> Event:
    _only(item, _EVENT, "an event")
    key, extra = item.get("dest_asset_key"), item.get("extra")
    if not isinstance(key, dict) or not isinstance(extra, dict):
        raise _StrangeError("an event has no asset or no extra")
    _only(key, _KEY, "an event's asset")
    name, uri = key.get("name"), key.get("uri")
    if not isinstance(name, str) or not isinstance(uri, str):
        raise _StrangeError("an event's asset has no name or no uri")
    # Airflow asks whether the member is there, and not what it holds.
    alias = item.get("source_alias_name")
    if "source_alias_name" in item and not isinstance(alias, str):
        raise _StrangeError("an event's alias is no text")
    return Event(name, uri, extra, alias)


def _only(body: dict[str, Any], known: frozenset[str], what: str) -> None:
    if unknown := sorted(body.keys() - known):
        raise _StrangeError(f"{what} has the unknown member {unknown[0][:80]!r}")


def _strings(value: Any) -> Iterator[str]:
    """Yield every text in a decoded value."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple)):
            waiting.extend(item)
