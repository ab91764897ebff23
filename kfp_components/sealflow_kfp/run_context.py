"""Tells the core which KFP task is running. Cheap and silent outside of one, and never imports ``kfp``.

KFP hands a task no run id; what it does hand over are the places of its outputs, and these hold the names:

* on a cluster ``<pipeline root>/<pipeline>/<run id>/<task>/<uuid>/<output>``;
* with ``kfp.local`` ``<pipeline root>/<pipeline>-<time>/<component>/<output>``, in a loop with
  ``<loop>-iteration-<number>`` before the component.

Where neither form fits, nothing is claimed. KFP's local runner names the component and not the task; in a hardened
pipeline, whose plan (:mod:`sealflow_kfp.plan`) names the task, the task is that one.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from sealflow.actions.context import Surroundings
    from sealflow.policy.source import AdminChannel, BrokenChannel
    from sealflow.run_identity import RunIdentity

#: Parameter that sealflow's own components carry: it holds the run id, which also keeps a forced cache from hitting.
RUN_ID_PARAMETER: Final = "sealflow_run_id"

_OPTION = "--executor_input"
#: The kernel takes no longer argument (MAX_ARG_STRLEN).
_MAX_INPUT: Final = 128 << 10
#: Where Kubernetes tells a pod its namespace. A pipeline cannot say what stands there.
NAMESPACE_FILE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
#: Where a workspace is mounted, which the tasks of a run share; artifacts of object stores lie below it in this folder.
WORKSPACE: Final = "/kfp-workspace/"
WORKSPACE_ARTIFACTS: Final = f"{WORKSPACE}.artifacts"
_SHOWN = {"/gcs/": "gs://", "/minio/": "s3://", "/s3/": "s3://"}
#: Where the launcher shows object stores to a task, see ``kfp.dsl.Artifact.path``.
MOUNTS: Final = MappingProxyType(
    _SHOWN | {f"{WORKSPACE_ARTIFACTS}{folder}": location for folder, location in _SHOWN.items()}
)
#: Outputs that are no artifacts of the task: the first is written by the launcher while the task runs, and on a retry
#: its place differs; the second is the wrapper's own page about the task.
NO_ARTIFACTS: Final = frozenset({"executor-logs", "sealflow_verdict"})
#: How the names of parameters begin that a hardener adds; the task's own parameters have no such name.
RESERVED_PREFIX: Final = "sealflow_"

_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ANY_UUID: Final = "00000000-0000-4000-8000-000000000000"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# The local runner has a folder for each turn of a loop, inside of the run's.
_ITERATION = re.compile(r".+-iteration-\d+")
_LOCAL_RUN = re.compile(r"(.+)-\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d-\d{6}")


_shown_also: dict[str, str] = {}


@contextlib.contextmanager
def shown_as(path: str, location: str) -> Iterator[None]:
    """Let rules about another location hold for a path as well: an artifact is judged as what it stands for, too.

    Args:
        path: The path.
        location: The other location, as a storage writes it.
    """
    _shown_also[path] = location
    try:
        yield
    finally:
        del _shown_also[path]


def location_of(path: str) -> str:
    """Return the location that a path shows to a task, as a storage writes it."""
    from sealflow.storage.local import to_uri

    for folder, location in MOUNTS.items():
        if path.startswith(folder):
            return location + path[len(folder) :]
    return to_uri(os.path.abspath(path))


class Names(NamedTuple):
    """What the place of an artifact says of who made it.

    Attributes:
        workflow: Name of the pipeline.
        task: Name of the task; where ``local``, of its component.
        run: Run id.
        output: Name of the output.
        local: Whether KFP's local runner made the place.
    """

    workflow: str
    task: str
    run: str
    output: str
    local: bool

    @property
    def source(self) -> str:
        """The invocation that provenance of it names."""
        return f"kfp:{self.workflow}/{self.task}/{self.run}"


def current() -> Surroundings | None:
    """Return the running task's surroundings, ``None`` outside of a KFP executor process."""
    text = _executor_input(sys.argv)
    if text is None:
        return None
    from sealflow import strictjson
    from sealflow.errors import EvidenceError

    try:
        body = strictjson.loads(text.encode("utf-8", "replace"), limit=_MAX_INPUT, what=_OPTION)
    except EvidenceError:
        return None
    if not isinstance(body, dict) or not isinstance(body.get("outputs"), dict):
        return None
    return _surroundings(body)


