"""Times in a log, judged by the entries around them.

A writer states the time of its event, and nobody else does: a log says in which order entries came, not when. So a
time is held against those of other writers whose entries stand close by. One that lies far behind them was delivered
late or is false; one that lies far before those that came later, or in the future, is false. Who owns four of the last
writers before an entry, and half of those behind it, decides what is usual there.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, NamedTuple

#: How far a time may lie from those around it, in microseconds: a machine that was down for a day ships its spool late.
TOLERANCE: Final = 86_400_000_000
#: How far clocks of machines differ, in microseconds.
SKEW: Final = 300_000_000
#: Entries that are looked at behind an entry, and writers before it.
_BEHIND: Final = 256
_WRITERS: Final = 32
#: So many writers may lie before an entry; as few say nothing.
_FEW: Final = 3

Doubt = Literal["", "late", "ahead"]


class Placed(NamedTuple):
    """An item, and what the entries around it say of its time.

    Attributes:
        item: What was handed in.
        doubt: ``late``: far behind its neighbours; ``ahead``: far before those that came later, or in the future.
        earliest: When it came at the earliest, as its neighbours say; its own time where there is no doubt.
            Microseconds since 1970.
        latest: When it came at the latest.
    """

    item: Any
    doubt: Doubt
    earliest: int
    latest: int


def place(entries: Iterable[tuple[int, str, Any]], now: int, tolerance: int = TOLERANCE) -> Iterator[Placed]:
    """Yield each entry in its order, with what its neighbours say. Holds 256 entries.

    Args:
        entries: Time in microseconds since 1970, writer, and whatever belongs to it.
        now: The present time.
        tolerance: How far a time may lie from those around it.
    """
    before: OrderedDict[str, int] = OrderedDict()
    waiting: deque[tuple[int, str, Any]] = deque()

    def judged() -> Placed:
        time, writer, item = waiting.popleft()
        doubt: Doubt = ""
        # They were there before it, so it is at least as late; some of them may lie.
        latest = sorted(before.values())[-_FEW - 1 :]
        usual = latest[0] if len(latest) > _FEW else None
        if time > now + SKEW:
            doubt = "ahead"
        elif usual is not None and time < usual - tolerance:
            doubt = "late"
        elif usual is not None and time > usual + tolerance:
            # A quiet time lies before it, or it is false: then those that came later know nothing of it.
            behind = later(writer)
            doubt = "ahead" if behind is not None and time > behind + tolerance else ""
        if doubt != "ahead":
            before[writer] = time
            before.move_to_end(writer)
            if len(before) > _WRITERS:
                before.popitem(last=False)
        if not doubt:
            return Placed(item, "", time, time)
        behind = later(writer)
        end = now if behind is None else behind
        return Placed(item, doubt, end if usual is None else min(usual, end), end)

    def later(writer: str) -> int | None:
        times = sorted({other: said for said, other, _ in waiting if other != writer}.values())
        return times[len(times) // 2] if len(times) >= _FEW else None

    for entry in entries:
        waiting.append(entry)
        if len(waiting) > _BEHIND:
            yield judged()
    while waiting:
        yield judged()
