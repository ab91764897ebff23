"""Keeps the index of verdicts up with the audit log and its inbox.

What the log's checkpoint includes is proved each time: the entries have to lead from what was read before to the root
that the log's key signed. What only the inbox has, its writers signed; it is shown as not yet in the log.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealflow.audit.entry import parse_entry
from sealflow.audit.event import AuditEvent
from sealflow.errors import EvidenceError, SealflowError
from sealflow.storage.files import errors
from sealflow_airflow.ui import index as table
from sealflow_airflow.ui.index import Facts, Index, Row

if TYPE_CHECKING:
    import sqlite3

    from sealflow.actions.context import Settings
    from sealflow.audit.checkpoint import Checkpoint
    from sealflow.audit.tiles import Get

_log = logging.getLogger(__name__)

#: How often, in seconds, a process looks for something new, at most.
EVERY: Final = 5.0
#: How long a page waits for that, in seconds: mostly there is little to read. The first page of all waits longer.
WAIT: Final = 0.05
FIRST_WAIT: Final = 2.0

_PIECE: Final = 1024
# Most entries that one look takes from the inbox; the next one goes on.
_MOST: Final = 50_000
#: What tasks are given by Airflow itself, many times in each run. Only what was refused of it is a verdict.
_ROUTINE: Final = frozenset({"connection-read", "variable-read", "xcom-read"})
#: In every event that the index is about; nothing else needs to be parsed.
_OUTCOME: Final = b'"phase":"outcome"'


@dataclass(frozen=True)
class Source:
    """Where verdicts are told of.

    Attributes:
        log: Location of the audit log, empty for none.
        key: Its verifier key, or the path of a file that holds it. Without it nothing in the log proves anything, and
            it is not read.
        inbox: Location of the inbox, empty for none.
    """

    log: str = ""
    key: str = ""
    inbox: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Source:
        """Return what settings name."""
        return cls(settings.audit_log or "", settings.audit_log_key or "", settings.audit_inbox or "")

    @property
    def text(self) -> str:
        """What tells it from others."""
        return "\n".join((self.log, self.key, self.inbox))


class Follower:
    """One process's way to the index.

    Args:
        folder: Where the index lies.
        source: What it is made from.
        most: Most verdicts that it keeps.
        known: Says which DAGs Airflow knows: their verdicts are the last to leave.
    """

    def __init__(
        self,
        folder: str,
        source: Source,
        most: int = table.MAX_ROWS,
        known: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        self.source = source
        self.index = Index(folder, source.text)
        self._most = most
        self._known = known
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._looked = -EVERY

    def freshen(self) -> None:
        """Have somebody look for something new, unless that was done just now, and wait a moment for it."""
        with self._lock:
            due = time.monotonic() - self._looked >= EVERY
            wait = FIRST_WAIT if self._thread is None else WAIT
            if due and (self._thread is None or not self._thread.is_alive()):
                self._looked = time.monotonic()
                self._thread = threading.Thread(target=self._look, name="sealflow-pages", daemon=True)
                self._thread.start()
            thread = self._thread
        if thread is not None:
            thread.join(wait)

    @property
    def busy(self) -> bool:
        """Whether this process is reading just now."""
        return self._thread is not None and self._thread.is_alive()

    def _look(self) -> None:
        try:
            self.refresh()
        except Exception:
            # Where the index cannot be written, the page says it by itself.
            _log.exception("The index of verdicts cannot be kept.")

    def refresh(self) -> bool:
        """Read everything that is new.

        Returns:
            ``False``: another process is at it.

        Raises:
            UnavailableError: The index cannot be written.
        """
        with self._alone() as alone:
            if not alone:
                return False
            try:
                self._read()
            except SealflowError as error:
                self._keep_problem(error.code, error.message)
            except Exception as error:
                # Whatever it is: pages that show something old and say nothing of it would hide what is refused.
                _log.exception("The audit log cannot be read.")
                self._keep_problem(type(error).__name__, "See the API server's log.")
        return True

    def _keep_problem(self, code: str, message: str) -> None:
        with self.index.writing() as connection:
            table.keep_facts(connection, problem=code, message=message)

    def _read(self) -> None:
        with self.index.reading() as connection:
            facts = table.facts_of(connection)
        if self.source.log and self.source.key:
            self._read_log(facts)
        if self.source.inbox and not _not_yet_made(self.source.inbox):
            self._read_inbox()
        with self.index.writing() as connection:
            left = table.facts_of(connection).left + table.forget_oldest(connection, self._most, self._known)
            table.keep_facts(connection, left=left, read_at=time.time(), problem="", message="")

    def _read_log(self, facts: Facts) -> None:
        from sealflow.actions.audit_opening import read_checkpoint
        from sealflow.audit.log import open_log
        from sealflow.audit.note import load_verifier_key
        from sealflow.storage import Storages

        store = open_log(self.source.log, Storages())
        try:
            checkpoint = read_checkpoint(store, load_verifier_key(self.source.key)).checkpoint
        except EvidenceError as error:
            # Nobody has integrated yet. A log that was there and is gone is another matter.
            if error.code == "LOG_MISSING" and not facts.size:
                return
            raise
        if checkpoint.size < facts.size:
            raise EvidenceError(
                f"The log has {checkpoint.size} entries, and had {facts.size} before: somebody put an old copy in its "
                "place, or cut it.",
                code="LOG_TRUNCATED",
            )
        self._take(facts, checkpoint, store.get)

    def _take(self, facts: Facts, checkpoint: Checkpoint, get: Get) -> None:
        from sealflow.audit import merkle
        from sealflow.audit.reading import entries
        from sealflow.audit.tiles import WIDTH, Tree

        frontier = merkle.Frontier([(level, bytes.fromhex(part)) for level, part in facts.edge])
        if not facts.size and checkpoint.size > 4 * self._most:
            # Of what is older than the index reaches back, the tiles are enough. An outcome is every second entry.
            first = (checkpoint.size - 4 * self._most) // WIDTH * WIDTH
            frontier = merkle.Frontier.of(first, Tree(get, checkpoint.size).subtree)
        start = frontier.size
        unreadable = facts.unreadable

        def rows() -> Iterator[Row]:
            nonlocal unreadable
            for number, line in enumerate(entries(get, checkpoint, frontier), start):
                try:
                    row = _row(number, line)
                except EvidenceError:
                    unreadable += 1
                    continue
                if row is not None:
                    yield row

        # In one transaction: nothing of it is true before the last entry has led to the root.
        with self.index.writing() as connection:
            if checkpoint.size > facts.size:
                table.forget_from(connection, facts.size)
            table.insert(connection, rows())
            edge = [(level, part.hex()) for level, part in frontier.edge]
            table.keep_facts(
                connection,
                size=checkpoint.size,
                edge=edge,
                unreadable=unreadable,
                # What the inbox gave before has to come again: the log need not have all of it yet.
                next=checkpoint.size if checkpoint.size > facts.size else max(facts.next, checkpoint.size),
            )

    def _read_inbox(self) -> None:
        from sealflow.audit.inbox import open_inbox
        from sealflow.storage import Storages

        inbox = open_inbox(self.source.inbox, Storages())
        try:
            for _ in range(_MOST // _PIECE):
                with self.index.reading() as connection:
                    start = table.facts_of(connection).next
                lines = inbox.sequenced(start, _PIECE)
                if not lines:
                    return
                with self.index.writing() as connection:
                    self._put(connection, start, lines)
        finally:
            inbox.close()

    @staticmethod
    def _put(connection: sqlite3.Connection, start: int, lines: list[bytes]) -> None:
        unreadable, rows = 0, []
        for number, line in enumerate(lines, start):
            try:
                # No log vouches for it yet, so its writer must.
                if not parse_entry(line).is_signed():
                    raise EvidenceError("Its writer did not sign this.", code="AUDIT_SIGNATURE")
                row = _row(number, line)
            except EvidenceError:
                unreadable += 1
                continue
            if row is not None:
                rows.append(row)
        table.insert(connection, rows)
        found = table.facts_of(connection).unreadable + unreadable
        table.keep_facts(connection, next=start + len(lines), unreadable=found)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        path = self.index.path + ".lock"
        with errors(path):
            os.makedirs(self.index.folder, mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(fd)


def _row(idx: int, line: bytes) -> Row | None:
    """Return the row of an entry, ``None`` for one that tells of no outcome.

    Raises:
        EvidenceError: It holds no event that can be shown.
    """
    if _OUTCOME not in line:
        return None
    try:
        event = AuditEvent.parse(parse_entry(line).event)
        if event.phase != "outcome" or (event.action in _ROUTINE and event.outcome == "done"):
            return None
        row = Row.of(idx, event)
        # What SQLite would refuse must not stop what comes after it.
        for value in row.values:
            if isinstance(value, str):
                value.encode()
    except EvidenceError:
        raise
    except Exception as error:
        raise EvidenceError(f"This cannot be shown: {type(error).__name__}.", code="AUDIT_MALFORMED") from None
    return row


def _not_yet_made(inbox: str) -> bool:
    """Tell whether an inbox is a file that is still missing: opening makes it, for us and not for its writers."""
    return inbox.startswith("sqlite:") and not os.path.exists(inbox.removeprefix("sqlite:"))
