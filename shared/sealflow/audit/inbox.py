"""Inboxes: where writers leave entries for the log, and where their order is fixed.

A writer puts its entries into an inbox; an integrator fixes one order over the entries of all writers (sequencing), and
appends them to the log in that order. What holds for every inbox:

- ``put`` returns when the entries are durable. The same entry again is a success, so a writer that got no answer asks
  again. A slot (writer, n) holds one entry for ever.
- An index is given once and never taken back, from 0, without holes, whoever dies in between. Entries of one chain keep
  their order. An entry whose predecessor is missing waits.
- Nobody can block an integrator: what is no entry, is not signed by its writer or does not continue its chain is left
  out and reported. Whoever holds a slot with such bytes ends the chain there; its writer is told (``AUDIT_SQUATTED``)
  and goes on under a new id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from sealflow.audit.entry import Entry, parse_entry
from sealflow.errors import EvidenceError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.storage import Storages

#: Most entries that one call of ``put`` hands to a store at a time.
BATCH: Final = 1000


class SquattedError(EvidenceError):
    """A slot holds other bytes than the entry that belongs there. The entries before it were put.

    Attributes:
        writer: Whose chain it is.
        n: The number of the slot.
    """

    code = "AUDIT_SQUATTED"

    def __init__(self, writer: str, n: int, inbox: str) -> None:
        super().__init__(
            f"Slot {n} of writer {writer[:16]}… in the inbox {printable(inbox)} holds other bytes than its entry.",
            next_step="Find out who else may write to the inbox; the writer goes on under a new id.",
        )
        self.writer = writer
        self.n = n


class Refusal(NamedTuple):
    """Something in an inbox that no integrator takes.

    Attributes:
        where: Its slot, as ``<writer>/<n>``, or the name of the object.
        code: ``AUDIT_MALFORMED``, ``AUDIT_SIGNATURE``, ``AUDIT_CHAIN`` or ``AUDIT_SQUATTED``.
    """

    where: str
    code: str


class Waiting(NamedTuple):
    """Entries that cannot be taken, because the one before them in their chain is not there.

    Attributes:
        entries: How many there are.
        oldest: Slot of the one that came first, as ``<writer>/<n>``; where the inbox does not know, of any of them.
        since: When that one came, by the inbox's own clock (RFC 3339, UTC); empty where the inbox does not know.
    """

    entries: int = 0
    oldest: str = ""
    since: str = ""


class Inbox(Protocol):
    """See the module. Usable by the threads of one process; each process opens its own.

    Every method raises ``UnavailableError`` when the inbox cannot be reached or does not let us in.

    Attributes:
        uri: Its location, without credentials.
        refusals: What this object left out so far while sequencing.
    """

    uri: str
    refusals: list[Refusal]

    def put(self, entries: Sequence[Entry]) -> None:
        """Make entries durable. The same entries again are a success.

        Raises:
            SquattedError: A slot holds other bytes. The entries before it are durable.
            EvidenceError: ``AUDIT_MALFORMED``: this is no entry; nothing was put.
        """

    def sequence(self, limit: int) -> int:
        """Give about ``limit`` waiting entries their index in the log, and return to how many; 0: none can be taken.

        Safe with any number of others that do the same.
        """

    def waiting(self) -> Waiting:
        """Return what waits for an entry that is not there, as the last ``sequence`` that took nothing left it."""

    def size(self) -> int:
        """Return how many entries have an index."""

    def sequenced(self, start: int, count: int) -> list[bytes]:
        """Return about ``count`` lines from index ``start`` on, in order; fewer at the end.

        Raises:
            EvidenceError: ``LOG_FORKED``: ``start`` is none of this inbox's, or what was sequenced is gone.
        """

    def last_hash(self, size: int) -> str:
        """Return the leaf hash, in hex, of the entry with index ``size - 1``, where ``size`` is that of a checkpoint.

        Raises:
            EvidenceError: ``LOG_FORKED``: the log of that size was not made from this inbox.
        """

    def published(self, start: int, size: int) -> None:
        """Take note that a published checkpoint includes the entries from ``start`` to ``size``.

        Nobody reads them here again, and what only carried them may go.
        """

    def index_of(self, writer: str, n: int) -> int | None:
        """Return the index of an entry, ``None`` while it has none."""

    def close(self) -> None:
        """Give back what using it needed."""


def open_inbox(uri: str, storages: Storages) -> Inbox:
    """Return the inbox at a location: ``sqlite:/path.db``, ``postgresql://host/database`` or ``s3://bucket/prefix``.

    Nothing is connected to before the first use.

    Raises:
        UsageError: The location names no inbox, or holds a password.
        MissingExtraError: What reaches it is not installed.
    """
    from sealflow.storage.resolve import is_s3

    scheme = uri.partition(":")[0].lower()
    if scheme == "sqlite":
        from sealflow.audit.inbox_sqlite import SqliteInbox

        return SqliteInbox(uri)
    if scheme == "postgresql":
        from sealflow.audit.inbox_postgresql import PostgresqlInbox

        return PostgresqlInbox(uri)
    if is_s3(uri):
        from sealflow.audit.inbox_objects import ObjectInbox

        return ObjectInbox(uri, storages)
    raise UsageError(
        # What is refused may hold a password wherever somebody thought that it belongs.
        f"There is no inbox of the kind {printable(scheme, 20)!r}.",
        next_step="Write sqlite:/path.db, postgresql://host/database or s3://bucket/prefix.",
    )


def checked(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries that say what their lines say.

    Raises:
        EvidenceError: ``AUDIT_MALFORMED``.
    """
    entries = list(entries)
    for entry in entries:
        if parse_entry(entry.line) != entry:
            raise EvidenceError("An entry of the audit log is not what its line says.", code="AUDIT_MALFORMED")
    return entries


def unavailable(uri: str, why: str, *, code: str = "AUDIT_UNAVAILABLE", next_step: str = "") -> UnavailableError:
    """Return the error for an inbox that does not do what it is asked for."""
    return UnavailableError(
        f"The audit inbox {printable(uri)} cannot be used: {printable(why, 300)}.",
        code=code,
        next_step=next_step or "Check that it runs and that this process may use it, then try again.",
    )


def forked(uri: str, why: str) -> EvidenceError:
    """Return the refusal to integrate an inbox into a log that was not made from it."""
    return EvidenceError(
        f"The inbox {printable(uri)} and the log do not belong together: {why}.",
        code="LOG_FORKED",
        next_step="Name the inbox that the log was made from. If it was restored from an old copy, start a new inbox "
        "and a new log.",
    )
