"""Why a run was stopped: what the audit inbox, or a spool that was not shipped yet, says of its refusals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sealflow import strictjson
from sealflow.actions import context
from sealflow.audit import spool as spools
from sealflow.audit.entry import MAX_ENTRY, parse_entry
from sealflow.audit.inbox import BATCH, open_inbox
from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import CODES, printable
from sealflow.run_identity import without_attempt
from sealflow.storage import Storages

#: Outcomes that stop a task.
STOPPING: Final = frozenset({"failed", "unverifiable", "error"})
#: How many entries are read from the end of the inbox.
MAX_ENTRIES: Final = 100_000


@dataclass(frozen=True)
class Stopped:
    """What was found.

    Attributes:
        run: The run that was asked for.
        events: Its stopping events, the oldest first.
        place: Where they were looked for, without credentials.
        complete: Whether everything that lies there was read.
    """

    run: str
    events: tuple[dict[str, Any], ...]
    place: str
    complete: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"run": self.run, "events": list(self.events), "place": self.place, "complete": self.complete}


def stopped(
    run: str, *, inbox: str | None = None, spool: str | None = None, most: int = MAX_ENTRIES, storages: Any = None
) -> Stopped:
    """Return the events that say why a run, or a task of it, was stopped.

    Entries of an inbox that wait for their index get one, as from any integrator: without it they cannot be read.

    Args:
        run: A run id, or an invocation such as ``kfp:churn/score/<run id>``.
        inbox: Location of the inbox, by default the settings'.
        spool: A spool instead, by default the settings' where they name no inbox.
        most: How many entries are read from the end.
        storages: Finds storage.

    Raises:
        UsageError: Neither is named, or both are.
        UnavailableError: It cannot be reached.
    """
    settings = context.current().settings
    if inbox and spool:
        raise UsageError("Give an inbox or a spool, not both.")
    if not inbox and not spool:
        inbox, spool = settings.audit_inbox, None if settings.audit_inbox else settings.audit_spool
    if inbox:
        opened = open_inbox(inbox, storages or Storages())
        try:
            while opened.sequence(BATCH):
                pass
            lines, complete = _from_end(opened, most)
        finally:
            opened.close()
        return Stopped(run, _about(run, lines), opened.uri, complete)
    if spool:
        return Stopped(run, _about(run, list(_spooled(spool))), spool, True)
    raise UsageError("No audit inbox is named.", next_step="Give --inbox, or set SEALFLOW_AUDIT_INBOX.")


def advice(event: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the codes of an event, each with what the reader can do about it."""
    return [(code, CODES[code].next_step if code in CODES else "") for code in event.get("codes", ())]


def _from_end(inbox: Any, most: int) -> tuple[list[bytes], bool]:
    lines: list[bytes] = []
    end = inbox.size()
    while end and len(lines) < most:
        start = max(0, end - BATCH)
        try:
            found = inbox.sequenced(start, end - start)
        except EvidenceError as error:
            if error.code != "LOG_FORKED" or not lines:
                raise
            # The log has them by now, and the inbox need not keep them.
            return lines, False
        if len(found) < end - start:
            found += inbox.sequenced(start + len(found), end - start - len(found))
        lines = found + lines
        end = start
    return lines, end == 0


def _spooled(folder: str) -> Iterator[bytes]:
    for writer in spools.writers(folder):
        with spools.opened(folder, writer) as chain:
            if chain is not None:
                yield from (entry.line for entry in chain.entries)


def _about(run: str, lines: list[bytes]) -> tuple[dict[str, Any], ...]:
    found = []
    for line in lines:
        # Cheap first: nearly every entry is about something else.
        if b'"phase":"outcome"' not in line:
            continue
        try:
            event = strictjson.loads(parse_entry(line).event, limit=MAX_ENTRY, what="An audit event")
        except EvidenceError:
            continue
        who = event.get("run") if isinstance(event, dict) else None
        if not isinstance(who, dict) or event.get("outcome") not in STOPPING:
            continue
        invocation = str(who.get("invocation", ""))
        if run in (who.get("run"), invocation, without_attempt(invocation)):
            found.append(event)
    # One who may write to the inbox may have written anything.
    return tuple(sorted(found, key=lambda event: printable(event.get("time", ""))))
