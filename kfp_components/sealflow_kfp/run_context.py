"""Tells the core which KFP task is running. Cheap and silent outside of one, and never imports ``kfp``.

KFP hands a task no run id; what it does hand over are the places of its outputs, and these hold the names:

* on a cluster ``<pipeline root>/<pipeline>/<run id>/<task>/<uuid>/<output>``;
* with ``kfp.local`` ``<pipeline root>/<pipeline>-<time>/<component>/<output>``.

Where neither form fits, nothing is claimed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

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
#: Where the launcher shows object stores to a task, see ``kfp.dsl.Artifact.path``.
MOUNTS: Final = MappingProxyType({"/gcs/": "gs://", "/minio/": "s3://", "/s3/": "s3://"})
#: Written by the launcher while the task runs; on a retry its place differs.
_RESERVED = frozenset({"executor-logs"})

_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_LOCAL_RUN = re.compile(r"(.+)-\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d-\d{6}")


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
    workflow, task, run = next(filter(None, map(_names, _places(body["outputs"]))), ("", "", ""))
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
        if name != RUN_ID_PARAMETER
    }
    return Surroundings(identity, parameters=parameters, mounts=MOUNTS)


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
        if name not in _RESERVED and isinstance(items, list):
            yield from (uri for item in items if isinstance(uri := _dict(item).get("uri"), str))
    if isinstance(place := outputs.get("outputFile"), str):
        yield place


def _names(place: str) -> tuple[str, str, str] | None:
    """Return pipeline, task and run of an output's place, ``None`` where it has another form."""
    parts = place.split("/")
    if len(parts) >= 6 and _UUID.fullmatch(parts[-2]) and _UUID.fullmatch(parts[-4]) and parts[-5] and parts[-3]:
        return parts[-5], parts[-3], parts[-4]
    if len(parts) >= 4 and parts[-2] and (match := _LOCAL_RUN.fullmatch(parts[-3])):
        return match[1], parts[-2], parts[-3]
    return None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
