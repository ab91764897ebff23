"""Checks of the latest runs: whether their tasks could be taken from the cache, and what stood before them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from sealflow import strictjson
from sealflow.errors import EvidenceError
from sealflow.findings import printable
from sealflow_kfp.admission.shapes import ARGO_TAG
from sealflow_kfp.doctor.place import WORKFLOWS, Place
from sealflow_kfp.doctor.report import UNCLEAR, Said, UnclearError, listed, mapped, text, texts
from sealflow_kfp.guard_command import IN_DIRECTORY, IN_IMAGE, is_guarded

#: Workflows of each namespace that are looked at, the latest.
_LATEST: Final = 20
_MAX_PARAMETER: Final = 4 << 20
_NOT_CACHED: Final = "--cache_disabled=true"
_HANDED_ON: Final = "{{inputs.parameters.task}}"
_COLUMNS: Final = {"CREATED": ".metadata.creationTimestamp", "NAME": ".metadata.name"}
# As the API server writes it, so that it sorts as text.
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
# RFC 1123 subdomain; never an option of kubectl's.
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")
_ODD: Final = "not understood"
_NO_RUN: Final = Said("UNKNOWN", "no run to look at", "Start one.")


class _Runs(NamedTuple):
    """The latest runs.

    Attributes:
        found: Workflows by namespace and name.
        older: How many Workflows are stored that nobody looked at.
    """

    found: dict[str, dict[str, Any]]
    older: int

    @property
    def rest(self) -> str:
        """What was not looked at, to stand at the end of a sentence."""
        return f"; {self.older} older Workflows not looked at" if self.older else ""


def _latest(place: Place) -> _Runs:
    found: dict[str, dict[str, Any]] = {}
    older = 0
    for namespace in place.namespaces:
        # The API server lists by name, so all have to be seen to know the latest.
        names = [name for _, name in sorted(_made(place, namespace), reverse=True)]
        older += len(names[_LATEST:])
        for item in _objects(place, namespace, names[:_LATEST]):
            if mapped(item, "metadata", "labels").get("pipeline/runid") or _parameters(item):
                found[f"{namespace}/{text(item, 'metadata', 'name')}"] = mapped(item)
    return _Runs(found, older)


def _made(place: Place, namespace: str) -> Iterator[tuple[str, str]]:
    """Yield when each Workflow of a namespace was made, and its name."""
    for row in place.need(place.cluster.rows(WORKFLOWS, namespace, _COLUMNS)) or ():
        if len(row) != 2 or not _TIME.fullmatch(row[0]) or not _NAME.fullmatch(row[1]):
            raise UnclearError("a table of Workflows without times and names")
        yield row[0], row[1]


def _objects(place: Place, namespace: str, names: list[str]) -> list[Any]:
    body = place.need(place.cluster.several(WORKFLOWS, names, namespace)) if names else None
    if body is None:
        return []
    items = listed(body, "items") if text(body, "kind") == "List" else [body]
    if not {text(item, "metadata", "name") for item in items} <= set(names):
        raise UnclearError("other Workflows than were asked for")
    return items


def _parameters(workflow: Any) -> dict[str, str]:
    found = {}
    for item in listed(workflow, "spec", "arguments", "parameters"):
        name = text(item, "name")
        if name.startswith("implementations-"):
            found[name] = text(item, "value")
    return found


def _some(names: list[str]) -> str:
    return ", ".join(map(printable, names[:5]))


def runs_cached(place: Place) -> Said:
    """Say whether tasks of the latest runs could be taken from the cache."""
    runs = _latest(place)
    told = _told(runs, lambda workflow: {"cached"} if _may_be_cached(workflow) else set())
    cached = [name for name, found in told.items() if "cached" in found]
    if cached:
        return Said("FAIL", f"caching on in {len(cached)} of {len(runs.found)} runs: {_some(cached)}")
    if _odd(told):
        return Said("UNKNOWN", f"runs that are not understood: {_some(_odd(told))}", "Look at them yourself.")
    return Said("PASS", f"off in {len(runs.found)} runs{runs.rest}") if runs.found else _NO_RUN


def _told(runs: _Runs, judge: Callable[[dict[str, Any]], set[str]]) -> dict[str, set[str]]:
    """Return what is to say of each run; one that is not understood hides nothing of the others."""
    told = {}
    for name, workflow in runs.found.items():
        try:
            told[name] = judge(workflow)
        except UNCLEAR:
            told[name] = {_ODD}
    return told


def _odd(told: dict[str, set[str]]) -> list[str]:
    return [name for name, found in told.items() if _ODD in found]


def _may_be_cached(workflow: dict[str, Any]) -> bool:
    asked = disabled = False
    for template in listed(workflow, "spec", "templates"):
        words = texts(template, "container", "args")
        # Go takes one dash as well, and of several options the last.
        if any(word.lstrip("-").startswith("cached_decision_path") for word in words):
            options = [word for word in words if word.lstrip("-").startswith("cache_disabled")]
            off = bool(options) and all(word == _NOT_CACHED for word in options)
            asked, disabled = asked or not off, disabled or off
    if disabled and not asked:
        return False
    return any(_enables(value.strip()) for value in _task_parameters(workflow))


def _task_parameters(workflow: dict[str, Any]) -> Iterator[str]:
    for template in listed(workflow, "spec", "templates"):
        given = [listed(template, "inputs", "parameters")]
        given += [listed(task, "arguments", "parameters") for task in listed(template, "dag", "tasks")]
        for item in (item for parameters in given for item in parameters):
            if text(item, "name") != "task":
                continue
            if mapped(item, "valueFrom"):
                raise UnclearError("a task that stands somewhere else")
            yield from (text(item, "value"), text(item, "default"))


def _enables(value: str) -> bool:
    # The root has none of its own, and templates hand theirs on.
    if value in ("", _HANDED_ON):
        return False
    if ARGO_TAG.search(value):
        raise UnclearError("a task that Argo fills in later")
    try:
        body = strictjson.loads(value.encode(), limit=_MAX_PARAMETER, what="A task")
    except EvidenceError as error:
        raise UnclearError(error.message) from None
    if not isinstance(body, dict):
        raise UnclearError("a task that is no object")
    # Protocol buffers in JSON have two spellings.
    options = [mapped(body, name) for name in ("cachingOptions", "caching_options")]
    return any(item.get(name) for item in options for name in ("enableCache", "enable_cache"))


def runs_guarded(place: Place) -> Said:
    """Say whether all tasks of the latest runs ran behind the wrapper."""
    runs = _latest(place)
    guards = _told(runs, lambda workflow: {_guard(value, place) for value in _parameters(workflow).values()})
    bare = [name for name, found in guards.items() if "none" in found]
    if bare:
        return Said("FAIL", f"without the wrapper: {_some(bare)} ({len(bare)} of {len(runs.found)} runs)")
    unclear = [name for name, found in guards.items() if "unclear" in found]
    if unclear:
        found = f"sealflow's own components, in images of which no settings speak: {_some(unclear)}"
        return Said("UNKNOWN", found, "Name them: --settings, images.sealflow.")
    if _odd(guards):
        return Said("UNKNOWN", f"runs that are not understood: {_some(_odd(guards))}", "Look at them yourself.")
    believed = sum("image" in found for found in guards.values())
    more = f", {believed} of them by a guard in their image, which is believed" if believed else ""
    return Said("PASS", f"all tasks of {len(runs.found)} runs{more}{runs.rest}") if guards else _NO_RUN


def _guard(value: str, place: Place) -> str:
    """Return what stands before a task: ``directory``, ``image``, ``none``, or ``unclear``.

    Where a gate judges pods, what an image says to hold counts for nothing: as for the gate, only the guard directory
    does, and sealflow's own components in images that the settings name.
    """
    try:
        body = strictjson.loads(value.encode(), limit=_MAX_PARAMETER, what="An implementation")
    except EvidenceError as error:
        raise UnclearError(error.message) from None
    command, arguments = texts(body, "command"), texts(body, "args")
    if is_guarded([*command, *arguments], (IN_DIRECTORY,)) is not None:
        return "directory"
    own = _own(command, arguments)
    if not place.wanted.routes & {"admission", "kyverno"}:
        return "image" if own or is_guarded([*command, *arguments], (IN_IMAGE,)) is not None else "none"
    if not own:
        return "none"
    settings = place.wanted.settings
    if settings is None:
        return "unclear"
    return "directory" if text(body, "image") in settings.images.sealflow else "none"


def _own(command: list[str], arguments: list[str]) -> bool:
    from sealflow_kfp.hardening.commands import own_component

    found = own_component(command, arguments)
    return found is not None and found[1]
