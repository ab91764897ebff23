"""The sealed XCom backend: ``[core] xcom_backend = sealflow_airflow.xcom.SealedXComBackend``.

A worker seals what a task pushes, bound to DAG, task, run, map index and key, and opens what it pulls only if it was
sealed for the slot that was asked for. Airflow does not tell a backend which slot that is when it hands over a value
(``deserialize_value`` gets the value alone), so the slot is noted where a value is asked for, and a value that nobody
asked for is refused.

Airflow imports this module while a process starts, before any DAG file runs in it. What ``[sealflow]`` says about XCom
is read then and never again. Importing it never raises; what is wrong is said by each value that cannot be used.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import sys
import zlib
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from gzip import BadGzipFile
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time.lazy_sequence import LazyXComSequence

from sealflow.errors import EvidenceError, SealflowError, UsageError
from sealflow.findings import printable
from sealflow_airflow.metrics import count
from sealflow_airflow.outcome import airflow_errors

if TYPE_CHECKING:
    from sealflow.encryption.raw import AesRecipient

#: Most bytes of a value where nothing is configured.
DEFAULT_MAX_BYTES: Final = 16 << 20

#: Names of the slot in the encryption context of the message.
DAG: Final = "airflow-dag"
TASK: Final = "airflow-task"
RUN: Final = "airflow-run"
MAP_INDEX: Final = "airflow-map-index"
KEY: Final = "airflow-xcom-key"
SLOT: Final = frozenset({DAG, TASK, RUN, MAP_INDEX, KEY})

#: Where branches say who is skipped. The scheduler reads that in the database and cannot open anything, so it stays
#: readable there, beside the seal; workers compare the two.
SKIPPED_KEY: Final = "skipmixin_key"
_SKIPPED: Final = frozenset({"skipped", "followed"})

_OPTIONS: Final = ("xcom_keys", "xcom_storage", "xcom_max_bytes", "xcom_accept_clear")
_YES: Final = frozenset({"true", "t", "yes", "y", "on", "1"})
_NO: Final = frozenset({"false", "f", "no", "n", "off", "0", ""})

_log = logging.getLogger(__name__)

_Stored = namedtuple("_Stored", "key value")


@dataclass(frozen=True)
class Settings:
    """What the admin says about XCom.

    Attributes:
        keys: URIs of the keys: the first one seals, all of them open.
        storage: Import path of the backend that stores the sealed values; empty for the database.
        max_bytes: Most bytes of a value.
        accept_clear: Whether values that are not sealed are let pass.
    """

    keys: tuple[str, ...] = ()
    storage: str = ""
    max_bytes: int = DEFAULT_MAX_BYTES
    accept_clear: bool = False

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Settings:
        """Read the options as they stand in the configuration.

        Raises:
            UsageError: Names the option.
        """
        limit = options["xcom_max_bytes"] or str(DEFAULT_MAX_BYTES)
        if not (limit.isascii() and limit.isdecimal()) or not 0 < int(limit[:20]) <= 1 << 32:
            raise UsageError(
                f"[sealflow] xcom_max_bytes is {printable(limit, 40)!r}; it is a number of bytes, to 4 GiB."
            )
        answer = options["xcom_accept_clear"].lower()
        if answer not in _YES | _NO:
            raise UsageError(f"[sealflow] xcom_accept_clear is {printable(answer, 40)!r}; it is True or False.")
        keys = tuple(item.strip() for item in re.split(r"[,\n]", options["xcom_keys"]) if item.strip())
        return cls(keys, options["xcom_storage"], int(limit), answer in _YES)


def settings() -> Settings:
    """Return what was configured when this process started.

    Raises:
        UsageError: An option is malformed, or the configuration could not be read.
    """
    if isinstance(_FROZEN, str):
        raise UsageError(f"Airflow's configuration cannot be read: {_FROZEN}")
    return Settings.parse(_FROZEN)


def _freeze() -> Mapping[str, str] | str:
    try:
        from airflow.sdk.configuration import conf

        options = {name: (conf.get("sealflow", name, fallback="") or "").strip() for name in _OPTIONS}
        # A relative path would mean another place after a DAG has changed directory.
        options["xcom_keys"] = ",".join(_anchored(item) for item in re.split(r"[,\n]", options["xcom_keys"]))
        return MappingProxyType(options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _anchored(uri: str) -> str:
    uri = uri.strip()
    if not uri.startswith("aes:"):
        return uri
    path, mark, query = uri.removeprefix("aes:").partition("?")
    return f"aes:{os.path.abspath(os.path.expanduser(path))}{mark}{query}"


@functools.cache
def keys() -> tuple[AesRecipient, ...]:
    """Open the keys; once in a process.

    Raises:
        UsageError: No key, or one that cannot be used.
        UnavailableError: A key file cannot be read.
    """
    from sealflow.encryption.value import load_value_keys

    return load_value_keys(settings().keys)


@functools.cache
def storage() -> type[BaseXCom]:
    """Return the backend that stores what was sealed. Nothing of it is imported where none is named.

    Raises:
        UsageError: There is no such backend.
    """
    name = settings().storage
    if not name:
        return BaseXCom
    from airflow.sdk.module_loading import import_string

    try:
        found = import_string(name)
    except Exception as error:
        found = type(error).__name__
    if isinstance(found, type) and issubclass(found, BaseXCom) and not issubclass(found, SealedXComBackend):
        return found
    raise UsageError(
        f"[sealflow] xcom_storage is {printable(name, 120)!r}, which is no XCom backend ({printable(found, 80)}).",
        next_step="Name another backend, airflow.providers.common.io.xcom.backend.XComObjectStorageBackend, or none.",
    )


@dataclass
class Asked:
    """The slots that are being read.

    Attributes:
        known: What is known of each of them.
        order: 1 where map indexes have to rise from value to value, -1 where they have to fall.
        loose: Whether values of several runs stand beside each other, so that map indexes can repeat.
        found: Map index of each value that was read, ``None`` for one in clear.
    """

    known: Mapping[str, str]
    order: int = 1
    loose: bool = False
    found: list[int | None] = field(default_factory=list, init=False)

    def take(self, slot: Mapping[str, str]) -> None:
        """Compare a value's slot with that of the value before.

        Raises:
            EvidenceError: ``VALUE_MISPLACED``.
        """
        from sealflow.encryption.value import misplaced

        index = int(slot[MAP_INDEX])
        last = next((item for item in reversed(self.found) if item is not None), None)
        if last is not None and (index - last) * self.order < (0 if self.loose else 1):
            raise misplaced(f"of map index {index} stands behind that of {last}")
        self.found.append(index)


_asked: ContextVar[Asked | None] = ContextVar("sealflow_xcom_asked", default=None)

# Of sequences with gaps that were read as a whole: the map index at each offset.
_gaps: dict[tuple[str, ...], list[int | None]] = {}


@contextlib.contextmanager
def _asking(asked: Asked) -> Iterator[None]:
    token = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(token)


def _slots(arguments: Mapping[str, Any], *, one: bool) -> Asked:
    """Return what the arguments of a pull say about the slots that it reads."""
    loose = bool(arguments.get("include_prior_dates"))
    known = {DAG: arguments["dag_id"], TASK: arguments["task_id"], KEY: arguments["key"]}
    if not loose:
        known[RUN] = arguments["run_id"]
    if one:
        index = arguments.get("map_index")
        # As the API server takes it.
        known[MAP_INDEX] = str(-1 if index is None or index < 0 else index)
    return Asked(known, loose=loose)


class SealedXComBackend(BaseXCom):
    """Seals every value on the worker, wherever it is stored then."""

    @classmethod
    def get_one(cls, **arguments: Any) -> Any:
        """Return one value. See :meth:`airflow.sdk.bases.xcom.BaseXCom.get_one`.

        Raises:
            AirflowFailException: The value is refused, or a setting is wrong.
            AirflowException: A key file is out of reach.
        """
        with _asking(_slots(arguments, one=True)):
            return super().get_one(**arguments)

    @classmethod
    async def aget_one(cls, **arguments: Any) -> Any:
        """Do as :meth:`get_one`, asynchronously."""
        with _asking(_slots(arguments, one=True)):
            return await super().aget_one(**arguments)

    @classmethod
    def get_all(cls, **arguments: Any) -> Any:
        """Return the values of all map indexes. Raises what :meth:`get_one` raises."""
        with _asking(_slots(arguments, one=False)):
            return super().get_all(**arguments)

    @classmethod
    async def aget_all(cls, **arguments: Any) -> Any:
        """Do as :meth:`get_all`, asynchronously."""
        with _asking(_slots(arguments, one=False)):
            return await super().aget_all(**arguments)

    @staticmethod
    def serialize_value(
        value: Any,
        *,
        key: str | None = None,
        task_id: str | None = None,
        dag_id: str | None = None,
        run_id: str | None = None,
        map_index: int | None = None,
    ) -> Any:
        """Return the envelope that is stored in the place of a value.

        Raises:
            AirflowFailException: The value is too large, or a setting is wrong.
            AirflowException: A key file is out of reach.
        """
        from sealflow.encryption.value import seal_value

        with airflow_errors("sealflow.xcom"):
            if not (key and task_id and dag_id and run_id):
                raise UsageError("An XCom value without DAG, task, run and key cannot be sealed.")
            index = -1 if map_index is None else map_index
            slot = {DAG: dag_id, TASK: task_id, RUN: run_id, MAP_INDEX: str(index), KEY: key}
            plain = BaseXCom.serialize_value(value)
            made = seal_value(json.dumps(plain).encode("ascii"), slot, keys()[0], limit=settings().max_bytes)
            stored = storage().serialize_value(
                made.sealed, key=key, task_id=task_id, dag_id=dag_id, run_id=run_id, map_index=map_index
            )
            if not isinstance(stored, str):
                raise UsageError(f"[sealflow] xcom_storage returned {type(stored).__name__}, not a text.")
        count("sealflow.xcom.sealed")
        return (_for_the_scheduler(plain) if key == SKIPPED_KEY else {}) | replace(made, sealed=stored).as_dict()

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """Return the value of an envelope that was read from one of the slots that were asked for.

        Raises:
            AirflowFailException: The value is refused, or a setting is wrong.
            AirflowException: A key file is out of reach.
        """
        with airflow_errors("sealflow.xcom"):
            return _open(result.value)

    @classmethod
    def delete(cls, key: str, task_id: str, dag_id: str, run_id: str, map_index: int | None = None) -> None:
        """Delete one value, and what the storage holds of it."""
        slot = {"key": key, "task_id": task_id, "dag_id": dag_id, "run_id": run_id, "map_index": map_index}
        with _asking(_slots(slot, one=True)):
            super().delete(**slot)

    @classmethod
    def purge(cls, xcom: Any, *args: Any) -> None:
        """Delete what the storage holds of a value, if it is what was sealed for the slot that is deleted.

        Whoever writes to the database names an object there, and the worker may delete others, too.
        """
        from sealflow.encryption.value import is_sealed

        value = xcom.value
        with airflow_errors("sealflow.xcom"):
            if storage() is BaseXCom:
                return
            if is_sealed(value):
                try:
                    _verified(value)
                except SealflowError as error:
                    _log.warning(
                        "What a deleted XCom value names is left where it lies: it does not open as that value (%s).",
                        error.code,
                    )
                    return
                found = value["sealed"]
            else:
                found = value if settings().accept_clear else None
            if isinstance(found, str) and not _climbs(found):
                storage().purge(_Stored(getattr(xcom, "key", ""), found), *args)


def _open(value: Any) -> Any:
    from sealflow.encryption.value import is_sealed

    if settings().accept_clear and not is_sealed(value):
        return _in_clear(value)
    plain = _verified(value)
    count("sealflow.xcom.opened")
    return BaseXCom.deserialize_value(_Stored("", plain))


def _verified(value: Any) -> Any:
    """Return what an envelope holds, as JSON knows it.

    Raises:
        EvidenceError: It was not sealed for one of the slots that were asked for.
        RecipientError: It was sealed with none of the keys.
        UsageError: A setting is wrong.
        UnavailableError: A key file is out of reach.
    """
    from sealflow.encryption.value import SealedValue, misplaced, open_value

    configured, asked = settings(), _asked.get()
    clear: dict[str, Any] = {}
    skips = asked is not None and asked.known[KEY] == SKIPPED_KEY
    if skips and isinstance(value, dict):
        clear = {name: value[name] for name in _SKIPPED & value.keys()}
        value = {name: item for name, item in value.items() if name not in clear}
    envelope = SealedValue.parse(value, limit=configured.max_bytes)
    if asked is None:
        # A way of reading that this release does not know, of another Airflow or of a DAG.
        raise misplaced("was read in a way that does not say which slot it is from")
    kept = _kept(envelope.sealed, asked.known[KEY])
    if not isinstance(kept, str) or (storage() is not BaseXCom and kept == envelope.sealed and "://" in kept):
        raise EvidenceError(
            f"The object of a sealed value is missing or holds none: {printable(envelope.sealed)}.",
            code="VALUE_MALFORMED",
            next_step="Restore the object, or run the task that makes the value again.",
        )
    # Once more: what a storage returns can be longer than the location.
    envelope = SealedValue.parse(replace(envelope, sealed=kept).as_dict(), limit=configured.max_bytes)
    opened = open_value(envelope, keys(), SLOT, asked.known)
    try:
        asked.take(opened.slot)
        plain = json.loads(opened.value)
    except (ValueError, RecursionError):
        # Sealed with our key, and not by us.
        raise EvidenceError(
            "A sealed value holds no JSON, or names no map index.",
            code="VALUE_MALFORMED",
            next_step="Find out who has the key.",
        ) from None
    if skips and clear != _for_the_scheduler(plain):
        raise EvidenceError(
            "What the scheduler reads about skipped tasks is not what was sealed.",
            code="VALUE_ALTERED",
            next_step="Find out who can write there; run the branch again.",
        )
    return plain


def _kept(location: str, key: str) -> Any:
    """Return what the storage holds under a location, which may be the message itself; ``None`` for nothing readable.

    Nothing of it is authentic yet. The backend of the common-io provider would read an object of any length and make
    what classes it names, so its objects are read here.
    """
    found = storage()
    if found is BaseXCom:
        return location
    if _climbs(location):
        return None
    objects = getattr(sys.modules.get("airflow.providers.common.io.xcom.backend"), "XComObjectStorageBackend", None)
    if objects is None or found.deserialize_value is not objects.deserialize_value:
        return found.deserialize_value(_Stored(key, location))
    from sealflow.encryption.value import longest

    # With the quotation marks.
    most = longest(settings().max_bytes) + 2
    try:
        path = objects._get_full_path(location)
    except (TypeError, ValueError):
        return location
    try:
        with path.open(mode="rb", compression="infer") as file:
            data = file.read(most + 1)
        # Of one that is too long the length is all that counts.
        return json.loads(data) if len(data) <= most else data.decode("latin-1")
    except (FileNotFoundError, IsADirectoryError, BadGzipFile, EOFError, zlib.error, ValueError, RecursionError):
        return None


def _climbs(location: str) -> bool:
    """Tell whether a location leads out of the storage, which compares only how it begins."""
    return ".." in re.split(r"[/\\]", location)


def _in_clear(value: Any) -> Any:
    count("sealflow.xcom.clear")
    asked = _asked.get()
    if asked is not None:
        asked.found.append(None)
    slot = "an unknown slot" if asked is None else ", ".join(f"{name} {text}" for name, text in asked.known.items())
    _log.warning(
        "An XCom value in clear was let pass, as [sealflow] xcom_accept_clear says: %s. Anybody can have written it.",
        printable(slot),
    )
    if isinstance(value, str) and _climbs(value):
        # A text, and no location of the storage's.
        return value
    return storage().deserialize_value(_Stored("", value))


def _for_the_scheduler(plain: Any) -> dict[str, Any]:
    """Return what a branch says about skipped tasks, in the form that the scheduler reads; else nothing."""
    if isinstance(plain, dict) and len(plain) == 1 and plain.keys() <= _SKIPPED:
        (tasks,) = plain.values()
        if isinstance(tasks, list) and all(isinstance(task, str) for task in tasks):
            return plain
    return {}


def _teach(sequence: type[LazyXComSequence[Any]]) -> None:
    """Let the sequence of a mapped task's values say which it asks for; the values themselves do not."""
    plain = sequence.__getitem__
    if getattr(plain, "asks", False):
        return

    @functools.wraps(plain)
    def __getitem__(self: Any, key: Any) -> Any:  # noqa: N807
        source = self._xcom_arg.operator
        slot = {DAG: source.dag_id, TASK: source.task_id, KEY: self._xcom_arg.key, RUN: self._ti.run_id}
        asked = Asked(slot, -1 if isinstance(key, slice) and key.step is not None and key.step < 0 else 1)
        with _asking(asked):
            value = plain(self, key)
        if not (isinstance(key, slice) and key.start is key.stop is None and key.step in (None, 1, -1)):
            with airflow_errors("sealflow.xcom"):
                _placed(self, key, asked, plain)
        return value

    __getitem__.asks = True  # type: ignore[attr-defined]
    sequence.__getitem__ = __getitem__  # type: ignore[method-assign]


