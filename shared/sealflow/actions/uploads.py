"""Uploads that were begun and never finished: listed, and removed where nobody goes on with them."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Final

from sealflow.actions import context
from sealflow.actions.recording import Recording
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.errors import ArtifactError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.storage import Storages

#: Most uploads that one call looks at.
MOST: Final = 10_000

_AGE = re.compile(r"([1-9][0-9]{0,5})([mhdw])")
_UNITS: Final = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True)
class UnfinishedUpload:
    """An upload that was begun and neither committed nor removed.

    Attributes:
        uri: What it would become.
        since: When it was begun or last written to; RFC 3339.
    """

    uri: str
    since: str

    def as_dict(self) -> dict[str, str]:
        """Return the JSON form."""
        return {"uri": self.uri, "since": self.since}


def unfinished_uploads(
    location: str,
    *,
    older_than: str | None = None,
    abort: bool = False,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
) -> tuple[UnfinishedUpload, ...]:
    """Return the unfinished uploads of an object or below a folder, and remove them where that is asked.

    Args:
        location: The object, folder or bucket.
        older_than: Only those begun so long ago: a number with m, h, d or w.
        abort: Remove them; nobody can go on with them then.
        storages: Finds storage.
        audit: Takes audit events.

    Raises:
        ArtifactError: One that was to be removed is not ours; all others were removed.
        UsageError: ``older_than`` is no duration, or the location is none.
        UnavailableError: The store cannot be reached, or holds more than are listed.
    """
    age = 0
    if older_than is not None:
        match = _AGE.fullmatch(older_than)
        if match is None:
            raise UsageError("An age is a number with m, h, d or w, such as 24h.")
        age = int(match[1]) * _UNITS[match[2]]
    storage = (storages or Storages()).for_uri(location)
    canonical = storage.canonical(location)
    found = storage.unfinished(location, MOST)
    if len(found) > MOST:
        raise UnavailableError(
            f"{printable(canonical)} holds more than {MOST} unfinished uploads.", next_step="Name a folder in it."
        )
    before = utc_now() - datetime.timedelta(seconds=age)
    # The clock of a store may be ahead of ours: an age is asked for, or none matters.
    chosen = [item for item in found if older_than is None or item.since <= before]
    if abort and chosen:
        with Recording("abort-uploads", canonical, context.current(), sink=audit):
            refused: ArtifactError | None = None
            for item in chosen:
                try:
                    outgoing = storage.resume(item.uri, item.token, overwrite=True)
                except ArtifactError as error:
                    refused = refused or error  # somebody else's must not keep ours
                    continue
                if outgoing is not None:
                    outgoing.abort()
            if refused is not None:
                raise refused
    return tuple(UnfinishedUpload(item.uri, item.since.isoformat(timespec="seconds")) for item in chosen)