def identity() -> RunIdentity | None:
    """Return the running task's identity, ``None`` outside of a KFP executor process."""
    found = current()
    return None if found is None else found.run


def admin() -> AdminChannel | BrokenChannel | None:
    """Return nothing: all that KFP hands to a task comes from the pipeline, so only the machine's file names it."""
    return None


def _executor_input(arguments: Sequence[str]) -> str | None:
    for index, argument in enumerate(arguments):
        if argument == _OPTION and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(_OPTION + "="):
            return argument[len(_OPTION) + 1 :]
    return None


def _surroundings(body: dict[str, Any]) -> Surroundings:
    from sealflow import strictjson
    from sealflow.actions.context import Surroundings
    from sealflow.run_identity import RunIdentity

    values = _dict(_dict(body.get("inputs")).get("parameterValues"))
    found = next(filter(None, map(names_in, _places(body["outputs"]))), None)
    workflow, task, run = ("", "", "") if found is None else found[:3]
    if found is not None and found.local and (planned := _planned_task(values)):
        task = planned
    claimed = values.get(RUN_ID_PARAMETER)
    if not run and isinstance(claimed, str) and "{{" not in claimed:
        run = claimed
    identity = RunIdentity(
        orchestrator="kfp",
        workflow=workflow,
        task=task,
        run=run,
        instance=os.environ.get("KFP_POD_NAME", ""),
        team=_namespace(),
    )
    parameters = {
        name: value if isinstance(value, str) else strictjson.dumps(value).decode("utf-8")
        for name, value in values.items()
        if not name.startswith(RESERVED_PREFIX)
    }
    return Surroundings(identity, parameters=parameters, mounts={**MOUNTS, **_shown_also})


def _namespace() -> str:
    try:
        with open(NAMESPACE_FILE, encoding="ascii") as file:
            text = file.read(256).strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return text if _NAMESPACE.fullmatch(text) else ""


def _places(outputs: dict[str, Any]) -> Iterator[str]:
    """Yield the places of the task's outputs in an order that does not depend on the reader."""
    for name, listed in sorted(_dict(outputs.get("artifacts")).items()):
        items = _dict(listed).get("artifacts")
        if name not in NO_ARTIFACTS and isinstance(items, list):
            yield from (uri for item in items if isinstance(uri := _dict(item).get("uri"), str))
    if isinstance(place := outputs.get("outputFile"), str):
        yield place


def names_in(place: str) -> Names | None:
    """Return what an output's place says, ``None`` where it has another form."""
    parts = place.split("/")
    if len(parts) >= 6 and _UUID.fullmatch(parts[-2]) and _UUID.fullmatch(parts[-4]) and parts[-5] and parts[-3]:
        return Names(parts[-5], parts[-3], parts[-4], parts[-1], local=False)
    above = parts[:-2]
    while above and _ITERATION.fullmatch(above[-1]):
        above.pop()
    if len(above) >= 2 and parts[-2] and (match := _LOCAL_RUN.fullmatch(above[-1])):
        return Names(match[1], parts[-2], above[-1], parts[-1], local=True)
    return None


def place_beside(place: str, task: str, output: str) -> str | None:
    """Return where KFP would put an output of another task of the run, ``None`` where the place has another form.

    Args:
        place: Place of an output of this task.
        task: Name of the other task.
        output: Name of its output.
    """
    found, parts = names_in(place), place.split("/")
    if found is None:
        return None
    if found.local:
        return "/".join([*parts[:-2], task, output])
    return "/".join([*parts[:-3], task, _ANY_UUID, output])


def _planned_task(values: dict[str, Any]) -> str:
    from sealflow.errors import EvidenceError
    from sealflow_kfp.plan import PLAN_PARAMETER, Plan

    try:
        return Plan.parse(values.get(PLAN_PARAMETER)).task.rpartition("/")[2]
    except EvidenceError:
        return ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
