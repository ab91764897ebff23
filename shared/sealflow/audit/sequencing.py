"""Which waiting entries may enter the log, and in which order: what all inboxes share. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from sealflow.audit.entry import NO_PREV, Entry, parse_entry
from sealflow.errors import EvidenceError


class Tip(NamedTuple):
    """Where a chain goes on: the number of its next entry, and the hash that this one must name."""

    next: int = 0
    prev: str = NO_PREV


#: Marks a row of a database that waits for one that is not there: it is not read again before its chain goes on.
PARKED: Final = "AUDIT_WAITING"


_LARGEST: Final = (1 << 63) - 1


class Admitted(NamedTuple):
    """What of a chain's waiting slots was taken, in order, and what was refused: number and code. The rest waits."""

    taken: list[Entry]
    refused: list[tuple[int, str]]


def admit(waiting: Mapping[str, tuple[Tip, Sequence[tuple[int, bytes]]]]) -> dict[str, Admitted]:
    """Judge what waits, for each writer: where its chain stands, and its slots in rising order.

    An entry is taken if it continues the chain and the writer signed it or one after it: each names the one before by
    its hash, so one signature speaks for all before it, too. Verifying them is done by all processors.
    """
    linked = {writer: _linked(writer, tip, slots) for writer, (tip, slots) in waiting.items()}
    lasts = [found.taken[-1] for found in linked.values() if found.taken]
    if len(lasts) > 32:
        with ThreadPoolExecutor(4) as pool:
            signed = dict(zip((last.writer for last in lasts), pool.map(Entry.is_signed, lasts), strict=True))
    else:
        signed = {last.writer: last.is_signed() for last in lasts}
    return {writer: found if signed.get(writer, True) else _without_unsigned(found) for writer, found in linked.items()}


def _linked(writer: str, tip: Tip, slots: Sequence[tuple[int, bytes]]) -> Admitted:
    taken: list[Entry] = []
    for position, (n, line) in enumerate(slots):
        if n != tip.next:
            break
        try:
            entry = parse_entry(line)
            code = "AUDIT_MALFORMED" if (entry.writer, entry.n) != (writer, n) else ""
            code = code or ("AUDIT_CHAIN" if entry.prev != tip.prev else "")
        except EvidenceError:
            code = "AUDIT_MALFORMED"
        if code:
            # The slot is lost, so what comes after it hangs in the air for ever.
            rest = [(later, "AUDIT_CHAIN") for later, _ in slots[position + 1 :]]
            return Admitted(taken, [(n, code), *rest])
        taken.append(entry)
        tip = Tip(n + 1, entry.hash)
    return Admitted(taken, [])


def _without_unsigned(found: Admitted) -> Admitted:
    taken = list(found.taken)
    unsigned = []
    while taken and not taken[-1].is_signed():
        unsigned.append((taken.pop().n, "AUDIT_SIGNATURE"))
    return Admitted(taken, unsigned[::-1] + found.refused)


def in_order_of_arrival(admitted: Iterable[Admitted], arrived: Mapping[tuple[str, int], int]) -> list[Entry]:
    """Return the taken entries by time of arrival, and those of each chain in its order."""
    found: list[tuple[int, Entry]] = []
    for one in admitted:
        latest = -1
        for entry in one.taken:
            latest = max(latest, arrived[entry.writer, entry.n])
            found.append((latest, entry))
    # A stable sort: entries of one chain that arrived out of order share their number, and keep the chain's order.
    found.sort(key=lambda item: item[0])
    return [entry for _, entry in found]


def rows_admitted(rows: Sequence[tuple[str, int, Any, Any, Any, Any]]) -> dict[str, Admitted]:
    """Judge the waiting rows of a database.

    Args:
        rows: Writer, n, line, and of the row with the number before its index, code and hash: ``None`` where there is
            no such row.
    """
    waiting: dict[str, tuple[Tip, list[tuple[int, bytes]]]] = {}
    ended: dict[str, list[tuple[int, str]]] = {}
    for writer, n, line, before_index, before_code, before_hash in sorted(rows, key=lambda row: row[:2]):
        if writer in ended:
            ended[writer].append((n, "AUDIT_CHAIN"))
        elif writer in waiting:
            waiting[writer][1].append((n, bytes(line)))
        elif before_code is not None:
            ended[writer] = [(n, "AUDIT_CHAIN")]
        elif n == 0:
            waiting[writer] = (Tip(), [(n, bytes(line))])
        elif before_index is not None:
            waiting[writer] = (Tip(n, before_hash), [(n, bytes(line))])
    return admit(waiting) | {writer: Admitted([], refused) for writer, refused in ended.items()}


def rows_parked(rows: Iterable[tuple[str, int]], admitted: Mapping[str, Admitted]) -> list[tuple[str, int]]:
    """Return the slots of the rows that were neither taken nor refused."""
    done = {(entry.writer, entry.n) for one in admitted.values() for entry in one.taken}
    done |= {(writer, n) for writer, one in admitted.items() for n, _ in one.refused}
    return [slot for slot in rows if slot not in done]


def rows_woken(admitted: Mapping[str, Admitted], limit: int) -> list[tuple[str, int, int]]:
    """Return for each chain that went on, or was lost, between which numbers parked rows have to be looked at again.

    Args:
        admitted: What became of the rows that were read.
        limit: How many are read at once. No more are woken: who parks many must not have all read at each hole.
    """
    found = []
    for writer, one in admitted.items():
        if one.taken or one.refused:
            n = one.taken[-1].n if one.taken else one.refused[0][0]
            # Numbers of rows are what somebody wrote there, and databases know no larger ones.
            found.append((writer, n, min(n + limit, _LARGEST)))
    return found
