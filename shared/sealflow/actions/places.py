"""Where things lie: every reading of a location, and the refusal of places that overlap."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from sealflow.errors import UsageError
from sealflow.findings import printable
from sealflow.storage.local import to_path, to_uri


def readings_of(canonical: str, mounts: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return every reading of a location, see :func:`sealflow.policy.globs.readings`.

    Args:
        canonical: The location as its storage writes it.
        mounts: Folders in which an orchestrator shows object stores, and the locations that they show.
    """
    # Only rules and stores need them: who signs a folder without a policy loads nothing that reads one.
    from sealflow.policy.globs import readings

    if not canonical.startswith("file:"):
        return readings(canonical)
    path = to_path(canonical)
    resolved = os.path.realpath(path)
    found = readings(canonical, to_uri(resolved))
    for shown in _shown((path, resolved), mounts):
        found += readings(shown)
    return tuple(dict.fromkeys(found))


def _shown(paths: Sequence[str], mounts: Mapping[str, str] | None) -> list[str]:
    """Return the locations in object stores that are shown at these paths."""
    return [
        location + path[len(folder) :]
        for folder, location in (mounts or {}).items()
        for path in dict.fromkeys(paths)
        if path.startswith(folder)
    ]


def within(inner: str, outer: str, mounts: Mapping[str, str] | None = None) -> bool:
    """Tell whether a location is another one or lies below it, under any reading of the two.

    Two ways may lead to one place, and what lies there may be replaced by one and read by the other: what could be
    the same place is. Only ``minio://`` is never ``s3://``: it has an endpoint of its own, and a bucket there may have
    the name of one here.

    Args:
        inner: The location as its storage writes it.
        outer: The other one.
        mounts: As for :func:`readings_of`.
    """
    if {inner.partition(":")[0], outer.partition(":")[0]} == {"minio", "s3"}:
        return False
    places = [f"{place.rstrip('/')}/" for place in _names(outer, mounts)]
    return any(f"{name.rstrip('/')}/".startswith(place) for name in _names(inner, mounts) for place in places)


def _names(canonical: str, mounts: Mapping[str, str] | None) -> list[str]:
    if not canonical.startswith("file:"):
        return list(readings_of(canonical))
    path = to_path(canonical)
    folder, name = os.path.split(path)
    # What replaces a link lies where the link does, not where it leads.
    paths = (path, os.path.realpath(path), os.path.join(os.path.realpath(folder), name))
    found = [to_uri(item) for item in dict.fromkeys(paths)]
    for shown in _shown(paths, mounts):
        found += readings_of(shown)
    return found


def refuse_overlap(
    source: str,
    store: str,
    *,
    destination: str | None = None,
    evidence: str | None = None,
    mounts: Mapping[str, str] | None = None,
    what: str = "artifact",
    parameter: str = "evidence_store",
) -> None:
    """Refuse a destination that is the artifact or its evidence, or holds them, and evidence within an artifact.

    All locations as their storages write them.

    Args:
        source: The artifact.
        store: Where evidence is written.
        destination: Where the artifact is written, if it is.
        evidence: Where the evidence of the source is read, if it is.
        mounts: As for :func:`readings_of`.
        what: What the source is, for the message.
        parameter: What names the store, for the message.

    Raises:
        UsageError: To write there, or to replace what is there, would destroy what is read; or
            ``EVIDENCE_STORE_INSIDE_TREE``: evidence would become part of what it speaks about, and the next check
            would find files that nobody signed.
    """
    if destination is not None:
        if within(destination, source, mounts):
            raise UsageError(
                f"{printable(destination)} lies inside the {what}, or is the {what}.",
                next_step="Choose another destination.",
            )
        if within(source, destination, mounts) or (evidence is not None and within(evidence, destination, mounts)):
            raise UsageError(
                f"{printable(destination)} holds the {what}, or its evidence.", next_step="Choose another destination."
            )
    for place in (source, destination):
        if place is not None and within(store, place, mounts):
            raise UsageError(
                f"The evidence store {printable(store)} lies inside the {what}.",
                code="EVIDENCE_STORE_INSIDE_TREE",
                next_step=f"Name a place outside of it with `{parameter}`.",
            )
