"""Ship: what lies in an audit spool goes into the inbox.

Entries that the inbox has are not put twice, and a file goes only when all that is in it is there and its writer is
gone. So this may be run at any time, by several at once, and be killed at any point.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sealflow.actions import context
from sealflow.audit import spool as spools
from sealflow.audit.inbox import SquattedError, open_inbox
from sealflow.errors import EXIT_OK, EXIT_REFUSED_EVIDENCE, EXIT_UNVERIFIABLE, UsageError
from sealflow.findings import printable
from sealflow.storage import Storages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealflow.audit.entry import Entry
    from sealflow.audit.inbox import Inbox


class Trouble(NamedTuple):
    """A chain that did not go over whole; its file stays.

    Attributes:
        writer: Whose chain it is.
        code: ``AUDIT_SQUATTED``; what the spool says of an altered file; ``AUDIT_UNAVAILABLE``: the file could not be
            read or removed.
        message: One sentence.
    """

    writer: str
    code: str
    message: str


@dataclass(frozen=True)
class Shipped:
    """What became of a spool.

    Attributes:
        spool: The spool.
        inbox: The inbox, without credentials.
        entries: How many entries of the spool the inbox has now.
        removed: How many chains went over whole and left the spool.
        alive: How many chains' writers live; their files stay.
        troubles: What did not go over.
    """

    spool: str
    inbox: str
    entries: int
    removed: int
    alive: int
    troubles: tuple[Trouble, ...]

    @property
    def exit_status(self) -> int:
        """Exit status of the command line."""
        if not self.troubles:
            return EXIT_OK
        away = all(item.code == spools.SpoolUnreadableError.code for item in self.troubles)
        return EXIT_UNVERIFIABLE if away else EXIT_REFUSED_EVIDENCE

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "spool": self.spool,
            "inbox": self.inbox,
            "entries": self.entries,
            "removed": self.removed,
            "alive": self.alive,
            "troubles": [item._asdict() for item in self.troubles],
        }


def ship(spool: str | None = None, inbox: str | None = None) -> Shipped:
    """Bring what a spool holds to the inbox. Chains of dead writers get no end: it is theirs to say.

    Args:
        spool: The spool, by default that of the settings, then this machine's.
        inbox: Location of the inbox, by default that of the settings.

    Raises:
        UsageError: There is no inbox.
        UnavailableError: Spool or inbox is out of reach; what is not in the inbox is still in the spool.
    """
    settings = context.current().settings
    folder = os.path.abspath(os.path.expanduser(spool or settings.audit_spool or spools.default_spool()))
    if not (where := inbox or settings.audit_inbox):
        raise UsageError("No inbox is named.", next_step="Name it with --inbox or the setting audit_inbox.")
    opened = open_inbox(where, Storages())
    entries = removed = alive = 0
    troubles: list[Trouble] = []
    try:
        for writer in spools.writers(folder):
            try:
                with spools.opened(folder, writer) as chain:
                    if chain is None:
                        continue
                    squatted = _put(opened, chain.entries)
                    entries += len(chain.entries) - len(squatted)
                    found = [*squatted, *([chain.problem] if chain.problem is not None else [])]
                    troubles += [Trouble(writer, error.code, printable(error.message)) for error in found]
                    if chain.alive:
                        alive += 1
                    elif not found:
                        spools.remove(folder, writer)
                        removed += 1
            except spools.SpoolUnreadableError as error:
                # Somebody else's file, or what somebody put there in its place, keeps nobody's events back.
                troubles.append(Trouble(writer, error.code, printable(error.message)))
    finally:
        opened.close()
    return Shipped(folder, opened.uri, entries, removed, alive, tuple(troubles))


def _put(inbox: Inbox, entries: Sequence[Entry]) -> list[SquattedError]:
    """Put entries, and go on behind slots that others hold: what can be kept is kept."""
    squatted: list[SquattedError] = []
    while entries:
        try:
            inbox.put(entries)
        except SquattedError as error:
            squatted.append(error)
            entries = entries[error.n - entries[0].n + 1 :]
        else:
            break
    return squatted
