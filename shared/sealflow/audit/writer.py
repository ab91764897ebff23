"""Writers: each process makes the entries of its runs in chains of its own, and says when one is complete.

A writer is found by the run and by where its entries go. A forked child inherits no chain: it begins its own. A chain
ends with a signed count of its entries, written when the run is left or the process ends in order; a process that is
killed leaves its chain without an end, which a review reports (``AUDIT_GAP``).
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sealflow.audit.entry import Chain, Entry
from sealflow.audit.event import AuditEvent
from sealflow.audit.spool import MAX_CHAIN, SpoolFile, SpoolGoneError
from sealflow.errors import SealflowError, UnavailableError

if TYPE_CHECKING:
    from logging import Logger

    from sealflow.audit.inbox import Inbox
    from sealflow.run_identity import RunIdentity

#: How often a writer begins anew for one event, because others hold its slots.
_MAX_SQUATTED: Final = 3
_MAX_WRITERS: Final = 64


class Writer:
    """Makes events durable, in chains of this process. An audit sink; for any number of threads.

    Args:
        run: The run whose chains these are; its end is recorded in its name.
        spool: Folder that outlives the process: an event is durable when it lies there.
        inbox: Opens the inbox; without a spool an event is durable when it lies there.
        vouch: Returns what the deployment says of a writer id, see :attr:`AuditEvent.vouch`.
    """

    def __init__(
        self,
        run: RunIdentity,
        *,
        spool: str | None = None,
        inbox: Callable[[], Inbox] | None = None,
        vouch: Callable[[str], Mapping[str, str]] | None = None,
    ) -> None:
        if (spool is None) == (inbox is None):
            raise ValueError("either a spool or an inbox")
        self._run = run
        self._spool = spool
        self._open_inbox = inbox
        self._vouch = vouch
        self._inbox: Inbox | None = None
        self._begin()

    def _begin(self) -> None:
        """Begin with nothing: what this object held belongs to another process, or to nobody any more."""
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._chain: Chain | None = None
        self._durable = 0
        self._file: SpoolFile | None = None
        self._pending: tuple[AuditEvent, Entry] | None = None

    def record(self, event: AuditEvent) -> None:
        """See :class:`~sealflow.audit.sink.AuditSink`."""
        self.write(event)

    def write(self, event: AuditEvent) -> Entry:
        """Make the event durable and return its entry.

        Raises:
            UnavailableError: ``AUDIT_UNAVAILABLE``: it could not be made durable; the action must not go on. An entry
                that was made for it comes before the next one: a chain has no holes, and no number stands for two.
            UsageError: The event is too large.
        """
        if self._pid != os.getpid():
            self._begin()
        _end_with_process()
        with self._lock:
            self._flush()
            if self._chain is not None and self._chain.count >= MAX_CHAIN - 1:
                self._end()
            entry = self._add(event)
        assert entry is not None  # noqa: S101
        return entry

    def close(self) -> None:
        """End the chain. What fails is only logged: the missing end shows as a gap."""
        if self._pid != os.getpid():
            return
        with self._lock:
            try:
                self._flush()
                if self._chain is not None:
                    self._end()
            except SealflowError as error:
                _logger().warning("The audit chain stays without its end: %s", error)
            self._let_go()
            if self._inbox is not None:
                self._inbox.close()
                self._inbox = None

    def _add(self, event: AuditEvent, after: str = "", tries: int = _MAX_SQUATTED) -> Entry | None:
        if self._chain is not None and self._chain.count != self._durable:
            # An exception out of nowhere (a signal's, a timeout's) came between an entry and its keeping.
            after = self._chain.writer
            self._let_go()
        if self._chain is None:
            chain = Chain()
            # Before anything is kept: where nobody vouches, nothing has begun.
            vouch = self._vouch(chain.writer) if self._vouch is not None else {}
            event = replace(event, after=after, vouch=vouch)
            data = event.to_json()
            self._chain, self._durable = chain, 0
            _open.add(self)
        else:
            data = event.to_json()
        self._pending = event, self._chain.add(data)
        return self._flush(tries)

    def _end(self) -> None:
        assert self._chain is not None  # noqa: S101
        self._add(AuditEvent("end", "end", self._run, count=self._chain.count + 1))
        self._let_go()

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
        self._chain = self._file = self._pending = None
        _open.discard(self)

    def _flush(self, tries: int = _MAX_SQUATTED) -> Entry | None:
        """Make durable what is not; return its entry, ``None`` where there was none or nobody can have it."""
        if self._pending is None:
            return None
        event, entry = self._pending
        try:
            self._deliver(entry)
        except SealflowError as error:
            if error.code != "AUDIT_SQUATTED" and not isinstance(error, SpoolGoneError):
                raise
            _logger().error("The audit goes on in a new chain: %s", error)
            if not tries:
                raise UnavailableError(
                    "Others hold every slot that this process tries to write its audit events to.",
                    code="AUDIT_UNAVAILABLE",
                    next_step="Find out who else may write there.",
                ) from error
            self._let_go()
            if event.phase == "end":
                return None
            again = replace(event, codes=(*event.codes, error.code))
            return self._add(again, after=entry.writer, tries=tries - 1)
        self._durable, self._pending = entry.n + 1, None
        return entry

    def _deliver(self, entry: Entry) -> None:
        if self._spool is not None:
            if self._file is None:
                self._file = SpoolFile(self._spool, entry.writer)
            self._file.append(entry)
            return
        assert self._open_inbox is not None  # noqa: S101
        try:
            if self._inbox is None:
                self._inbox = self._open_inbox()
            self._inbox.put([entry])
        except UnavailableError as error:
            raise UnavailableError(
                f"The audit inbox does not take the event: {error.message}",
                code="AUDIT_UNAVAILABLE",
                next_step="Bring the inbox back, or name an `audit_spool` that outlives this process.",
            ) from error

    def _after_fork(self) -> None:
        # The parent holds the chain and the lock of its file. Its connection is neither used nor closed here.
        if self._file is not None:
            self._file.close()
        if self._inbox is not None:
            _inherited.append(self._inbox)
            self._inbox = None
        self._begin()


# Those with a chain that has no end yet.
_open: set[Writer] = set()
_writers: dict[tuple[Any, ...], tuple[Writer, object]] = {}
_inherited: list[Any] = []
_lock = threading.Lock()
_ends_in: int | None = None


def writer_for(key: tuple[Any, ...], make: Callable[[], Writer], owner: object = None) -> Writer:
    """Return this process's writer of a key, made when there is none.

    Args:
        key: The run, and where its entries go.
        make: Makes it.
        owner: At whose end it ends, see :func:`close_writers`.
    """
    with _lock:
        found = _writers.get(key)
        if found is None:
            found = _writers[key] = make(), owner
        old = [] if len(_writers) <= _MAX_WRITERS else [_writers.pop(next(iter(_writers)))[0]]
    for writer in old:
        writer.close()
    return found[0]


def close_writers(owner: object = None) -> None:
    """End the chains of an owner's writers, without one of all."""
    with _lock:
        keys = [key for key, (_, its) in _writers.items() if owner is None or its is owner]
        closing = [_writers.pop(key)[0] for key in keys]
    for writer in closing:
        writer.close()


def _end_with_process() -> None:
    """See to it that chains end when this process does. Some programs forget in a child what the parent registered."""
    global _ends_in
    if _ends_in == os.getpid():
        return
    _ends_in = os.getpid()
    atexit.register(_close_all)
    # Children of multiprocessing leave by os._exit, after these.
    if (multiprocessing := sys.modules.get("multiprocessing.util")) is not None:
        multiprocessing.Finalize(None, _close_all, exitpriority=-100)


def _close_all() -> None:
    close_writers()
    for writer in list(_open):
        writer.close()


def _logger() -> Logger:
    # Hardly ever needed, and every task would pay for it.
    import logging

    return logging.getLogger(__name__)


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    for writer in list(_open):
        writer._after_fork()
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)