def _placed(sequence: Any, key: int | slice, asked: Asked, read: Callable[[Any, slice], Any]) -> None:
    """Compare the map indexes of a part of a sequence with the places where they were found.

    Without gaps the value at an offset has that map index. With gaps nobody says which it has: then all of them are
    read, and have to rise.

    Raises:
        EvidenceError: ``VALUE_MISPLACED``.
    """
    from sealflow.encryption.value import misplaced

    at = range(len(sequence))[key] if isinstance(key, slice) else (key if key >= 0 else len(sequence) + key,)
    offsets = [*at]
    if len(offsets) != len(asked.found):
        raise misplaced(f"is one of {len(asked.found)}, where there are {len(offsets)}")
    pairs = [pair for pair in zip(offsets, asked.found, strict=True) if pair[1] is not None]
    if all(index == offset for offset, index in pairs):
        return
    name = (*asked.known.values(),)
    for known in (True, False):
        if not known:
            whole = Asked(asked.known)
            with _asking(whole):
                read(sequence, slice(None))
            _gaps[name] = whole.found
        there = _gaps.get(name, [])
        if all(offset < len(there) and there[offset] == index for offset, index in pairs):
            return
    offset, index = pairs[0]
    raise misplaced(f"of map index {index} stands at offset {offset}, where that of another map index belongs")


_teach(LazyXComSequence)
_FROZEN: Final = _freeze()
