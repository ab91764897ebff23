"""Where the evidence of an artifact lies when nobody says so: beside it, or beside the DVC repository that holds it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from sealflow.errors import UsageError
from sealflow.findings import printable
from sealflow.storage import Storages
from sealflow.storage.local import to_path, to_uri

_MAX_LOCK = 16 << 20
_MAX_LOCK_DEPTH = 32


def default_store(uri: str, storages: Storages) -> str:
    """Return the default evidence store, ``<artifact>.evidence`` beside the artifact.

    For what lies in a DVC repository it is the repository's, where there is one.

    Raises:
        UsageError: That place lies inside a signed tree or one that DVC tracks, where new files would break both.
    """
    canonical = storages.for_uri(uri).canonical(uri).rstrip("/")
    store = canonical + ".evidence"
    if canonical.startswith("file:"):
        blocked = _enclosing_tree(to_path(canonical))
        if blocked is not None and (kept := repository_store(canonical)) is not None:
            return kept
        if blocked is not None:
            folder, reason = blocked
            raise UsageError(
                f"The default evidence store would lie inside {printable(folder)}, {reason}.",
                code="EVIDENCE_STORE_INSIDE_TREE",
                next_step="Name another place with `evidence_store`.",
            )
    return store


def is_repository(uri: str) -> bool:
    """Tell whether a location is the folder of a DVC repository on this machine."""
    return uri.startswith("file:") and os.path.isdir(os.path.join(to_path(uri), ".dvc"))


def repository_store(uri: str) -> str | None:
    """Return the store beside the DVC repository that holds a local artifact, where there is one.

    Args:
        uri: The artifact's location as its storage writes it.
    """
    if not uri.startswith("file:"):
        return None
    folder = os.path.dirname(to_path(uri).rstrip("/"))
    while folder != os.path.dirname(folder):
        if os.path.isdir(os.path.join(folder, ".dvc")):
            return f"{to_uri(folder)}.evidence" if os.path.isdir(f"{folder}.evidence") else None
        folder = os.path.dirname(folder)
    return None


def _enclosing_tree(path: str) -> tuple[str, str] | None:
    folder = os.path.dirname(path)
    outputs = None
    while folder != os.path.dirname(folder):
        if os.path.isdir(folder + ".evidence"):
            return folder, "which is signed"
        if os.path.isfile(folder + ".dvc"):
            return folder, "which DVC tracks"
        if outputs is None:
            outputs = _dvc_outputs(path)
        if folder in outputs:
            return folder, "which DVC tracks as the output of a stage"
        folder = os.path.dirname(folder)
    return None


def _dvc_outputs(path: str) -> frozenset[str]:
    """Return the absolute paths that the ``dvc.lock`` files above ``path`` name as outputs."""
    found: set[str] = set()
    folder = os.path.dirname(path)
    while folder != os.path.dirname(folder):
        lock = os.path.join(folder, "dvc.lock")
        if os.path.isfile(lock):
            found |= _outputs_of(lock, folder)
        if os.path.isdir(os.path.join(folder, ".dvc")):
            break
        folder = os.path.dirname(folder)
    return frozenset(found)


def _outputs_of(lock: str, folder: str) -> set[str]:
    import yaml

    try:
        with open(lock, "rb") as file:
            data = file.read(_MAX_LOCK + 1)
        if len(data) > _MAX_LOCK:
            return {folder}
        # The C parser is ten times as fast; builds without it have the other.
        paths = _paths_in(yaml.parse(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (OSError, ValueError, yaml.YAMLError):
        # A lock that cannot be read cannot clear the place either; only its own folder is certain to be tracked.
        return {folder}
    return {os.path.normpath(os.path.join(folder, path)) for path in paths}


def _paths_in(events: Iterable[Any]) -> set[str]:
    """Return what lies at ``stages.*.outs[*].path``.

    From the parser's events: building the document from deep or much-referenced text crashes the process or never ends.

    Raises:
        ValueError: Nested deeper than a lock of DVC, or with references, which it never holds.
    """
    import yaml

    found: set[str] = set()
    # For each open collection: whether it is a mapping, and the key that was read last and has no value yet.
    stack: list[tuple[bool, str | None]] = []
    with_path = True
    for event in events:
        if isinstance(event, yaml.AliasEvent) or len(stack) > _MAX_LOCK_DEPTH:
            raise ValueError("no lock of DVC")
        keys = [key for _, key in stack]
        outputs = len(keys) > 3 and keys[0] == "stages" and keys[2] == "outs"
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            mapping = isinstance(event, yaml.MappingStartEvent)
            if not mapping and keys[:1] == ["stages"] and len(keys) < 3:
                raise ValueError("a list instead of a stage")
            if outputs and len(keys) == 4:
                with_path = False
            stack.append((mapping, None))
            continue
        if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            stack.pop()
            if outputs and len(keys) == 5 and not with_path:
                raise ValueError("an output without a path")
        elif not isinstance(event, yaml.ScalarEvent):
            continue
        elif stack and stack[-1][0] and stack[-1][1] is None:
            stack[-1] = (True, event.value)
            continue
        elif outputs and len(keys) == 5 and keys[4] == "path":
            found.add(event.value)
            with_path = True
        elif keys[:1] == ["stages"] and (len(keys) < 3 or keys[2:3] == ["outs"]) and len(keys) < 5 and event.value:
            raise ValueError("a value instead of stages or outputs")
        if stack and stack[-1][0]:
            stack[-1] = (True, None)
    return found
